"""Which points are near which: nearest neighbours and farthest-point sampling, remembered by the points' content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from vamoh.remembered import as_numpy, remember


@dataclass(frozen=True)
class Neighbours:
    """The J nearest points of a set for each of N queries, nearest first.

    Attributes:
        index: [N, J] int64 into the set.
        offset: [N, J, D], set point minus query point.
        distance: [N, J].
    """

    index: Tensor
    offset: Tensor
    distance: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.index.nbytes + self.offset.nbytes + self.distance.nbytes

    def differentiable(self, queries: Tensor, points: Tensor) -> Neighbours:
        """The same neighbours, with offsets and distances that can be differentiated with respect to the queries."""
        offset = points[self.index] - queries[:, None]
        return Neighbours(self.index, offset, torch.linalg.vector_norm(offset, dim=-1))


@dataclass(frozen=True)
class Tree:
    """A set's search tree."""

    tree: cKDTree

    @property
    def nbytes(self) -> int:
        """About what it takes: the points, their order and the nodes."""
        return 2 * self.tree.data.nbytes


def nearest(queries: Tensor, points: Tensor, count: int) -> Neighbours:
    """The `count` points of `points` [M, D] that are nearest to each of `queries` [N, D]; fewer where M < count."""
    count = min(count, len(points))

    def build() -> Neighbours:
        near, far = as_numpy(points), as_numpy(queries)
        tree = remember(("tree",), (points,), lambda: Tree(cKDTree(near))).tree  # a large set is asked about many times
        _, index = tree.query(far, k=np.arange(1, count + 1))
        offset = near[index] - far[:, None]
        distance = np.sqrt(np.einsum("njd,njd->nj", offset, offset))
        return Neighbours(
            torch.from_numpy(index).to(queries.device),
            torch.from_numpy(offset).to(queries),
            torch.from_numpy(distance).to(queries),
        )

    return remember(("nearest", count), (queries, points), build)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Farthest-point sampling: `count` indices [count] into `points` [N, D], spread evenly, beginning with the first.

    Where N <= count, all of them in their order.
    """
    if len(points) <= count:
        return torch.arange(len(points), device=points.device)

    def build() -> Tensor:
        axes = np.ascontiguousarray(as_numpy(points).T)  # [D, N]: an axis at a time stays in the cache
        chosen = np.zeros(count, dtype=np.int64)
        nearest_chosen = np.full(len(points), np.inf, dtype=axes.dtype)
        squared, along = np.empty_like(nearest_chosen), np.empty_like(nearest_chosen)
        for step in range(1, count):
            squared.fill(0)
            for axis in axes:
                np.subtract(axis, axis[chosen[step - 1]], out=along)
                np.multiply(along, along, out=along)
                np.add(squared, along, out=squared)
            np.minimum(nearest_chosen, squared, out=nearest_chosen)
            chosen[step] = nearest_chosen.argmax()
        return torch.from_numpy(chosen).to(points.device)

    return remember(("farthest", count), (points,), build)


def canonical_order(points: Tensor) -> Tensor:
    """The permutation [N] that sorts `points` [N, D] by coordinates, so that what follows cannot see their order."""

    def build() -> Tensor:
        where = as_numpy(points)
        return torch.from_numpy(np.lexsort(where.T[::-1]).copy()).to(points.device)

    return remember(("order",), (points,), build)
