"""Climate fields: temperatures on the sphere, from any source to the canonical store.

A source may be many files. Each is brought into canonical form by itself (pipelines/data/canonical.py); here they are
joined along time, whatever their order, and written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array
import numpy as np
import xarray as xr

from pipelines.data import times
from pipelines.data.axes import Level
from pipelines.data.canonical import Part, Request, canonical_part
from pipelines.data.conventions import apply_conventions
from pipelines.data.grid import Region
from pipelines.data.sources import Source, open_datasets
from pipelines.data.store import Progress, Store, check_target, write_store

__all__ = ["apply_conventions", "ingest", "open_field", "open_source"]

_LICENSE_KEYS = ("license", "licence", "License", "Licence", "rights")
_ORIGIN_KEYS = ("source", "title", "institution")


def ingest(
    source: Source,
    store: str | os.PathLike[str],
    *,
    variable: str | None = "t2m",
    time: str | None = None,
    region: Region | None = None,
    level: Level = None,
    units: str | None = None,
    every: int = 1,
    license: str | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Store:
    """Write a climate source to a new store.

    Args:
        source: a file, a glob, a URL, a list of them, or an xarray object.
        store: the local folder to make.
        variable: the temperature's name in the source; None takes the only one there is.
        time: the span wanted, e.g. `2019-03-01:2019-03-24` (days included), `2019-03`, or full timestamps; for a field
            without any time, the time that it is for.
        region: west, south, east, north in degrees, either longitude convention, edges included.
        level: where to cut a further dimension, or a mapping of dimensions to values.
        units: of the values, where the source does not say, or says it wrongly.
        every: keep every n-th point, counted from the north-west corner.
        license: under which the source is given; else what the source says, else "unknown".
        overwrite: replace a store that is there.
        storage_options: for fsspec.
        progress: called with (samples written, samples in all).

    Returns:
        The store, opened.

    Raises:
        ValueError: if the source is no temperature field, or holds nothing of what is asked for.
        FileNotFoundError: if there is no source.
        FileExistsError: if the store exists and is not to be replaced.
        OSError: if the source cannot be read or the store not be written.
    """
    check_target(store, overwrite=overwrite)
    request = Request(variable=variable, time=time, region=region, level=level, units=units, every=every)
    field, _ = _open(source, request, storage_options)
    given, stated = field.attrs.pop("source"), field.attrs.pop("license")
    return write_store(field, store, source=given, license=license or stated, overwrite=overwrite, progress=progress)


def open_source(
    source: Source,
    *,
    variable: str | None = "t2m",
    time: str | None = None,
    region: Region | None = None,
    level: Level = None,
    units: str | None = None,
    every: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a climate source lazily in canonical form; the arguments are those of `ingest`.

    Returns:
        (time, latitude, longitude) float32 kelvin, Dask; latitudes descend, longitudes ascend; attributes `units`,
        `source`, `license` and names.

    Raises:
        ValueError: at once if axes, units or selections are refused; when values are read, if those are.
        FileNotFoundError: if there is no source.
        OSError: if it cannot be read.
    """
    request = Request(variable=variable, time=time, region=region, level=level, units=units, every=every)
    return _open(source, request, storage_options)[0]


def open_field(
    source: Source,
    variable: str | None = "t2m",
    units: str | None = None,
    *,
    time: str | None = None,
    region: Region | None = None,
    level: Level = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a field to be downscaled, and remember how its owner writes it; the arguments are those of `ingest`.

    A data array is taken whatever its name, and a single time need not be an axis.

    Returns:
        As `open_source`, with `.attrs["conventions"]`: JSON for `apply_conventions`; and its `history`, if it has one.

    Raises:
        ValueError: as `open_source`; and if the field has no time and none is given.
        FileNotFoundError: if there is no source.
        OSError: if it cannot be read.
    """
    request = Request(variable=variable, time=time, region=region, level=level, units=units)
    field, parts = _open(source, request, storage_options)
    history = str(parts[0].attributes.get("history", ""))
    return field.assign_attrs(conventions=parts[0].conventions.to_json(), history=history)


def _open(source: Source, request: Request, options: Mapping[str, Any] | None) -> tuple[xr.DataArray, Sequence[Part]]:
    """Open every file, bring each into canonical form, and join them."""
    request.check()
    opened = open_datasets(source, variable=request.variable, storage_options=options)
    parts = [_part(name, dataset, request) for name, dataset in opened]
    field = _join(parts, request)
    return field.assign_attrs(source=_origin(parts), license=_license(parts)), parts


def _part(name: str, dataset: xr.Dataset, request: Request) -> Part:
    """Bring one file into canonical form; what is refused is said with the file's name."""
    try:
        return canonical_part(name, dataset, request)
    except ValueError as error:
        if name in str(error) or name.startswith("the given"):
            raise
        raise ValueError(f"{name}: {error}") from error


def _join(parts: Sequence[Part], request: Request) -> xr.DataArray:
    """Concatenate along time, in the order of time."""
    first = parts[0]
    for part in parts[1:]:
        _check_alike(first, part)
    wanted = sorted((part for part in parts if part.field.sizes["time"]), key=lambda part: part.field["time"].values[0])
    if not wanted:
        starts, stops = [part.times[0] for part in parts], [part.times[-1] for part in parts]
        raise ValueError(
            f"no time in {request.time!r}: {_names(parts)} covers {times.label(min(starts))} to "
            f"{times.label(max(stops))}"
        )
    if len(wanted) == 1:
        return wanted[0].field
    dates = np.concatenate([part.field["time"].values for part in wanted])
    owner = np.repeat(np.arange(len(wanted)), [part.field.sizes["time"] for part in wanted])
    order = np.argsort(dates, kind="stable")
    dates, owner = dates[order], owner[order]
    twice = np.flatnonzero(dates[1:] == dates[:-1])
    if twice.size:
        one, other = (wanted[owner[twice[0] + offset]].name for offset in (0, 1))
        raise ValueError(
            f"the time {times.label(dates[twice[0]])} is in both {one} and {other}: each time may appear once"
        )
    data = dask.array.concatenate([part.field.data for part in wanted])
    # Files that take turns in time are put in order; those that follow each other stay as they are.
    ordered = data if (np.diff(order) == 1).all() else data[order]
    template = wanted[0].field
    coords = {"latitude": template["latitude"], "longitude": template["longitude"]}
    time = xr.Variable("time", dates, template["time"].attrs)
    return xr.DataArray(ordered, dims=template.dims, coords={"time": time, **coords}, name=template.name,
                        attrs=template.attrs)  # fmt: skip


def _check_alike(first: Part, other: Part) -> None:
    """Refuse files that cannot be one field.

    Raises:
        ValueError: if their grids or calendars differ.
    """
    for axis in ("latitude", "longitude"):
        ours, theirs = first.field[axis].values, other.field[axis].values
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0.0, atol=1e-5):
            raise ValueError(f"{other.name} has another {axis} than {first.name}: files to join share one grid")
    calendars = [times.calendar_of(part.times) for part in (first, other)]
    if calendars[0] != calendars[1]:
        raise ValueError(f"{other.name} has the calendar {calendars[1]}, {first.name} has {calendars[0]}")


def _names(parts: Sequence[Part]) -> str:
    """Name a source's files, all of them where they are few."""
    names = [part.name for part in parts]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]} ({len(names)} files)"


def _origin(parts: Sequence[Part]) -> str:
    """Say where the values come from: the files, and what they say of themselves."""
    said = next((str(parts[0].attributes[key]) for key in _ORIGIN_KEYS if parts[0].attributes.get(key)), None)
    return _names(parts) if said is None else f"{_names(parts)}: {said}"


def _license(parts: Sequence[Part]) -> str:
    return next((str(parts[0].attributes[key]) for key in _LICENSE_KEYS if parts[0].attributes.get(key)), "unknown")
