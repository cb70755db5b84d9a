"""Cells along one axis: what an output's points make of their means, and how interpolation is undone in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.grid import goes_round

Array = NDArray[np.float64]
BAND = 2  # cells, beyond which the inverse is cut off: it decays by 0.17 a cell


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """Cells along one axis, ascending: all of them along a meridian, or a stretch that may go round and round.

    Attributes:
        points: [n] degrees.
        edges: [n + 1] degrees, of the cells around the points.
        source: [n] where a point's values are in the input, -1 where there are none.
        polar: [n], a point at a pole: every longitude is the same place there.
    """

    points: Array
    edges: Array
    source: NDArray[np.int64]
    polar: NDArray[np.bool_]

    def part(self, first: int, stop: int) -> Axis:
        """Some of the cells."""
        first, stop = max(first, 0), min(stop, len(self.points))
        return Axis(
            points=self.points[first:stop],
            edges=self.edges[first : stop + 1],
            source=self.source[first:stop],
            polar=self.polar[first:stop],
        )

    def bracket(self, at: Array) -> tuple[NDArray[np.int64], Array]:
        """The point before each place, and how far it is to the next; beyond the ends, the end."""
        if len(self.points) == 1:
            return np.zeros(at.shape, np.int64), np.zeros(at.shape)
        left = np.clip(np.searchsorted(self.points, at, side="right") - 1, 0, len(self.points) - 2)
        along = (at - self.points[left]) / (self.points[left + 1] - self.points[left])
        return left, np.clip(along, 0.0, 1.0)

    def bumps(self, at: Array) -> list[tuple[NDArray[np.int64], Array]]:
        """Which bumps a place lies under, and their heights there.

        A cell's bump is zero with its slope at the cell's edges. That of a cell around a pole reaches from the pole,
        which is one place and no cell's own, to the next cell's point: its highest is at the edge between them.
        """
        cell = np.clip(np.searchsorted(self.edges, at, side="right") - 1, 0, len(self.points) - 1)
        wide = np.maximum(self.edges[cell + 1] - self.edges[cell], 1e-12)
        height = np.sin(np.pi * np.clip((at - self.edges[cell]) / wide, 0.0, 1.0)) ** 2
        found = [(cell, np.where(self.polar[cell], 0.0, height))]
        for pole in np.flatnonzero(self.polar):
            beside = pole + 1 if pole == 0 else pole - 1
            if not 0 <= beside < len(self.points):
                continue
            along = (at - self.points[pole]) / (self.points[beside] - self.points[pole])
            found.append((np.full(at.shape, pole), np.sin(np.pi * np.clip(along, 0.0, 1.0)) ** 2))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """What cells make of an output along one axis.

    Attributes:
        at: [f] degrees of the output's points.
        mean: [n, f], their shares in the cells' means; a row sums to one where the output covers the cell.
        bilinear: [n, n], the means of what is interpolated from the cells' points.
        inverse: [n, n], its inverse on the cells that are covered, cut off.
        covered: [n].
        bumps: [n, n], the means over the cells of each bump.
    """

    at: Array
    mean: Array
    bilinear: Array
    inverse: Array
    covered: NDArray[np.bool_]
    bumps: Array

    @classmethod
    def of(cls, axis: Axis, at: Array, boxes: Array, on_sphere: bool) -> Means:
        """Of points [f] with boxes [f, 2] around them; areas go with the sine of latitude."""
        low, high = boxes.T
        first, last = axis.edges[:-1, None], axis.edges[1:, None]

        def measure(degrees: Array) -> Array:
            return np.sin(np.deg2rad(degrees)) if on_sphere else degrees

        shared = measure(np.minimum(high, last)) - measure(np.maximum(low, first))
        whole = np.maximum(measure(last) - measure(first), 1e-15)
        mean = np.where(np.minimum(high, last) > np.maximum(low, first), shared, 0.0) / whole
        left, along = axis.bracket(at)
        weights = np.zeros((len(at), len(axis.points)))
        each = np.arange(len(at))
        weights[each, left] += 1 - along
        weights[each, np.minimum(left + 1, len(axis.points) - 1)] += along
        covered = mean.sum(axis=1) > 1 - 1e-6
        free = np.flatnonzero(covered & ~axis.polar)
        bilinear, inverse = mean @ weights, np.zeros((len(axis.points),) * 2)
        inverse[np.ix_(free, free)] = np.linalg.inv(bilinear[np.ix_(free, free)])
        number = np.arange(len(axis.points))
        inverse[np.abs(number[:, None] - number) > BAND] = 0.0
        own = np.zeros_like(mean)
        for cell, height in axis.bumps(at):
            own[cell, each] += height
        return cls(
            at=at,
            mean=mean,
            bilinear=bilinear,
            inverse=inverse,
            covered=covered,
            bumps=mean @ own.T,
        )


def boxes(axis: Axis, places: Array, *, turning: bool) -> tuple[Array, Array, bool]:
    """The output's points [f] that may lie in the axis' cells, their boxes [f, 2], and whether they are latitudes."""
    if not turning:
        points = np.sort(places)
        edges = np.clip(edges_between(points), -90.0, 90.0)
        return points, np.stack([edges[:-1], edges[1:]], axis=-1), True
    points = np.sort(np.unwrap(places, period=360.0))
    edges = edges_between(points)
    if goes_round(points):
        edges[0] = edges[-1] = (points[-1] + points[0] + 360.0) / 2
        edges[0] -= 360.0
    first, last = (int(np.floor((end - points[0]) / 360.0)) for end in axis.edges[[0, -1]])
    turns = [360.0 * turn for turn in range(first - 1, last + 1)]
    shapes = np.stack([edges[:-1], edges[1:]], axis=-1)
    return np.concatenate([points + t for t in turns]), np.concatenate([shapes + t for t in turns]), False


def edges_between(points: Array) -> Array:
    """Half-way between points, and as far beyond the first and the last."""
    if len(points) == 1:
        return np.array([points[0] - 0.5, points[0] + 0.5])
    between = (points[1:] + points[:-1]) / 2
    return np.concatenate([[2 * points[0] - between[0]], between, [2 * points[-1] - between[-1]]])
