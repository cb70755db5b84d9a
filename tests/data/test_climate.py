"""Real ERA5 hours come out the same whatever archive they were fetched from."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray as xr

from pipelines.data.climate import apply_conventions, ingest, open_field, open_source


def test_the_real_grib_archive_is_read_in_full(uk_grib: Path, tmp_path: Path) -> None:
    beside = set(uk_grib.parent.iterdir())
    store = ingest(uk_grib, tmp_path / "uk")
    assert store.field.shape == (744, 33, 49)
    assert (store.units, store.domain, store.field.dtype) == ("K", "sphere", np.float32)
    assert store.field["latitude"].values[[0, -1]].tolist() == [58.0, 50.0]
    assert store.field["longitude"].values[[0, -1]].tolist() == [-10.0, 2.0]
    assert store.statistics.count == 744 * 33 * 49
    raw = xr.open_dataset(uk_grib, engine="cfgrib", backend_kwargs={"indexpath": ""})["t2m"].values
    np.testing.assert_array_equal(store.field.values, raw)
    assert set(uk_grib.parent.iterdir()) == beside, "an index was written beside the user's file"


def test_integer_hours_are_decoded_from_the_data_set_attribute(era5_sample: Path) -> None:
    field = open_source(era5_sample)
    hours = xr.open_zarr(era5_sample, chunks=None, consolidated=False)["time_index"].values
    expected = np.datetime64("1940-01-01", "h") + hours.astype("timedelta64[h]")
    np.testing.assert_array_equal(field["time"].values.astype("datetime64[h]"), expected)
    assert str(field["time"].values[0])[:13] == "2026-03-25T00"
    assert isinstance(field.data, dask.array.Array)
    assert field.shape == (24, 181, 360)


def test_every_nth_point_is_counted_from_the_north_west(globe: xr.DataArray) -> None:
    assert globe.shape == (24, 46, 90)
    assert globe["latitude"].values[[0, 1, -1]].tolist() == [90.0, 86.0, -90.0]


def test_the_new_climate_data_store_is_read(write_cds, uk: xr.DataArray) -> None:
    xr.testing.assert_equal(open_source(write_cds()).compute(), uk)


def test_the_old_climate_data_store_is_read_with_both_experiment_versions_merged(write_old_cds, uk) -> None:
    field = open_source(write_old_cds()).compute()
    assert not field.isnull().any()
    xr.testing.assert_allclose(field, uk, atol=5e-4 / 2 + 3e-5, rtol=0)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_a_climate_model_keeps_its_calendar(write_cmip6, tmp_path: Path, globe: xr.DataArray, calendar: str) -> None:
    source = write_cmip6(calendar)
    store = ingest(source, tmp_path / "cmip6", variable="tas")
    np.testing.assert_array_equal(store.field.values, globe.values)
    times = xr.open_zarr(tmp_path / "cmip6")["time"].values
    assert times[0].calendar == calendar and times[0].strftime("%Y-%m-%d") == "2001-02-27"
    assert store.license == "CC BY 4.0"
    march = open_source(source, variable="tas", time="2001-03")
    assert march.sizes["time"] == {"noleap": 22, "360_day": 20}[calendar]


@pytest.mark.parametrize("form", ["netcdf3", "netcdf4", "zarr2", "zarr3", "grib"])
def test_equal_content_has_an_equal_fingerprint_in_every_format(form, tmp_path, plain, uk, write_grib) -> None:
    path = tmp_path / f"source.{form}"
    match form:
        case "netcdf3":
            plain.to_netcdf(path, format="NETCDF3_CLASSIC", engine="scipy")
        case "netcdf4":
            plain.to_netcdf(path, engine="netcdf4", encoding={"t2m": {"chunksizes": (7, 5, 11), "zlib": True}})
        case "zarr2" | "zarr3":
            plain.chunk(time=5, latitude=10).to_zarr(path, zarr_format=int(form[-1]))
        case "grib":
            path = write_grib(uk, "source.grib")
    store = ingest(path, tmp_path / "store")
    xr.testing.assert_equal(store.field.compute(), uk)
    assert store.fingerprint == ingest(plain, tmp_path / "other").fingerprint


@pytest.mark.parametrize("ranges", [True, False])
def test_files_and_stores_are_read_over_http(serve, tmp_path: Path, plain, uk, ranges: bool) -> None:
    plain.to_netcdf(tmp_path / "four.nc", engine="h5netcdf")
    plain.to_netcdf(tmp_path / "three.nc", engine="scipy", format="NETCDF3_CLASSIC")
    plain.to_zarr(tmp_path / "store.zarr", zarr_format=3)
    with serve(tmp_path, ranges=ranges) as url:
        for name in ("four.nc", "three.nc", "store.zarr"):
            xr.testing.assert_equal(open_source(f"{url}/{name}").compute(), uk)
        with pytest.raises(FileNotFoundError, match="there is nothing at"):
            open_source(f"{url}/absent.nc")


def test_memory_urls_and_globs_of_them_are_read(tmp_path: Path, plain: xr.Dataset, uk: xr.DataArray) -> None:
    import fsspec

    plain.chunk(time=10).to_zarr("memory://climate/all.zarr")
    xr.testing.assert_equal(open_source("memory://climate/all.zarr").compute(), uk)
    for day in (0, 1):
        plain.isel(time=slice(24 * day, 24 * day + 24)).to_netcdf(tmp_path / "day.nc", engine="h5netcdf")
        fsspec.filesystem("memory").pipe(f"/climate/day{day}.nc", (tmp_path / "day.nc").read_bytes())
    xr.testing.assert_equal(open_source("memory://climate/day*.nc").compute(), uk)


def test_files_are_joined_in_the_order_of_time_whatever_their_names(tmp_path, plain, uk) -> None:
    for name, hours in {"a": slice(30, 48), "b": slice(0, 20), "c": slice(20, 30)}.items():
        plain.isel(time=hours).to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
    xr.testing.assert_equal(open_source(str(tmp_path / "*.nc")).compute(), uk)
    only = open_source(str(tmp_path / "*.nc"), time="2019-03-01T22:00:2019-03-02T01:00")
    xr.testing.assert_equal(only.compute(), uk.isel(time=slice(22, 26)))


def test_files_that_take_turns_in_time_are_interleaved(tmp_path, plain, uk) -> None:
    for start in (0, 1):
        plain.isel(time=slice(start, None, 2)).to_netcdf(tmp_path / f"{start}.nc", engine="netcdf4")
    xr.testing.assert_equal(open_source([tmp_path / "1.nc", tmp_path / "0.nc"]).compute(), uk)


def test_a_pressure_level_must_be_chosen(write_grib, uk: xr.DataArray) -> None:
    short = uk.isel(time=slice(2))
    path = write_grib(short, "levels.grib", {"level": 1000}, {"level": 850}, sample="regular_ll_pl_grib2")
    with pytest.raises(ValueError, match=r"'isobaricInhPa' of 2: choose one of 1000, 850 with --level"):
        open_source(path, variable="t")
    np.testing.assert_array_equal(open_source(path, variable="t", level=850).values, short.values)
    with pytest.raises(ValueError, match=r"isobaricInhPa 500 is not in the source: choose one of 1000, 850"):
        open_source(path, variable="t", level=500)


def test_an_ensemble_member_must_be_chosen_and_a_single_one_is_dropped(plain: xr.Dataset, uk) -> None:
    one = plain.expand_dims(number=[3])
    xr.testing.assert_equal(open_source(one).compute(), uk)
    many = xr.concat([one, one.assign_coords(number=[4]) + 1.0], "number", combine_attrs="override")
    with pytest.raises(ValueError, match=r"further dimension 'number' of 2: choose one of 3, 4"):
        open_source(many)
    xr.testing.assert_equal(open_source(many, level={"number": 3}).compute(), uk)


def test_a_forecast_is_dated_by_its_valid_time(write_grib, uk: xr.DataArray) -> None:
    path = write_grib(uk.isel(time=[0]), "run.grib", {"step": 6}, {"step": 12}, sample="regular_ll_sfc_grib2")
    field = open_source(path)
    assert [str(time)[:13] for time in field["time"].values] == ["2019-03-01T06", "2019-03-01T12"]


@pytest.mark.parametrize(("unit", "scale", "offset"), [("degrees_Celsius", 1, 273.15), ("degF", 5 / 9, 255.37222)])
def test_celsius_and_fahrenheit_become_kelvin(plain: xr.Dataset, uk, unit: str, scale: float, offset: float) -> None:
    warm = plain.astype(np.float64).assign(t2m=((plain["t2m"].astype(np.float64) - offset) / scale))
    stated = warm.assign(t2m=warm["t2m"].assign_attrs(units=unit))
    xr.testing.assert_allclose(open_source(stated).compute(), uk, atol=1e-4)
    xr.testing.assert_allclose(open_source(warm.drop_attrs(), units=unit).compute(), uk, atol=1e-4)


def test_gaps_are_unobserved_and_stay(plain: xr.Dataset) -> None:
    holes = plain.where((plain["longitude"] > -5) | (plain["time"] > plain["time"][5]))
    field = open_source(holes.assign(t2m=holes["t2m"].assign_attrs(units="K"))).compute()
    assert int(field.isnull().sum()) == 6 * 33 * 21


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of every piece of `t2m` that is read from NetCDF files."""
    from xarray.backends.netCDF4_ import NetCDF4ArrayWrapper

    shapes: list[tuple[int, ...]] = []
    original = NetCDF4ArrayWrapper._getitem

    def spy(self: NetCDF4ArrayWrapper, key: tuple) -> np.ndarray:
        assert self.variable_name != "t2m" or all(isinstance(part, slice | int) for part in key)
        values = original(self, key)
        shapes.extend([np.shape(values)] if self.variable_name == "t2m" else [])
        return values

    monkeypatch.setattr(NetCDF4ArrayWrapper, "_getitem", spy)
    return shapes


def test_only_what_is_wanted_is_read_and_only_when_it_is(tmp_path: Path, plain: xr.Dataset, reads: list) -> None:
    plain.to_netcdf(tmp_path / "source.nc", engine="netcdf4")
    field = open_source(tmp_path / "source.nc", region=(-4, 51, 0, 53), time="2019-03-02T00:2019-03-02T02")
    assert reads == []
    field.compute()
    assert reads == [(3, 9, 17)]


def test_a_region_across_the_seam_is_read_as_two_slices(tmp_path: Path, globe: xr.DataArray, reads: list) -> None:
    """Readers of compressed files decompress anew for every single position of a list."""
    globe.drop_attrs().assign_attrs(units="K").to_netcdf(tmp_path / "globe.nc", engine="netcdf4")
    open_source(tmp_path / "globe.nc", region=(-10, 50, 2, 60)).compute()
    assert sorted(reads) == [(24, 3, 1), (24, 3, 2)]


def test_without_cfgrib_the_message_says_what_to_install(uk_grib: Path, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cfgrib" else real(name, *rest)
    )
    with pytest.raises(ValueError, match=r"needs the package cfgrib: pip install 'vamoh\[grib\]'"):
        open_source(uk_grib)


def test_a_result_is_given_back_in_the_callers_conventions(globe: xr.DataArray) -> None:
    theirs = globe.isel(latitude=slice(None, None, -1)).roll(longitude=45, roll_coords=True)
    theirs = theirs.assign_coords(longitude=(theirs["longitude"] + 180) % 360 - 180)
    theirs = theirs.rename(time="valid_time", latitude="lat", longitude="lon").chunk()
    field = open_field(theirs)
    np.testing.assert_array_equal(field["longitude"].values, np.arange(-180, 180, 4))
    back = apply_conventions(field.drop_attrs().to_dataset(), field.attrs["conventions"])
    xr.testing.assert_equal(back[globe.name].compute(), theirs.compute())
    members = field.drop_attrs().to_dataset().expand_dims(realization=2)
    given = apply_conventions(members, field.attrs["conventions"])
    assert given["t2m"].dims == ("realization", "valid_time", "lat", "lon") and given["lat"].values[0] == -90


def test_a_global_result_is_resorted_into_the_callers_longitudes(globe: xr.DataArray) -> None:
    conventions = open_field(globe.assign_coords(longitude=globe["longitude"] - 180)).attrs["conventions"]
    given = apply_conventions(globe.to_dataset(), conventions)
    assert given["longitude"].values[[0, -1]].tolist() == [-180, 176]
    np.testing.assert_array_equal(given["t2m"].sel(longitude=-4).values, globe.sel(longitude=356).values)


def test_a_single_time_without_an_axis_comes_back_without_one(plain: xr.Dataset) -> None:
    one = plain["t2m"].isel(time=3)
    field = open_field(one)
    assert field.dims == ("time", "latitude", "longitude") and field.sizes["time"] == 1
    back = apply_conventions(field.drop_attrs().to_dataset(), field.attrs["conventions"])
    assert back["t2m"].dims == ("latitude", "longitude") and back["time"].values == one["time"].values
    timeless = open_field(one.drop_vars("time"), time="2019-03-01T03:00")
    assert timeless["time"].values[0] == one["time"].values
    back = apply_conventions(timeless.drop_attrs().to_dataset(), timeless.attrs["conventions"])
    assert "time" not in back.variables
    with pytest.raises(ValueError, match="has no time: say when it is for"):
        open_field(one.drop_vars("time"))


def test_a_list_of_points_is_given_back_in_the_callers_conventions(globe: xr.DataArray) -> None:
    conventions = open_field(globe.rename(latitude="lat", longitude="lon")).attrs["conventions"]
    points = xr.Dataset({"t2m": ("station", [280.0, 281.0])},
                        {"latitude": ("station", [51.0, 52.0]), "longitude": ("station", [-1.0, 2.0])})  # fmt: skip
    given = apply_conventions(points, conventions)
    assert given["lon"].values.tolist() == [359.0, 2.0] and given["t2m"].dims == ("station",)


def test_a_store_is_itself_a_source(plain: xr.Dataset, tmp_path: Path) -> None:
    whole = ingest(plain, tmp_path / "whole")
    again = ingest(tmp_path / "whole", tmp_path / "again")
    assert again.fingerprint == whole.fingerprint and "whole" in again.source


def test_large_sources_are_ingested_in_bounded_memory(tmp_path: Path, plain: xr.Dataset) -> None:
    """Reads a third of a gigabyte of real hours, repeated, within 220 MB beyond what the imports take."""
    code = """
import resource, sys
import numpy as np, dask.array as da, xarray as xr
from pipelines.data.climate import ingest
small = xr.open_dataset(sys.argv[1])["t2m"]
tile = np.tile(small.values[:24], (1, 5, 4))
data = da.concatenate([da.from_delayed(__import__("dask").delayed(np.copy)(tile), tile.shape, np.float32)] * 110)
lat, lon = np.linspace(60, 50, tile.shape[1]), np.linspace(-10, 10, tile.shape[2])
time = np.datetime64("2000-01-01", "ns") + np.arange(len(data)) * np.timedelta64(1, "h")
big = xr.DataArray(data, dims=("time", "lat", "lon"), coords={"time": time, "lat": lat, "lon": lon}, name="t2m",
                   attrs={"units": "K"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = ingest(big, sys.argv[2])
assert store.statistics.count == big.size
print(big.nbytes / 2**20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""
    plain.to_netcdf(tmp_path / "small.nc", engine="netcdf4")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "small.nc"), str(tmp_path / "big")]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    size_mb, grown_mb = map(float, done.stdout.split())
    assert size_mb > 300 and grown_mb < 220, (size_mb, grown_mb)


def test_importing_the_data_layer_needs_no_grib_reader() -> None:
    code = "import sys, pipelines.data.climate; assert not {'cfgrib', 'torch', 'ray'} & set(sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
