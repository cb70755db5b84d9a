"""Where a downscaled field is asked for: a finer grid, any resolution, another file's grid, or a list of stations."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.axes import horizontal_axes
from pipelines.data.conventions import Conventions, apply_conventions
from pipelines.data.grid import Region, check_region, goes_round
from pipelines.data.sources import open_datasets
from pipelines.data.sphere import Lattice

Array = NDArray[np.float64]
_EDGE_DEG = 1e-6


@dataclass(frozen=True, kw_only=True)
class Target:
    """Places on a grid, or in a list.

    Attributes:
        latitude, longitude: Degrees; the axes of a grid (descending, ascending), or one value for each station.
        names: The stations' names; None for a grid.
    """

    latitude: Array
    longitude: Array
    names: tuple[str, ...] | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of a field on the target."""
        return ("latitude", "longitude") if self.names is None else ("station",)

    @property
    def coords(self) -> dict[str, tuple[str, object]]:
        """Coordinates of a field on the target."""
        if self.names is None:
            return {"latitude": ("latitude", self.latitude), "longitude": ("longitude", self.longitude)}
        return {
            "latitude": ("station", self.latitude),
            "longitude": ("station", self.longitude),
            "station": ("station", list(self.names)),
        }


def finer(lattice: Lattice, factor: int) -> Target:
    """The lattice with every cell divided into `factor` along each side."""
    if factor < 1:
        raise ValueError(f"--factor must be a whole number of at least 1, got {factor}")
    longitude = lattice.longitude
    closed = np.append(longitude, longitude[0] + 360.0) if lattice.periodic else longitude
    fine = _divide(closed, factor)
    return Target(latitude=_divide(lattice.latitude, factor), longitude=fine[:-1] if lattice.periodic else fine)


def at_resolution(lattice: Lattice, degrees: float, region: Region | None = None) -> Target:
    """A regular grid of this spacing over the lattice's extent, or over a region of it, from the north-west corner."""
    if not 0 < degrees <= 90:
        raise ValueError(f"--resolution must be above 0 and at most 90 degrees, got {degrees:g}")
    north, south = float(lattice.latitude[0]), float(lattice.latitude[-1])
    west, east = float(lattice.longitude[0]), float(lattice.longitude[-1])
    round_globe = lattice.periodic
    if region is not None:
        west_asked, south_asked, east_asked, north_asked = check_region(region)
        north, south = min(north, north_asked), max(south, south_asked)
        start = west + (west_asked - west) % 360.0
        width = (east_asked - west_asked) % 360.0 or 360.0
        if round_globe:
            west, east, round_globe = start, start + width, width >= 360.0
        else:
            start -= 360.0 if start > east + _EDGE_DEG else 0.0
            west, east = max(west, start), min(east, start + width)
        if north < south or east < west:
            raise ValueError(f"--region {','.join(f'{edge:g}' for edge in region)} does not meet the input's extent")
    rows = north - degrees * np.arange(int((north - south) / degrees + _EDGE_DEG) + 1)
    width = 360.0 - degrees if round_globe else east - west
    columns = west + degrees * np.arange(int(width / degrees + _EDGE_DEG) + 1)
    return Target(latitude=np.round(rows, 9), longitude=np.round(columns, 9))


def like(source: str | Path | xr.Dataset | xr.DataArray) -> Target:
    """The grid of another file or data set, whatever its variables are."""
    if isinstance(source, xr.DataArray):
        source = source.to_dataset(name=source.name or "field")
    for _, dataset in [("it", source)] if isinstance(source, xr.Dataset) else open_datasets(source, variable=None):
        axes = horizontal_axes(dataset.to_array() if not dataset.data_vars else dataset[next(iter(dataset.data_vars))])
        latitude = np.sort(dataset[axes.latitude].values.astype(float))[::-1]
        longitude = np.sort(dataset[axes.longitude].values.astype(float))
        return Target(latitude=latitude.copy(), longitude=longitude)
    raise ValueError(f"{source} holds no data set with a grid")


def stations(path: str | Path) -> Target:
    """The places of a CSV file with the columns latitude and longitude (or lat and lon), and perhaps a name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no station list {path}: expected a CSV file with latitude and longitude")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values in UTF-8") from error
    if not rows:
        raise ValueError(f"{path} holds no station: expected a header with latitude and longitude, and a line for each")
    columns = {(name or "").strip().lower(): name for name in rows[0]}
    found = [next((columns[name] for name in names if name in columns), None) for names in _COLUMNS]
    if found[0] is None or found[1] is None:
        raise ValueError(f"{path} needs the columns latitude and longitude, it has {', '.join(filter(None, columns))}")
    places = []
    for line, row in enumerate(rows, start=2):
        try:
            latitude, longitude = float(row[found[0]]), float(row[found[1]])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {line}: latitude and longitude must be numbers") from error
        if not (-90 <= latitude <= 90 and -360 <= longitude <= 360):
            raise ValueError(
                f"{path}, line {line}: no place on Earth has latitude {latitude:g}, longitude {longitude:g}"
            )
        places.append((latitude, longitude, row[found[2]] if found[2] else str(line - 1)))
    latitudes, longitudes, names = zip(*places, strict=True)
    return Target(latitude=np.array(latitudes), longitude=np.array(longitudes), names=tuple(names))


_COLUMNS = (("latitude", "lat"), ("longitude", "lon", "lng"), ("name", "station", "id"))


def within(target: Target, region: Region) -> Target:
    """The part of a target that lies in west, south, east, north."""
    west, south, east, north = check_region(region)
    width = (east - west) % 360.0 or 360.0
    rows = (target.latitude >= south - _EDGE_DEG) & (target.latitude <= north + _EDGE_DEG)
    along = (target.longitude - west + _EDGE_DEG) % 360.0
    columns = along <= width + 2 * _EDGE_DEG
    if target.names is not None:
        keep = rows & columns
        names = tuple(name for name, kept in zip(target.names, keep, strict=True) if kept)
        part = Target(latitude=target.latitude[keep], longitude=target.longitude[keep], names=names)
    else:
        order = np.argsort(along[columns], kind="stable")
        longitude = np.unwrap(target.longitude[columns][order], period=360.0)
        if longitude.size:  # written as the region is: -20..40 stays that, and is not 340..400
            longitude = np.round(longitude - 360.0 * np.floor((longitude[0] - west + _EDGE_DEG) / 360.0), 9)
        part = Target(latitude=target.latitude[rows], longitude=longitude)
    if not part.latitude.size or not part.longitude.size:
        raise ValueError(f"--region {','.join(f'{edge:g}' for edge in region)} holds no point of the target")
    return part


def check_inside(target: Target, lattice: Lattice) -> None:
    """Refuse places that the coarse field says nothing about: more than a coarse cell outside its extent."""
    rows = np.abs(np.diff(lattice.latitude)).max() if len(lattice.latitude) > 1 else 0.0
    outside = max(target.latitude.max() - lattice.latitude[0], lattice.latitude[-1] - target.latitude.min())
    if outside > rows + _EDGE_DEG:
        raise ValueError(
            f"the target reaches latitude {target.latitude.min():g} to {target.latitude.max():g}, the input covers "
            f"{lattice.latitude[-1]:g} to {lattice.latitude[0]:g}: choose a smaller region or other places"
        )
    if goes_round(lattice.longitude):
        return
    columns = np.diff(lattice.longitude).max() if len(lattice.longitude) > 1 else 0.0
    middle = (lattice.longitude[0] + lattice.longitude[-1]) / 2
    away = (
        np.abs((target.longitude - middle + 180.0) % 360.0 - 180.0) - (lattice.longitude[-1] - lattice.longitude[0]) / 2
    )
    if away.max() > columns + _EDGE_DEG:
        raise ValueError(
            f"the target reaches longitude {target.longitude.min():g} to {target.longitude.max():g}, the input covers "
            f"{lattice.longitude[0]:g} to {lattice.longitude[-1]:g}: choose a smaller region or other places"
        )


def _divide(axis: Array, factor: int) -> Array:
    count = (len(axis) - 1) * factor + 1
    return np.round(np.interp(np.arange(count) / factor, np.arange(len(axis)), axis), 9)


def in_conventions(target: Target, own: Conventions) -> Target:
    """The same places in the order, and with the longitudes, that the caller writes."""
    names = {"latitude": own.latitude, "longitude": own.longitude}
    placed = apply_conventions(xr.Dataset(coords={name: target.coords[name] for name in names}), own)
    latitude, longitude = (np.asarray(placed[name].values, np.float64) for name in names.values())
    return Target(latitude=latitude, longitude=longitude, names=target.names)
