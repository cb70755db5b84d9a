"""Laws of the baselines, and what they reach on real ERA5."""

from collections.abc import Callable

import cftime
import numpy as np
import pytest
import xarray as xr

from pipelines.products.baselines import Baseline, LocalRidge, MeanResidual, bicubic, bilinear
from pipelines.products.residuals import day_blocks
from pipelines.products.skill import gaussian_scores, point_scores

Interpolation = Callable[..., xr.DataArray]


def grid(latitude: np.ndarray, longitude: np.ndarray, values: np.ndarray) -> xr.DataArray:
    """A field (..., latitude, longitude), hourly where it has a time axis."""
    coords = {"latitude": latitude, "longitude": longitude}
    if values.ndim == 3:
        coords["time"] = np.datetime64("2019-03-01T00", "ns") + np.arange(len(values)) * np.timedelta64(7, "h")
    return xr.DataArray(values, dims=("time", "latitude", "longitude")[-values.ndim :], coords=coords)


def every(field: xr.DataArray, step: int) -> xr.DataArray:
    """The coarse lattice that starts at the first point."""
    return field.isel(latitude=slice(None, None, step), longitude=slice(None, None, step))


def smooth_globe(step: float) -> xr.DataArray:
    """A function that is smooth everywhere on the sphere, poles and date line included."""
    latitude, longitude = np.arange(90, -90 - step / 2, -step), np.arange(0, 360, step)
    phi, lam = np.meshgrid(np.deg2rad(latitude), np.deg2rad(longitude), indexing="ij")
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return grid(latitude, longitude, 280 + 20 * z + 5 * x * y - 3 * x * z)


@pytest.mark.parametrize("interpolate", [bilinear, bicubic])
def test_interpolation_gives_the_coarse_values_at_coarse_points(
    interpolate: Interpolation, globe: xr.DataArray
) -> None:
    coarse = every(globe[:2], 4)
    fine = interpolate(coarse, globe["latitude"], globe["longitude"])
    assert fine.sizes == globe[:2].sizes
    # a pole row may differ in its last digit, for it is made one point
    np.testing.assert_allclose(every(fine, 4).values, coarse.values, atol=1e-3)


def test_bilinear_reproduces_a_linear_function() -> None:
    latitude, longitude = np.array([58.0, 54.0, 51.0]), np.array([-10.0, -4.0, 0.0, 2.0])
    plane = grid(latitude, longitude, 3 * latitude[:, None] - 2 * longitude)
    fine = bilinear(plane, np.linspace(51, 58, 9), np.linspace(-10, 2, 7))
    np.testing.assert_allclose(fine, 3 * fine["latitude"] - 2 * fine["longitude"], rtol=1e-12)


def test_bicubic_reproduces_a_cubic_function() -> None:
    latitude, longitude = np.arange(58.0, 49.0, -2.0), np.arange(-10.0, 3.0, 2.0)
    cubic = grid(latitude, longitude, (latitude[:, None] - 50) ** 3 * longitude**2)
    fine = bicubic(cubic, np.linspace(50, 58, 9), np.linspace(-10, 2, 7))
    np.testing.assert_allclose(fine, (fine["latitude"] - 50) ** 3 * fine["longitude"] ** 2, atol=1e-9)


@pytest.mark.parametrize("interpolate", [bilinear, bicubic])
def test_longitude_has_no_seam(interpolate: Interpolation) -> None:
    field = smooth_globe(4.0)
    turned = field.roll(longitude=37, roll_coords=False).assign_coords(longitude=field["longitude"] - 37 * 4.0)
    latitude, longitude = np.linspace(80, -80, 17), np.linspace(-180, 176, 90) + 1.3
    np.testing.assert_allclose(
        interpolate(field, latitude, longitude), interpolate(turned, latitude, longitude), atol=1e-9
    )


def test_bicubic_is_smooth_over_the_poles() -> None:
    exact = smooth_globe(1.0)
    fine = bicubic(every(exact, 4), exact["latitude"], exact["longitude"])
    assert np.abs(fine - exact).max() < 2e-3
    cut = every(exact, 4).isel(longitude=slice(None, -1))  # 356 to 360 missing: no opposite meridians any more
    regional = bicubic(cut, exact["latitude"], np.arange(0.0, 352.0))
    polar = np.abs(exact["latitude"]) > 86
    assert abs(fine - exact).where(polar).max() < 0.5 * abs(regional - exact).where(polar).max()


@pytest.mark.parametrize("interpolate", [bilinear, bicubic])
def test_a_pole_is_one_point(interpolate: Interpolation) -> None:
    centred = smooth_globe(1.0).sel(latitude=slice(88, -88, 4), longitude=slice(None, None, 4))
    fine = interpolate(centred, np.array([90.0, 89.0, -90.0]), np.arange(0.0, 360.0, 5.0))
    assert np.ptp(fine.sel(latitude=90.0).values) == 0.0
    assert np.ptp(fine.sel(latitude=-90.0).values) == 0.0


def test_beyond_the_last_row_the_field_is_constant_for_one_cell() -> None:
    field = grid(np.array([56.0, 52.0]), np.array([0.0, 4.0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(bilinear(field, [51.0, 48.0], [4.0, 7.0]), [[4.0, 4.0], [4.0, 4.0]])
    with pytest.raises(ValueError, match=r"latitude .* within one coarse cell \(4 degrees\)"):
        bilinear(field, [47.0], [4.0])


@pytest.mark.parametrize("interpolate", [bilinear, bicubic])
def test_missing_coarse_values_leave_the_others(interpolate: Interpolation) -> None:
    latitude, longitude = np.arange(58.0, 49.0, -2.0), np.arange(-10.0, 3.0, 2.0)
    values = np.full((5, 7), 280.0)
    values[0, :2] = np.nan
    fine = interpolate(grid(latitude, longitude, values), np.arange(58, 49.5, -0.5), np.arange(-10, 2.5, 0.5))
    missing = np.isnan(fine.values)
    np.testing.assert_allclose(fine.values[~missing], 280.0)
    assert missing.sum() == 5  # between the two missing points: no other corner has weight there


def test_the_local_ridge_equals_a_naive_solve_of_every_pixel() -> None:
    generator = np.random.default_rng(0)
    truth = grid(np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5), 280 + 3 * generator.normal(size=(40, 9, 9)))
    truth[:5, 1, 2] = np.nan
    coarse = every(truth, 4)
    fitted = LocalRidge(neighbours=5, strengths=(3.0,), daily_cycle=True).fit(truth, coarse)
    predicted = fitted.predict(coarse)["mean"]

    background = bilinear(coarse, truth["latitude"], truth["longitude"])
    points = coarse.values.reshape(40, -1)
    rows, columns = np.meshgrid(np.deg2rad(coarse["latitude"]), np.deg2rad(coarse["longitude"]), indexing="ij")
    cell = np.sqrt(np.deg2rad(2.0) ** 2 * np.cos(rows).mean())
    angle = 2 * np.pi * truth["time"].dt.hour.values / 24
    for i, j in [(0, 1), (1, 2), (5, 7), (8, 3)]:
        phi, lam = np.deg2rad(float(truth["latitude"][i])), np.deg2rad(float(truth["longitude"][j]))
        cosine = np.sin(phi) * np.sin(rows) + np.cos(phi) * np.cos(rows) * np.cos(columns - lam)
        distance = np.arccos(np.clip(cosine, -1, 1)).ravel() / cell
        nearest = np.argsort(distance)[:5]
        growth = np.append(np.exp(distance[nearest] / 0.7), [4.0, 4.0])
        inputs = points[:, nearest] - background.values[:, i, j, None]
        inputs = np.column_stack([inputs, np.sin(angle), np.cos(angle)])
        target = (truth - background).values[:, i, j]
        seen = np.isfinite(target)
        x, y = inputs[seen] - inputs[seen].mean(0), target[seen] - target[seen].mean()
        weights = np.linalg.solve(x.T @ x + np.diag(3.0 * growth * x.var(0)), x.T @ y)
        naive = background.values[:, i, j] + target[seen].mean() + (inputs - inputs[seen].mean(0)) @ weights
        np.testing.assert_allclose(predicted.values[:, i, j], naive, atol=1e-8)


def test_fewer_times_than_neighbours_give_the_same_ridge_as_the_normal_equations() -> None:
    generator = np.random.default_rng(1)
    truth = grid(np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5), 280 + generator.normal(size=(6, 9, 9)))
    few = LocalRidge(neighbours=8, strengths=(2.0,)).fit(truth, every(truth, 4)).predict(every(truth, 4))
    doubled = xr.concat([truth, truth.assign_coords(time=truth["time"] + np.timedelta64(60, "D"))], "time")
    many = LocalRidge(neighbours=8, strengths=(4.0,)).fit(doubled, every(doubled, 4)).predict(every(truth, 4))
    np.testing.assert_allclose(few["mean"], many["mean"], atol=1e-9)


def test_the_local_ridge_follows_a_shift_of_the_whole_field(uk_hours: xr.DataArray) -> None:
    training, coarse = uk_hours[:96, :9, :9], every(uk_hours[100:104, :9, :9], 4)
    fitted = LocalRidge(neighbours=6, strengths=(8.0,)).fit(training, every(training, 4))
    plain, shifted = fitted.predict(coarse)["mean"], fitted.predict(coarse + 10.0)["mean"]
    np.testing.assert_allclose(shifted - plain, 10.0, atol=1e-4)


@pytest.mark.parametrize("baseline", [MeanResidual(), LocalRidge(neighbours=4)])
def test_a_pixel_that_was_never_observed_stays_missing_and_harms_no_other(baseline: Baseline) -> None:
    generator = np.random.default_rng(2)
    truth = grid(np.arange(58, 53.9, -0.5), np.arange(-3, 1.1, 0.5), 280 + generator.normal(size=(12, 9, 9)))
    whole = baseline.fit(truth, every(truth, 4)).predict(every(truth, 4))
    gap = truth.copy()
    gap[:, 3, 5] = np.nan
    holed = baseline.fit(gap, every(gap, 4)).predict(every(gap, 4))
    assert holed["mean"].isnull().sum() == 12
    assert bool(np.isnan(holed["std"][3, 5]))
    others = ~np.isnan(holed["mean"].values)
    np.testing.assert_allclose(holed["mean"].values[others], whole["mean"].values[others], atol=1e-3)


@pytest.mark.parametrize("baseline", [MeanResidual(), LocalRidge(neighbours=9)])
def test_the_spread_is_honest(baseline: Baseline) -> None:
    """Where the residual is noise that nothing predicts, the spread is that of a forecast by its estimated mean."""
    generator = np.random.default_rng(3)
    noise = generator.normal(0.0, 2.0, size=(24, 21, 21))
    truth = grid(np.arange(60.0, 49.9, -0.5), np.arange(0.0, 10.1, 0.5), 280 + noise)
    fresh = truth.copy(data=280 + generator.normal(0.0, 2.0, size=noise.shape))
    predicted = baseline.fit(truth, every(truth, 4)).predict(every(fresh, 4))
    scores = gaussian_scores(predicted["mean"], predicted["std"], fresh)
    assert 0.93 < scores["spread_skill"] < 1.1


def test_held_out_blocks_are_contiguous_whole_days(uk_hours: xr.DataArray) -> None:
    blocks = day_blocks(uk_hours["time"], 6)
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(744))
    assert all(block[0] % 24 == 0 for block in blocks)
    noleap = xr.DataArray([cftime.DatetimeNoLeap(2001, 1, 1 + d) for d in range(3)], dims="time")
    assert [len(block) for block in day_blocks(noleap, 6)] == [1, 1, 1]


def test_mistakes_are_named(uk_hours: xr.DataArray) -> None:
    few = uk_hours[:30, :9, :9]
    fitted = MeanResidual().fit(few, every(few, 4))
    with pytest.raises(ValueError, match="fitted on 3 coarse latitudes from 58 to 56, got 9"):
        fitted.predict(few)
    with pytest.raises(ValueError, match="same times, got 30 and 29"):
        LocalRidge().fit(few, every(few, 4)[1:])
    with pytest.raises(ValueError, match="at least 2 training times"):
        MeanResidual().fit(few[:1], every(few, 4)[:1])
    with pytest.raises(ValueError, match="every value of the coarse training field is missing"):
        LocalRidge().fit(few, every(few, 4) * np.nan)


def test_scores_on_real_hours_are_those_published(uk_hours: xr.DataArray) -> None:
    training = uk_hours.sel(time=slice("2019-03-01", "2019-03-22"))
    test = uk_hours.sel(time=slice("2019-03-24", "2019-03-31"))
    coarse, place = every(test, 4), (test["latitude"], test["longitude"])
    linear = point_scores(bilinear(coarse, *place), test, weighted=False)
    assert (round(linear["rmse"], 3), round(linear["mae"], 3)) == (0.673, 0.399)
    assert round(point_scores(bicubic(coarse, *place), test, weighted=False)["rmse"], 3) == 0.762
    ridge = LocalRidge(strengths=(4.0, 8.0)).fit(training, every(training, 4)).predict(coarse)
    scores = gaussian_scores(ridge["mean"], ridge["std"], test, weighted=False)
    assert scores["rmse"] < 0.3075
    assert scores["crps"] < 0.1375


def test_scores_on_the_real_globe_are_those_published(globe: xr.DataArray) -> None:
    training, test = globe[:18], globe[18:]
    linear = point_scores(bilinear(every(test, 4), test["latitude"], test["longitude"]), test)
    assert (round(linear["rmse"], 3), round(linear["mae"], 3)) == (1.757, 0.906)
    mean = MeanResidual().fit(training, every(training, 4)).predict(every(test, 4))
    assert round(gaussian_scores(mean["mean"], mean["std"], test)["rmse"], 2) == 1.03


@pytest.mark.slow
def test_the_local_ridge_beats_the_mean_residual_on_the_globe(globe: xr.DataArray) -> None:
    training, test = globe[:18], globe[18:]
    ridge = LocalRidge().fit(training, every(training, 4)).predict(every(test, 4))
    scores = gaussian_scores(ridge["mean"], ridge["std"], test)
    assert scores["rmse"] < 0.93
    assert scores["crps"] < 0.415
