"""The result is there at once, whatever its size, and its variables are what they say."""

import time

import dask
import numpy as np
import pytest
import xarray as xr

from pipelines.products.downscale import downscale
from pipelines.products.variables import variables

EVERYTHING = ("component", "entropy", "spread", "q05", "q95", "gradient")


@pytest.fixture(scope="module")
def everything(truth, teller) -> xr.Dataset:
    return downscale(truth[:3, ::3, ::3], teller, factor=3, members=6, also=EVERYTHING).compute()


def test_a_globe_of_a_hundredth_of_a_degree_opens_at_once_and_one_place_of_it_costs_one_chunk(coarse, teller) -> None:
    begun = time.perf_counter()
    with pytest.warns(UserWarning, match="times finer"):
        result = downscale(coarse, teller, resolution=0.01, members=20)
    assert time.perf_counter() - begun < 2.0
    assert result.sizes == {"realization": 20, "time": 3, "latitude": 18001, "longitude": 36000}
    assert dask.is_dask_collection(result["t2m"]) and result["t2m"].nbytes > 1e11
    assert sum(layer.is_materialized() for layer in result["t2m"].data.dask.layers.values()) <= 6  # inputs and axes
    assert result["t2m"].data.npartitions < 20_000
    chunk = [sizes[0] for sizes in result["t2m"].chunks]
    assert np.prod(chunk) * 4 <= 2**24
    place = result["t2m"].isel(latitude=3870, longitude=35990, time=0)
    (optimised,) = dask.optimize(place)
    assert len(optimised.__dask_graph__()) < 40
    with pytest.warns(UserWarning, match="times finer"):
        coarser = downscale(coarse, teller, resolution=0.1, region=(-1, 50, 1, 52), members=20)
    there = {"latitude": place["latitude"], "longitude": place["longitude"] - 360}
    same = coarser["t2m"].isel(time=0).sel(there, method="nearest")
    np.testing.assert_allclose(place, same, rtol=0, atol=2e-3)


def test_what_is_wanted_beside_the_members_is_what_it_says(everything) -> None:
    members = everything["t2m"]
    np.testing.assert_allclose(everything["t2m_spread"], members.std("realization", ddof=1), atol=1e-4)
    for name, level in (("t2m_q05", 0.05), ("t2m_q95", 0.95)):
        np.testing.assert_allclose(everything[name], members.quantile(level, "realization"), atol=1e-4)
    assert set(np.unique(everything["component"])) <= {0, 1}
    assert 0 <= everything["component_entropy"].min() and everything["component_entropy"].max() <= np.log(2) + 1e-6
    assert everything["t2m_gradient_east"].dims == members.dims
    assert everything["t2m_gradient_north"].attrs["units"] == "K km-1"


def test_nothing_is_given_that_was_not_asked_for(coarse, teller) -> None:
    assert list(downscale(coarse, teller, factor=3)) == ["t2m", "component"]
    assert list(downscale(coarse, teller, factor=3, also=())) == ["t2m"]
    assert list(downscale(coarse, teller, factor=3, also=["spread"])) == ["t2m", "t2m_spread"]


@pytest.mark.parametrize("word", ["q5", "median", "", "q100"])
def test_an_unknown_variable_is_refused_with_those_that_there_are(coarse, teller, word) -> None:
    with pytest.raises(ValueError, match="component, entropy, spread, gradient and quantiles such as q05, got"):
        downscale(coarse, teller, factor=3, also=[word])


def test_one_member_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        variables("t2m", ["spread"], 1)


def test_the_gradient_is_that_of_a_spline_through_the_members_values(coarse, teller, tmp_path) -> None:
    """Beside the kinks of what is interpolated linearly: there a spline rings, and the difference takes a side."""
    from scipy.interpolate import CubicSpline

    box = (21.1, 41.1, 22.9, 42.9)
    with pytest.warns(UserWarning, match="times finer"):
        fine = downscale(coarse, teller, resolution=0.02, region=box, members=2, also=["gradient"])
    fine = fine.isel(time=0).compute()
    km = np.deg2rad(1.0) * 6371.0
    north = CubicSpline(fine["latitude"].values[::-1] * km, fine["t2m"].values[:, ::-1], axis=1)
    found = north(fine["latitude"].values * km, 1)
    np.testing.assert_allclose(np.median(np.abs(found - fine["t2m_gradient_north"])), 0, atol=3e-4)
    assert np.quantile(np.abs(found - fine["t2m_gradient_north"]), 0.9) < 3e-3
    row = fine.sel(latitude=42, method="nearest")
    along = CubicSpline(row["longitude"].values * km * np.cos(np.deg2rad(row["latitude"].values)), row["t2m"], axis=1)
    east = along(row["longitude"].values * km * np.cos(np.deg2rad(row["latitude"].values)), 1)
    np.testing.assert_allclose(np.median(np.abs(east - row["t2m_gradient_east"])), 0, atol=3e-4)
    assert np.abs(fine["t2m_gradient_north"]).mean() > 1e-3  # there is something to compare


def test_the_gradient_has_no_seam_and_turns_round_the_pole(coarse, teller, tmp_path) -> None:
    where = tmp_path / "places.csv"
    where.write_text("latitude,longitude\n51.3,-180\n51.3,180\n90,0\n90,90\n-90,0\n-90,180\n")
    found = downscale(coarse, teller, points=where, members=2, also=["gradient"]).compute()
    east, north = found["t2m_gradient_east"], found["t2m_gradient_north"]
    assert np.isfinite(east).all() and np.isfinite(north).all()
    np.testing.assert_allclose(east[..., 0], east[..., 1], atol=1e-4)
    np.testing.assert_allclose(north[..., 0], north[..., 1], atol=1e-4)
