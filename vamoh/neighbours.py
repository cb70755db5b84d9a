"""Which points are near which: nearest neighbours and farthest-point sampling, remembered by the points' content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from vamoh.remembered import as_numpy, remember

Found = tuple[NDArray[np.float64], NDArray[np.int64]]
MANY, AT_ONCE = 256, 1024  # queries for which looking at groups of them is worth while; that are sorted at a time
MOST_CELLS = 2**60  # that an integer can name


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
        distance, index = (torch.from_numpy(part).to(queries.device) for part in _found(tree, far, count))
        offset = nn.functional.embedding(index, points.detach()) - queries.detach()[:, None]
        return Neighbours(index, offset, distance.to(queries))

    return remember(("nearest", count), (queries, points), build)


def _found(tree: cKDTree, queries: NDArray[Any], count: int) -> Found:
    """How far the nearest of each query are, and which they are, [N, J] each, nearest first.

    The tree is asked once for all queries of a small cell.
    With r the half diagonal of a cell and d_j the distance of its centre's j-th nearest, the J nearest of a query in it
    lie within d_J + 2 r of the centre: they are among the centre's 2 J nearest wherever d_2J is as large as that.
    """
    several = 2 * count
    if len(queries) < MANY or several > tree.n:
        return _asked(tree, queries, count)
    probe = tree.query(queries[:: len(queries) // 8], k=[count, several])[0]
    num_axes = queries.shape[1]
    side = 0.8 * float(np.median(probe[:, 1] - probe[:, 0])) / num_axes**0.5
    if side <= 0:
        return _asked(tree, queries, count)
    cell = np.floor(queries / side).astype(np.int64)
    cell -= cell.min(axis=0)
    extent = cell.max(axis=0) + 1
    if extent.astype(float).prod() > MOST_CELLS:
        return _asked(tree, queries, count)
    named = np.ravel_multi_index(cell.T, extent)
    _, first, group = np.unique(named, return_index=True, return_inverse=True)
    if len(first) * 4 > len(queries):
        return _asked(tree, queries, count)
    centres = (np.floor(queries[first] / side) + 0.5) * side
    distance, near = tree.query(centres, k=several)
    across = 1.001 * side * num_axes**0.5  # a little more, for what rounding moves out of a cell
    safe = (distance[:, -1] >= distance[:, count - 1] + across)[group]
    low = (1 << (several - 1).bit_length()) - 1
    numbers, places = np.arange(several), tree.data[near].transpose(2, 0, 1).copy()  # [D, G, several]
    found = np.empty((len(queries), count)), np.empty((len(queries), count), np.int64)
    for start in range(0, len(queries), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        squared = np.zeros((len(queries[part]), several))
        for along, ours in zip(places, queries[part].T, strict=True):
            apart = along.take(group[part], axis=0)
            apart -= ours[:, None]
            apart *= apart
            squared += apart
        # a positive number and its bits are ordered alike: the last ones make room for which candidate it is
        keys = squared.view(np.int64)
        keys &= ~low
        keys |= numbers
        keys.sort(axis=1)
        np.sqrt(keys[:, :count].view(np.float64), out=found[0][part])
        found[1][part] = near.ravel()[group[part, None] * several + (keys[:, :count] & low)]
    if not safe.all():
        for ours, theirs in zip(found, _asked(tree, queries[~safe], count), strict=True):
            ours[~safe] = theirs
    return found


def _asked(tree: cKDTree, queries: NDArray[Any], count: int) -> Found:
    found: Found = tree.query(queries, k=np.arange(1, count + 1))
    return found


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
