"""Probabilities on a grid -> closed meshes, with normals and colours, in the formats that programs for 3D read.

The surface is sought in the logit, which between two cells is nearer to a straight line than the probability is.

Source: Lorensen and Cline, "Marching cubes", SIGGRAPH 1987. Differs: scikit-image's cases, whose meshes are closed;
    those of Lewiner et al. (2003) meet four at an edge where a solid of zeros and ones is ambiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.data.voxels import write_binvox
from pipelines.products.charts import CATEGORIES

LEVEL = 0.5
SUFFIXES = (".ply", ".glb", ".obj", ".stl", ".binvox")
GAP = 2.4  # between solids that stand in one file, in coordinate units: an edge of the cube is 2
# marching cubes divide by differences of what is nearly equal: a logit this near zero is moved off it
SMALLEST, LARGEST_LOGIT = 1e-3, 6.0


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Attributes:
        vertices: [V, 3] in the cube [-1, 1]^3.
        faces: [F, 3], counter-clockwise seen from outside.
        normals: [V, 3], outward unit vectors.
        colours: [V, 3] uint8, or None.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float64]
    colours: NDArray[np.uint8] | None = None


def mesh_of(probability: NDArray[np.floating], components: NDArray[np.integer] | None = None) -> Mesh:
    """The surface where a probability is one half, between the voxels' centres as precisely as they say.

    Args:
        probability: [x, y, z] at the centres of cells that fill [-1, 1]^3. What touches the cube's faces is closed
            there.
        components: [x, y, z], the component of the mixture, which gives each vertex its colour.

    Raises:
        ValueError: If nothing is solid.
    """
    from skimage.measure import marching_cubes

    values = np.asarray(probability, np.float32).clip(0, 1)
    if not (values > LEVEL).any():
        raise ValueError(f"nothing to mesh: no probability is above {LEVEL}, the largest is {values.max():.3g}")
    with np.errstate(divide="ignore"):
        logit = np.clip(np.log(values) - np.log1p(-values), -LARGEST_LOGIT, LARGEST_LOGIT)
    logit = np.where(np.abs(logit) < SMALLEST, np.where(values > LEVEL, SMALLEST, -SMALLEST), logit)
    padded = np.pad(logit, 1, constant_values=-LARGEST_LOGIT)  # emptiness all around, so that the surface is closed
    found = marching_cubes(padded, 0.0, method="lorensen", gradient_direction="ascent", allow_degenerate=True)
    places, faces = found[0].astype(np.float64), found[1].astype(np.int64)
    cell = 2 / np.array(values.shape)
    inward = np.stack([ndimage.map_coordinates(slope, places.T, order=1) for slope in np.gradient(padded)], axis=-1)
    normals = _oriented(-inward / cell, places * cell, faces)
    colours = None
    if components is not None:
        # the component of the solid side of the surface
        inside = places + 0.5 * np.divide(inward, np.maximum(np.abs(inward).max(axis=-1, keepdims=True), 1e-12))
        nearest = tuple((np.rint(inside).astype(int) - 1).clip(0, np.array(values.shape) - 1).T)
        colours = palette()[np.asarray(components)[nearest] % len(CATEGORIES)]
    return Mesh((places - 1 + 0.5) * cell - 1, faces, normals, colours)


def palette() -> NDArray[np.uint8]:
    """A colour for each component [8, 3], told apart in every kind of colour blindness."""
    return np.rint(np.array([to_rgb(name) for name in CATEGORIES]) * 255).astype(np.uint8)


def write_meshes(meshes: Sequence[Mesh], path: Path, suffix: str) -> None:
    """Write solids side by side along the first axis, each an object of its own where the format knows objects."""
    import trimesh

    scene = trimesh.Scene()
    for number, mesh in enumerate(meshes):
        moved = mesh.vertices + [number * GAP, 0, 0]
        solid = trimesh.Trimesh(
            moved, mesh.faces, vertex_normals=mesh.normals, vertex_colors=mesh.colours, process=False
        )
        scene.add_geometry(solid, node_name=f"shape_{number}", geom_name=f"shape_{number}")
    if suffix == ".glb":
        data = scene.export(file_type="glb", include_normals=True)
    else:
        whole = trimesh.util.concatenate(list(scene.geometry.values()))
        options = {".ply": {"vertex_normal": True}, ".obj": {"include_normals": True}}.get(suffix, {})
        data = whole.export(file_type=suffix[1:], **options)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def write_voxels(probability: NDArray[np.floating], path: Path) -> None:
    """Write one solid [x, y, z] as binvox.

    Raises:
        ValueError: If the grid is no cube.
    """
    write_binvox(np.asarray(probability) > LEVEL, path)


def _oriented(
    outward: NDArray[np.float64], places: NDArray[np.float64], faces: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Unit normals; where the probability is too flat to give one, the mean of the triangles' around."""
    length = np.linalg.norm(outward, axis=-1, keepdims=True)
    corners = places[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    mean = np.stack(
        [np.bincount(faces.ravel(), np.repeat(across[:, axis], 3), len(places)) for axis in range(3)], axis=-1
    )
    normals = np.where(length > 1e-9, outward, mean)
    unit: NDArray[np.float64] = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return unit
