"""Laws of the families and of their mixture."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from vamoh.likelihoods import LEVELS, Binary, ContinuousBernoulli, DiscretisedLogistic, Family, LikelihoodName, Mixture

LOGITS = (0.0, 1e-13, 1e-9, -1e-3, 0.3, 0.4999, -0.5001, 5.0, -17.0, 30.0, 200.0, -3000.0)
LOCATIONS, LOG_SCALES = (-300.0, -5.0, 0.0, 0.31, 0.5, 1.0, 7.0), (-30.0, -12.0, -6.0, -3.0, 0.0, 5.0, 20.0)


def quadrature(breaks: Tensor, order: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on the intervals between `breaks`, float64."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(order))
    half = (breaks[1:] - breaks[:-1])[:, None] / 2
    return (breaks[:-1, None] + half * (nodes + 1)).flatten(), (half * weights).flatten()


def unit_quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] that are dense at both ends."""
    edge = torch.logspace(-6, math.log10(0.5), 24, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return quadrature(torch.cat([zero, edge, 1 - edge.flip(0)[1:], 1 - zero]))


def logistic() -> DiscretisedLogistic:
    """Every location with every scale, [7, 7]."""
    locations, scales = (torch.tensor(each, dtype=torch.float64) for each in (LOCATIONS, LOG_SCALES))
    return DiscretisedLogistic(locations[:, None], scales)


@pytest.mark.parametrize("log_scale", [-20.0, -12.0, 0.0, 3.0, 30.0])
@pytest.mark.parametrize("mean", [-3.0, 0.0, 1e4])
def test_a_normal_integrates_to_one_at_extreme_parameters(mean: float, log_scale: float) -> None:
    normal = Family("normal", 1)(torch.tensor([mean, log_scale], dtype=torch.float64))
    reach = 12 * normal.stddev.item()
    places, weights = quadrature(torch.linspace(mean - reach, mean + reach, 25, dtype=torch.float64))
    assert (normal.log_prob(places).exp() * weights).sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("logit", LOGITS)
def test_a_continuous_bernoulli_integrates_to_one_and_its_mean_and_cdf_agree(logit: float) -> None:
    law = Family("continuous_bernoulli", 1)(torch.tensor([logit], dtype=torch.float64))
    places, weights = unit_quadrature()
    mass = law.log_prob(places).exp() * weights
    assert mass.sum().item() == pytest.approx(1, abs=1e-11)
    assert law.mean.item() == pytest.approx((mass * places).sum().item(), rel=1e-9)
    for value in (1e-6, 0.1, 0.5, 0.9999):
        below, share = quadrature(torch.linspace(0, value, 400, dtype=torch.float64))
        assert law.cdf(torch.tensor([value], dtype=torch.float64)).item() == pytest.approx(
            (law.log_prob(below).exp() * share).sum().item(), rel=1e-8, abs=1e-300
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_continuous_bernoullis_quantile_inverts_its_cdf(dtype: torch.dtype) -> None:
    law = ContinuousBernoulli(torch.tensor(LOGITS, dtype=dtype)[:, None])
    level = torch.tensor([1e-6, 1e-3, 0.2, 0.5, 0.9, 0.999, 1 - 1e-6], dtype=dtype)
    precision = torch.finfo(dtype).eps
    # the last digit of a value near one is worth density * eps of the level
    slack = 4 * precision * (1 + law.log_prob(law.icdf(level)).exp())
    assert ((law.cdf(law.icdf(level)) - level).abs() <= slack).all()


def test_the_normaliser_of_the_continuous_bernoulli_is_exact_in_float32() -> None:
    logits = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    narrow = ContinuousBernoulli(logits.float()).log_prob(torch.tensor(0.25))
    wide = ContinuousBernoulli(logits.float().double()).log_prob(torch.tensor(0.25, dtype=torch.float64))
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("logit", [0.0, 5.0, -40.0, 200.0])
def test_a_bernoulli_sums_to_one_and_its_cdf_steps_at_its_values(logit: float) -> None:
    law = Family("bernoulli", 1)(torch.tensor([logit], dtype=torch.float64))
    both = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert law.log_prob(both).exp().sum().item() == pytest.approx(1, abs=1e-12)
    steps = law.cdf(torch.tensor([-0.1, 0.0, 0.9, 1.0], dtype=torch.float64))
    torch.testing.assert_close(steps, torch.stack([0 * both[0], 1 - law.mean[0], 1 - law.mean[0], both[1]]))


def test_a_discretised_logistic_sums_to_one_at_extreme_parameters() -> None:
    levels = torch.arange(LEVELS, dtype=torch.float64)[:, None, None] / (LEVELS - 1)
    total = logistic().log_prob(levels).exp().sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_a_discretised_logistic_has_the_mass_of_its_bins() -> None:
    law, half = logistic(), 0.5 / (LEVELS - 1)
    levels = torch.arange(LEVELS, dtype=torch.float64)[:, None, None] / (LEVELS - 1)
    upper = torch.where(levels == 1, 1.0, law.cdf(levels + half))
    lower = torch.where(levels == 0, 0.0, law.cdf(levels - half))
    torch.testing.assert_close(law.log_prob(levels).exp(), upper - lower, rtol=0, atol=1e-12)


def test_the_mean_of_a_discretised_logistic_is_that_of_the_clipped_variable() -> None:
    locations, scales = (torch.tensor(each, dtype=torch.float64) for each in (LOCATIONS, (-4.0, -3.0, 0.0, 5.0)))
    law = DiscretisedLogistic(locations[:, None], scales)
    places, weights = quadrature(torch.linspace(0, 1, 200, dtype=torch.float64))
    survival = 1 - law.cdf(places[:, None, None])
    torch.testing.assert_close(law.mean, (survival * weights[:, None, None]).sum(dim=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["normal", "continuous_bernoulli", "discretised_logistic", "bernoulli"])
def test_gradients_are_finite_wherever_data_can_lie(name: LikelihoodName) -> None:
    family = Family(name, 1)
    steps = torch.tensor([0.0, 1e-13, 1e-6, 1e-3, 1.0, 20.0, 100.0, 1e4])
    outputs = torch.cat([-steps, steps])[:, None, None].expand(-1, 6, family.num_outputs).clone().requires_grad_()
    values = torch.tensor([0.0, 1e-12, 1 / 255, 0.5, 1 - 1e-7, 1.0])[:, None]
    values = values.round() if name == "bernoulli" else values
    log_prob = family(outputs).log_prob(values)
    assert torch.isfinite(log_prob).all()
    log_prob.sum().backward()
    assert outputs.grad is not None and torch.isfinite(outputs.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in family.parameters() if p.grad is not None)


@pytest.mark.parametrize("log_scale", [-1e3, -12.0, 12.0, 1e3])
def test_a_learned_scale_cannot_run_out_of_the_numbers(log_scale: float) -> None:
    family = Family("discretised_logistic", 1)
    with torch.no_grad():
        family.log_scale.fill_(log_scale)
    log_prob = family(torch.tensor([[-9.0], [0.3], [9.0]])).log_prob(torch.tensor([[0.0], [0.5], [1.0]]))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert family.log_scale.grad is not None and torch.isfinite(family.log_scale.grad).all()


@pytest.mark.parametrize("name", ["normal", "continuous_bernoulli", "discretised_logistic", "bernoulli"])
def test_half_precision_outputs_give_single_precision_probabilities(name: LikelihoodName) -> None:
    family = Family(name, 3)
    outputs = torch.ones(2, 1, 7, family.num_outputs, dtype=torch.bfloat16)
    assert family(outputs).log_prob(torch.ones(2, 1, 7, 3)).dtype == torch.float32


# --- the mixture ----------------------------------------------------------------------------------------------------


def normals(means: list[float], scales: list[float], weights: list[float], dtype: torch.dtype, count: int) -> Mixture:
    """One function of one channel whose mixture is the same at `count` points."""
    mean, scale = (torch.tensor(each, dtype=dtype)[:, None, None].expand(1, -1, count, 1) for each in (means, scales))
    logits = torch.tensor(weights, dtype=dtype).log()[None, None].expand(1, count, -1)
    return Mixture(logits, Normal(mean, scale, validate_args=False))


def bounded(family: Callable[[Tensor], Distribution], dtype: torch.dtype, count: int) -> Mixture:
    """A mixture of three on [0, 1]."""
    places = torch.tensor([-40.0, 0.2, 60.0], dtype=dtype)[None, :, None, None].expand(1, -1, count, 1)
    return Mixture(torch.tensor([0.1, -1.0, 0.5], dtype=dtype).expand(1, count, -1), family(places))


MIXTURES: dict[str, Callable[[torch.dtype, int], Mixture]] = {
    "smooth": lambda dtype, n: normals([0.0, 0.5, -1.0], [1.0, 0.3, 2.0], [0.2, 0.5, 0.3], dtype, n),
    "far and narrow": lambda dtype, n: normals([-1e3, 0.0, 40.0], [1e-2, 1e-4, 1e-3], [0.3, 0.5, 0.2], dtype, n),
    "one that hardly counts": lambda dtype, n: normals([0.0, 500.0], [1.0, 1e-3], [1 - 1e-9, 1e-9], dtype, n),
    "coinciding": lambda dtype, n: normals([2.0, 2.0, 2.0], [0.5, 0.5, 0.5], [0.3, 0.3, 0.4], dtype, n),
    "wide and narrow": lambda dtype, n: normals([0.0, 0.0], [1e3, 1e-5], [0.5, 0.5], dtype, n),
    "continuous Bernoulli": lambda dtype, n: bounded(ContinuousBernoulli, dtype, n),
    "logistic": lambda dtype, n: bounded(lambda x: DiscretisedLogistic(x.sigmoid(), x / 8 - 5), dtype, n),
    "alone": lambda dtype, n: normals([3.0], [2.0], [1.0], dtype, n),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixtures_quantile_inverts_its_cdf_at_every_level(kind: str, dtype: torch.dtype) -> None:
    precision = torch.finfo(dtype).eps
    middle = torch.linspace(1e-3, 1 - 1e-3, 1999, dtype=torch.float64)
    ends = torch.logspace(math.log10(4 * precision), -3, 50, dtype=torch.float64)
    exact = torch.tensor([0.2, 0.3, 0.5, 0.7, 0.8], dtype=torch.float64)  # where far components part
    level = torch.cat([ends, middle, exact, 1 - ends]).sort().values.to(dtype)[None, :, None]
    mixture = MIXTURES[kind](dtype, level.shape[1])
    value = mixture.quantile(level)
    assert torch.isfinite(value).all()
    # the true quantile lies within the last digits of the answer
    step = 4 * precision * (value.abs() + 1e-3)
    assert (mixture.cdf(value - step) <= level + 4 * precision).all()
    assert (mixture.cdf(value + step) >= level - 4 * precision).all()
    assert (value.diff(dim=1) >= -step[:, 1:]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MIXTURES)
def test_quantiles_are_finite_even_at_levels_that_rounded_to_zero_and_one(kind: str, dtype: torch.dtype) -> None:
    value = MIXTURES[kind](dtype, 2).quantile(torch.tensor([0.0, 1.0], dtype=dtype)[None, :, None])
    assert torch.isfinite(value).all() and value[0, 0] <= value[0, 1]


def test_the_quantile_of_a_mixture_of_bernoullis_is_the_smallest_value_that_reaches_the_level() -> None:
    outputs = torch.tensor([-1.0, 0.5, 2.0])[None, :, None, None].expand(1, -1, 99, 1)
    mixture = Mixture(torch.tensor([0.1, -1.0, 0.5]).expand(1, 99, -1), Binary(logits=outputs))
    level = torch.linspace(0.01, 0.99, 99)[None, :, None]
    expected = torch.where(mixture.cdf(torch.zeros_like(level)) >= level, 0.0, 1.0)
    torch.testing.assert_close(mixture.quantile(level), expected)


@pytest.mark.parametrize("kind", ["smooth", "wide and narrow"])
def test_a_mixture_integrates_to_one_and_its_mean_and_cdf_agree(kind: str) -> None:
    edge = torch.logspace(-7, 4.1, 300, dtype=torch.float64)
    breaks = torch.cat([-edge.flip(0), torch.zeros(1, dtype=torch.float64), edge])
    places, weights = quadrature(breaks, 12)
    mixture = MIXTURES[kind](torch.float64, len(places))
    mass = mixture.log_prob(places[None, :, None])[0].exp() * weights
    assert mass.sum().item() == pytest.approx(1, abs=1e-8)
    assert mixture.mean[0, 0, 0].item() == pytest.approx((mass * places).sum().item(), abs=1e-6)
    for value in (-0.7, 0.0, 1e-5, 2.0):
        end = torch.tensor([value], dtype=torch.float64)
        below, share = quadrature(torch.cat([breaks[breaks < value], end]), 12)
        mass = MIXTURES[kind](torch.float64, len(below)).log_prob(below[None, :, None])[0].exp() * share
        cdf = MIXTURES[kind](torch.float64, 1).cdf(end[None, :, None])
        assert cdf.item() == pytest.approx(mass.sum().item(), abs=1e-8)


def test_channels_are_independent_given_the_component_and_dependent_without_it() -> None:
    mean = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)[None, :, None]  # [1, K=2, 1, C=2]
    mixture = Mixture(torch.zeros(1, 1, 2, dtype=torch.float64), Normal(mean, 0.5))
    value = torch.tensor([[[-1.0, 1.0]]], dtype=torch.float64)
    by_hand = torch.stack([Normal(mean[0, k, 0], 0.5).log_prob(value[0, 0]).sum() for k in range(2)])
    torch.testing.assert_close(mixture.log_prob(value)[0, 0], torch.logsumexp(by_hand - math.log(2), dim=0))
