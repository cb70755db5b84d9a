"""What is no temperature field is refused in one sentence that says what to do, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.climate import ingest, open_source


def _units(units: str | None) -> Callable[[xr.Dataset], xr.Dataset]:
    attributes = {} if units is None else {"units": units}
    return lambda data: data.assign(t2m=data["t2m"].drop_attrs().assign_attrs(attributes))


def _curvilinear(data: xr.Dataset) -> xr.Dataset:
    lat, lon = xr.broadcast(data["latitude"], data["longitude"])
    flat = data.rename(latitude="y", longitude="x").drop_vars(["y", "x"])
    return flat.assign_coords(lat=(("y", "x"), lat.values), lon=(("y", "x"), lon.values))


def _points(data: xr.Dataset) -> xr.Dataset:
    return data.stack(cell=("latitude", "longitude")).reset_index("cell")


def _level(data: xr.Dataset) -> xr.Dataset:
    return data.expand_dims(level=[850, 1000]).copy()


def _at(data: xr.Dataset, position: int, axis: str, value: object) -> xr.Dataset:
    values = data[axis].values.copy()
    values[position] = value
    return data.assign_coords({axis: values})


REFUSED: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], dict, str]] = {
    "variable": (lambda d: d.rename(t2m="tas"), {}, r"has no variable 't2m': it holds tas; choose one with --variable"),
    "choice": (lambda d: d.assign(skt=d["t2m"]), {"variable": None}, r"holds t2m, skt: choose one with --variable"),
    "no units": (_units(None), {}, r"'t2m' has no units: say which they are \(--units K"),
    "pascal": (_units("Pa"), {}, r"'t2m' is in 'Pa', which is not a temperature"),
    "bad units": (lambda d: d, {"units": "bananas"}, r"units 'bananas' is not a temperature"),
    "celsius": (lambda d: _units("K")(d - 273.15), {}, r"cannot be temperatures in K .* they look like degC"),
    "kelvin": (_units("degC"), {}, r"they look like K: say --units K"),
    "fill value": (lambda d: _units("K")(d.where(d > 281, -9999)), {}, r"-9999 .* must be declared as _FillValue"),
    "1-D": (
        lambda d: d.mean(["latitude", "longitude"], keep_attrs=True),
        {},
        r"dimensions \(time 48\) has no latitude",
    ),
    "5-D": (lambda d: _level(d).expand_dims(number=[0, 1]), {}, r"a further dimension '(level|number)' of 2: choose"),
    "5-D, one level": (lambda d: _level(d).expand_dims(number=[0, 1]), {"level": 850}, r"several further dimensions"),
    "level": (lambda d: d, {"level": 850}, r"level 850 was asked for, but variable 't2m' has only"),
    "curvilinear": (_curvilinear, {}, r"curvilinear grid \('lat' is 2-D\).*regrid it first"),
    "points": (_points, {}, r"list of points \('cell'\)"),
    "latitude 91": (lambda d: _at(d, 0, "latitude", 91.0), {}, r"latitudes 'latitude' run from 50 to 91"),
    "latitude -91": (lambda d: _at(d, -1, "latitude", -91.0), {}, r"latitudes 'latitude' run from -91 to 57.75|58"),
    "latitude order": (lambda d: _at(d, 3, "latitude", 50.1), {}, r"axis 'latitude' is not monotonic"),
    "latitude twice": (lambda d: _at(d, 3, "latitude", 57.5), {}, r"axis 'latitude' has 57.5 twice"),
    "latitude NaN": (lambda d: _at(d, 3, "latitude", np.nan), {}, r"axis 'latitude' has a missing value at position 3"),
    "longitude twice": (lambda d: _at(d, 3, "longitude", -9.5), {}, r"axis 'longitude' has -9.5 twice"),
    "longitude order": (lambda d: _at(d, 20, "longitude", 50.0), {}, r"axis 'longitude' is not monotonic"),
    "longitude metres": (lambda d: d.assign_coords(longitude=d["longitude"] * 1e5), {}, r"expected degrees east"),
    "time twice": (lambda d: _at(d, 1, "time", d["time"].values[0]), {}, r"the time 2019-03-01T00:00 twice"),
    "time order": (lambda d: d.isel(time=[0, 2, 1]), {}, r"not sorted by time: 2019-03-01T01:00 comes after .*02:00"),
    "time NaT": (lambda d: _at(d, 5, "time", np.datetime64("NaT")), {}, r"missing time \(NaT\) at position 5"),
    "time numbers": (lambda d: d.assign_coords(time=np.arange(48)), {}, r"'time' holds int64 values and no units"),
    "no time": (lambda d: d.isel(time=0, drop=True), {}, r"has no time: say when it is for"),
    "no fields": (lambda d: d.isel(time=slice(0)), {}, r"the time axis 'time' is empty|of variable 't2m' is empty"),
    "empty field": (lambda d: _units("K")(d.where(d["time"] != d["time"][7])), {}, r"no value at all at 2019-03-01T07"),
    "empty time": (lambda d: d, {"time": "2020"}, r"covers 2019-03-01T00:00 to 2019-03-02T23:00"),
    "no span": (lambda d: d, {"time": "yesterday"}, r"time 'yesterday' is not a span"),
    "no such day": (lambda d: d, {"time": "2019-02-30:2019-03-01"}, r"names a date that the calendar"),
    "backwards": (lambda d: d, {"time": "2019-03-02:2019-03-01"}, r"runs backwards"),
    "empty region": (lambda d: d, {"region": (20, 50, 30, 55)}, r"which covers longitude -10 to 2, latitude 50 to 58"),
    "split region": (lambda d: d, {"region": (1, 50, -8, 58)}, r"cuts the given data set in two"),
    "no region": (lambda d: d, {"region": (0, 58, 10, 50)}, r"-90 <= S < N <= 90"),
    "every 0": (lambda d: d, {"every": 0}, r"every 0: expected 1 \(all points\) or more"),
    "every 40": (lambda d: d, {"every": 40}, r"every 40 leaves 1 x 2 of 33 x 49 points"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence_and_leaves_nothing(case: str, plain: xr.Dataset, tmp_path: Path) -> None:
    change, arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refusal:
        ingest(change(plain), tmp_path / "store", **arguments)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert list(tmp_path.iterdir()) == []


def test_files_that_overlap_in_time_are_refused_by_the_time_and_both_names(plain, tmp_path: Path) -> None:
    plain.isel(time=slice(0, 30)).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    plain.isel(time=slice(29, 48)).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with pytest.raises(ValueError, match=r"the time 2019-03-02T05:00 is in both .*a\.nc and .*b\.nc"):
        open_source(str(tmp_path / "*.nc"))


def test_files_on_different_grids_are_refused(plain, tmp_path: Path) -> None:
    plain.isel(time=slice(0, 20)).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    plain.isel(time=slice(20, 48), latitude=slice(1, None)).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with pytest.raises(ValueError, match=r"b\.nc has another latitude than .*a\.nc"):
        open_source(str(tmp_path / "*.nc"))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder '.*absent\.nc'"):
        open_source(tmp_path / "absent.nc")
    with pytest.raises(FileNotFoundError, match=r"no file fits the glob"):
        open_source(str(tmp_path / "*.nc"))
    with pytest.raises(ValueError, match=r"a folder without Zarr metadata"):
        open_source(tmp_path)


def test_what_is_no_climate_file_is_named(tmp_path: Path) -> None:
    contents = {"text.nc": (b"hello", "neither NetCDF, GRIB nor Zarr"), "empty.nc": (b"", "is empty"),
                "cds.zip": (b"PK\x03\x04 and more", "a zip archive: unpack it")}  # fmt: skip
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / name)


@pytest.mark.parametrize("engine", ["netcdf4", "grib"])
def test_a_damaged_file_is_named(engine: str, plain: xr.Dataset, uk_grib: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.nc"
    plain.to_netcdf(whole, engine="netcdf4")
    content = (uk_grib if engine == "grib" else whole).read_bytes()
    (tmp_path / "cut").write_bytes(content[: 1_000_001 if engine == "grib" else len(content) // 2])
    with pytest.raises(ValueError, match=r"cut' cannot be read"):
        open_source(tmp_path / "cut")


def test_damage_that_shows_only_when_values_are_read_leaves_nothing(plain: xr.Dataset, tmp_path: Path) -> None:
    source = tmp_path / "source.nc"
    plain.to_netcdf(source, engine="netcdf4", encoding={"t2m": {"zlib": True, "chunksizes": (10, 33, 49)}})
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    source.write_bytes(content)
    with pytest.raises(OSError, match=r"the source is damaged between time 0 and 48"):
        ingest(source, tmp_path / "store")
    assert list(tmp_path.iterdir()) == [source]


def test_a_protocol_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'nonsense://bucket/a.nc'.*Protocol not known"):
        open_source("nonsense://bucket/a.nc")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(OSError, match=r"'http://127.0.0.1:9/a.nc'"):
        open_source("http://127.0.0.1:9/a.nc")
