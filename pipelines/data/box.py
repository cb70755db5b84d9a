"""Regular grids of the cube and of the plane: voxels and pixels as places in [-1, 1]^D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """The centres of n_1 x ... x n_D equal cells that fill [-1, 1]^D, the last axis fastest.

    Attributes:
        shape: Cells along each axis: (x, y, z), or (y, x).
    """

    shape: tuple[int, ...]

    @cached_property
    def axes(self) -> tuple[Array, ...]:
        """Coordinates of the centres along each axis."""
        return tuple((np.arange(size) + 0.5) * 2 / size - 1 for size in self.shape)

    @cached_property
    def coords(self) -> Array:
        """The centres [N, D]."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(self.shape))

    @cached_property
    def area(self) -> Array:
        """The share of the box that each cell is, [N], summing to one."""
        count = int(np.prod(self.shape))
        return np.full(count, 1 / count)

    @property
    def cell(self) -> tuple[float, ...]:
        """Sides of a cell."""
        return tuple(2 / size for size in self.shape)

    def at(self, resolution: int) -> Box:
        """The same box with so many cells along its longest axis."""
        longest = max(self.shape)
        return Box(tuple(max(1, round(size * resolution / longest)) for size in self.shape))

    def index_of(self, coords: Array) -> NDArray[np.int64]:
        """The cell that each of the places [n, D] lies in, [n]."""
        places = [
            np.clip(((coords[:, axis] + 1) / 2 * size).astype(np.int64), 0, size - 1)
            for axis, size in enumerate(self.shape)
        ]
        return np.asarray(np.ravel_multi_index(tuple(places), self.shape))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Box:
        """Read what `to_json` wrote."""
        return cls(tuple(int(size) for size in tree["shape"]))
