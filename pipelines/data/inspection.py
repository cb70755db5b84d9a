"""What a store holds, at a glance: axes, chunks, size, statistics, and a map drawn in text."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data import times
from pipelines.data.normalize import Statistics
from pipelines.data.sketch import sketch
from pipelines.data.store import Store, open_store

# A map of the whole store is exact; of a large one, some chunks spread over it say enough.
_WHOLE_BYTES = 256 * 2**20
_SAMPLED_CHUNKS = 8


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        path: the store.
        variable: the name of its values.
        domain: where their coordinates live.
        units: of the values.
        dims: sizes by dimension.
        extent: west, south, east, north in degrees; None off the sphere.
        spacing: of each grid axis, in its own units, as text ("0.25", or "0.5 to 0.7" where uneven).
        time_span: first and last time; None off the sphere.
        time_step: the step as text, "7 h to 8 h" where uneven.
        calendar: of the times.
        chunks: samples and grid points in a chunk.
        shards: the same of a shard file, None where chunks are files.
        raw_bytes: of the values in memory.
        stored_bytes: of the whole store on disk.
        statistics: of the values.
        fingerprint: of the content.
        license: of the source.
        source: where the values come from.
        schema_version: of the store.
        sketch: a map of the mean over time, in lines of text.
    """

    path: str
    variable: str
    domain: str
    units: str
    dims: dict[str, int]
    extent: tuple[float, float, float, float] | None
    spacing: dict[str, str]
    time_span: tuple[str, str] | None
    time_step: str | None
    calendar: str | None
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    raw_bytes: int
    stored_bytes: int
    statistics: Statistics
    fingerprint: str
    license: str
    source: str
    schema_version: int
    sketch: str

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the store is than its values."""
        return self.raw_bytes / max(1, self.stored_bytes)

    @property
    def missing_fraction(self) -> float:
        """The share of values that are not observed."""
        return self.statistics.missing / max(1, self.statistics.missing + self.statistics.count)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain JSON types."""
        derived = {"compression_ratio": self.compression_ratio, "missing_fraction": self.missing_fraction}
        return {**asdict(self), **derived}

    def rows(self) -> list[tuple[str, str]]:
        """Give a table of names and texts, without the sketch."""
        dims = ", ".join(f"{dim} {size}" for dim, size in self.dims.items())
        spacing = ", ".join(f"{dim} {step}" for dim, step in self.spacing.items())
        found = self.statistics
        rows = [("store", self.path), ("variable", f"{self.variable} ({self.units}), on the {self.domain}"),
                ("dimensions", dims), ("spacing", spacing)]  # fmt: skip
        if self.extent is not None:
            west, south, east, north = self.extent
            rows.append(("extent", f"longitude {west:g} to {east:g}, latitude {south:g} to {north:g}"))
        if self.time_span is not None:
            rows.append(("time", f"{self.time_span[0]} to {self.time_span[1]}, step {self.time_step}"))
            rows.append(("calendar", str(self.calendar)))
        return [
            *rows,
            ("chunks", " x ".join(map(str, self.chunks))),
            ("shards", "none" if self.shards is None else " x ".join(map(str, self.shards))),
            ("size", f"{_size(self.raw_bytes)}, {_size(self.stored_bytes)} stored ({self.compression_ratio:.1f} : 1)"),
            ("mean, std", f"{found.mean:.3f}, {found.std:.3f} {self.units} (area-weighted)"),
            ("range", f"{found.minimum:.3f} to {found.maximum:.3f} {self.units}"),
            ("missing", f"{self.missing_fraction:.2%}"),
            ("fingerprint", self.fingerprint),
            ("source", self.source),
            ("license", self.license),
            ("schema", str(self.schema_version)),
        ]


def inspect(path: str | PathLike[str]) -> Inspection:
    """Describe a store.

    Args:
        path: a local store, or a URL.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: if it is no store.
    """
    store = open_store(path)
    field, encoding = store.field, store.field.encoding
    shards = encoding.get("shards")
    dated = "time" in field.coords
    return Inspection(
        path=store.path,
        variable=store.variable,
        domain=store.domain,
        units=store.units,
        dims={str(dim): size for dim, size in field.sizes.items()},
        extent=_extent(field),
        spacing={str(dim): _spacing(field[dim].values) for dim in field.dims[1:] if _is_numbered(field, dim)},
        time_span=(times.label(field["time"].values[0]), times.label(field["time"].values[-1])) if dated else None,
        time_step=_time_step(field["time"].values) if dated else None,
        calendar=times.calendar_of(field["time"].values) if dated else None,
        chunks=tuple(encoding["chunks"]),
        shards=None if shards is None else tuple(shards),
        raw_bytes=field.nbytes,
        stored_bytes=_stored_bytes(store.path),
        statistics=store.statistics,
        fingerprint=store.fingerprint,
        license=store.license,
        source=store.source,
        schema_version=int(store.dataset.attrs["schema_version"]),
        sketch=sketch(_mean_field(store), units=store.units) if "latitude" in field.dims else "",
    )


def _extent(field: xr.DataArray) -> tuple[float, float, float, float] | None:
    if "latitude" not in field.coords:
        return None
    latitude, longitude = field["latitude"].values, field["longitude"].values
    return float(longitude.min()), float(latitude.min()), float(longitude.max()), float(latitude.max())


def _is_numbered(field: xr.DataArray, dim: Hashable) -> bool:
    """Whether an axis has numbers along it: channels have names."""
    return dim in field.coords and np.issubdtype(field[dim].dtype, np.number)


def _spacing(values: NDArray[np.float64]) -> str:
    """Write the step of an axis, or its range where it is uneven."""
    steps = np.abs(np.diff(values))
    if steps.size == 0:
        return "one point"
    low, high = float(steps.min()), float(steps.max())
    return f"{low:.6g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.6g} to {high:.6g}"


def _time_step(values: NDArray[Any]) -> str:
    """Write the step of time in the largest unit that is exact: 1 h, 7 h to 8 h, 28 d to 31 d."""
    if values.size < 2:
        return "none (a single time)"
    steps = np.diff(values)
    seconds = [step.total_seconds() if hasattr(step, "total_seconds") else step / np.timedelta64(1, "s")
               for step in (steps.min(), steps.max())]  # fmt: skip
    length, unit = next(
        (length, unit)
        for length, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-6, "us"))
        if all(second % length == 0 for second in seconds) or unit == "us"
    )
    low, high = (f"{second / length:g} {unit}" for second in seconds)
    return low if low == high else f"{low} to {high}"


def _stored_bytes(path: str) -> int:
    if "://" in path:
        filesystem, folder = fsspec.core.url_to_fs(path)
        return int(filesystem.du(folder))
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def _size(num_bytes: int) -> str:
    """Write bytes for people.

    >>> _size(4812192)
    '4.8 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"


def _mean_field(store: Store) -> xr.DataArray:
    """Average over time; over chunks spread evenly where the store is large."""
    field = store.field
    chunk, num_samples = field.encoding["chunks"][0], field.shape[0]
    if field.nbytes > _WHOLE_BYTES:
        num_chunks = math.ceil(num_samples / chunk)
        count = int(np.clip(_WHOLE_BYTES // (field.nbytes // num_chunks), 1, _SAMPLED_CHUNKS))
        picked = np.unique(np.linspace(0, num_chunks - 1, count).astype(int))
        field = field.isel(time=np.concatenate([np.arange(num_samples)[i * chunk : (i + 1) * chunk] for i in picked]))
    return field.mean("time", dtype=np.float64).compute()
