"""Shapes of a source -> voxels, in parallel and resumable (`staged`), a bit each until they are stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import dask.array
import numpy as np
from numpy.typing import NDArray

from pipelines.data.shape_sources import Arrays, ShapeSource
from pipelines.data.shapenet import Item
from pipelines.data.staged import Staged, staged
from pipelines.data.voxels import Voxels
from pipelines.data.writing import Progress

Up = Literal["x", "y", "z"]


@dataclass(frozen=True)
class Voxelised:
    """What a source gave.

    Attributes:
        items: What could be read.
        values: Their voxels (shape, x, y, z) uint8, lazily.
        work: Knows what could not, and holds what is finished; to be cleared when the values are written elsewhere.
    """

    items: tuple[Item, ...]
    values: dask.array.Array
    work: Staged


def voxelise(
    source: ShapeSource,
    resolution: int,
    folder: str | os.PathLike[str],
    *,
    up: Up = "z",
    progress: Progress | None = None,
) -> Voxelised:
    """Bring every shape of a source to voxels.

    Args:
        source: See there.
        resolution: Cells along each edge.
        up: The source's axis that points upwards; z is the store's.
        folder: Keeps finished blocks; those of an earlier call for the same shapes are not made again.
        progress: Called with (shapes done, shapes in all).

    Raises:
        ValueError: If none of them can be read.
        OSError: If the folder cannot be written.
    """
    work = staged(
        source.items,
        [item.name for item in source.items],
        partial(_bits, source, resolution, up),
        Path(folder),
        identity=f"{source.name} {os.path.getmtime(source.name)} {resolution} {up}",
        block=source.at_once,
        processes=not isinstance(source, Arrays),
        progress=progress,
    )
    values = dask.array.map_blocks(
        partial(_cells, resolution=resolution),
        work.values,
        dtype=np.uint8,
        chunks=(work.values.chunks[0], *[(resolution,)] * 3),
        drop_axis=1,
        new_axis=(1, 2, 3),
    )
    return Voxelised(
        items=tuple(source.items[place] for place in work.kept),
        values=values,
        work=work,
    )


def upright(solid: Voxels, up: Up) -> Voxels:
    """Turn a solid [x, y, z] so that its third axis points upwards; nothing is mirrored."""
    match up:
        case "x":
            return solid.transpose(1, 2, 0)
        case "y":
            return solid.transpose(0, 2, 1)[:, ::-1]
        case "z":
            return solid


def _bits(source: ShapeSource, resolution: int, up: Up, item: Item) -> NDArray[np.uint8]:
    solid = upright(source.read(item, resolution), up)
    if not solid.any():
        raise ValueError("it is empty: not a single voxel is solid")
    return np.packbits(solid)


def _cells(bits: NDArray[np.uint8], *, resolution: int) -> NDArray[np.uint8]:
    cells = np.unpackbits(bits, axis=1, count=resolution**3)
    return cells.reshape(-1, resolution, resolution, resolution)
