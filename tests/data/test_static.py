"""Static fields are read on their own grids, cut to the store's region, and refused where they say nothing of it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.sphere import Lattice
from pipelines.data.static import StaticField, lapse, open_statics, with_slopes

UK = Lattice(latitude=np.arange(58.0, 49.9, -0.5), longitude=np.arange(-10.0, 2.1, 0.5))


def hills(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Metres."""
    return 400 + 300 * np.sin(latitude * 2) * np.cos(np.deg2rad(longitude) * 90)


def write(path: Path, *, north: float = 62.0, west: float = -20.0, name: str = "z", **attrs: str) -> str:
    """A field of 0.25 degrees from south to north, 0..360."""
    latitude, longitude = np.arange(45.0, north + 0.1, 0.25), np.arange(west, 10.1, 0.25)
    values = hills(latitude[:, None], longitude)
    turned = np.mod(longitude, 360.0)
    order = np.argsort(turned)
    field = xr.DataArray(values[:, order], dims=("lat", "lon"), coords={"lat": latitude, "lon": turned[order]})
    field.assign_attrs({"units": "m"} | attrs).to_dataset(name=name).to_netcdf(path)
    return str(path)


def test_a_field_is_read_whatever_its_grid_and_its_order(tmp_path) -> None:
    (field,) = open_statics([write(tmp_path / "z.nc")], UK)
    assert (field.name, field.units) == ("z", "m")
    latitude, longitude = UK.points
    np.testing.assert_allclose(field.at((latitude, longitude)), hills(latitude, longitude), rtol=1e-5)
    assert field.lattice.latitude[0] < 60 and field.lattice.longitude[0] > -12  # cut
    told = field.feature((latitude, longitude))
    assert abs(told.mean()) < 1e-3 and told.std() == pytest.approx(1.0, rel=1e-3)


def test_the_slope_is_that_of_what_interpolation_misses(tmp_path) -> None:
    statics = open_statics([write(tmp_path / "z.nc")], UK)
    coarse = UK.every(3)
    true = -0.0065 * statics[0].missed(UK.points, coarse)
    residual = true + np.random.default_rng(0).normal(0, 0.05, true.shape)
    residual[5] = np.nan
    fitted = with_slopes(statics, residual, UK, coarse)
    assert fitted[0].slope == pytest.approx(-0.0065, rel=0.02)
    np.testing.assert_allclose(lapse(fitted, UK.points, coarse), true, atol=0.05)
    at_coarse = lapse(fitted, coarse.points, coarse)
    np.testing.assert_allclose(at_coarse, 0.0, atol=1e-9)  # what is known there is kept


def test_it_round_trips_and_its_fingerprint_is_of_its_content(tmp_path) -> None:
    (field,) = open_statics([write(tmp_path / "z.nc")], UK)
    again = StaticField.from_json(field.to_json(), field.values)
    places = (np.array([51.3, 57.9]), np.array([-3.2, 1.7]))
    np.testing.assert_array_equal(again.at(places), field.at(places))
    assert again.fingerprint == field.fingerprint
    other = write(tmp_path / "other.nc", north=61.0)  # the same in the store's region
    assert open_statics([other], UK)[0].fingerprint == field.fingerprint
    moved = Lattice(latitude=UK.latitude, longitude=UK.longitude + 1.0)
    assert open_statics([other], moved)[0].fingerprint != field.fingerprint


def test_what_says_nothing_of_the_region_is_refused_in_a_sentence(tmp_path) -> None:
    with pytest.raises(ValueError, match="'z' of .* does not cover the store's region"):
        open_statics([write(tmp_path / "south.nc", north=55.0)], UK)
    with pytest.raises(ValueError, match="two static fields are named 'z'"):
        open_statics([write(tmp_path / "a.nc"), write(tmp_path / "b.nc")], UK)
    with xr.open_dataset(write(tmp_path / "whole.nc")) as whole:
        sea = whole["z"].where(whole["lat"] < 54)
        flat = xr.zeros_like(whole["z"])
        rows = whole["z"].isel(lon=0, drop=True)
    for field, said in (
        (sea, "has no value at .* fill them"),
        (flat, "the same everywhere"),
        (rows, "no static field"),
    ):
        path = tmp_path / f"{len(said)}.nc"
        field.to_dataset(name="z").to_netcdf(path)
        with pytest.raises(ValueError, match=said):
            open_statics([str(path)], UK)
