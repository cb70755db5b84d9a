"""Latitude and longitude of a regular grid: checked, ordered north to south and west to east, and cut to a region.

Everything works on the two coordinate vectors and gives back positions in the source, so that only what is wanted
is ever read. Longitudes keep the source's convention; where a cut crosses its seam they go on past it (170..190).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Region = tuple[float, float, float, float]

_TOLERANCE_DEG = 1e-6


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One ordered coordinate and where its values lie in the source.

    Attributes:
        values_deg: (n,) float64 degrees, strictly monotonic.
        positions: (n,) the index of each value along the source's axis.
    """

    values_deg: NDArray[np.float64]
    positions: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64] | slice) -> Axis:
        """Keep some of the points."""
        return Axis(values_deg=self.values_deg[chosen], positions=self.positions[chosen])

    def runs(self) -> list[slice]:
        """Give the positions as slices, in order: one, or one on either side of the source's seam.

        A file is read by slices because readers of compressed files decompress anew for every single position.
        """
        steps = np.diff(self.positions)
        usual = int(np.bincount(np.abs(steps)).argmax()) if steps.size else 1
        pieces = np.split(self.positions, np.flatnonzero(np.abs(steps) != usual) + 1)
        return [_as_slice(piece) for piece in pieces]


def _as_slice(positions: NDArray[np.int64]) -> slice:
    """Write evenly spaced positions as a slice; one that ends at the front has no stop."""
    first, last = int(positions[0]), int(positions[-1])
    step = int(positions[1]) - first if positions.size > 1 else 1
    stop = last + (1 if step > 0 else -1)
    return slice(first, None if stop < 0 else stop, step)


def exact_degrees(values: NDArray[Any]) -> NDArray[np.float64]:
    """Widen coordinates to float64; float32 ones become the shortest decimal that they stand for.

    >>> exact_degrees(np.array([359.9], dtype=np.float32))
    array([359.9])
    """
    if values.dtype == np.float32:
        return np.array([float(str(value)) for value in values], dtype=np.float64)
    return values.astype(np.float64)


def latitude_axis(values: NDArray[Any], name: str) -> Axis:
    """Order latitudes from north to south.

    Raises:
        ValueError: if they are not finite, leave -90..90, or are not strictly monotonic.
    """
    degrees = exact_degrees(values)
    _check_finite(degrees, name)
    if np.abs(degrees).max() > 90.0 + _TOLERANCE_DEG:
        raise ValueError(
            f"latitudes {name!r} run from {degrees.min():g} to {degrees.max():g}: expected degrees within -90 to 90"
        )
    order = np.arange(degrees.size)
    if degrees[0] < degrees[-1]:
        order = order[::-1]
    degrees = np.clip(degrees[order], -90.0, 90.0)
    _check_monotonic(-degrees, degrees, name)
    return Axis(values_deg=degrees, positions=order)


def longitude_axis(values: NDArray[Any], name: str) -> Axis:
    """Order longitudes from west to east, contiguous; a closing meridian that repeats the first is dropped.

    Raises:
        ValueError: if they are not finite, no degrees east, not monotonic but for one seam, or overlap.
    """
    degrees = exact_degrees(values)
    _check_finite(degrees, name)
    if degrees.min() < -360.0 - _TOLERANCE_DEG or degrees.max() > 720.0 + _TOLERANCE_DEG:
        raise ValueError(
            f"longitudes {name!r} run from {degrees.min():g} to {degrees.max():g}: expected degrees east, "
            "0 to 360 or -180 to 180"
        )
    order = np.arange(degrees.size)
    steps = np.diff(degrees)
    two_across_a_seam = steps.size == 1 and steps[0] < -180.0
    if np.count_nonzero(steps < 0) > np.count_nonzero(steps > 0) and not two_across_a_seam:
        order = order[::-1]
    degrees = degrees[order]
    seams = np.flatnonzero(np.diff(degrees) < 0)
    if seams.size == 1:
        degrees, order = _unwrap(degrees, order, int(seams[0]) + 1)
    _check_monotonic(degrees, degrees, name)
    span = degrees[-1] - degrees[0]
    if abs(span - 360.0) <= _TOLERANCE_DEG:
        degrees, order = degrees[:-1], order[:-1]
    elif span > 360.0:
        raise ValueError(f"longitudes {name!r} span {span:g} degrees: they go round the globe more than once")
    return Axis(values_deg=degrees, positions=order)


def _unwrap(
    degrees: NDArray[np.float64], order: NDArray[np.int64], seam: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Join the two runs on either side of the seam: a globe is re-sorted, a region goes on past the seam."""
    onwards = np.concatenate([degrees[:seam], np.round(degrees[seam:] + 360.0, 9)])
    if onwards[-1] - onwards[0] > 360.0 + _TOLERANCE_DEG:
        return degrees, order  # the runs overlap: no seam, but disorder, which the caller refuses
    if goes_round(onwards):
        return np.concatenate([degrees[seam:], degrees[:seam]]), np.concatenate([order[seam:], order[:seam]])
    return _natural(onwards), order


def _natural(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift a run that has gone past 360 back: 350..362 reads -10..2."""
    past = degrees[-1] >= 360.0 - _TOLERANCE_DEG and degrees[0] >= 180.0
    return np.round(degrees - 360.0, 9) if past else degrees


def goes_round(longitude_deg: NDArray[np.float64]) -> bool:
    """Tell whether ascending longitudes go round the globe: what is missing is no more than a usual step.

    >>> goes_round(np.arange(0.0, 360.0, 4.0)), goes_round(np.arange(0.0, 180.0, 4.0))
    (True, False)
    """
    steps = np.diff(longitude_deg)
    return bool(steps.size > 1 and 360.0 - (longitude_deg[-1] - longitude_deg[0]) <= 1.5 * steps.max() + _TOLERANCE_DEG)


def cut(latitude: Axis, longitude: Axis, region: Region, where: str) -> tuple[Axis, Axis]:
    """Keep what lies inside a region, edges included.

    Args:
        latitude: north to south.
        longitude: west to east.
        region: west, south, east, north in degrees, longitudes in either convention; west > east crosses the seam.
        where: the source's name, for messages.

    Raises:
        ValueError: if the region is no box, has no point of the source in it, or cuts the source in two.
    """
    west, south, east, north = check_region(region)
    rows = np.flatnonzero(
        (latitude.values_deg >= south - _TOLERANCE_DEG) & (latitude.values_deg <= north + _TOLERANCE_DEG)
    )
    width = 360.0 if east != west and (east - west) % 360.0 == 0.0 else (east - west) % 360.0
    offset = (longitude.values_deg - west + _TOLERANCE_DEG) % 360.0
    columns = np.flatnonzero(offset <= width + 2 * _TOLERANCE_DEG)
    if rows.size == 0 or columns.size == 0:
        raise ValueError(
            f"the region {west:g},{south:g},{east:g},{north:g} holds no point of {where}, "
            f"which covers {cover(latitude, longitude)}"
        )
    gaps = np.flatnonzero(np.diff(columns) > 1)
    if gaps.size == 0:
        return latitude.take(rows), longitude.take(columns)
    if not goes_round(longitude.values_deg):
        raise ValueError(
            f"the region {west:g},{south:g},{east:g},{north:g} cuts {where} in two, "
            f"which covers {cover(latitude, longitude)}: give a region without a gap"
        )
    tail, head = columns[gaps[0] + 1 :], columns[: gaps[0] + 1]
    joined = longitude.take(np.concatenate([tail, head]))
    onwards = np.concatenate([longitude.values_deg[tail], np.round(longitude.values_deg[head] + 360.0, 9)])
    return latitude.take(rows), Axis(values_deg=_natural(onwards), positions=joined.positions)


def check_region(region: Region) -> Region:
    """Check that a region is west, south, east, north in degrees.

    Raises:
        ValueError: if it is not four finite numbers in their ranges, or south is not below north.
    """
    bounds = tuple(float(bound) for bound in region)
    if len(bounds) != 4 or not np.isfinite(bounds).all():
        raise ValueError(f"region {region!r} is no box: expected W,S,E,N in degrees, e.g. -10,50,2,58")
    west, south, east, north = bounds
    if not -90.0 <= south < north <= 90.0:
        raise ValueError(f"region {west:g},{south:g},{east:g},{north:g}: expected W,S,E,N with -90 <= S < N <= 90")
    if not (-360.0 <= west <= 360.0 and -360.0 <= east <= 360.0) or west == east:
        raise ValueError(f"region {west:g},{south:g},{east:g},{north:g}: expected W and E, different, in degrees east")
    return west, south, east, north


def cover(latitude: Axis, longitude: Axis) -> str:
    """Say what a grid covers."""
    return (
        f"longitude {longitude.values_deg[0]:g} to {longitude.values_deg[-1]:g}, "
        f"latitude {latitude.values_deg[-1]:g} to {latitude.values_deg[0]:g}"
    )


def _check_finite(degrees: NDArray[np.float64], name: str) -> None:
    if not np.isfinite(degrees).all():
        raise ValueError(f"axis {name!r} has a missing value at position {int((~np.isfinite(degrees)).argmax())}")


def _check_monotonic(ascending: NDArray[np.float64], degrees: NDArray[np.float64], name: str) -> None:
    """Refuse a step that stands still or turns back."""
    wrong = np.flatnonzero(np.diff(ascending) <= 0)
    if wrong.size:
        value, after = degrees[wrong[0]], degrees[wrong[0] + 1]
        what = f"has {value:g} twice" if value == after else f"is not monotonic: {after:g} comes after {value:g}"
        raise ValueError(f"axis {name!r} {what}")
