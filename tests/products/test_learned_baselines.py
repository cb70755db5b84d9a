"""Baselines beside the ridge of a pixel: what each is by its definition, and that each learns on genuine hours."""

import numpy as np
import pytest
import xarray as xr

from pipelines.products.attention import WindowAttention
from pipelines.products.baselines import Baseline, FieldRidge, MeanResidual, QuantileMapping, bilinear, conservative
from pipelines.products.skill import gaussian_scores, rmse


def grid(latitude: np.ndarray, longitude: np.ndarray, values: np.ndarray) -> xr.DataArray:
    """A field, with hourly times where it has three dimensions."""
    coords = {"latitude": latitude, "longitude": longitude}
    dims = ("latitude", "longitude")
    if values.ndim == 3:
        coords["time"] = np.datetime64("2019-03-01", "ns") + np.arange(len(values)) * np.timedelta64(6, "h")
        dims = ("time", *dims)
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": "K"})


@pytest.fixture(scope="module")
def split(uk_hours: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Every third hour of 1-20 March to learn from, some of 24-26 March to be tested on; 17 x 25 points."""
    field = uk_hours[:, 8:25, 12:37]
    return field.sel(time=slice("2019-03-01", "2019-03-20"))[::3], field.sel(time=slice("2019-03-24", "2019-03-26"))[
        ::3
    ]


def test_conservative_keeps_the_mean_of_every_cell() -> None:
    generator = np.random.default_rng(0)
    coarse = grid(np.arange(88.0, -89.0, -4.0), np.arange(2.0, 360.0, 4.0), generator.normal(size=(45, 90)))
    fine = conservative(coarse, np.arange(89.5, -90.0, -1.0), np.arange(0.5, 360.0, 1.0))
    assert not fine.isnull().any()
    area = np.abs(np.diff(np.sin(np.deg2rad(np.arange(90.0, -90.5, -1.0)))))
    cells = fine.values.reshape(45, 4, 90, 4)
    weight = area.reshape(45, 4)[:, :, None, None]
    np.testing.assert_allclose((cells * weight).sum((1, 3)) / (4 * weight.sum((1, 3))), coarse, atol=1e-6)
    np.testing.assert_array_equal(fine[::4, ::4], coarse)


def test_conservative_equals_xarray_regrid_where_that_has_values() -> None:
    pytest.importorskip("xarray_regrid")
    generator = np.random.default_rng(1)
    coarse = grid(np.arange(-4.0, 4.1, 1.0), np.arange(-10.0, 2.1, 1.0), generator.normal(size=(9, 13)))
    latitude, longitude = np.arange(-4.0, 4.01, 0.3), np.arange(-9.9, 1.9, 0.3)
    target = xr.Dataset(coords={"latitude": latitude, "longitude": longitude})
    theirs = coarse.to_dataset(name="t2m").regrid.conservative(target)["t2m"].transpose("latitude", "longitude")
    ours = conservative(coarse, latitude, longitude)
    assert float(theirs.notnull().mean()) > 0.9
    assert float(abs(ours - theirs).max()) < 1e-3  # at the equator: theirs weighs a part of a cell as its centre


def test_conservative_has_no_seam_reaches_the_poles_and_leaves_gaps_out() -> None:
    coarse = grid(np.arange(90.0, -91.0, -45.0), np.arange(0.0, 360.0, 90.0), np.arange(20.0).reshape(5, 4))
    latitude, longitude = np.arange(90.0, -91.0, -1.0), np.arange(-180.0, 180.0, 1.0)
    fine = conservative(coarse, latitude, longitude)
    chosen = fine.sel(latitude=[90.0, 10.0], longitude=[-44.0, -46.0, 179.0, 46.0])
    np.testing.assert_allclose(chosen, [[0.0, 3.0, 2.0, 1.0], [8.0, 11.0, 10.0, 9.0]])
    assert float(fine.sel(latitude=10.0, longitude=-45.0)) == 9.5  # half in the last cell, half in the first
    holed = coarse.where(coarse != 8.0)
    row = conservative(holed, latitude, longitude).sel(latitude=0.0)
    assert np.isnan(row.sel(longitude=44.0)) and row.sel(longitude=46.0) == 9.0
    assert row.sel(longitude=45.0) == 9.0  # half in the hole: the other half is known


def test_quantile_mapping_gives_the_training_times_their_own_distribution() -> None:
    generator = np.random.default_rng(2)
    latitude, longitude = np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5)
    truth = grid(latitude, longitude, 280 + generator.gamma(2.0, 2.0, size=(60, 9, 9)))
    coarse = truth[:, ::4, ::4]
    fitted = QuantileMapping(levels=60).fit(truth, coarse)
    predicted = fitted.predict(coarse)["mean"]
    np.testing.assert_allclose(np.sort(predicted, axis=0), np.sort(truth, axis=0), atol=1e-3)
    warmer = fitted.predict(coarse + 100.0)["mean"]  # beyond all that it learned from: the outermost correction
    background = bilinear(coarse + 100.0, latitude, longitude)
    np.testing.assert_allclose(warmer - background, np.broadcast_to(fitted.correction[-1].reshape(9, 9), warmer.shape),
                               atol=1e-3)  # fmt: skip


def test_the_field_ridge_equals_the_normal_equations() -> None:
    generator = np.random.default_rng(3)
    truth = grid(np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5), 280 + generator.normal(size=(40, 9, 9)))
    coarse = truth[:, ::4, ::4]
    fitted = FieldRidge(strengths=(7.0,)).fit(truth, coarse)
    points = coarse.values.reshape(40, -1)
    anomaly = points - points.mean(0)
    target = (truth - bilinear(coarse, truth["latitude"], truth["longitude"])).values.reshape(40, -1)
    weights = np.linalg.solve(
        anomaly.T @ anomaly + 7.0 * anomaly.var() * np.eye(9), anomaly.T @ (target - target.mean(0))
    )
    naive = target.mean(0) + anomaly @ weights
    residual = fitted.predict(coarse)["mean"] - bilinear(coarse, truth["latitude"], truth["longitude"])
    np.testing.assert_allclose(residual.values.reshape(40, -1), naive, atol=1e-8)


@pytest.mark.parametrize("baseline", [QuantileMapping(), FieldRidge()])
def test_a_pixel_that_was_never_observed_stays_missing_and_harms_no_other(baseline: Baseline) -> None:
    generator = np.random.default_rng(4)
    truth = grid(np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5), 280 + generator.normal(size=(12, 9, 9)))
    gap = truth.copy()
    gap[:, 3, 5] = np.nan
    whole = baseline.fit(truth, truth[:, ::4, ::4]).predict(truth[:, ::4, ::4])
    holed = baseline.fit(gap, gap[:, ::4, ::4]).predict(gap[:, ::4, ::4])
    assert holed["mean"].isnull().sum() == 12 and bool(np.isnan(holed["std"][3, 5]))
    others = ~np.isnan(holed["mean"].values)
    np.testing.assert_allclose(holed["mean"].values[others], whole["mean"].values[others], atol=5e-2)


def test_each_learns_more_than_the_one_before_it_on_genuine_hours(split: tuple[xr.DataArray, xr.DataArray]) -> None:
    training, test = split
    coarse, scores = test[:, ::4, ::4], {}
    for baseline in (MeanResidual(), QuantileMapping(), FieldRidge()):
        predicted = baseline.fit(training, training[:, ::4, ::4]).predict(coarse)
        scores[type(baseline).__name__] = gaussian_scores(predicted["mean"], predicted["std"], test)["crps"]
    linear = bilinear(coarse, test["latitude"], test["longitude"])
    assert scores["FieldRidge"] < scores["QuantileMapping"] < scores["MeanResidual"] < float(abs(linear - test).mean())


def test_window_attention_learns_in_the_seconds_that_it_is_given(split: tuple[xr.DataArray, xr.DataArray]) -> None:
    training, test = split
    coarse = test[:, ::4, ::4]
    fitted = WindowAttention(seconds=6.0, learning_rate=5e-3).fit(training, training[:, ::4, ::4])
    predicted = fitted.predict(coarse)
    linear = bilinear(coarse, test["latitude"], test["longitude"])
    assert fitted.steps > 5
    assert float(rmse(predicted["mean"], test)) < 0.95 * float(rmse(linear, test))
    assert predicted["std"].dims == ("time", "latitude", "longitude") and float(predicted["std"].min()) > 0
    shifted = fitted.predict(coarse + 10.0)
    np.testing.assert_allclose(shifted["mean"] - predicted["mean"], 10.0, atol=1e-3)
    with pytest.raises(ValueError, match="more than 0, got 0"):
        WindowAttention(seconds=0.0).fit(training, training[:, ::4, ::4])


def test_window_attention_goes_round_the_globe_and_over_gaps(globe: xr.DataArray) -> None:
    field = globe[:6, ::6, ::6].copy()
    field[:, 3, 4] = np.nan
    fitted = WindowAttention(seconds=0.5, batch=2).fit(field, field[:, ::3, ::4])
    predicted = fitted.predict(field[:, ::3, ::4])["mean"]
    seen = bilinear(field[:, ::3, ::4], field["latitude"], field["longitude"]).notnull()
    assert bool(np.isfinite(predicted.where(seen, 0.0)).all())
