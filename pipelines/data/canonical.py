"""One data set to the canonical form: (time, latitude, longitude), float32 kelvin, lazy, and checked when read.

Only coordinates are read here. Positions are worked out first and the array is cut by them before it becomes Dask, so
that of a large archive only the wanted part is ever touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data import axes, grid, times
from pipelines.data.chunks import plan_chunks
from pipelines.data.conventions import Conventions, longitude_range
from pipelines.data.sources import no_variable
from pipelines.data.units import Unit, check_plausible, resolve_unit, temperature_unit, to_kelvin

# What ECMWF and CMIP call the air's temperature; GRIB readers leave its standard name unknown.
_AIR_TEMPERATURES = ("t2m", "2t", "tas", "t", "ta")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of a source; the fields are the arguments of `climate.open_source`."""

    variable: str | None
    time: str | None = None
    region: grid.Region | None = None
    level: axes.Level = None
    units: str | None = None
    every: int = 1

    def check(self) -> None:
        """Refuse what can be refused before anything is opened.

        Raises:
            ValueError: if a region, a span of time or `every` makes no sense.
        """
        if self.every < 1:
            raise ValueError(f"every {self.every}: expected 1 (all points) or more")
        if self.region is not None:
            grid.check_region(self.region)
        if self.time is not None:
            times.check_span(self.time)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file's share of a field.

    Attributes:
        name: the file, for messages.
        field: canonical; empty along time where the wanted span has none of this file.
        times: (T,) every time that the file has.
        conventions: how the file writes fields.
        attributes: the file's own, global ones.
    """

    name: str
    field: xr.DataArray
    times: NDArray[Any]
    conventions: Conventions
    attributes: Mapping[Any, Any]


def canonical_part(name: str, dataset: xr.Dataset, request: Request) -> Part:
    """Bring one data set into canonical form.

    Args:
        name: the file, for messages.
        dataset: as it was opened.
        request: what is wanted of it.

    Raises:
        ValueError: if its axes, units or times are refused, or the region holds none of it.
    """
    field = dataset[_choose_variable(name, dataset, request.variable)]
    horizontal = axes.horizontal_axes(field)
    unit = resolve_unit(str(field.name), field.attrs.get("units"), request.units)
    field = axes.one_run(field)
    time = _with_stamp(axes.time_axis(field, dataset.attrs), str(field.name), request)
    lat_dim, lon_dim = (str(field[axis].dims[0]) for axis in (horizontal.latitude, horizontal.longitude))
    keep = tuple(dim for dim in (time.dim, lat_dim, lon_dim) if dim is not None)
    field = axes.choose_levels(axes.drop_single(field, keep), keep, request.level)
    times.check_increasing(time.values, name)
    latitude = grid.latitude_axis(field[horizontal.latitude].values, horizontal.latitude)
    longitude = grid.longitude_axis(field[horizontal.longitude].values, horizontal.longitude)
    conventions = Conventions(
        time=time.name,
        time_is_axis=time.dim is not None,
        latitude=horizontal.latitude,
        longitude=horizontal.longitude,
        northwards=bool(latitude.positions[0] > latitude.positions[-1]),
        longitude_range=longitude_range(field[horizontal.longitude].values),
        wrapped=bool(np.ptp(np.sign(np.diff(field[horizontal.longitude].values))) > 0),
        units=unit,
    )
    latitude, longitude = _cut(latitude, longitude, request, name)
    whole = request.time is None or time.name is None
    span = slice(None) if whole else times.span_slice(time.values, str(request.time))
    spans = {} if time.dim is None else {time.dim: span}
    (rows,) = latitude.runs()
    pieces = [field.isel({**spans, lat_dim: rows, lon_dim: columns}) for columns in longitude.runs()]
    data = dask.array.concatenate([_lazy(piece, (time.dim, lat_dim, lon_dim)) for piece in pieces], axis=2)
    data = data.rechunk({2: -1})
    if time.dim is None and span != slice(None):
        data = data[span]
    dates = time.values[span]
    read = _checked(data, dates, str(field.name), unit)
    canonical = xr.DataArray(
        read,
        dims=("time", "latitude", "longitude"),
        coords=_coordinates(dates, latitude, longitude),
        name=str(field.name),
        attrs=_attributes(field),
    )
    return Part(name=name, field=canonical, times=time.values, conventions=conventions, attributes=dataset.attrs)


def _choose_variable(name: str, dataset: xr.Dataset, variable: str | None) -> str:
    """Take the variable that is named, or the only one there is; never the likeliest."""
    if variable is not None and variable in dataset.data_vars:
        return variable
    gridded = [str(key) for key, array in dataset.data_vars.items() if _is_gridded(array)]
    only = gridded or [str(key) for key in dataset.data_vars]
    if variable is None and len(only) == 1:
        return only[0]
    if variable is None and not gridded:
        held = ", ".join(map(str, dataset.data_vars)) or "nothing"
        raise ValueError(f"{name} holds no variable on a grid of latitudes and longitudes, only {held}")
    warm = [key for key in gridded if temperature_unit(str(dataset[key].attrs.get("units", ""))) is not None]
    raise ValueError(no_variable(name, variable, warm or gridded))


def _is_gridded(array: xr.DataArray) -> bool:
    try:
        axes.horizontal_axes(array)
    except ValueError:
        return False
    return True


def _with_stamp(time: axes.TimeAxis, variable: str, request: Request) -> axes.TimeAxis:
    """Give a field that has no time of its own the one that the user states."""
    if time.name is not None:
        return time
    if request.time is None:
        raise ValueError(f"variable {variable!r} has no time: say when it is for (--time 2019-03-01T06:00)")
    try:
        stamp = np.datetime64(request.time, "ns")
    except ValueError as error:
        raise ValueError(
            f"variable {variable!r} has no time, so --time must say when it is for, as one stamp such as "
            f"2019-03-01T06:00, not {request.time!r}"
        ) from error
    return axes.TimeAxis(dim=None, name=None, values=np.array([stamp]))


def _cut(latitude: grid.Axis, longitude: grid.Axis, request: Request, name: str) -> tuple[grid.Axis, grid.Axis]:
    """Keep the region, then every n-th point of it."""
    if request.region is not None:
        latitude, longitude = grid.cut(latitude, longitude, request.region, name)
    before = f"{latitude.values_deg.size} x {longitude.values_deg.size}"
    latitude, longitude = (axis.take(slice(None, None, request.every)) for axis in (latitude, longitude))
    left = latitude.values_deg.size, longitude.values_deg.size
    if min(left) < 2:
        kept = f"every {request.every} leaves {left[0]} x {left[1]} of " if request.every > 1 else ""
        raise ValueError(f"{kept}{before} points of {name}: expected a grid of at least 2 x 2")
    return latitude, longitude


def _lazy(field: xr.DataArray, dims: tuple[str | None, str, str]) -> dask.array.Array:
    """Make the cut array Dask, in blocks of whole samples, and put its axes in order: (T, H, W)."""
    time_dim, lat_dim, lon_dim = dims
    sample_bytes = field.sizes[lat_dim] * field.sizes[lon_dim] * 4
    chunks: dict[Any, int] = dict.fromkeys(field.dims, -1)
    if time_dim is not None:
        stored = field.encoding.get("preferred_chunks", {}).get(time_dim, 1)
        held = max(field.chunksizes[time_dim]) if time_dim in field.chunksizes else stored
        chunks[time_dim] = plan_chunks(max(1, field.sizes[time_dim]), sample_bytes, read_samples=held).slab
    merged = axes.merge_experiment_versions(field.chunk(chunks))
    data = merged.transpose(*(dim for dim in dims if dim is not None)).data
    return data[None] if time_dim is None else data


def _checked(data: dask.array.Array, dates: NDArray[Any], variable: str, unit: Unit) -> dask.array.Array:
    """Convert to kelvin, and refuse what no temperature field holds, in the moment a block is read."""

    def convert(block: NDArray[Any], block_info: Any = None) -> NDArray[np.float32]:  # noqa: ANN401 - Dask's dict
        kelvin = to_kelvin(block, unit)
        if block_info:
            first = block_info[0]["array-location"][0][0]
            check_block(kelvin, dates[first : first + len(kelvin)], variable, unit)
        return kelvin

    return dask.array.map_blocks(convert, data, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))


def check_block(kelvin: NDArray[np.float32], dates: NDArray[Any], variable: str, unit: Unit) -> None:
    """Refuse fields without a single value, and values that are no temperatures.

    Args:
        kelvin: (T, H, W).
        dates: (T,).
        variable: its name, for the message.
        unit: what the values came in.

    Raises:
        ValueError: naming the first empty time, or the units that would explain the values.
    """
    low, high = np.fmin.reduce(kelvin, axis=(1, 2)), np.fmax.reduce(kelvin, axis=(1, 2))
    empty = np.isnan(low)
    if empty.any():
        raise ValueError(
            f"variable {variable!r} has no value at all at {times.label(dates[empty.argmax()])} "
            f"({np.count_nonzero(empty)} of {empty.size} fields read): leave such times out with --time"
        )
    if low.size:
        check_plausible(variable, float(low.min()), float(high.max()), unit)


def _coordinates(dates: NDArray[Any], latitude: grid.Axis, longitude: grid.Axis) -> dict[str, Any]:
    """Describe the axes as CF does."""
    north = {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"}
    east = {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"}
    return {
        "time": ("time", dates, {"standard_name": "time", "long_name": "time"}),
        "latitude": ("latitude", latitude.values_deg, north),
        "longitude": ("longitude", longitude.values_deg, east),
    }


def _attributes(field: xr.DataArray) -> dict[str, str]:
    """Keep the names that say what the variable is."""
    kept = {key: str(field.attrs[key]) for key in ("standard_name", "long_name") if field.attrs.get(key)}
    if kept.get("standard_name", "unknown") == "unknown":
        kept.pop("standard_name", None)
        if field.name in _AIR_TEMPERATURES:
            kept["standard_name"] = "air_temperature"
    return {"units": "K", **kept}
