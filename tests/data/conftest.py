"""The same real hours of ERA5, written the ways that archives deliver them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import xarray as xr

from pipelines.data.climate import open_source

Server = Callable[..., object]


@pytest.fixture(scope="session")
def uk(uk_grib: Path) -> xr.DataArray:
    """Two days over the United Kingdom, canonical, in memory."""
    return open_source(uk_grib, time="2019-03-01:2019-03-02").compute()


@pytest.fixture(scope="session")
def globe(era5_sample: Path) -> xr.DataArray:
    """Twenty-four fields of the globe at 4 degrees, canonical, in memory."""
    return open_source(era5_sample, every=4).compute()


@pytest.fixture(scope="session")
def plain(uk: xr.DataArray) -> xr.Dataset:
    """The two days as a data set that a user might have, with nothing but names and units."""
    return xr.Dataset({"t2m": (uk.dims, uk.values, {"units": "K"})}, {dim: uk[dim].values for dim in uk.dims})


@pytest.fixture
def write_cds(tmp_path: Path, plain: xr.Dataset) -> Callable[[], Path]:
    """The Climate Data Store since 2024: valid_time, expver as text along it, a scalar number."""

    def write() -> Path:
        dataset = plain.rename(time="valid_time").assign_coords(
            number=0, expver=("valid_time", np.array(["0001"] * plain.sizes["time"], dtype=object))
        )
        dataset["t2m"].attrs |= {"standard_name": "unknown", "long_name": "2 metre temperature", "GRIB_paramId": 167}
        encoding = {"valid_time": {"units": "seconds since 1970-01-01", "dtype": "int64"}, "t2m": {"zlib": True}}
        dataset.to_netcdf(tmp_path / "cds.nc", engine="h5netcdf", encoding=encoding)
        return tmp_path / "cds.nc"

    return write


@pytest.fixture
def write_old_cds(tmp_path: Path, plain: xr.Dataset) -> Callable[[], Path]:
    """The Climate Data Store before: packed int16 in NetCDF 3, float32 axes, expver 1 then 5 as a dimension."""

    def write() -> Path:
        final = plain["t2m"].where(plain["time"] < plain["time"][40])
        early = plain["t2m"].where(plain["time"] >= plain["time"][40])
        dataset = xr.concat([final, early], dim=xr.Variable("expver", np.array([1, 5], np.int32))).to_dataset()
        dataset = dataset.transpose("time", "expver", "latitude", "longitude")
        dataset = dataset.assign_coords({axis: dataset[axis].astype(np.float32) for axis in ("latitude", "longitude")})
        encoding = {
            "t2m": {"dtype": "int16", "scale_factor": 5e-4, "add_offset": 280.0, "_FillValue": np.int16(-32767)},
            "time": {"units": "hours since 1900-01-01 00:00:00.0", "dtype": "int32", "calendar": "gregorian"},
        }
        dataset.to_netcdf(tmp_path / "old.nc", format="NETCDF3_64BIT", engine="netcdf4", encoding=encoding)
        return tmp_path / "old.nc"

    return write


@pytest.fixture
def write_cmip6(tmp_path: Path, globe: xr.DataArray) -> Callable[[str], Path]:
    """A CMIP6 model: tas on south-to-north latitudes, its own calendar, bounds, a scalar height."""

    def write(calendar: str) -> Path:
        south_first = globe.isel(latitude=slice(None, None, -1))
        days = xr.date_range("2001-02-27", periods=24, freq="D", calendar=calendar, use_cftime=True)
        lat, lon = south_first["latitude"].values, south_first["longitude"].values
        tas_attributes = {"units": "K", "standard_name": "air_temperature", "cell_measures": "area: areacella"}
        dataset = xr.Dataset(
            {
                "tas": (("time", "lat", "lon"), south_first.values, tas_attributes),
                "time_bnds": (("time", "bnds"), np.stack([days.values, days.values], axis=1)),
                "lat_bnds": (("lat", "bnds"), np.stack([lat - 2, lat + 2], axis=1)),
                "lon_bnds": (("lon", "bnds"), np.stack([lon - 2, lon + 2], axis=1)),
            },
            {
                "time": ("time", days.values, {"bounds": "time_bnds", "axis": "T", "standard_name": "time"}),
                "lat": ("lat", lat, {"units": "degrees_north", "axis": "Y", "bounds": "lat_bnds"}),
                "lon": ("lon", lon, {"units": "degrees_east", "axis": "X", "bounds": "lon_bnds"}),
                "height": ((), 2.0, {"units": "m", "axis": "Z", "positive": "up"}),
            },
            {"Conventions": "CF-1.7", "source_id": "a model", "license": "CC BY 4.0"},
        )
        encoding = {
            "tas": {"_FillValue": np.float32(1e20), "zlib": True, "chunksizes": (1, lat.size, lon.size)},
            "time": {"units": "days since 1850-01-01", "dtype": "float64"},
            "time_bnds": {"units": "days since 1850-01-01", "dtype": "float64", "_FillValue": None},
        }
        dataset.to_netcdf(tmp_path / f"tas_{calendar}.nc", engine="netcdf4", encoding=encoding)
        return tmp_path / f"tas_{calendar}.nc"

    return write


@pytest.fixture
def write_grib(tmp_path: Path) -> Callable[..., Path]:
    """GRIB messages, one a field, in IEEE packing; `keys` go into each (level, perturbationNumber, step, ...)."""
    eccodes = pytest.importorskip("eccodes", reason="the package eccodes, which writes GRIB, is not installed")

    def write(field: xr.DataArray, name: str, *keys: dict[str, int], sample: str = "regular_ll_sfc_grib1") -> Path:
        latitude, longitude = field["latitude"].values, field["longitude"].values
        with open(tmp_path / name, "wb") as file:
            for time in field["time"].values:
                for more in keys or ({},):
                    message = eccodes.codes_grib_new_from_samples(sample)
                    stamp = str(time.astype("datetime64[m]"))
                    described = {
                        "Ni": longitude.size, "Nj": latitude.size,
                        "latitudeOfFirstGridPointInDegrees": latitude[0],
                        "latitudeOfLastGridPointInDegrees": latitude[-1],
                        "longitudeOfFirstGridPointInDegrees": longitude[0] % 360,
                        "longitudeOfLastGridPointInDegrees": longitude[-1] % 360,
                        "iDirectionIncrementInDegrees": longitude[1] - longitude[0],
                        "jDirectionIncrementInDegrees": latitude[0] - latitude[1],
                        "dataDate": int(stamp[:10].replace("-", "")), "dataTime": int(stamp[11:].replace(":", "")),
                        "shortName": "t" if "pl" in sample else "2t", "packingType": "grid_ieee", **more,
                    }  # fmt: skip
                    for key, value in described.items():
                        eccodes.codes_set(message, key, value)
                    eccodes.codes_set_values(message, field.sel(time=time).values.astype(np.float64).ravel())
                    eccodes.codes_write(message, file)
                    eccodes.codes_release(message)
        return tmp_path / name

    return write


class _Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do; Python's own handler serves only whole ones."""

    def do_GET(self) -> None:  # noqa: N802 - the base class' name
        path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range")
        if wanted is None or not path.is_file():
            return super().do_GET()
        first, last = wanted.removeprefix("bytes=").split("-")
        body = path.read_bytes()[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Quiet(SimpleHTTPRequestHandler):
    """Serves whole files only."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Callable[..., object]:
    """A real HTTP server over a folder, with or without ranges: `with serve(folder) as url`."""

    @contextmanager
    def start(folder: Path, *, ranges: bool = True) -> Iterator[str]:
        handler = partial(_Ranges if ranges else _Quiet, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    return start
