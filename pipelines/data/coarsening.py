"""What is known of a field in training: every so many-th point, means over blocks, or points anywhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.covariances import Observations
from pipelines.data.means import block_means
from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice

Floats = NDArray[np.floating]
Kind = Literal["points", "means", "scattered"]


def coarsened(
    fields: Floats, lattice: Lattice, factors: tuple[int, int], rng: np.random.Generator, *, means: bool = False
) -> tuple[Floats, Lattice]:
    """Every f-th point from a random offset for a random f; from the first point where f is not a choice.

    Where `means`, the mean over the cell around each.
    """
    low, high = factors
    factor = int(rng.integers(low, high + 1))
    offset = (0, 0) if low == high else (int(rng.integers(factor)), int(rng.integers(factor)))
    if means:
        return block_means(fields, lattice, factor, offset)
    return fields[:, offset[0] :: factor, offset[1] :: factor], lattice.every(factor, offset)


def thinned(fields: Floats, lattice: Lattice, every: int) -> tuple[Floats, Lattice]:
    """Every so many-th row and column, and the last: [B, n, m] -> [B, n' m'] and its grid."""
    rows, columns = (np.unique(np.append(np.arange(0, size, every), size - 1)) for size in lattice.shape)
    if lattice.periodic:
        columns = np.arange(0, lattice.shape[1], every)
    part = Lattice(latitude=lattice.latitude[rows], longitude=lattice.longitude[columns], closed=lattice.periodic)
    return fields[:, rows][:, :, columns].reshape(len(fields), -1), part


def drawn_places(lattice: Lattice, factors: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """A set of points of a lattice [n], as an input may be.

    Half of the sets are points by area, as many as those of a lattice of a factor in the range; the others are such
    lattices from any offset, half of them with gaps.
    """
    low, high = factors
    total = len(lattice.coords)
    if rng.random() < 0.5:
        count = int(np.clip(total / rng.uniform(low, high) ** 2, 4, total))
        return np.sort(rng.choice(total, count, replace=False, p=lattice.area))
    factor = int(rng.integers(low, high + 1))
    first = rng.integers(factor, size=2)
    held = np.arange(total).reshape(lattice.shape)[first[0] :: factor, first[1] :: factor].ravel()
    held = held[lattice.every(factor, (int(first[0]), int(first[1]))).distinct_index]
    kept = max(4, round(len(held) * (1 - max(0.0, rng.uniform(-0.7, 0.7)))))
    return np.sort(rng.choice(held, min(kept, len(held)), replace=False))


def observed(
    fields: Floats, lattice: Lattice, factors: tuple[int, int], rng: np.random.Generator, kind: Kind
) -> tuple[Floats, Observations]:
    """What is known of fields in training, to be analysed.

    Args:
        fields: [B, n, m].
        lattice: Theirs.
        factors: Smallest and largest coarsening factor.
        rng: Draws the coarsening.
        kind: What is known.

    Returns:
        [B, n'], and where.
    """
    if kind == "scattered":
        at, places = drawn_places(lattice, factors, rng), observations(lattice, means=False)
    else:
        fields, where = coarsened(fields, lattice, factors, rng, means=kind == "means")
        at, places = where.distinct_index, observations(where, means=kind == "means")
    return fields.reshape(len(fields), -1)[:, at].astype(np.float64), places.of(at)


def observations(lattice: Lattice | Scatter, *, means: bool) -> Observations:
    """Where values stand: at points, or in the cells around those of a grid, whose means they are."""
    if not means or isinstance(lattice, Scatter):
        return Observations(*lattice.points)
    height, width = (
        float(np.abs(np.diff(axis)).mean()) if len(axis) > 1 else 0.0 for axis in (lattice.latitude, lattice.longitude)
    )
    return Observations(*lattice.points, cell=(height or width, width or height))
