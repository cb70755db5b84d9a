"""Longitude has no seam and latitude either order; a cut is in one piece and says what it cannot hold."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.climate import open_source
from pipelines.data.grid import cut, exact_degrees, goes_round, latitude_axis, longitude_axis


def _roll(globe: xr.DataArray) -> xr.DataArray:
    """The same globe from -180 to 176."""
    return globe.assign_coords(longitude=(globe["longitude"] + 180) % 360 - 180).sortby("longitude")


@pytest.mark.parametrize("convention", ["0..360", "-180..180"])
@pytest.mark.parametrize(
    ("region", "longitudes"),
    [
        ((170, -60, -170, 60), np.arange(172, 189, 4)),
        ((170, -60, 190, 60), np.arange(172, 189, 4)),
        ((-10, -60, 10, 60), np.arange(-8, 9, 4)),
        ((350, -60, 10, 60), np.arange(-8, 9, 4)),
        ((350, -60, 370 - 360, 60), np.arange(-8, 9, 4)),
    ],
)
def test_a_region_across_a_seam_is_in_one_piece_in_either_convention(globe, convention, region, longitudes) -> None:
    source = globe if convention == "0..360" else _roll(globe)
    field = open_source(source, region=region)
    np.testing.assert_array_equal(field["longitude"].values, longitudes)
    assert field["latitude"].values[[0, -1]].tolist() == [58.0, -58.0]
    for longitude in longitudes:
        expected = globe.sel(longitude=longitude % 360, latitude=slice(60, -60)).values
        np.testing.assert_array_equal(field.sel(longitude=longitude).values, expected)


def test_a_globe_keeps_its_convention_and_loses_a_closing_meridian(globe: xr.DataArray) -> None:
    closed = xr.concat([globe, globe.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude")
    xr.testing.assert_equal(open_source(closed).compute(), globe)
    rolled = _roll(globe)
    xr.testing.assert_equal(open_source(rolled).compute(), rolled)
    xr.testing.assert_equal(open_source(globe, region=(-180, -90, 180, 90)).compute(), globe)


def test_axes_in_any_order_give_the_same_field(globe: xr.DataArray) -> None:
    assert open_source(globe.isel(latitude=slice(None, None, -1))).compute().equals(globe)
    assert open_source(globe.isel(longitude=slice(None, None, -1))).compute().equals(globe)
    assert open_source(globe.transpose("longitude", "time", "latitude")).compute().equals(globe)
    halves = globe.assign_coords(longitude=(globe["longitude"] + 180) % 360 - 180)
    assert open_source(halves).compute().equals(_roll(globe))


def test_a_region_that_comes_across_the_seam_is_unwrapped(globe: xr.DataArray) -> None:
    wrapped = globe.isel(longitude=[87, 88, 89, 0, 1, 2])
    assert wrapped["longitude"].values.tolist() == [348, 352, 356, 0, 4, 8]
    field = open_source(wrapped).compute()
    assert field["longitude"].values.tolist() == [-12, -8, -4, 0, 4, 8]
    np.testing.assert_array_equal(field.values, wrapped.values)


@given(
    st.integers(0, 359), st.integers(1, 359), st.sampled_from([0, -180]), st.integers(1, 12), st.sampled_from([-1, 1])
)
def test_a_cut_holds_exactly_the_meridians_inside(west: int, width: int, start: int, step: int, order: int) -> None:
    """Against brute force: each source meridian is in the cut if and only if it lies within the width east of west."""
    values = np.arange(start, start + 360, step)[::order]
    axis = longitude_axis(values, "lon")
    latitude = latitude_axis(np.array([1.0, 0.0]), "lat")
    inside = {int(value) % 360 for value in values if (value - west) % 360 <= width}
    if not inside:
        with pytest.raises(ValueError, match="holds no point"):
            cut(latitude, axis, (west, -5, (west + width) % 360, 5), "it")
        return
    _, found = cut(latitude, axis, (west, -5, (west + width) % 360, 5), "it")
    assert {int(value) % 360 for value in found.values_deg} == inside
    assert (np.diff(found.values_deg) > 0).all()
    np.testing.assert_array_equal(values[found.positions] % 360, found.values_deg % 360)


@given(st.integers(5, 40), st.sampled_from([-1, 1]), st.integers(1, 5), st.integers(0, 39))
def test_positions_become_at_most_two_slices_that_pick_the_same_points(size, order, step, seam) -> None:
    values = np.roll(np.linspace(0.0, 359.0, size, endpoint=False), seam)[::order]
    axis = longitude_axis(values, "lon").take(slice(None, None, step))
    runs = axis.runs()
    assert len(runs) <= 2 or step > 1
    np.testing.assert_allclose(np.concatenate([values[run] for run in runs]) % 360, axis.values_deg % 360)


def test_single_precision_coordinates_become_the_decimals_they_stand_for() -> None:
    single = np.arange(0, 3600, dtype=np.float32) / np.float32(10)
    np.testing.assert_array_equal(exact_degrees(single), np.round(np.arange(3600) / 10, 1))


def test_a_globe_that_is_offset_from_the_usual_meridians_is_kept() -> None:
    axis = longitude_axis(np.arange(20.5, 380.0), "lon")
    assert goes_round(axis.values_deg) and axis.values_deg.size == 360
