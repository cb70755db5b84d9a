"""How alike two solids are, and two sets of solids: IoU, F1, Chamfer distance, coverage, MMD, 1-NN accuracy.

Source: Achlioptas et al., "Learning representations and generative models for 3D point clouds", ICML 2018 (coverage,
    minimum matching distance); Yang et al., "PointFlow", ICCV 2019 (1-NN accuracy, and the Chamfer distance
    mean_a min_b |a - b|^2 + mean_b min_a |a - b|^2).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

POINTS = 2048
Solids = NDArray[np.bool_]


def iou(made: Solids, truth: Solids) -> NDArray[np.float64]:
    """Intersection over union of solids [B, ...] each; 1 where both are empty."""
    made, truth = made.reshape(len(made), -1), truth.reshape(len(truth), -1)
    union = (made | truth).sum(axis=1)
    return np.where(union, (made & truth).sum(axis=1) / np.maximum(union, 1), 1.0)


def f1(made: Solids, truth: Solids) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall of the solid cells [B, ...] each; 1 where both are empty."""
    overlap = iou(made, truth)
    return 2 * overlap / (1 + overlap)


def surface_points(solid: Solids, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points [count, 3] drawn uniformly from the faces between solid and empty cells [x, y, z] of [-1, 1]^3.

    Raises:
        ValueError: If nothing is solid.
    """
    padded = np.pad(solid, 1)
    cells, axes = [], []
    for axis in range(3):
        differ = np.diff(padded.astype(np.int8), axis=axis) != 0
        inside = tuple(slice(None) if other == axis else slice(1, -1) for other in range(3))
        found = np.argwhere(differ[inside])
        cells.append(found)
        axes.append(np.full(len(found), axis))
    cell, across = np.concatenate(cells), np.concatenate(axes)
    if not len(cell):
        raise ValueError("nothing is solid: there is no surface to draw points from")
    # faces of a box whose cells are no cubes have different areas
    size = 2 / np.array(solid.shape)
    area = (np.prod(size) / size)[across]
    chosen = rng.choice(len(cell), count, p=area / area.sum())
    places = cell[chosen] + rng.random((count, 3))
    places[np.arange(count), across[chosen]] = cell[chosen, across[chosen]]
    return places * size - 1


def chamfer(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The Chamfer distance of two clouds of points [n, 3], [m, 3]."""
    return float(_towards(cKDTree(other), one) + _towards(cKDTree(one), other))


def distances(
    rows: Sequence[NDArray[np.float64]], columns: Sequence[NDArray[np.float64]] | None = None
) -> NDArray[np.float64]:
    """Chamfer distances of every cloud of one set to every one of another, or of the same."""
    same = columns is None
    left = [cKDTree(cloud) for cloud in rows]
    right = left if columns is None else [cKDTree(cloud) for cloud in columns]

    def row(number: int) -> NDArray[np.float64]:
        found = np.zeros(len(right))
        for other in range(number + 1 if same else 0, len(right)):
            a, b = left[number], right[other]
            found[other] = _towards(b, a.data) + _towards(a, b.data)
        return found

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8)) as pool:
        table = np.array(list(pool.map(row, range(len(left)))))
    return table + table.T if same else table


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike a set of made shapes is to a set of true ones.

    Attributes:
        mmd: Mean over true shapes of the distance to the nearest made one; less is better.
        coverage: Share of the true shapes that are some made shape's nearest; more is better.
        one_nn: Share of all shapes whose nearest other shape is of their own set; 1/2 where nobody can tell the sets.
    """

    mmd: float
    coverage: float
    one_nn: float


def likeness(made: NDArray[np.float64], across: NDArray[np.float64], truth: NDArray[np.float64]) -> Likeness:
    """Compare two sets by distances: among the made [M, M], made to true [M, T], among the true [T, T]."""
    among, among_truth = made.copy(), truth.copy()
    np.fill_diagonal(among, np.inf)
    np.fill_diagonal(among_truth, np.inf)
    own = among.min(axis=1, initial=np.inf) < across.min(axis=1)
    own_truth = among_truth.min(axis=1, initial=np.inf) < across.min(axis=0)
    return Likeness(
        mmd=float(across.min(axis=0).mean()),
        coverage=len(np.unique(across.argmin(axis=1))) / across.shape[1],
        one_nn=float((own.sum() + own_truth.sum()) / (len(own) + len(own_truth))),
    )


def _towards(tree: cKDTree, points: NDArray[np.float64]) -> float:
    nearest, _ = tree.query(points)
    return float((nearest**2).mean())
