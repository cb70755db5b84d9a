"""Statistics of a field: weighted by area, blind to blocks and gaps, and exact when merged."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.normalize import Moments, Statistics, area_weights, block_moments, statistics


def brute_force(field: xr.DataArray) -> tuple[float, float]:
    """Mean and standard deviation by xarray's own weighted reductions."""
    weighted = field.astype(np.float64).weighted(np.cos(np.deg2rad(field["latitude"])))
    return float(weighted.mean()), float(weighted.std())


def test_statistics_agree_with_xarrays_weighted_reductions(globe: xr.DataArray) -> None:
    found = statistics(globe)
    mean, std = brute_force(globe)
    assert found.mean == pytest.approx(mean, rel=1e-12) and found.std == pytest.approx(std, rel=1e-9)
    assert (found.minimum, found.maximum) == (float(globe.min()), float(globe.max()))
    assert (found.count, found.missing) == (globe.size, 0)


def test_weights_by_area_matter(globe: xr.DataArray) -> None:
    assert statistics(globe).mean - float(globe.mean(dtype=np.float64)) > 5.0, "the poles are cold and small"


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 5}, {"time": 7, "latitude": 10, "longitude": 33}])
def test_statistics_do_not_depend_on_the_blocks(globe: xr.DataArray, chunks: dict[str, int]) -> None:
    whole, cut = statistics(globe), statistics(globe.chunk(chunks))
    assert (whole.count, whole.minimum, whole.maximum) == (cut.count, cut.minimum, cut.maximum)
    assert cut.mean == pytest.approx(whole.mean, rel=1e-13) and cut.std == pytest.approx(whole.std, rel=1e-11)


def test_gaps_do_not_count(globe: xr.DataArray) -> None:
    holes = globe.where((globe["longitude"] > 100) & (globe["time"] > globe["time"][0]))
    found = statistics(holes.chunk(time=3))
    mean, std = brute_force(holes)
    assert found.mean == pytest.approx(mean, rel=1e-12) and found.std == pytest.approx(std, rel=1e-9)
    assert found.missing == int(holes.isnull().sum()) and found.count + found.missing == holes.size


def test_a_field_without_a_latitude_is_not_weighted() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    found = statistics(xr.DataArray(values, dims=("shape", "x", "y", "z")))
    assert found.mean == pytest.approx(values.mean()) and found.std == pytest.approx(values.std())


def test_nothing_observed_gives_no_number() -> None:
    found = statistics(xr.DataArray(np.full((2, 3, 4), np.nan), dims=("time", "y", "x")))
    assert math.isnan(found.mean) and found.count == 0 and found.missing == 24
    again = Statistics.from_json(found.to_json())
    assert math.isnan(again.std) and again.missing == 24


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 6), st.floats(0.0, 1.0))
def test_merged_moments_are_those_of_everything_together(seed: int, first: int, second: int, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    block = rng.normal(280.0, 20.0, size=(first + second, 3, 2))
    block[rng.random(block.shape) < gaps] = np.nan
    weights = rng.random((3, 1)) + 0.1
    whole = block_moments(block, weights)
    merged = block_moments(block[:first], weights).merge(block_moments(block[first:], weights))
    assert (merged.count, merged.missing, merged.minimum) == (whole.count, whole.missing, whole.minimum)
    np.testing.assert_allclose([merged.mean, merged.squares], [whole.mean, whole.squares], rtol=1e-9, atol=1e-9)
    assert Moments().merge(whole) == whole


def test_a_large_offset_costs_no_precision() -> None:
    values = (1e6 + np.random.default_rng(1).normal(size=(50, 4, 3))).astype(np.float64)
    assert statistics(xr.DataArray(values, dims=("time", "y", "x"))).std == pytest.approx(values.std(), rel=1e-9)


def test_normalizing_goes_round_trip(globe: xr.DataArray) -> None:
    found = statistics(globe)
    scaled = found.normalize(globe.astype(np.float64))
    again = statistics(scaled)
    assert again.mean == pytest.approx(0.0, abs=1e-9) and again.std == pytest.approx(1.0, rel=1e-9)
    xr.testing.assert_allclose(found.denormalize(scaled), globe.astype(np.float64), rtol=1e-13)


def test_statistics_survive_json_exactly(globe: xr.DataArray) -> None:
    found = statistics(globe)
    assert Statistics.from_json(found.to_json()) == found


def test_weights_fit_one_sample(globe: xr.DataArray) -> None:
    weights = area_weights(globe)
    assert weights.shape == (46, 1) and weights.min() >= 0.0
    assert weights[globe["latitude"].values == 60.0] == pytest.approx(0.5) or not (globe["latitude"] == 60.0).any()
