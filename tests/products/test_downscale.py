"""A member is one function of place and time, asked anywhere, lazily, in the caller's own conventions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.data.sphere import Lattice
from pipelines.products import tiles
from pipelines.products.downscale import downscale
from pipelines.products.ensemble import Downscaler, draw_member

CLOSE = {"rtol": 0.0, "atol": 1e-4}  # kelvin


def members(coarse: xr.DataArray, teller: Downscaler, **request: object) -> xr.DataArray:
    """The values, computed; two members unless told."""
    return downscale(coarse, teller, **({"members": 2} | request))["t2m"].compute()


def station_list(path: Path, latitude: np.ndarray, longitude: np.ndarray) -> Path:
    path.write_text("latitude,longitude\n" + "".join(f"{a},{b}\n" for a, b in zip(latitude, longitude, strict=True)))
    return path


# --- a function, not a grid ------------------------------------------------------------------------------------------


def test_two_grids_agree_where_they_share_places(coarse, teller, whole) -> None:
    finer = members(coarse, teller, resolution=2)
    assert finer.shape == (2, 3, 91, 180)
    shared = finer.sel(latitude=whole["latitude"], longitude=whole["longitude"])
    np.testing.assert_allclose(shared, whole, **CLOSE)


def test_a_list_of_points_agrees_with_the_grid(coarse, teller, whole, tmp_path) -> None:
    latitude, longitude = np.meshgrid(whole["latitude"], whole["longitude"], indexing="ij")
    where = station_list(tmp_path / "places.csv", latitude.ravel()[::7], longitude.ravel()[::7])
    listed = members(coarse, teller, points=where)
    assert listed.dims == ("realization", "time", "station")
    np.testing.assert_allclose(listed, whole.values.reshape(2, 3, -1)[..., ::7], **CLOSE)


def test_tiles_and_blocks_of_any_size_agree_with_one_piece(coarse, teller, whole, monkeypatch) -> None:
    monkeypatch.setattr(tiles, "TILE_POINTS", 500)
    monkeypatch.setattr(tiles, "BLOCK_TIMES", 2)
    tiled = downscale(coarse, teller, factor=3, members=2)
    assert tiled["t2m"].chunks == ((2,), (2, 1), (23, 23), (18,) * 5)
    np.testing.assert_allclose(tiled["t2m"], whole, **CLOSE)
    assert tiled["component"].shape == (3, 46, 90)


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2, "latitude": 5, "longitude": 7}])
def test_the_chunks_of_the_input_do_not_matter(coarse, teller, whole, chunks) -> None:
    np.testing.assert_allclose(members(coarse.chunk(chunks), teller, factor=3), whole, **CLOSE)


def test_one_time_alone_equals_the_same_time_among_many(coarse, teller, whole) -> None:
    alone = members(coarse[1:2], teller, factor=3)
    np.testing.assert_allclose(alone, whole[:, 1:2], **CLOSE)


def test_a_region_is_the_cut_of_the_whole(coarse, teller, whole) -> None:
    part = members(coarse, teller, factor=3, region=(-20, 30, 40, 70))
    assert part["longitude"].values.tolist() == list(range(-20, 41, 4))
    assert part["latitude"].values.tolist() == list(range(70, 29, -4))
    cut = whole.sel(latitude=part["latitude"], longitude=part["longitude"] % 360)
    np.testing.assert_allclose(part, cut, **CLOSE)


def test_the_grid_of_another_file_is_reproduced(coarse, teller, whole, truth, tmp_path) -> None:
    like = truth[0, 5:20, 3:30].drop_vars("time").rename("anything")
    like.to_netcdf(tmp_path / "like.nc", engine="h5netcdf")
    for source in (like, tmp_path / "like.nc"):
        on_it = members(coarse, teller, like=source)
        np.testing.assert_array_equal(on_it["latitude"], like["latitude"])
        np.testing.assert_array_equal(on_it["longitude"], like["longitude"])
        np.testing.assert_allclose(on_it, whole[:, :, 5:20, 3:30], **CLOSE)


def test_a_fine_region_comes_out_at_a_tenth_of_a_degree(coarse, teller) -> None:
    part = members(coarse, teller, resolution=0.1, region=(-5, 50, -1, 53), members=1)
    assert part.shape == (1, 3, 31, 41)
    np.testing.assert_allclose(np.diff(part["longitude"]), 0.1)


# --- members -----------------------------------------------------------------------------------------------------


def test_seeds_reproduce_and_different_seeds_differ(coarse, teller, whole) -> None:
    np.testing.assert_array_equal(members(coarse, teller, factor=3), whole)
    other = members(coarse, teller, factor=3, seed=1)
    assert np.abs(other - whole).mean() > 0.05


def test_a_member_does_not_depend_on_how_many_are_asked_for(coarse, teller, whole) -> None:
    more = members(coarse, teller, factor=3, members=5)
    assert more["realization"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(more[:2], whole, **CLOSE)
    assert np.abs(more[2] - more[0]).mean() > 0.05


def test_members_come_in_mirrored_pairs(teller) -> None:
    first, second, third = (draw_member(7, number, 4) for number in range(3))
    np.testing.assert_array_equal(first.noise, -second.noise)
    assert first.field == (second.field[0], -second.field[1])
    assert first.field[0] != third.field[0]
    coords, times = np.eye(3, dtype=np.float32), np.array([0.0, 5.0])
    fields = teller.law.sample(*map(torch.from_numpy, (coords, times)), [first.field, second.field])
    np.testing.assert_array_equal(fields[0], -fields[1])


# --- the sphere --------------------------------------------------------------------------------------------------


def test_longitude_has_no_seam(coarse, teller, whole) -> None:
    """0..360 and -180..180, cut anywhere, are the same places and give the same values."""
    west = coarse.assign_coords(longitude=(coarse["longitude"] + 180) % 360 - 180).sortby("longitude")
    from_west = members(west, teller, factor=3)
    assert from_west["longitude"].min() < 0
    placed = from_west.assign_coords(longitude=from_west["longitude"] % 360).sortby("longitude")
    np.testing.assert_array_equal(placed["longitude"], whole["longitude"])
    np.testing.assert_allclose(placed, whole, **CLOSE)


def test_a_place_is_the_same_one_in_every_way_of_writing_its_longitude(coarse, teller, tmp_path) -> None:
    latitude = np.repeat([51.3, -17.2], 4)
    longitude = np.tile([0.0, 360.0, -360.0, 0.0], 2) + np.repeat([0.0, -0.3], 4)
    listed = members(coarse, teller, points=station_list(tmp_path / "places.csv", latitude, longitude.clip(-360, 360)))
    np.testing.assert_allclose(listed[..., 1:2], listed[..., :1], **CLOSE)
    np.testing.assert_allclose(listed[..., 2], listed[..., 0], **CLOSE)
    np.testing.assert_allclose(listed[..., 5], listed[..., 4], **CLOSE)


@pytest.mark.parametrize("latitude", [62.1, -3.7])
def test_a_transect_across_the_seam_has_no_jump(coarse, teller, tmp_path, latitude) -> None:
    longitude = np.arange(-6.0, 6.0, 0.01)
    line = members(coarse, teller, points=station_list(tmp_path / "line.csv", np.full(1200, latitude), longitude))
    steps = np.abs(np.diff(line.values, axis=-1))
    across = steps[..., 595:605].max(axis=-1)
    assert (across <= 3 * np.quantile(steps, 0.99, axis=-1) + 1e-3).all()
    assert steps.max() < 0.3


def test_a_transect_across_the_pole_has_no_jump(coarse, teller, tmp_path) -> None:
    up = np.arange(84.0, 90.0, 0.01)
    latitude = np.concatenate([up, [90.0], up[::-1]])
    longitude = np.concatenate([np.full(600, 30.0), [123.0], np.full(600, 210.0)])
    line = members(coarse, teller, points=station_list(tmp_path / "line.csv", latitude, longitude))
    steps = np.abs(np.diff(line.values, axis=-1))
    assert (steps[..., 598:602].max(axis=-1) <= 3 * np.quantile(steps, 0.99, axis=-1) + 1e-3).all()
    assert steps.max() < 0.3


def test_each_pole_is_one_place_with_one_value(whole) -> None:
    for row in (0, -1):
        polar = whole[:, :, row].values
        np.testing.assert_allclose(polar, polar[..., :1].repeat(90, axis=-1), **CLOSE)


def test_factor_keeps_the_coarse_points(coarse, teller) -> None:
    """The coarse points are among the fine ones; what the model says there is its own."""
    fine = members(coarse, teller, factor=2)
    assert fine.shape == (2, 3, 31, 60)
    np.testing.assert_array_equal(fine["latitude"][::2], coarse["latitude"])
    np.testing.assert_array_equal(fine["longitude"][::2], coarse["longitude"])


# --- the caller's conventions ----------------------------------------------------------------------------------------


def test_the_callers_conventions_come_back(coarse, teller, whole) -> None:
    own = coarse.assign_coords(longitude=(coarse["longitude"] + 180) % 360 - 180).sortby("longitude")
    own = own.isel(latitude=slice(None, None, -1))
    own = own.rename(time="valid_time", latitude="lat", longitude="lon")
    result = downscale(own, teller, factor=3, members=2)
    assert result["t2m"].dims == ("realization", "valid_time", "lat", "lon")
    assert result["lat"][0] == -90 and result["lon"].min() < 0 and bool((result["lon"].diff("lon") > 0).all())
    back = result["t2m"].isel(lat=slice(None, None, -1))
    back = back.assign_coords(lon=back["lon"] % 360).sortby("lon")
    np.testing.assert_allclose(back, whole, **CLOSE)


def test_a_field_without_a_time_axis_gives_one_back(coarse, teller, whole) -> None:
    single = downscale(coarse[1], teller, factor=3, members=2)
    assert single["t2m"].dims == ("realization", "latitude", "longitude")
    assert single["time"].values == coarse["time"].values[1]
    np.testing.assert_allclose(single["t2m"], whole[:, 1], **CLOSE)


def test_the_result_describes_itself_by_the_cf_conventions(coarse, teller) -> None:
    result = downscale(coarse, teller, factor=1, members=1, seed=5)
    assert result.attrs["Conventions"] == "CF-1.11"
    assert result.attrs["seed"] == 5 and result.attrs["warnings"] == ""
    assert result.attrs["model_data_fingerprint"] == teller.checkpoint.plan.fingerprint
    assert result["t2m"].attrs["standard_name"] == "air_temperature" and result["t2m"].attrs["units"] == "K"
    assert result["realization"].attrs["standard_name"] == "realization"
    assert result["latitude"].attrs["units"] == "degrees_north"
    assert result["longitude"].attrs["units"] == "degrees_east"
    assert result["time"].attrs["standard_name"] == "time"
    assert result["t2m"].dtype == np.float32 and result["component"].dtype == np.int8


def test_kelvin_come_out_of_a_field_in_celsius(coarse, teller, whole) -> None:
    celsius = (coarse - 273.15).assign_attrs(units="degC")
    np.testing.assert_allclose(members(celsius, teller, factor=3), whole, rtol=0, atol=2e-3)


# --- gaps, and what is refused ---------------------------------------------------------------------------------------


def test_gaps_in_the_input_leave_no_gap_in_the_output(coarse, teller, whole) -> None:
    coarse[0, 3:6, 4:9] = np.nan
    coarse[1, 0] = np.nan
    holed = members(coarse, teller, factor=3)
    assert np.isfinite(holed).all()
    np.testing.assert_allclose(holed[:, 2], whole[:, 2], **CLOSE)


def test_a_field_without_any_value_is_refused_by_its_time(coarse, teller) -> None:
    coarse[1] = np.nan
    with pytest.raises(ValueError, match=str(coarse["time"].values[1])[:13]):
        members(coarse, teller, factor=3)


def test_places_outside_the_input_are_refused(coarse, teller, tmp_path) -> None:
    region = coarse.sel(latitude=slice(66, 18), longitude=slice(24, 96))
    with pytest.raises(ValueError, match="the target reaches latitude"):
        downscale(region, teller, points=station_list(tmp_path / "south.csv", np.array([-40.0]), np.array([30.0])))
    with pytest.raises(ValueError, match="the target reaches longitude"):
        downscale(region, teller, points=station_list(tmp_path / "west.csv", np.array([40.0]), np.array([-60.0])))


def test_exactly_one_target_and_at_least_one_member_are_asked_for(coarse, teller) -> None:
    with pytest.raises(ValueError, match="exactly one of factor, resolution, like and points, got none"):
        downscale(coarse, teller)
    with pytest.raises(ValueError, match="got factor, resolution"):
        downscale(coarse, teller, factor=2, resolution=1)
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        downscale(coarse, teller, factor=2, members=0)


def test_a_classic_model_is_refused(classic) -> None:
    with pytest.raises(ValueError, match="classic model"):
        Downscaler.of(str(classic.checkpoint))


def test_beyond_the_training_region_a_warning_is_given_and_kept(coarse, teller) -> None:
    region = teller.checkpoint.plan.lattice
    part = Lattice(latitude=region.latitude[5:20], longitude=region.longitude[3:30])
    plan = replace(teller.checkpoint.plan, geometry=part)
    local = Downscaler(checkpoint=replace(teller.checkpoint, plan=plan), model=teller.model, origin=teller.origin)
    with pytest.warns(UserWarning, match="outside the region that the model was trained on"):
        result = downscale(coarse, local, factor=1, members=1)
    assert "trained on" in result.attrs["warnings"]
    assert downscale(coarse, local, factor=1, members=1, region=(20, 30, 90, 60)).attrs["warnings"] == ""
