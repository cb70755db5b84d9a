"""Meshes -> solid voxels, watertight or not.

The surface is sampled more densely than the grid, so that the cells that it passes through form a wall. What lies
outside is then found by looking: of a watertight mesh all that can be walked to from the border, of any other (whose
holes would let a walker in) all that is seen from outside along an axis. What is left is solid.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.data.voxels import Voxels

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb")
LARGEST_MESH = 2**30  # bytes
SPACING = 0.45  # of surface samples, in cells: no cell that a triangle passes through the middle of is missed
CHUNK = 2_000_000  # samples at a time
LARGEST_SURFACE = 2_000_000_000  # samples
# What trimesh's readers raise for files that are not what they say.
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OSError,
    EOFError,
    MemoryError,
    RecursionError,
    OverflowError,
    AssertionError,
    struct.error,
)


def voxelised(data: bytes, suffix: str, resolution: int) -> Voxels:
    """Read a mesh and make it solid.

    Args:
        data: The file's content; nothing else (materials, textures) is ever read.
        suffix: Which format, one of `SUFFIXES`.
        resolution: Cells along each edge of the cube; the mesh fills it but for a cell on either side.

    Returns:
        [x, y, z], the mesh's own axes.

    Raises:
        ValueError: If it is damaged, empty, or has no extent.
    """
    vertices, faces, watertight = _read(data, suffix)
    return solid_of(vertices, faces, resolution, watertight=watertight)


def solid_of(vertices: NDArray[Any], faces: NDArray[Any], resolution: int, *, watertight: bool) -> Voxels:
    """Solid voxels of a triangle mesh: vertices [V, 3], faces [F, 3]; see `voxelised`."""
    corners = np.asarray(vertices, np.float64)[faces]
    if not len(corners) or not np.isfinite(corners).all():
        raise ValueError("it has no triangles" if not len(corners) else "it has vertices that are not finite")
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    extent = float((high - low).max())
    if extent <= 0:
        raise ValueError("it has no extent: all of its vertices are one point")
    # a hair less than that, so that rounding puts no face into the cells beyond
    cells = (corners - (low + high) / 2) * ((resolution - 2.001) / extent) + resolution / 2
    wall = _wall(cells, resolution)
    outside = _walked(wall) if watertight else _seen(wall)
    return ~outside


def _read(data: bytes, suffix: str) -> tuple[NDArray[Any], NDArray[Any], bool]:
    """Vertices, faces, and whether they enclose a volume."""
    import trimesh

    if len(data) > LARGEST_MESH:
        raise ValueError(f"it is {len(data) / 2**30:.1f} GiB long where {LARGEST_MESH / 2**30:.0f} are allowed")
    options: dict[str, Any] = {"skip_materials": True, "split_object": False} if suffix == ".obj" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mesh = trimesh.load_mesh(io.BytesIO(data), file_type=suffix[1:], process=False, **options)
            if isinstance(mesh, trimesh.Scene):
                mesh = mesh.to_mesh()
            mesh.merge_vertices(merge_tex=True, merge_norm=True)
            return np.asarray(mesh.vertices), np.asarray(mesh.faces), bool(mesh.is_watertight)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"it cannot be read as a {suffix} mesh: {reason}") from error


def _wall(cells: NDArray[np.float64], resolution: int) -> Voxels:
    """The cells that triangles [F, 3, 3], in units of cells, pass through."""
    first, along, across = cells[:, 0], cells[:, 1] - cells[:, 0], cells[:, 2] - cells[:, 0]
    edges = np.stack([along, across, along - across], axis=1)
    steps = np.ceil(np.linalg.norm(edges, axis=-1).max(axis=1) / SPACING).astype(np.int64).clip(1)
    wall = np.zeros((resolution,) * 3, dtype=bool)
    if int(((steps + 1) * (steps + 2) // 2).sum()) > LARGEST_SURFACE:
        raise ValueError(f"its surface is too large: more than {LARGEST_SURFACE:.0e} samples at {resolution} cells")
    for size in np.unique(steps):
        row, column = np.nonzero(np.add.outer(np.arange(size + 1), np.arange(size + 1)) <= size)
        u, v = (row / size)[None, :, None], (column / size)[None, :, None]
        same = np.flatnonzero(steps == size)
        for some in np.array_split(same, -(-len(same) * len(row) // CHUNK)):
            points = first[some, None] + u * along[some, None] + v * across[some, None]
            place = points.reshape(-1, 3).astype(np.int64).clip(0, resolution - 1)
            wall[place[:, 0], place[:, 1], place[:, 2]] = True
    return wall


def _walked(wall: Voxels) -> Voxels:
    """The empty cells that are connected to the border, by faces."""
    regions, _ = ndimage.label(~np.pad(wall, 1))
    outside: Voxels = (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return outside


def _seen(wall: Voxels) -> Voxels:
    """The empty cells that nothing hides from one of the six sides."""
    seen = np.zeros_like(wall)
    for axis in range(3):
        seen |= ~np.logical_or.accumulate(wall, axis=axis)
        seen |= ~np.flip(np.logical_or.accumulate(np.flip(wall, axis), axis=axis), axis)
    return seen
