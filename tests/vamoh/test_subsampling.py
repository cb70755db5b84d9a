"""Laws of a bound that is estimated from some of a function's points: on average it is the whole bound."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch, ModelSpec, VAMoH

BUILD = Callable[..., FunctionBatch]
SPEC = Callable[..., ModelSpec]
WAKE = Callable[[VAMoH], VAMoH]


@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_scoring_some_points_of_what_the_encoder_reads_averages_to_scoring_all(
    kind: str, functions: BUILD, classic: SPEC, downscaling: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    build, batch = (classic, functions()) if kind == "classic" else (downscaling, functions(2, context=True))
    model = awake(VAMoH(build(), support=batch.coords[0]).double())
    noise = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    full = model.elbo(batch, noise=noise, predictive=True)
    subsets = [torch.tensor(each) for each in combinations(range(7), 3)]
    parts = [model.elbo(batch, at=each, noise=noise, predictive=True) for each in subsets]
    assert full.predictive is not None
    for name in ("reconstruction", "kl_c", "kl_z", "predictive"):
        average = torch.stack([getattr(part, name) for part in parts]).mean(dim=0)
        torch.testing.assert_close(average, getattr(full, name))
    named = dict(model.named_parameters())  # the encoder's too
    expected = torch.autograd.grad(full.elbo.sum(), list(named.values()), allow_unused=True)
    mean = torch.stack([part.elbo.sum() for part in parts]).mean()
    averaged = torch.autograd.grad(mean, list(named.values()), allow_unused=True)
    for name, one, other in zip(named, averaged, expected, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, msg=name)


def gradients(model: VAMoH, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter but the encoder's, which sees other points in every subset."""
    named = {name: p for name, p in model.named_parameters() if not name.startswith("encoder.")}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_subsampled_terms_and_their_gradients_average_to_the_full_ones(
    kind: str, functions: BUILD, classic: SPEC, downscaling: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    build, batch = (classic, functions()) if kind == "classic" else (downscaling, functions(2, context=True))
    model = awake(VAMoH(build(), support=batch.coords[0]).double())
    with torch.no_grad():  # q(z) the same whichever points the encoder sees
        model.posterior_head.weight.zero_()
    noise = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    full = model.elbo(batch, noise=noise, predictive=True)
    subsets = [torch.tensor(each) for each in combinations(range(7), 3)]
    parts = [model.elbo(batch.at(each), noise=noise, num_total=7, predictive=True) for each in subsets]
    assert full.predictive is not None
    for name in ("reconstruction", "kl_c", "kl_z", "predictive"):
        average = torch.stack([getattr(part, name) for part in parts]).mean(dim=0)
        torch.testing.assert_close(average, getattr(full, name))
    expected = gradients(model, full.elbo.sum())
    averaged = gradients(model, torch.stack([part.elbo.sum() for part in parts]).mean())
    for name, gradient in expected.items():
        if not name.startswith("posterior_head.weight"):
            torch.testing.assert_close(averaged[name], gradient, msg=name)


def test_num_total_rescales_what_is_summed_over_points_and_nothing_else(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model, batch = awake(VAMoH(classic()).double()), functions()
    noise = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    plain = model.elbo(batch, noise=noise)
    for total in (21, torch.tensor([21, 21])):
        threefold = model.elbo(batch, noise=noise, num_total=total)
        torch.testing.assert_close(threefold.reconstruction, 3 * plain.reconstruction)
        torch.testing.assert_close(threefold.kl_c, 3 * plain.kl_c)
        torch.testing.assert_close(threefold.kl_z, plain.kl_z)
    each = model.elbo(batch, noise=noise, num_total=torch.tensor([7, 14]))
    torch.testing.assert_close(each.kl_c, plain.kl_c * torch.tensor([1, 2]))


def test_gaps_are_not_made_up_for_by_the_points_around_them(functions: BUILD, classic: SPEC, awake: WAKE) -> None:
    model, batch = awake(VAMoH(classic()).double()), functions()
    noise = torch.zeros(2, 2, 4, dtype=torch.float64)
    unscaled, scaled = model.elbo(batch, noise=noise), model.elbo(batch, noise=noise, num_total=7)
    torch.testing.assert_close(unscaled.reconstruction, scaled.reconstruction)  # seven points, fewer of them seen


def test_points_drawn_unevenly_and_weighed_by_their_chance_average_to_scoring_all(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    batch, model = functions(), awake(VAMoH(classic()).double())
    rows, total = batch.batch_size, batch.num_points
    noise = torch.randn(2, rows, 4, generator=generator, dtype=torch.float64)
    chance = torch.rand(rows, total, generator=generator, dtype=torch.float64) + 0.1
    chance /= chance.sum(dim=1, keepdim=True)
    full = model.elbo(batch, noise=noise)
    average = torch.zeros(2, rows, dtype=torch.float64)
    for place in range(total):  # one draw of one point, each function's own
        at = (torch.arange(rows)[:, None] + place) % total
        drawn = chance.gather(1, at)
        part = model.elbo(batch, noise=noise, at=at, rescale=1 / drawn)
        average += drawn[:, 0] * torch.stack([part.reconstruction, part.kl_c])
    torch.testing.assert_close(average, torch.stack([full.reconstruction, full.kl_c]))


def test_what_the_encoder_is_not_shown_is_still_scored(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    batch, model = functions(), awake(VAMoH(classic()).double())
    noise = torch.randn(2, batch.batch_size, 4, generator=generator, dtype=torch.float64)
    shown = torch.rand(batch.batch_size, batch.num_points, generator=generator) < 0.5
    terms, whole = model.elbo(batch, noise=noise, shown=shown), model.elbo(batch, noise=noise)
    assert not torch.isclose(terms.kl_z, whole.kl_z).any()
    other = replace(batch, observed=batch.mask & shown)
    mean, log_scale = model.posterior(other)
    latent = mean + log_scale.exp() * noise[0]
    log_prob = model.decode(latent, batch).component_log_prob(batch.values)
    assert torch.isfinite(log_prob).all()
    torch.testing.assert_close(model.elbo(other, noise=noise).kl_z, terms.kl_z)
