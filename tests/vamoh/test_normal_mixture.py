"""Quantiles of mixtures of normals at a normal score, against bisection in double precision."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vamoh import normal_mixture
from vamoh.likelihoods import Mixture
from vamoh.normal_mixture import LARGEST_SCORE, NormalMixtures
from vamoh.random_field import normal_cdf

SCORES = torch.cat([torch.linspace(-4.7, 4.7, 941), torch.tensor([0.0, -0.2533, 0.5244])]).sort().values


def mixture(apart: float, spread: float, dtype: torch.dtype = torch.float32, components: int = 3) -> Mixture:
    """Places with means `apart` standard deviations from each other, whose logarithms differ by `spread`."""
    generator, count = torch.Generator().manual_seed(3), len(SCORES)
    mean = apart * torch.randn(2, components, 1, 1, generator=generator)
    scale = torch.exp(spread * torch.randn(2, components, 1, 1, generator=generator))
    logits = torch.randn(2, 1, components, generator=generator).expand(-1, count, -1)
    normal = Normal(*(each.expand(-1, -1, count, -1).to(dtype) for each in (mean, scale)), validate_args=False)
    return Mixture(logits.to(dtype), normal)


def scores(dtype: torch.dtype = torch.float32) -> Tensor:
    return SCORES[None, :, None].expand(2, -1, -1).to(dtype)


@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
def test_it_is_the_quantile_to_the_last_digits_in_both_tails(apart: float) -> None:
    exact = mixture(apart, 0.5, torch.float64).quantile(normal_cdf(scores(torch.float64)))
    torch.testing.assert_close(mixture(apart, 0.5).at_score(scores()).double(), exact, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize(("apart", "spread"), [(1000.0, 0.5), (30.0, 3.0), (0.0, 8.0)])
def test_far_and_narrow_components_are_no_obstacle(apart: float, spread: float) -> None:
    law = mixture(apart, spread, torch.float64)
    found = law.at_score(scores(torch.float64))
    torch.testing.assert_close(law.cdf(found), normal_cdf(scores(torch.float64)), rtol=0, atol=1e-9)
    single = mixture(apart, spread).at_score(scores())
    assert torch.isfinite(single).all() and (single.diff(dim=1) >= -1e-5 * single.abs()[:, 1:] - 1e-5).all()


@pytest.mark.parametrize("components", [2, 3, 5])
def test_it_knows_its_mean_and_variance(components: int) -> None:
    law = mixture(2.0, 0.5, torch.float64, components)
    parts = (law.weights.expand(law.components.batch_shape), law.components.mean, law.components.stddev)
    found = NormalMixtures(*(each.transpose(0, 1) for each in parts))
    expected, variance = found.moments
    torch.testing.assert_close(expected, law.mean)
    torch.testing.assert_close(variance, law.variance)


@pytest.mark.parametrize("apart", [0.3, 3.0, 10.0])
def test_nearly_everywhere_two_steps_suffice(apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    slow = normal_mixture._within

    def counted(sought: normal_mixture._Sought, value: Tensor) -> Tensor:
        left.append(len(value))
        return slow(sought, value)

    monkeypatch.setattr(normal_mixture, "_within", counted)
    generator = torch.Generator().manual_seed(3)
    mean, scale, logit = (torch.randn(2, 5000, generator=generator) for _ in range(3))
    mixtures = NormalMixtures(torch.softmax(logit, dim=0), apart * mean, torch.exp(0.4 * scale - 1))
    mixtures.at_score(torch.randn(5000, generator=generator))
    assert sum(left) < 0.03 * 5000


def test_one_component_is_its_mean_and_scale() -> None:
    law = mixture(2.0, 0.5, torch.float64, components=1)
    exact = law.components.icdf(normal_cdf(scores(torch.float64))[:, None])[:, 0]
    torch.testing.assert_close(law.at_score(scores(torch.float64)), exact)


def test_a_mirrored_mixture_has_mirrored_quantiles() -> None:
    law = mixture(2.0, 0.5)
    mirrored = Mixture(law.logits, Normal(-law.components.mean, law.components.stddev))
    torch.testing.assert_close(mirrored.at_score(-scores()), -law.at_score(scores()), rtol=0, atol=1e-5)


def test_scores_beyond_the_largest_are_the_largest() -> None:
    law = mixture(2.0, 0.5)
    beyond = torch.full_like(scores(), 50.0)
    assert torch.equal(law.at_score(beyond), law.at_score(torch.full_like(beyond, LARGEST_SCORE)))
