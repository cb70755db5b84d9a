"""Shapes, as users meet them: voxels and meshes in and out, pictures, and scores beside trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.domain import Geometry
from pipelines.data.shapes import AXES
from pipelines.data.store import Store
from pipelines.data.voxels import LARGEST
from pipelines.products import coarse_to_fine, solids
from pipelines.products.kinds import Ask, Generated
from pipelines.products.shape_figures import illustration, montage
from pipelines.products.shape_inputs import read_shapes
from pipelines.products.shape_scores import scores
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.plan import Plan
from vamoh.systems import Model


class ShapeProducts:
    """See `ProductKind`."""

    values = "probability"

    @property
    def writers(self) -> Mapping[str, Callable[[xr.Dataset, Path], None]]:
        """Meshes of all shapes side by side, and voxels of one."""
        return {suffix: partial(_write, suffix=suffix) for suffix in solids.SUFFIXES}

    def read(self, source: str | xr.DataArray, plan: Plan) -> xr.DataArray:
        """Voxels (shape, x, y, z), NaN where nothing was seen; see `read_shapes`."""
        return read_shapes(source)

    def at(self, geometry: Geometry, resolution: float) -> Box:
        """So many voxels along the longest edge."""
        if resolution != int(resolution) or not 4 <= resolution <= LARGEST:
            raise ValueError(f"--resolution is a number of voxels along an edge, 4 to {LARGEST}, got {resolution:g}")
        assert isinstance(geometry, Box)
        return geometry.at(int(resolution))

    def evaluated(self, ask: Ask, geometry: Geometry) -> NDArray[np.float32]:
        """Coarsely, and finely where the surface is."""
        assert isinstance(geometry, Box)
        return coarse_to_fine.evaluated(ask, geometry)

    def named(self, made: Generated, plan: Plan) -> xr.Dataset:
        """Probability of being solid (shape, realization, x, y, z)."""
        box = made.geometry
        assert isinstance(box, Box)
        shape = (*made.values.shape[:2], *box.shape)
        dims = ("shape", "realization", *AXES)
        named = {"shape": np.arange(shape[0]) if made.items is None else made.items}
        places = {axis: (axis, centres, {"units": "1"}) for axis, centres in zip(AXES, box.axes, strict=True)}
        told = {"long_name": "probability of being solid", "units": "1"}
        return xr.Dataset(
            {
                self.values: (dims, made.values[..., 0].reshape(shape), told),
                "component": (dims, made.components.reshape(shape), {"long_name": "most probable component"}),
            },
            {**named, **places},
            {"Conventions": "CF-1.11"},
        )

    def figure(self, dataset: xr.Dataset) -> Figure:
        """A montage: a row for each shape where there are several realizations of it."""
        return montage(dataset)

    def illustration(self, checkpoint: Checkpoint, network: Model, store: Store, sample: int) -> Figure:
        """A shape, its reconstruction, its completion from a half, and shapes from the prior."""
        return illustration(checkpoint, network, store, sample)

    def scores(
        self,
        checkpoint: Checkpoint,
        network: Model,
        store: Store,
        chosen: NDArray[np.int64],
        learned: tuple[Store, NDArray[np.int64]] | None,
        *,
        members: int,
        seed: int,
    ) -> dict[str, Any]:
        """See `shape_scores.scores`."""
        return scores(checkpoint.plan, network, store, chosen, learned, seed=seed)


def _write(dataset: xr.Dataset, path: Path, *, suffix: str) -> None:
    """Write all shapes as meshes, coloured by component; binvox holds one shape."""
    probability = dataset["probability"].stack(each=[dim for dim in dataset["probability"].dims if dim not in AXES])
    component = dataset["component"].stack(each=probability["each"].indexes["each"].names)
    several = probability.transpose("each", *AXES).values
    if suffix == ".binvox":
        if len(several) != 1:
            raise ValueError(f"a .binvox holds one shape, there are {len(several)}: write .npz, or ask for --number 1")
        solids.write_voxels(several[0], path)
        return
    colours = component.transpose("each", *AXES).values
    meshes = [solids.mesh_of(*each) for each in zip(several, colours, strict=True) if (each[0] > solids.LEVEL).any()]
    if not meshes:
        raise ValueError("none of the shapes is solid anywhere: there is no mesh to write")
    solids.write_meshes(meshes, path, suffix)
