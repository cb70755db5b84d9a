"""Members that reproduce their input: a continuous correction is added to each, near where it is asked for.

    correction(x) = bilinear(X)(x) + sum_cells R_c bump_c(x)

X on the input's grid is what brings the members' means over the input's cells nearly to the input's values: the
inverse, cut after two cells, of what bilinear interpolation makes of X in those means. What is left (under a hundredth
of it) is R, and each cell takes its own by a bump that is zero with its slope at the cell's edges (around a pole see
pipelines/products/cells.py). So the correction is continuous, depends on the members within three cells only, and is
the same in every tile. Values at points need no R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sphere import Lattice
from pipelines.products.cells import BAND, Axis, Means, boxes, edges_between
from pipelines.products.doubts import Kind
from pipelines.products.ensemble import Ensemble
from pipelines.products.targets import Target

Array = NDArray[np.float64]
FAR = 8  # cells, beyond which nothing is seen of it
_MARGIN_DEG = 0.02  # around a tile, for the gradient's differences


@dataclass(frozen=True, kw_only=True, eq=False)
class Conserved:
    """The correction around one tile.

    Attributes:
        rows, columns: The cells that it knows.
        middle: Longitude that the columns lie around.
        smooth: X [M, T, rows, columns] kelvin.
        rest: The bumps' heights, likewise; None where values are reproduced at points.
    """

    rows: Axis
    columns: Axis
    middle: float
    smooth: NDArray[np.floating]
    rest: NDArray[np.floating] | None

    @classmethod
    def of(
        cls, kind: Kind | None, ensemble: Ensemble, target: Target, positions: tuple[NDArray[np.int64], ...]
    ) -> Conserved | None:
        """Ask the members around a tile of the target what they miss of their input."""
        if kind is None:
            return None
        latitude, longitude = target.latitude[positions[0]], target.longitude[positions[-1]]
        middle = _middle(ensemble, longitude)
        turned = _near(longitude, middle)
        axes = (_along_meridians(ensemble), _along_circles(ensemble, middle))
        spans = []
        for axis, places in zip(axes, (latitude, turned), strict=True):
            ends = axis.bracket(np.array([places.min() - _MARGIN_DEG, places.max() + _MARGIN_DEG]))[0]
            spans.append((int(ends[0]), int(ends[1]) + 2))
        if kind == "points":
            rows, columns = (axis.part(*span) for axis, span in zip(axes, spans, strict=True))
            known = _input(ensemble, rows, columns, poles_alike=True)
            missed = known - _members(ensemble, rows.points, columns.points)
            smooth, rest = np.where(np.isfinite(missed), missed, 0.0), None
        else:
            rows, columns, smooth, rest = _of_means(ensemble, target, axes, spans)
        return cls(rows=rows, columns=columns, middle=middle, smooth=smooth, rest=rest)

    def correction(self, latitude: Array, longitude: Array) -> NDArray[np.float32]:
        """[M, T, N] kelvin at places of the tile, or beside them."""
        turned = _near(longitude, self.middle)
        (low, up), (left, along) = self.rows.bracket(latitude), self.columns.bracket(turned)
        above, right = (np.minimum(at + 1, n - 1) for at, n in zip((low, left), self.smooth.shape[-2:], strict=True))
        grid = self.smooth
        found = (grid[..., low, left] * (1 - along) + grid[..., low, right] * along) * (1 - up)
        found += (grid[..., above, left] * (1 - along) + grid[..., above, right] * along) * up
        if self.rest is not None:
            ((column, wide),) = self.columns.bumps(turned)
            for row, high in self.rows.bumps(latitude):
                found += self.rest[..., row, column] * (high * wide)
        return found.astype(np.float32)


def check_conserved(kind: Kind, lattice: Lattice, target: Target) -> None:
    """Refuse what cannot be reproduced.

    Raises:
        ValueError: If cell means are asked of a list of places, or of a grid that is coarser than the input.
    """
    if kind == "points":
        return
    if target.names is not None:
        raise ValueError("the input is means of cells, which a list of places cannot reproduce: leave out --conserve")
    for name in ("latitude", "longitude"):
        fine, coarse = (np.abs(np.diff(np.unwrap(getattr(grid, name), period=360.0))) for grid in (target, lattice))
        if len(fine) and len(coarse) and fine.max() > coarse.min() * (1 + 1e-6):
            raise ValueError("--conserve needs a target that is at least as fine as the input's cells")


def _of_means(
    ensemble: Ensemble, target: Target, axes: tuple[Axis, Axis], spans: list[tuple[int, int]]
) -> tuple[Axis, Axis, NDArray[np.floating], NDArray[np.floating]]:
    """The cells around a tile, X and R: asked of the members within BAND + 1 cells, from matrices of FAR more."""
    parts, means, known, fine = [], [], [], []
    for number, (axis, (start, stop)) in enumerate(zip(axes, spans, strict=True)):
        first = max(start - BAND - 1 - FAR, 0)
        wide = axis.part(first, stop + BAND + 1 + FAR)
        cells = slice(max(start - BAND - 1, 0) - first, min(stop + BAND + 1 - first, len(wide.points)))
        mean = Means.of(wide, *boxes(wide, target.longitude if number else target.latitude, turning=bool(number)))
        parts.append(wide.part(cells.start, cells.stop))
        means.append(mean)
        known.append(cells)
        fine.append(np.flatnonzero((mean.mean[cells] > 0).any(axis=0)))
    asked = _members(ensemble, means[0].at[fine[0]], means[1].at[fine[1]])
    north, east = (mean.mean[cells][:, chosen] for mean, cells, chosen in zip(means, known, fine, strict=True))
    covered = np.outer(*(mean.covered[cells] for mean, cells in zip(means, known, strict=True)))
    missed = _input(ensemble, parts[0], parts[1]) - north @ asked @ east.T
    missed = np.where(np.isfinite(missed) & covered, missed, 0.0)
    inverse = [mean.inverse[cells, cells] for mean, cells in zip(means, known, strict=True)]
    smooth = inverse[0] @ missed @ inverse[1].T
    made = [mean.bilinear[cells, cells] for mean, cells in zip(means, known, strict=True)]
    rest = np.where(covered, missed - made[0] @ smooth @ made[1].T, 0.0)
    undone = [_undone(mean.bumps[cells, cells]) for mean, cells in zip(means, known, strict=True)]
    return parts[0], parts[1], smooth, undone[0] @ rest @ undone[1].T


def _undone(bumps: Array) -> Array:
    """From means over cells to the heights of bumps [n, n]; zero where no point of the output lies under one."""
    inverse = np.zeros_like(bumps)
    free = np.flatnonzero(np.diagonal(bumps) > 1e-3)
    inverse[np.ix_(free, free)] = np.linalg.inv(bumps[np.ix_(free, free)])
    return inverse


def _members(ensemble: Ensemble, latitude: Array, longitude: Array) -> NDArray[np.floating]:
    """Members [M, T, n, m] on a small grid."""
    rows, columns = np.meshgrid(latitude, longitude, indexing="ij")
    values, _ = ensemble.at(rows.ravel(), columns.ravel())
    return values.astype(np.float64).reshape(*values.shape[:2], *rows.shape)


def _input(ensemble: Ensemble, rows: Axis, columns: Axis, *, poles_alike: bool = False) -> NDArray[np.floating]:
    """What is to be reproduced [T, rows, columns], NaN where nothing is known."""
    found = ensemble.coarse[:, rows.source][:, :, columns.source].astype(np.float64)
    for row in np.flatnonzero(rows.polar & (rows.source >= 0)) if poles_alike else ():
        whole = ensemble.coarse[:, rows.source[row]].astype(np.float64)
        seen = np.isfinite(whole)
        total = np.where(seen, whole, 0.0).sum(axis=1)
        found[:, row] = (total / np.where(seen.any(axis=1), seen.sum(axis=1), np.nan))[:, None]
    found[:, rows.source < 0] = np.nan
    return found


def _grid(ensemble: Ensemble) -> Lattice:
    assert isinstance(ensemble.lattice, Lattice)  # a list of points has no cells, and was refused
    return ensemble.lattice


def _along_meridians(ensemble: Ensemble) -> Axis:
    """The input's rows from south to north; round the globe, with poles that nothing is known of where it has none."""
    points = _grid(ensemble).latitude[::-1]
    source, edges = np.arange(len(points))[::-1], np.clip(edges_between(points), -90.0, 90.0)
    if _grid(ensemble).periodic and points[0] > -90.0 + 1e-9:
        points, source, edges = np.append(-90.0, points), np.append(-1, source), np.append(edges[0], edges)
    if _grid(ensemble).periodic and points[-1] < 90.0 - 1e-9:
        points, source, edges = np.append(points, 90.0), np.append(source, -1), np.append(edges, edges[-1])
    return Axis(points=points, edges=edges, source=source, polar=np.abs(points) > 90.0 - 1e-9)


def _along_circles(ensemble: Ensemble, middle: float) -> Axis:
    """The input's columns from west to east; round the globe, as many turns as a tile's surroundings may touch."""
    points = _grid(ensemble).longitude
    count, turns = len(points), 0
    if _grid(ensemble).periodic:
        points = points + 360.0 * np.round((middle - points.mean()) / 360.0)
        turns = 2 + (BAND + FAR + 2) // count
    shifted = np.concatenate([points + 360.0 * turn for turn in range(-turns, turns + 1)])
    source = np.tile(np.arange(count), 2 * turns + 1)
    return Axis(points=shifted, edges=edges_between(shifted), source=source, polar=np.zeros(len(source), dtype=bool))


def _middle(ensemble: Ensemble, longitude: Array) -> float:
    """What a tile's longitudes are turned to be near to."""
    own = _grid(ensemble).longitude
    return float(longitude[len(longitude) // 2]) if _grid(ensemble).periodic else float((own[0] + own[-1]) / 2)


def _near(longitude: Array, middle: float) -> Array:
    """Longitudes within half a turn of another."""
    return middle + np.mod(longitude - middle + 180.0, 360.0) - 180.0
