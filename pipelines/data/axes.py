"""Which dimension of a field is time, which latitude, which longitude, and which ones are left to be chosen.

CF attributes (standard_name, units, axis) come first, read by cf_xarray; the names in use at the Climate Data Store, in
CMIP6, in GRIB and in analysis-ready Zarr archives come second.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401 - registers the .cf accessor
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data import times

LATITUDE_NAMES = ("latitude", "lat")
LONGITUDE_NAMES = ("longitude", "lon", "long")
# A forecast's valid time is when the temperature was there; the time of the run is not.
TIME_NAMES = ("valid_time", "time", "date", "datetime")
_RUN_NAMES = ("time", "forecast_reference_time", "forecast_time", "initial_time")
_LEAD_NAMES = ("step", "forecast_period", "lead_time", "leadtime", "prediction_timedelta")

Level = float | str | Mapping[str, float | str] | None


@dataclass(frozen=True, kw_only=True)
class HorizontalAxes:
    """The names of a field's horizontal dimensions and of the coordinates that lie on them."""

    latitude: str
    longitude: str


def horizontal_axes(field: xr.DataArray) -> HorizontalAxes:
    """Find the latitude and longitude dimensions of a field.

    Raises:
        ValueError: if there are none, or the grid is curvilinear or a list of points.
    """
    latitude = _horizontal(field, "latitude", LATITUDE_NAMES)
    longitude = _horizontal(field, "longitude", LONGITUDE_NAMES)
    if field[latitude].dims == field[longitude].dims:
        raise ValueError(
            f"variable {field.name!r} is given at a list of points ({field[latitude].dims[0]!r}): expected a grid of "
            "latitudes and longitudes; interpolate it to one first"
        )
    return HorizontalAxes(latitude=latitude, longitude=longitude)


def _horizontal(field: xr.DataArray, kind: str, usual: tuple[str, ...]) -> str:
    """Find the coordinate of one kind: 1-D, along a dimension of the field."""
    described = [str(name) for name in field.cf.coordinates.get(kind, [])]
    named = [str(name) for name in field.coords if str(name).lower() in usual]
    found = list(dict.fromkeys(described + named))
    for name in found:
        if field[name].ndim == 1:
            _check_degrees(field[name])
            return name
    if any(field[name].ndim == 2 for name in found):
        raise ValueError(
            f"variable {field.name!r} lies on a curvilinear grid ({found[0]!r} is 2-D): expected 1-D latitudes and "
            "longitudes; regrid it first"
        )
    missing = [dim for dim in field.dims if str(dim).lower() in usual]
    if missing:
        raise ValueError(f"dimension {missing[0]!r} of variable {field.name!r} has no coordinate values")
    raise ValueError(
        f"variable {field.name!r} with dimensions {dims_text(field)} has no {kind} axis: "
        f"expected one named {' or '.join(usual[:2])}, or with the standard_name {kind}"
    )


def _check_degrees(axis: xr.DataArray) -> None:
    if str(axis.attrs.get("units", "")).lower().startswith("radian"):
        raise ValueError(f"axis {axis.name!r} is in radians: expected degrees")


def dims_text(field: xr.DataArray) -> str:
    """Write dimensions with their sizes: (time 3, lat 5)."""
    return "(" + ", ".join(f"{dim} {size}" for dim, size in field.sizes.items()) + ")"


def merge_experiment_versions(field: xr.DataArray) -> xr.DataArray:
    """Join the Climate Data Store's `expver` dimension: final ERA5 (1) where it is there, else preliminary (5)."""
    if "expver" not in field.dims:
        return field
    versions = [field.isel(expver=index, drop=True) for index in range(field.sizes["expver"])]
    if "expver" in field.coords:
        order = sorted(range(len(versions)), key=lambda index: str(field["expver"].values[index]).zfill(8))
        versions = [versions[index] for index in order]
    merged = versions[0]
    for version in versions[1:]:
        merged = merged.where(merged.notnull(), version)
    return merged.assign_attrs(field.attrs)


def drop_single(field: xr.DataArray, keep: tuple[str, ...]) -> xr.DataArray:
    """Drop every dimension of size one that is not to be kept; its coordinate stays as a scalar."""
    return field.squeeze([dim for dim, size in field.sizes.items() if size == 1 and str(dim) not in keep])


def choose_levels(field: xr.DataArray, keep: tuple[str, ...], level: Level) -> xr.DataArray:
    """Choose along every further dimension (a pressure level, an ensemble member); nothing is guessed.

    Args:
        field: any dimensions.
        keep: the dimensions that stay.
        level: the value to take along the one further dimension, or a mapping of dimensions to values.

    Raises:
        ValueError: if a choice is missing, is none of the coordinate's values, or has nothing to choose from.
    """
    further = [str(dim) for dim in field.dims if str(dim) not in (*keep, "expver")]
    if level is None or isinstance(level, Mapping):
        wanted = dict(level or {})
        unknown = [name for name in wanted if name not in further and name not in field.coords]
        if unknown:
            raise ValueError(f"level: variable {field.name!r} has no dimension {unknown[0]!r}, only {dims_text(field)}")
    elif not further:
        return _check_scalar_level(field, level)
    elif len(further) == 1:
        wanted = {further[0]: level}
    else:
        raise ValueError(
            f"variable {field.name!r} has several further dimensions ({', '.join(further)}): "
            f"say which one {level!r} is for, e.g. level={{{further[0]!r}: {level!r}}}"
        )
    for dim in further:
        if dim not in wanted:
            raise ValueError(
                f"variable {field.name!r} has a further dimension {dim!r} of {field.sizes[dim]}: choose one of "
                f"{_choices(field, dim)} with --level"
            )
        field = field.isel({dim: _position(field, dim, wanted[dim])})
    return field


def _check_scalar_level(field: xr.DataArray, level: float | str) -> xr.DataArray:
    """Accept a level that the file has only one of; refuse one that it does not have."""
    scalars = {str(name): coordinate.item() for name, coordinate in field.coords.items() if coordinate.ndim == 0}
    if any(_same(value, level) for value in scalars.values()):
        return field
    raise ValueError(f"level {level!r} was asked for, but variable {field.name!r} has only {dims_text(field)}")


def _position(field: xr.DataArray, dim: str, wanted: float | str) -> int:
    values = field[dim].values if dim in field.coords else np.arange(field.sizes[dim])
    matches = [index for index, value in enumerate(values) if _same(value, wanted)]
    if not matches:
        raise ValueError(f"{dim} {wanted!r} is not in the source: choose one of {_choices(field, dim)}")
    return matches[0]


def _same(value: object, wanted: float | str) -> bool:
    try:
        return bool(np.isclose(float(value), float(wanted), rtol=1e-6))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value) == str(wanted)


def _choices(field: xr.DataArray, dim: str) -> str:
    values = field[dim].values if dim in field.coords else np.arange(field.sizes[dim])
    texts = [f"{value:g}" if np.issubdtype(values.dtype, np.number) else str(value) for value in values]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:8], "...", texts[-1]])


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """A field's times.

    Attributes:
        dim: the dimension that runs along time, None for a single time.
        name: what the source calls it, None where the source has no time at all.
        values: (T,) dates; empty where the source has no time at all.
    """

    dim: str | None
    name: str | None
    values: NDArray[Any]


def one_run(field: xr.DataArray) -> xr.DataArray:
    """Drop the single run or the single lead time of a forecast, so that one dimension of time is left.

    Raises:
        ValueError: if there are several of both.
    """
    if len(_time_dims(field)) > 1:
        field = drop_single(field, tuple(str(dim) for dim in field.dims if str(dim) not in _RUN_NAMES + _LEAD_NAMES))
    dims = _time_dims(field)
    if len(dims) > 1:
        raise ValueError(
            f"variable {field.name!r} has two dimensions of time, {dims[0]!r} and {dims[1]!r} (runs and lead times): "
            "select one run first"
        )
    return field


def time_axis(field: xr.DataArray, attributes: Mapping[Hashable, Any]) -> TimeAxis:
    """Find and decode a field's times: the valid time where there is one.

    Args:
        field: with one dimension of time at most.
        attributes: the data set's attributes, for axes whose units are kept there.

    Raises:
        ValueError: if the axis has no values, or they cannot be decoded.
    """
    named = {str(key): value for key, value in attributes.items()}
    dims = _time_dims(field)
    if not dims:
        name = next((name for name in TIME_NAMES if name in field.coords and field[name].ndim == 0), None)
        values = np.empty(0) if name is None else times.decode(field[name], named).values.reshape(1)
        return TimeAxis(dim=None, name=name, values=values)
    dim = dims[0]
    name = "valid_time" if "valid_time" in field.coords and field["valid_time"].dims == (dim,) else dim
    if name not in field.coords:
        raise ValueError(f"the time dimension {dim!r} of variable {field.name!r} has no coordinate values")
    if field.sizes[dim] == 0:
        raise ValueError(f"the time axis {dim!r} of variable {field.name!r} is empty")
    # GRIB gives an analysis both names; then the dimension's is the caller's own.
    shown = name if dim in _LEAD_NAMES else dim
    return TimeAxis(dim=dim, name=shown, values=times.decode(field[name], named).values)


def _time_dims(field: xr.DataArray) -> list[str]:
    """List the dimensions that run along time: dates, lead times, or CF and usual names."""
    described = {str(name) for name in [*field.cf.coordinates.get("time", []), *field.cf.axes.get("T", [])]}
    found = []
    for dim in map(str, field.dims):
        usual = dim.lower() in TIME_NAMES + _RUN_NAMES + _LEAD_NAMES or dim.lower().startswith("time")
        if usual or dim in described or (dim in field.coords and times.is_datetime(field[dim].values)):
            found.append(dim)
    return found
