"""The law of members is found again in what was drawn from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from pipelines.data.climate import open_source
from pipelines.data.sphere import Lattice
from pipelines.training.leverage import TRUST, Predicted, fit_leverage, stretched
from pipelines.training.members import correlogram, fit_random_field
from vamoh.leverage import Leverage
from vamoh.likelihoods import Mixture
from vamoh.random_field import RandomField


@pytest.fixture(scope="module")
def lattices(era5_sample: Path) -> dict[str, Lattice]:
    """The real lattice of the globe at 4 degrees, and a region of the full one."""
    whole = open_source(era5_sample)
    region = whole.sel(latitude=slice(62, 34), longitude=slice(60, 100))
    return {"globe": Lattice.of(open_source(era5_sample, every=4)), "region": Lattice.of(region)}


def drawn(law: RandomField, lattice: Lattice, hours: np.ndarray, members: int) -> list[np.ndarray]:
    coords = torch.from_numpy(lattice.coords)
    seeds = [(seed, 1) for seed in range(members)]
    return list(law.sample(coords, torch.from_numpy(hours), seeds).double().numpy())


def correlation(law: RandomField, distance: np.ndarray) -> np.ndarray:
    kernels = np.exp(-(distance[:, None] ** 2) / (2 * np.array(law.lengths) ** 2))
    return kernels @ np.array(law.weights)


def half_distance(law: RandomField) -> float:
    """Where the correlation has fallen to one half."""
    distance = np.linspace(0, 2, 20001)
    return float(distance[np.argmax(correlation(law, distance) < 0.5)])


@pytest.mark.parametrize(
    ("where", "lengths", "weights"),
    [
        ("globe", (0.25,), (1.0,)),
        ("globe", (0.12, 0.5), (0.5, 0.5)),
        ("region", (0.06,), (1.0,)),
        ("region", (0.03, 0.15), (0.6, 0.4)),
    ],
)
def test_the_length_scale_is_recovered(lattices, where, lengths, weights) -> None:
    law, lattice = RandomField(lengths=lengths, weights=weights, time_scale=2.0), lattices[where]
    scores = np.concatenate(drawn(law, lattice, np.arange(24) * 24.0, 2))  # days apart: each is a draw of its own
    fitted = fit_random_field(scores, np.arange(48) * 24.0, lattice, seed=0)
    assert half_distance(fitted) == pytest.approx(half_distance(law), rel=0.2)
    assert sum(fitted.weights) == pytest.approx(1)


@pytest.mark.parametrize(("time_scale", "step"), [(6.0, 1.0), (20.0, 6.0)])
def test_the_time_scale_is_recovered(lattices, time_scale, step) -> None:
    law = RandomField(lengths=(0.12,), weights=(1.0,), time_scale=time_scale)
    hours = 4e5 + np.arange(32) * step
    members = drawn(law, lattices["globe"], hours, 4)
    found = [fit_random_field(scores, hours, lattices["globe"], seed=0).time_scale for scores in members]
    assert np.mean(found) == pytest.approx(time_scale, rel=0.2)


@pytest.mark.parametrize("spread", [0.8, 1.0, 1.3])
def test_the_spread_is_the_standard_deviation(lattices, spread) -> None:
    law = RandomField(lengths=(0.12,), weights=(1.0,), time_scale=2.0, spread=spread)
    hours = np.arange(40) * 24.0
    scores = drawn(law, lattices["globe"], hours, 1)[0]
    fitted = fit_random_field(scores, hours, lattices["globe"], seed=0)
    assert fitted.spread == pytest.approx(spread, rel=0.05)
    area = lattices["globe"].area
    assert fitted.spread == pytest.approx(float(np.sqrt((scores**2 @ area).mean())), rel=1e-9)


def test_what_is_missing_does_not_count(lattices) -> None:
    lattice = lattices["globe"]
    law = RandomField(lengths=(0.12,), weights=(1.0,), time_scale=6.0)
    hours = np.arange(40) * 3.0
    scores = drawn(law, lattice, hours, 3)[1]
    scores[:, np.abs(lattice.points[0]) > 45] = np.nan
    scores[7] = np.nan
    fitted = fit_random_field(scores, hours, lattice, seed=0)
    assert half_distance(fitted) == pytest.approx(half_distance(law), rel=0.2)
    assert fitted.time_scale == pytest.approx(6.0, rel=0.2)
    assert fitted.spread == pytest.approx(1.0, rel=0.1)


def test_scores_without_structure_or_a_single_field_still_have_a_law(lattices) -> None:
    lattice = lattices["region"]
    noise = np.random.default_rng(0).normal(size=(3, len(lattice.coords)))
    for hours in (np.arange(3.0), np.zeros(1)):
        fitted = fit_random_field(noise[: len(hours)], hours, lattice, seed=0)
        assert half_distance(fitted) < 1.5 * lattice.spacing_rad
        assert fitted.time_scale > 0
        assert np.isfinite(fitted.spread)


def test_quiet_places_do_not_shape_what_the_loud_ones_do(lattices) -> None:
    lattice = lattices["region"]
    smooth = RandomField(lengths=(0.12,), weights=(1.0,), time_scale=2.0)
    hours = np.arange(40) * 24.0
    scores = drawn(smooth, lattice, hours, 1)[0]
    quiet = np.random.default_rng(0).random(len(lattice.coords)) < 0.5
    scores[:, quiet] = np.random.default_rng(1).normal(size=(40, int(quiet.sum())))
    weights = np.broadcast_to(np.where(quiet, 0.01, 1.0), scores.shape)
    found = fit_random_field(scores, hours, lattice, seed=0, weights=weights)
    assert half_distance(found) == pytest.approx(half_distance(smooth), rel=0.2)
    assert half_distance(fit_random_field(scores, hours, lattice, seed=0)) < 0.7 * half_distance(smooth)


def test_correlations_do_not_mind_how_large_scores_are_where_neighbours_are_nearest() -> None:
    """Towards the pole meridians converge: the nearest pairs are all northern."""
    lattice = Lattice(latitude=np.arange(58, 49.9, -0.25), longitude=np.arange(-10, 2.1, 0.25))
    smooth = RandomField(lengths=(0.008,), weights=(1.0,), time_scale=2.0)
    scores = drawn(smooth, lattice, np.arange(60) * 24.0, 1)[0] * np.where(lattice.points[0] > 57, 0.5, 1.0)
    distance, found, _ = correlogram(scores, np.ones_like(scores), lattice, seed=0)
    near = distance < 0.01
    np.testing.assert_allclose(found[near], correlation(smooth, distance[near]), rtol=0, atol=0.06)


# --- how wide they are -----------------------------------------------------------------------------------------------


def said(
    constant: float,
    growth: float,
    exponent: float = 1.0,
    *,
    usual: Tensor | None = None,
    fields: int = 30,
    places: int = 400,
) -> tuple[Predicted, Leverage]:
    """Mixtures of two normals, truths drawn from them with their deviations stretched, and by what."""
    generator = torch.Generator().manual_seed(4)
    mean = torch.randn(fields, 2, places, 1, generator=generator)
    scale = 0.3 + torch.rand(fields, 2, places, 1, generator=generator)
    mixture = Mixture(torch.randn(fields, places, 2, generator=generator), Normal(mean, scale, validate_args=False))
    leverage = torch.rand(fields, places, generator=generator) ** 2 * 4
    plain = mixture.quantile(torch.rand(fields, places, 1, generator=generator))
    typical = float(mixture.variance.median())
    law = Leverage(constant=constant, growth=growth, exponent=exponent, typical=typical, trust=TRUST)
    values = stretched(mixture, plain, law.factor(leverage, mixture.variance[..., 0], usual))[..., 0]
    seen = torch.rand(fields, places, generator=generator) < 0.9
    values = torch.where(seen, values, torch.nan)
    return Predicted(
        mixture=mixture, values=values, seen=seen, leverage=leverage, usual=usual, times=np.arange(fields)
    ), law


@pytest.mark.parametrize("law", [(1.0, 0.0, 1.0), (0.5, 1.0, 1.0), (2.0, 0.3, 1.0), (0.5, 1.0, 0.6), (0.2, 3.0, 0.8)])
def test_the_stretch_is_recovered_and_is_none_where_all_is_well(law) -> None:
    part, drawn = said(*law)
    found = fit_leverage([part], np.full(400, 1 / 400), seed=0)
    ratio = part.stretched_by(found) / part.stretched_by(drawn)
    assert ratio.log().abs().quantile(0.99) < 0.06
    assert found.exponent == pytest.approx(drawn.exponent, abs=0.12)


def test_it_is_recovered_where_places_have_a_variance_that_is_usual() -> None:
    usual = torch.rand(400, generator=torch.Generator().manual_seed(7)) * 2 + 0.2
    part, drawn = said(0.5, 1.0, 0.8, usual=usual)
    found = fit_leverage([part], np.full(400, 1 / 400), seed=0)
    ratio = part.stretched_by(found) / part.stretched_by(drawn)
    assert ratio.log().abs().quantile(0.99) < 0.06
    assert found.trust == TRUST and found.exponent == pytest.approx(0.8, abs=0.12)


def test_places_that_are_next_to_certain_do_not_shape_the_others() -> None:
    """As the points of the context are: a tenth of the rest's errors for what was said, and nothing in kelvin."""
    part, law = said(0.5, 1.0)
    certain = torch.arange(400) < 150
    scale = torch.where(certain, 1e-3, 1.0)[:, None]
    small = Normal(part.mixture.components.mean * scale, part.mixture.components.stddev * scale, validate_args=False)
    mixture = Mixture(part.mixture.logits, small)
    off = torch.where(certain, 1e-4, 1.0) * (part.values - part.mixture.mean[..., 0])
    there = replace(part, mixture=mixture, values=mixture.mean[..., 0] + off)
    found = fit_leverage([there], np.full(400, 1 / 400), seed=0)
    rest = part.at((~certain).nonzero()[:, 0])
    ratio = rest.stretched_by(found) / rest.stretched_by(law)
    assert abs(float(ratio.log().mean())) < 0.04


@pytest.mark.parametrize(("constant", "growth"), [(1.0, 0.0), (0.5, 1.0)])
def test_scores_of_truths_drawn_as_said_are_standard_normal(constant, growth) -> None:
    part, law = said(constant, growth, 0.8)
    stretch = part.stretched_by(law)
    scores = part.scores(stretch)
    assert torch.equal(torch.isfinite(scores), part.seen)
    drawn = scores[part.seen]
    assert abs(drawn.mean().item()) < 0.03 and abs(drawn.std().item() - 1) < 0.03
    error = ((part.values - part.mixture.mean[..., 0]) / part.deviation(stretch))[part.seen]
    assert error.std().item() == pytest.approx(1, abs=0.03)
