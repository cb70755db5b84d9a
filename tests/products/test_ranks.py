"""Ranks are flat where truth could be a member, and not where it could not; scales are resolved or not."""

import numpy as np
import pytest
import xarray as xr

from pipelines.products import diagnosis
from pipelines.products.ranks import flatness, rank_histogram, unmirrored
from pipelines.products.spectra import effective_resolution, zonal_spectrum

PLACE = {"latitude": np.arange(58.0, 50.0, -0.5), "longitude": np.arange(-10.0, 2.0, 0.5)}
TIME = np.datetime64("2019-03-01", "ns") + np.arange(120) * np.timedelta64(1, "h")


def members(spread: float, count: int = 8, *, mirrored: bool = False) -> tuple[xr.DataArray, xr.DataArray]:
    """Truth of variance one, and members of so much spread about the same (unknown) mean."""
    generator = np.random.default_rng(5)
    shape = (len(TIME), 16, 24)
    dims, coords = ("time", "latitude", "longitude"), {"time": TIME, **PLACE}
    truth = xr.DataArray(generator.normal(size=shape), dims=dims, coords=coords)
    drawn = spread * generator.normal(size=(count, *shape))
    if mirrored:
        drawn[1::2] = -drawn[::2]
    return xr.DataArray(drawn, dims=("realization", *dims), coords=coords), truth


def test_members_like_truth_have_flat_ranks() -> None:
    ensemble, truth = members(1.0)
    counts = rank_histogram(ensemble, truth)
    assert counts.sum() == truth.size and len(counts) == 9
    assert flatness(counts, truth.size)["p_value"] > 0.01
    assert flatness(counts, truth.size)["uneven"] < 0.02


@pytest.mark.parametrize(("spread", "ends"), [(0.6, "high"), (1.7, "low")])
def test_members_that_are_too_sure_have_high_ends_and_unsure_ones_a_hump(spread: float, ends: str) -> None:
    ensemble, truth = members(spread)
    counts = rank_histogram(ensemble, truth)
    outside, middle = counts[[0, -1]].mean(), counts[4]
    assert (outside > 1.5 * middle) if ends == "high" else (middle > 1.5 * outside)
    assert flatness(counts, truth.size)["p_value"] < 1e-6


def test_mirrored_members_are_ranked_one_of_each_pair() -> None:
    ensemble, truth = members(1.0, 16, mirrored=True)
    whole, half = rank_histogram(ensemble, truth), rank_histogram(unmirrored(ensemble), truth)
    assert whole[8] > 1.7 * whole.mean()  # between the innermost pair twice as often as between others
    assert flatness(half, truth.size)["p_value"] > 0.01
    told = diagnosis.reliability(ensemble, truth, 4)
    assert told is not None and told["rank_counts"] == half.tolist()


def test_missing_truth_has_no_rank() -> None:
    ensemble, truth = members(1.0)
    assert (
        rank_histogram(ensemble, truth.where(truth["longitude"] > -5)).sum()
        == int((truth["longitude"] > -5).sum()) * 1920
    )


def test_fewer_independent_cases_make_chance_a_better_explanation() -> None:
    counts = np.array([130, 100, 90, 80])
    few, many = flatness(counts, 40), flatness(counts, 400)
    assert few["chi_square"] == pytest.approx(many["chi_square"] / 10)
    assert few["p_value"] > 0.5 > 0.01 > many["p_value"]
    assert few["uneven"] == many["uneven"] == pytest.approx(30 / 400)


def test_a_field_is_resolved_down_to_where_its_error_is_half_of_truth(globe: xr.DataArray) -> None:
    truth = globe[:2]
    power = zonal_spectrum(truth)
    assert effective_resolution(power * 0.1, power) == pytest.approx(float(power["wavelength"].min()))
    assert effective_resolution(power * 0.6, power) == np.inf
    # an error with 0.9 of the power at 600 km and shorter waves, 0.1 at longer ones
    error = power * xr.where(power["wavelength"] > 600, 0.1, 0.9)
    resolved = effective_resolution(error, power)
    longer = float(power["wavelength"].where(power["wavelength"] > 600).min())
    shorter = float(power["wavelength"].where(power["wavelength"] <= 600).max())
    assert shorter < resolved < longer
    assert np.isnan(effective_resolution(power * np.nan, power))


def test_noise_of_the_right_power_resolves_nothing() -> None:
    ensemble, truth = members(1.0)
    found = diagnosis.scales({"noise": ensemble}, truth)
    assert found is not None
    assert 0.9 < found["members_over_truth"]["lowest"] <= found["members_over_truth"]["highest"] < 1.1
    assert found["members_over_truth"]["within_20_percent"] == 1.0
    assert found["effective_km"]["noise"] == np.inf
    power = np.array(found["power"]["noise"]) / np.array(found["power"]["truth"])
    assert (power < 0.3).all()  # the mean of eight


def test_the_summary_for_the_screen_names_what_is_known() -> None:
    ensemble, truth = members(1.0)
    found = {
        "scales": diagnosis.scales({"vamoh": ensemble}, truth),
        "reliability": diagnosis.reliability(ensemble, truth, 4),
    }
    lines = diagnosis.summary(found)
    assert list(lines) == ["members' power over truth's", "effective resolution, km", "ranks", "90 % interval"]
    assert diagnosis.summary({"scales": None, "reliability": None}) == {}
    assert diagnosis.reliability(ensemble[:2], truth, 4) is None
    assert diagnosis.scales({"vamoh": ensemble[..., :6]}, truth[..., :6]) is None
