"""Covariances of places with the observations around them, and what those are worth there.

Source: Hamill and Snyder, Monthly Weather Review 128 (2000): in part those of an ensemble, in part the same everywhere;
Hunt et al., Physica D 230 (2007): errors of observations that grow with distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

from pipelines.data.sphere import Lattice

Array = NDArray[np.float64]
NEIGHBOURS = 25
REACH = 0.7  # distances between observations over which the error of one grows by e
_LEAST_ERROR = 1e-4  # of an observation at its own place, in its variance at a short distance: two may lie there


class Observations(NamedTuple):
    """Where n values are known, and of what.

    Attributes:
        latitude, longitude: [n] degrees.
        cell: Height and width in degrees of the cells around them whose means the values are; None for points.
    """

    latitude: Array
    longitude: Array
    cell: tuple[float, float] | None = None

    def of(self, kept: NDArray[Any]) -> Observations:
        """Some of them."""
        return Observations(self.latitude[kept], self.longitude[kept], self.cell)

    def seen(self, fields: NDArray[np.floating], lattice: Lattice) -> Array:
        """What is observed there of fields [S, P] on a lattice, [S, n] kelvin."""
        if self.cell is None:
            return lattice.interpolate(fields, self.latitude, self.longitude)
        norths, easts = (
            size * ((np.arange(parts) + 0.5) / parts - 0.5)
            for size, axis in zip(self.cell, (lattice.latitude, lattice.longitude), strict=True)
            for parts in [max(1, round(size / float(np.abs(np.diff(axis)).mean())))]
        )
        found, total = np.zeros((len(fields), len(self.latitude))), np.zeros(len(self.latitude))
        for north in norths:
            latitude = np.clip(self.latitude + north, -90.0, 90.0)
            weight = np.maximum(np.cos(np.deg2rad(latitude)), 1e-6)
            for east in easts:
                found += weight * lattice.interpolate(fields, latitude, self.longitude + east)
                total += weight
        return found / total

    @property
    def order(self) -> NDArray[np.int64]:
        """From north to south and from west to east, from the meridian of Greenwich on."""
        return np.lexsort((np.mod(np.round(np.mod(self.longitude, 360.0), 6), 360.0), -self.latitude))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal ones."""
        return self.latitude.tobytes(), self.longitude.tobytes(), self.cell


class Points(NamedTuple):
    """A set of places: unit vectors [n, 3], the mean there [n], the fields there less the mean [S, n]."""

    coords: Array
    mean: Array
    anomalies: NDArray[np.floating]

    def part(self, here: slice) -> Points:
        """Some of them."""
        return Points(self.coords[here], self.mean[here], self.anomalies[:, here])

    @property
    def deviation(self) -> Array:
        """Standard deviation of the fields, [n]."""
        found: Array = np.sqrt((self.anomalies.astype(np.float64) ** 2).sum(axis=0) / (len(self.anomalies) - 1))
        return found


class Everywhere(NamedTuple):
    """The correlation that holds everywhere, exp(-(distance / length)^power) of distances in radii of the sphere."""

    length: float
    power: float

    def __call__(self, distance: Array) -> Array:
        """At distances of any shape."""
        found: Array = np.exp(-((distance / self.length) ** self.power))
        return found


class Covariances(NamedTuple):
    """Of N places with their J nearest observations, and of those with each other.

    Attributes:
        near: [N, J].
        apart: [N, J], how far each is off, in distances between observations.
        own: [N], variance.
        cross: [N, J].
        both: [N, J, J].
    """

    near: NDArray[np.int64]
    apart: Array
    own: Array
    cross: Array
    both: Array

    def gains(self, noise: float, measured: float) -> Array:
        """[N, J].

        Args:
            noise: Error of an observation at a short distance, kelvin.
            measured: Error of every observation, kelvin.
        """
        return np.linalg.solve(self._system(noise, measured), self.cross[..., None])[..., 0].astype(np.float64)

    def strange(self, anomalies: Array, noise: float, measured: float) -> Array:
        """Mean square of the observations around each place in units of their covariance, [T, N].

        Args:
            anomalies: [T, n] kelvin, the observations less their mean.
            noise, measured: See `gains`.
        """
        around = anomalies.T[self.near]  # [N, J, T]
        whitened = np.linalg.solve(self._system(noise, measured), around)
        found: Array = np.einsum("njt,njt->tn", around, whitened) / self.near.shape[1]
        return found

    def _system(self, noise: float, measured: float) -> Array:
        """K + R."""
        system, diagonal = self.both.copy(), np.arange(self.near.shape[1])
        system[:, diagonal, diagonal] += noise**2 * (np.expm1(np.minimum(self.apart / REACH, 50.0)) + _LEAST_ERROR)
        system[:, diagonal, diagonal] += measured**2
        return system


def sampled(observed: Points, target: Points, shift: float) -> Covariances:
    """What fields at these places say.

    Args:
        observed: Places of observations.
        target: Where fields are asked for.
        shift: Variance of a shift of all places alike.
    """
    near, apart = _neighbours(observed, target)
    there, alone, degrees = observed.anomalies.T[near], target.anomalies.T, len(target.anomalies) - 1
    both = (there @ there.transpose(0, 2, 1)).astype(np.float64) / degrees + shift
    cross = (there @ alone[..., None])[..., 0].astype(np.float64) / degrees + shift
    own = (alone.astype(np.float64) ** 2).sum(axis=1) / degrees + shift
    return Covariances(near, apart, own, cross, both)


def modelled(observed: Points, target: Points, shift: float, everywhere: Everywhere) -> Covariances:
    """What a correlation that holds everywhere says, with the deviations of each place; see `sampled`."""
    near, apart = _neighbours(observed, target)
    coords, here, there = observed.coords[near], target.deviation, observed.deviation[near]
    both = everywhere(_chord(coords @ coords.transpose(0, 2, 1))) * there[:, :, None] * there[:, None]
    cross = everywhere(_chord((coords @ target.coords[..., None])[..., 0])) * there * here[:, None]
    return Covariances(near, apart, here**2 + shift, cross + shift, both + shift)


def _neighbours(observed: Points, target: Points) -> tuple[NDArray[np.int64], Array]:
    """The nearest observations [N, J], and how far they are, in distances between them."""
    near = min(NEIGHBOURS, len(observed.coords))
    distance, index = cKDTree(observed.coords).query(target.coords, k=np.arange(1, near + 1))
    return index, distance / np.maximum(distance[:, -1:] * np.sqrt(np.pi / near), 1e-9)


def mixed(sampled: Covariances, modelled: Covariances, share: float) -> Covariances:
    """A share of the second, the rest of the first."""
    own, cross, both = ((1 - share) * one + share * other for one, other in zip(sampled[2:], modelled[2:], strict=True))
    return Covariances(sampled.near, sampled.apart, own, cross, both)


def fitted_correlation(sets: list[Points], target: Points) -> Everywhere:
    """What fits the correlations of places with the observations around them."""
    found = []
    for observed in sets:
        near, _ = _neighbours(observed, target)
        cross = (observed.anomalies.T[near] @ target.anomalies.T[..., None])[..., 0] / (len(target.anomalies) - 1)
        deviations = observed.deviation[near] * target.deviation[:, None]
        distance = _chord((observed.coords[near] @ target.coords[..., None])[..., 0])
        found.append((distance.ravel(), (cross / np.maximum(deviations, 1e-12)).ravel()))
    distance, correlation = (np.concatenate(each) for each in zip(*found, strict=True))

    def wrong(free: Array) -> Array:
        return Everywhere(float(np.exp(free[0])), float(free[1]))(distance) - correlation

    start = np.array([np.log(3 * distance.mean()), 1.0])
    bounds = (start - [5.0, 0.8], start + [5.0, 1.0])
    free = least_squares(wrong, start, bounds=bounds, loss="linear").x
    return Everywhere(float(np.exp(free[0])), float(free[1]))


def _chord(cosine: Array) -> Array:
    """Distances between unit vectors of such a scalar product."""
    return np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
