"""Shapes in the cube as a kind of data: solid or not, at every place of [-1, 1]^3.

Of a shape's voxels most are far from its surface and easy to say. Half of the points that a training step scores are
drawn from the cells at the surface, the other half uniformly from all, and each counts for

    w_i = 1 / (n p_i),      p_i = 1/2 [i at the surface] / S + 1/2 / N

of the N points, so that the sum over them keeps its expectation.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.domain import Chance, Drawn, Floats, Geometry, Scaling
from pipelines.data.items import MARK, Items
from pipelines.data.normalize import Statistics
from pipelines.data.shape_sources import open_shapes
from pipelines.data.staged import Fault
from pipelines.data.store import Store, check_target, write_store
from pipelines.data.voxelising import Up, voxelise
from pipelines.data.voxels import LARGEST
from pipelines.data.writing import Progress

NAME = "occupancy"
AXES = ("x", "y", "z")


class Shapes(Items):
    """See `DataKind`."""

    def geometry(self, field: xr.DataArray) -> Box:
        """The grid of voxels."""
        return Box(tuple(field.sizes[axis] for axis in AXES))

    def channels(self, field: xr.DataArray) -> int:
        """One: solid or not."""
        return 1

    def scaling(self, numbers: Statistics, *, bounded: bool) -> Scaling:
        """None: a voxel is 0 or 1."""
        return Scaling(offset=0.0, scale=1.0)

    def draw(self, values: Floats, geometry: Geometry, count: int, chance: Chance) -> Drawn:
        """Half at the surface, half anywhere; each function has its own points [B, n] and weights [B, n]."""
        solid = np.asarray(values).reshape(len(values), *geometry.shape) > 0.5
        total, near = int(np.prod(geometry.shape)), at_surface(solid).reshape(len(solid), -1)
        index, weight = np.empty((len(solid), count), np.int64), np.empty((len(solid), count), np.float32)
        for row, (here, rng) in enumerate(zip(near, chance.own, strict=True)):
            places = np.flatnonzero(here)
            half = count // 2 if len(places) else 0
            index[row, :half] = places[rng.integers(len(places), size=half)] if half else 0
            index[row, half:] = rng.integers(total, size=count - half)
            expected = np.full(count, (count - half) / total)  # of how often each place is drawn
            expected[here[index[row]]] += half / max(1, len(places))
            weight[row] = 1 / expected
        return index, weight


def at_surface(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells of shapes [B, x, y, z] that touch, by a face, a cell of the other sort."""
    near = np.zeros_like(solid)
    for axis in (1, 2, 3):
        low, high = (tuple([slice(None)] * axis + [part]) for part in (slice(None, -1), slice(1, None)))
        differ = solid[low] ^ solid[high]
        near[low] |= differ
        near[high] |= differ
    return near


def as_field(values: Any, names: NDArray[Any]) -> xr.DataArray:  # noqa: ANN401 - Dask or NumPy
    """Occupancies (shape, x, y, z) of cells that fill [-1, 1]^3, with their places."""
    axes = Box(tuple(values.shape[1:])).axes
    places = {axis: (axis, centres, {"units": "1"}) for axis, centres in zip(AXES, axes, strict=True)}
    told = {"units": "1", "long_name": "solid (1) or empty (0)"}
    return xr.DataArray(values, {"shape": names, **places}, ("shape", *AXES), name=NAME, attrs=told)


def _last(categories: NDArray[np.str_], test: int) -> NDArray[np.str_]:
    """Splits in which the last `test` of each category are "test"."""
    splits = np.full(len(categories), "train", dtype="<U10")
    for category in np.unique(categories):
        members = np.flatnonzero(categories == category)
        if not 1 <= test < len(members):
            called = f" of category {str(category)!r}" if category else ""
            raise ValueError(
                f"test holds from 1 to {len(members) - 1} of the {len(members)} shapes{called}, got {test}"
            )
        splits[members[-test:]] = "test"
    return splits


@dataclass(frozen=True)
class Ingested:
    """A store that was made, how many shapes the source holds, and which of them could not be read."""

    store: Store
    found: int
    unreadable: tuple[Fault, ...]


def ingest(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    category: str | None = None,
    test: int | None = None,
    up: Up = "z",
    license: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Ingested:
    """Write shapes to a new store.

    Args:
        source: See `open_shapes`.
        store: The local folder to make; STORE.partial beside it holds what is finished until then.
        resolution: Voxels along each edge; None for that of arrays, and 64 of files.
        category: Only these.
        test: So many shapes, the last of each category, are for testing, whatever the source says of splits.
        up: The source's axis that points upwards ("y" in ShapeNet); it becomes the store's z.
        license: Under which the source is given; else "unknown".
        overwrite: Replace a store that is there.
        progress: Called with (shapes done, shapes in all).

    Raises:
        FileNotFoundError: If there is no source.
        ValueError: If it holds no shapes, or none that can be read.
        FileExistsError: If the store exists and is not to be replaced.
        OSError: If the store cannot be written.
    """
    check_target(store, overwrite=overwrite)
    if resolution is not None and not 4 <= resolution <= LARGEST:
        raise ValueError(f"a resolution is from 4 to {LARGEST} voxels along an edge, got {resolution}")
    found = open_shapes(source, category)
    cells = resolution or found.resolution
    partial = Path(f"{os.fspath(store).rstrip(os.sep)}.partial")
    made = voxelise(found, cells, partial, up=up, progress=progress)
    named: dict[str, Any] = {}
    categories = np.array([item.category for item in made.items])
    splits = np.array([item.split for item in made.items], dtype="<U10")
    if test is not None:
        splits = _last(categories, test)
    if any(categories):
        named["category"] = ("shape", categories.astype(object))
    if any(splits):
        named[MARK] = ("shape", np.where(splits == "", "train", splits).astype(object))
    faults = {fault.name: fault.reason for fault in made.work.faults}
    field = as_field(made.values, np.array([item.name for item in made.items], dtype=object))
    field = field.assign_coords(named).assign_attrs(unreadable=json.dumps(faults))
    written = write_store(
        field,
        store,
        source=str(source),
        license=license or "unknown",
        overwrite=overwrite,
        domain="cube",
    )
    made.work.clear()
    return Ingested(written, len(found.items), made.work.faults)
