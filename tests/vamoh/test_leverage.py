"""Laws of the leverage: the variance of a prediction, a function of the state alone."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from vamoh.leverage import PRIOR_SAMPLES, Leverage, packed_precision, pairs
from vamoh.likelihoods import Mixture

AREA = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def states(samples: int = 40, places: int = 3, size: int = 4) -> torch.Tensor:
    """What three places read at 40 times, correlated, in other units at each place."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(places, size, size, generator=generator, dtype=torch.float64)
    drawn = torch.randn(samples, places, size, generator=generator, dtype=torch.float64)
    return torch.einsum("tpq,pqr->tpr", drawn, mixed)


def fitted(read: torch.Tensor) -> Leverage:
    return Leverage(precision=packed_precision(pairs(read).mean(dim=0), AREA, len(read)), constant=0.5, growth=2.0)


def at_the_places(read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = read.shape[1]
    return torch.arange(count)[:, None], torch.ones(count, 1, dtype=read.dtype)


def test_it_is_the_quadratic_form_of_the_inverse_second_moments() -> None:
    read = states()
    found = fitted(read).of(read, *at_the_places(read))
    moments = torch.einsum("tpq,tpr->pqr", read, read) / len(read)
    prior = torch.einsum("p,pqr->qr", AREA, moments) * PRIOR_SAMPLES / len(read)
    expected = torch.einsum("tpq,pqr,tpr->tp", read, torch.linalg.inv(moments + prior), read) / read.shape[-1]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_without_a_prior_its_mean_over_training_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vamoh.leverage.PRIOR_SAMPLES", 0.0)
    read = states()
    mean = fitted(read).of(read, *at_the_places(read)).mean(dim=0)
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=1e-6, atol=0)


def test_it_does_not_mind_the_units_of_what_is_read() -> None:
    read = states()
    scaled = fitted(read * 7.0).of(read * 7.0, *at_the_places(read))
    torch.testing.assert_close(scaled, fitted(read).of(read, *at_the_places(read)), rtol=1e-6, atol=0)


def test_it_is_never_negative_and_grows_with_the_square_of_the_state() -> None:
    read, law = states(), fitted(states())
    once, twice = (law.of(factor * read, *at_the_places(read)) for factor in (1.0, 2.0))
    assert (once > 0).all()
    torch.testing.assert_close(twice, 4 * once)


def test_between_places_it_is_between() -> None:
    read, law = states(), fitted(states())
    index, weight = torch.tensor([[0, 2]]), torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    here = read[:, :1]
    ends = [law.of(here, torch.tensor([[place]]), torch.ones(1, 1, dtype=torch.float64)) for place in (0, 2)]
    torch.testing.assert_close(law.of(here, index, weight), 0.25 * ends[0] + 0.75 * ends[1])


def test_the_stretch_is_the_root_of_a_line_or_of_its_power() -> None:
    law, leverage, two = fitted(states()), torch.tensor([[0.0, 1.75]]), torch.tensor([0.5, 4.0]).sqrt()
    quiet_and_loud = Normal(torch.zeros(1, 2, 2, 1), two[None, None, :, None].expand(1, 2, 2, 1))
    mixture = Mixture(torch.zeros(1, 2, 2), quiet_and_loud)
    torch.testing.assert_close(law.stretch(leverage, mixture, None), torch.tensor([[0.5**0.5, 2.0]]))
    milder = replace(law, exponent=0.5, typical=1.0).stretch(leverage, mixture, None)
    torch.testing.assert_close(milder, torch.tensor([[0.5**0.5 * 0.5**-0.25, 2.0 * 4.0**-0.25]]))
    slower = replace(law, power=0.5).stretch(leverage, mixture, None)
    torch.testing.assert_close(slower, torch.tensor([[0.5**0.25, 2.0**0.5]]))


def test_what_is_said_beyond_the_usual_counts_by_an_exponent_of_its_own() -> None:
    law = replace(fitted(states()), exponent=0.8, typical=2.0, power=0.5, trust=0.25)
    leverage, said, usual = torch.tensor([[0.0, 1.75]]), torch.tensor([[0.5, 4.0]]), torch.tensor([0.1, 3.0])
    expected = (0.5 + 2 * leverage) ** 0.5 * 2 * (usual / 2) ** 0.8 * (said / usual) ** 0.25
    torch.testing.assert_close(law.factor(leverage, said, usual) ** 2 * said, expected)
    torch.testing.assert_close(law.widened(1.5).factor(leverage, said, usual) ** 2 * said, 1.5 * expected)
    same = replace(law, trust=0.8)  # then it does not matter what is usual
    torch.testing.assert_close(same.factor(leverage, said, usual), same.factor(leverage, said, None))


def test_what_is_usual_between_places_is_between() -> None:
    index, weight = torch.tensor([[0, 2]]), torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    law = replace(fitted(states()), usual=torch.tensor([1.0, 5.0, 3.0]))
    torch.testing.assert_close(law.usual_at(index, weight), torch.tensor([2.5]))
    assert fitted(states()).usual_at(index, weight) is None


def test_in_a_regression_the_error_grows_with_it_as_it_says() -> None:
    """Least squares on 20 states: E[error^2] = noise^2 (1 + Q h / n) for a state of leverage h, over many fits."""
    generator = torch.Generator().manual_seed(3)
    read = states(samples=20, places=1)[:, 0]
    asked = torch.cat([read[:3], 3 * read[3:6]])
    noise = torch.randn(20_000, 20, generator=generator, dtype=torch.float64)
    kernels = noise @ torch.linalg.pinv(read).T  # errors of the fitted kernels
    found = 1 + ((kernels @ asked.T) ** 2).mean(dim=0)
    moments = pairs(read[:, None]).mean(dim=0)
    law = Leverage(precision=packed_precision(moments, torch.ones(1, dtype=torch.float64), 10**9))  # no prior
    leverage = law.of(asked[:, None], torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.float64))[:, 0]
    torch.testing.assert_close(found, 1 + read.shape[-1] * leverage / len(read), rtol=0.05, atol=0)


def test_read_outs_that_are_nearly_parallel_lose_no_digits_and_keep_its_sign() -> None:
    generator = torch.Generator().manual_seed(2)
    common = torch.randn(60, 3, 1, generator=generator, dtype=torch.float64)
    read = common + 1e-2 * torch.randn(60, 3, 4, generator=generator, dtype=torch.float64)
    read = read.float().double()  # as a network gives it
    moments = torch.einsum("tpq,tpr->pqr", read, read) / len(read)
    prior = torch.einsum("p,pqr->qr", AREA, moments)
    floor = 1e-9 * prior.diagonal().mean() * torch.eye(4, dtype=torch.float64)
    whole = moments + prior * PRIOR_SAMPLES / len(read) + floor
    expected = torch.einsum("tpq,pqr,tpr->tp", read, torch.linalg.inv(whole), read) / 4
    found = fitted(read).of(read.float(), *at_the_places(read))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    assert (found > 0).all()
