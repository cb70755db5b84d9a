"""Values at a list of points: stations or a swath, as one field after the other of the same points."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data import times
from pipelines.data.axes import LATITUDE_NAMES, LONGITUDE_NAMES, TIME_NAMES
from pipelines.data.canonical import check_block
from pipelines.data.conventions import Conventions, longitude_range
from pipelines.data.sources import open_datasets
from pipelines.data.sphere import Lattice
from pipelines.data.units import resolve_unit, to_kelvin

Array = NDArray[np.float64]
Source = str | os.PathLike[str] | xr.Dataset | xr.DataArray
_VALUE_NAMES = ("value", "temperature")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """Places in no order.

    Attributes:
        latitude, longitude: [n] degrees.
    """

    latitude: Array
    longitude: Array

    @property
    def points(self) -> tuple[Array, Array]:
        """Latitude and longitude of every point, [n] each."""
        return self.latitude, self.longitude


def open_scatter(source: Source, variable: str, units: str | None, *, time: str | None) -> xr.DataArray | None:
    """Open values at points; None where the source is no list of points.

    Args:
        source: A CSV file with the columns latitude, longitude and the variable (or value), and perhaps time; or a
            data set, or a file of one, whose variable has latitude and longitude along one dimension.
        variable: The name of the values.
        units: Where the source does not say.
        time: Of the values, where the source has none; else the span wanted.

    Returns:
        (time, row, point) kelvin, one row, with the coordinates time, latitude and longitude, NaN where missing.

    Raises:
        ValueError: If it is one and cannot be read as such.
    """
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".csv":
        name, table = str(source), _table(Path(source), variable)
    else:
        (name, dataset), *more = open_datasets(source, variable=variable)
        named = variable if variable in dataset else next(iter(dataset.data_vars), None)
        if named is None or (found := _along(dataset[named])) is None:
            return None
        if more:
            raise ValueError(f"{name} is a list of points: give one file of them, not {len(more) + 1}")
        table = _of_dataset(dataset[named], *found)
    unit = resolve_unit(variable, table.attrs.get("units"), units)
    table = _at_times(table, variable, time)
    kelvin = to_kelvin(table.values, unit)
    times.check_increasing(table["time"].values, name)
    check_block(kelvin[:, None], table["time"].values, variable, unit)
    latitude, longitude = table["latitude"].values, table["longitude"].values
    _check_places(latitude, longitude, name)
    conventions = Conventions(
        time="time", time_is_axis=True, latitude="latitude", longitude="longitude", northwards=False,
        longitude_range=longitude_range(longitude), wrapped=False, units=unit,
    )  # fmt: skip
    return xr.DataArray(
        kelvin[:, None],
        dims=("time", "row", "point"),
        coords={"time": table["time"].values, "latitude": ("point", latitude), "longitude": ("point", longitude)},
        name=variable,
        attrs={"units": "K", "conventions": conventions.to_json()},
    )


def _along(field: xr.DataArray) -> tuple[str, str, str] | None:
    """The names of latitude, longitude and of the one dimension that both lie along, where it is a list of points."""
    found = []
    for names in (LATITUDE_NAMES, LONGITUDE_NAMES):
        named = [str(name) for name in field.coords if str(name).lower() in names and field[name].ndim == 1]
        if not named:
            return None
        found.append(named[0])
    dims = {field[name].dims[0] for name in found}
    return (found[0], found[1], str(dims.pop())) if len(dims) == 1 else None


def _of_dataset(field: xr.DataArray, latitude: str, longitude: str, dim: str) -> xr.DataArray:
    """(time, point) as it is in a data set, or (point) where it has no times."""
    clock = next((str(name) for name in TIME_NAMES if name in field.coords), None)
    field = field.squeeze([other for other, size in field.sizes.items() if size == 1 and other != dim])
    rest = [str(other) for other in field.dims if other != dim]
    if len(rest) > 1 or (rest and (clock is None or field[clock].dims != (rest[0],))):
        raise ValueError(f"variable {field.name!r} has the dimensions {', '.join(map(str, field.dims))}: expected time "
                         f"and {dim!r} alone")  # fmt: skip
    if clock is not None and field[clock].dims == (dim,):
        raise ValueError(
            f"the points of {field.name!r} have a time each: keep those of one hour and give --time for all of them"
        )
    coords: dict[str, Any] = {"latitude": ("point", field[latitude].values.astype(float)),
                              "longitude": ("point", field[longitude].values.astype(float))}  # fmt: skip
    if clock is not None:
        dates = np.atleast_1d(times.decode(field[clock].reset_coords(drop=True), {}).values)
        coords["time"] = ("time", dates)
    values = field.transpose(*rest, dim).values.astype(float)
    dims = ("time", "point") if clock is not None else ("point",)
    return xr.DataArray(values.reshape(-1, field.sizes[dim]) if clock else values, dims=dims, coords=coords,
                        attrs={key: field.attrs[key] for key in ("units",) if key in field.attrs})  # fmt: skip


def _table(path: Path, variable: str) -> xr.DataArray:
    """(time, point) or (point) of a CSV file; a point is a place, and has a line for each time."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values in UTF-8") from error
    header = {(name or "").strip().lower(): name for name in (rows[0] if rows else ())}

    def column(*names: str) -> str | None:
        return next((header[name] for name in names if name in header), None)

    latitude, longitude = column(*LATITUDE_NAMES), column(*LONGITUDE_NAMES, "lng")
    value, clock = column(variable.lower(), *_VALUE_NAMES), column(*TIME_NAMES)
    if latitude is None or longitude is None or value is None:
        held = ", ".join(filter(None, header)) or "nothing"
        raise ValueError(f"{path} needs the columns latitude, longitude and {variable} (or value), it has {held}")
    places: dict[tuple[float, float], int] = {}
    stamps: dict[str, int] = {}
    found: dict[tuple[int, int], float] = {}
    for line, row in enumerate(rows, start=2):
        try:
            place = (float(row[latitude]), float(row[longitude]))
            text = (row[value] or "").strip()
            number = float(text) if text else np.nan
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {line}: latitude, longitude and {value} must be numbers") from error
        stamp = "" if clock is None else (row[clock] or "").strip()
        key = (stamps.setdefault(stamp, len(stamps)), places.setdefault(place, len(places)))
        if key in found:
            raise ValueError(f"{path}, line {line}: the place {place[0]:g}, {place[1]:g} stands there twice"
                             + (f" at {stamp}" if stamp else ""))  # fmt: skip
        found[key] = number
    values = np.full((len(stamps), len(places)), np.nan)
    for (when, where), number in found.items():
        values[when, where] = number
    coords: dict[str, Any] = {
        name: ("point", np.array([place[axis] for place in places]))
        for axis, name in enumerate(("latitude", "longitude"))
    }
    if clock is None:
        return xr.DataArray(values[0], dims=("point",), coords=coords)
    try:
        dates = np.array([np.datetime64(stamp.removesuffix("Z"), "ns") for stamp in stamps])
    except ValueError as error:
        raise ValueError(f"{path}: {clock} must be times such as 2019-03-01T06:00 (UTC)") from error
    order = np.argsort(dates)
    return xr.DataArray(values[order], dims=("time", "point"), coords=coords | {"time": ("time", dates[order])})


def _at_times(table: xr.DataArray, variable: str, time: str | None) -> xr.DataArray:
    """(time, point), of the times that are wanted."""
    if "time" in table.dims:
        chosen = table if time is None else table[times.span_slice(table["time"].values, time)]
        if not chosen.sizes["time"]:
            first, last = (times.label(table["time"].values[end]) for end in (0, -1))
            raise ValueError(f"no time in {time!r}: the input covers {first} to {last}")
        return chosen
    if time is None:
        raise ValueError(f"variable {variable!r} has no time: say when it is for (--time 2019-03-01T06:00)")
    try:
        stamp = np.datetime64(time, "ns")
    except ValueError as error:
        raise ValueError(f"--time must say when {variable!r} is for, as one stamp, not {time!r}") from error
    return table.expand_dims(time=[stamp])


def _check_places(latitude: Array, longitude: Array, name: str) -> None:
    good = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)  # a NaN is none
    if not good.all():
        wrong = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{name}: no place on Earth has latitude {latitude[wrong]:g}, longitude {longitude[wrong]:g}")


def places_of(field: xr.DataArray) -> Lattice | Scatter:
    """Where the values of an opened field stand."""
    if "point" in field.dims:
        return Scatter(latitude=field["latitude"].values, longitude=field["longitude"].values)
    return Lattice.of(field)
