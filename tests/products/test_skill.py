"""Laws of the scores and of the spectra."""

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.stats import norm

from pipelines.products import skill
from pipelines.products.baselines import bilinear
from pipelines.products.spectra import EARTH_RADIUS_KM, zonal_spectrum

LATITUDE, LONGITUDE = np.array([90.0, 60.0, 30.0, 0.0, -30.0, -60.0, -90.0]), np.arange(0.0, 360.0, 45.0)


def field(values: np.ndarray) -> xr.DataArray:
    """Fields (realization, time, latitude, longitude), the leading dims as far as they are there."""
    dims = ("realization", "time", "latitude", "longitude")[-values.ndim :]
    return xr.DataArray(values, dims=dims, coords={"latitude": LATITUDE, "longitude": LONGITUDE}, attrs={"units": "K"})


@pytest.fixture
def truth() -> xr.DataArray:
    return field(np.random.default_rng(0).normal(280, 5, size=(3, 7, 8)))


@pytest.fixture
def ensemble(truth: xr.DataArray) -> xr.DataArray:
    return field(np.random.default_rng(1).normal(0, 2, size=(5, 3, 7, 8))) + truth


def test_row_areas_follow_the_cosine_and_give_the_poles_their_caps() -> None:
    latitude = np.linspace(90, -90, 181)
    weights = skill.area_weights(latitude).values
    inner = slice(1, -1)
    ratio = weights[inner] / np.cos(np.deg2rad(latitude[inner]))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-10)
    cap = (1 - np.cos(np.deg2rad(0.5))) / 2  # of the sphere's area
    assert weights[0] / weights.sum() == pytest.approx(cap)


def test_errors_are_weighted_by_area(truth: xr.DataArray) -> None:
    error = field(np.zeros((7, 8))).copy()
    error[3] = 2.0
    share = float(skill.area_weights(LATITUDE)[3] / 7)
    assert float(skill.rmse(truth + error, truth)) == pytest.approx(2 * np.sqrt(share))
    assert float(skill.mae(truth - error, truth)) == pytest.approx(2 * share)
    assert float(skill.bias(truth - error, truth)) == pytest.approx(-2 * share)
    assert float(skill.bias(truth - error, truth, weighted=False)) == pytest.approx(-2 / 7)


def test_missing_truth_is_left_out(truth: xr.DataArray, ensemble: xr.DataArray) -> None:
    holed = truth.copy()
    holed[:, 2:4, 1:] = np.nan
    wild = ensemble.where(np.isfinite(holed), 1e6)
    kept = skill.ensemble_scores(ensemble, holed)
    assert kept == pytest.approx(skill.ensemble_scores(wild, holed))
    assert all(np.isfinite(list(kept.values())))
    gaussian = skill.gaussian_scores(wild.mean("realization"), wild.std("realization") + 1, holed)
    expected = skill.gaussian_scores(ensemble.mean("realization"), ensemble.std("realization") + 1, holed)
    assert gaussian == pytest.approx(expected)


def test_the_crps_of_one_member_is_its_mean_absolute_error(truth: xr.DataArray, ensemble: xr.DataArray) -> None:
    one = ensemble[:1]
    crps, mae = skill.crps_ensemble(one, truth), skill.mae(one[0], truth)
    np.testing.assert_allclose(crps, mae)
    np.testing.assert_allclose(skill.crps_gaussian(one[0], 0 * truth[0], truth), mae)


def test_the_crps_of_members_equals_the_energy_form(truth: xr.DataArray, ensemble: xr.DataArray) -> None:
    members = ensemble.values
    score = np.abs(members - truth.values).mean(0) - 0.5 * np.abs(members[:, None] - members[None]).mean((0, 1))
    naive = np.average(score.mean(axis=(0, 2)), weights=skill.area_weights(LATITUDE))
    assert float(skill.crps_ensemble(ensemble, truth)) == pytest.approx(naive)


def test_the_gaussian_crps_equals_the_integral_of_squared_differences(truth: xr.DataArray) -> None:
    at, mean, std = float(truth[0, 3, 2]), 281.0, 1.7
    below = quad(lambda y: norm.cdf(y, mean, std) ** 2, mean - 20, at)[0]
    above = quad(lambda y: (1 - norm.cdf(y, mean, std)) ** 2, at, mean + 20)[0]
    per_point = skill.crps_gaussian(0 * truth + mean, 0 * truth[0] + std, truth, keep=["time", "latitude", "longitude"])
    assert float(per_point[0, 3, 2]) == pytest.approx(below + above, rel=1e-5)


def test_a_reliable_ensemble_has_a_ratio_of_one_and_the_coverage_expected_of_it() -> None:
    generator = np.random.default_rng(4)
    truth = field(generator.normal(size=(400, 7, 8)))
    for members in (5, 39):
        ensemble = field(generator.normal(size=(members, 400, 7, 8)))
        assert float(skill.spread_skill_ratio(ensemble, truth)) == pytest.approx(1.0, abs=0.03)
        expected = skill.expected_coverage(members)
        assert float(skill.coverage(ensemble, truth)) == pytest.approx(expected, abs=0.02)
    scores = skill.gaussian_scores(0 * truth, 0 * truth[0] + 1.0, truth)
    assert scores["spread_skill"] == pytest.approx(1.0, abs=0.03)
    assert scores["coverage_90"] == pytest.approx(0.9, abs=0.02)


def test_scores_can_keep_the_time(truth: xr.DataArray, ensemble: xr.DataArray) -> None:
    for score in (skill.rmse(ensemble[0], truth, keep=["time"]), skill.crps_ensemble(ensemble, truth, keep=["time"])):
        assert score.dims == ("time",)


def test_grids_that_differ_are_refused_not_intersected(truth: xr.DataArray, ensemble: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="differ along 'longitude' .8 and 7 values"):
        skill.rmse(truth, truth[..., 1:])
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        skill.spread_skill_ratio(ensemble[:1], truth)


def test_the_spectrum_of_a_cosine_peaks_at_its_wavelength_and_holds_its_variance() -> None:
    longitude = np.arange(0.0, 360.0, 2.0)
    wave = xr.DataArray(
        np.cos(np.deg2rad(15 * longitude))[None] * np.ones((5, 1)),
        coords={"latitude": [2.0, 1.0, 0.0, -1.0, -2.0], "longitude": longitude},
        attrs={"units": "K"},
    )
    spectrum = zonal_spectrum(wave.sel(latitude=[0.0]))
    peak = float(spectrum.idxmax())
    assert peak == pytest.approx(2 * np.pi * EARTH_RADIUS_KM / 15, rel=1e-6)
    assert float(spectrum.sum()) / (2 * np.pi * EARTH_RADIUS_KM) == pytest.approx(0.5)
    assert spectrum.attrs["units"] == "K2 km"
    assert np.all(np.diff(spectrum["wavelength"]) < 0)


def test_a_regional_spectrum_ignores_the_trend_across_the_region() -> None:
    longitude = np.linspace(-10, 20, 121)
    row = np.cos(2 * np.pi * 10 * longitude / 30.25)
    region = xr.DataArray(
        np.stack([row, row]) + 4 * longitude, coords={"latitude": [50.0, 49.75], "longitude": longitude}
    )
    spectrum = zonal_spectrum(region)
    km = 30.25 / 10 * np.deg2rad(1) * EARTH_RADIUS_KM * np.cos(np.deg2rad(49.875))
    assert float(spectrum.idxmax()) == pytest.approx(km, rel=0.02)
    longest = float(spectrum[0])
    assert longest < 1e-2 * float(spectrum.max())


def test_rows_with_gaps_are_left_out_of_the_spectrum(globe: xr.DataArray) -> None:
    holed = globe[:2].copy()
    holed[:, 40:60, 7] = np.nan
    complete = zonal_spectrum(globe[:2])
    np.testing.assert_allclose(zonal_spectrum(holed), complete, rtol=0.6)
    assert bool(zonal_spectrum(holed * np.nan).isnull().all())


def test_interpolation_loses_variance_below_the_coarse_wavelength(globe: xr.DataArray) -> None:
    coarse = globe[:2, ::4, ::4]
    truth = zonal_spectrum(globe[:2])
    blurred = zonal_spectrum(bilinear(coarse, globe["latitude"], globe["longitude"]))
    fine = truth["wavelength"] < 500
    assert float((blurred / truth).where(fine).max()) < 0.2
    assert float((blurred / truth).where(truth["wavelength"] > 5000).min()) > 0.8


def test_a_spectrum_without_rows_is_refused() -> None:
    polar = xr.DataArray(np.zeros((2, 8)), coords={"latitude": [80.0, 75.0], "longitude": LONGITUDE})
    with pytest.raises(ValueError, match="no row within -60 to 60"):
        zonal_spectrum(polar)
