"""What is on the screen: a window of the map at some resolution, and the members there.

Only the window is evaluated, on the grid that `vamoh downscale --resolution --region` makes of it, so that what is seen
is what the command writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sphere import Lattice
from pipelines.products import targets
from pipelines.products.ensemble import PLACES, Ensemble
from pipelines.products.targets import Target
from pipelines.products.variables import Answer

Array = NDArray[np.float64]
Step = Callable[[int, int], None]
QUICK_POINTS, FINE_POINTS = 16_000, 120_000  # some 0.15 s, and 1 s, of two cores for 8 members
FINEST_DEG = 1e-5  # a metre
_pool = ThreadPoolExecutor(2, thread_name_prefix="places")


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of the map.

    Attributes:
        west, south, east, north: Degrees, as the map's axes count them.
        step_deg: Between the points that are asked for.
    """

    west: float
    south: float
    east: float
    north: float
    step_deg: float

    @classmethod
    def on_screen(
        cls, edges: tuple[float, float, float, float], pixels: int, finest_deg: float | None, points: int
    ) -> Window:
        """What the screen shows.

        Args:
            edges: West, south, east, north.
            pixels: Of the map's width.
            finest_deg: The resolution that was asked for; None for the screen's.
            points: Not many more are asked for.
        """
        west, south, east, north = (round(edge, 6) for edge in edges)
        south, north = max(south, -90.0), min(north, 90.0)
        east = min(east, west + 360.0)
        screen = (east - west) / max(pixels, 100)
        fewest = math.sqrt((east - west) * (north - south) / points)
        step = max(screen, fewest, FINEST_DEG)
        step = _dividing(east - west, step) if step > (finest_deg or 0.0) else float(f"{finest_deg:.4g}")
        return cls(west=west, south=south, east=east, north=north, step_deg=step)

    @property
    def region(self) -> tuple[float, float, float, float]:
        """As `--region` takes it."""
        return self.west, self.south, self.east, self.north

    def widened(self, margin_deg: float) -> Window:
        """With a margin, so that cells of which a part is seen are counted."""
        west, east = self.west, self.east
        if east - west + 2 * margin_deg < 360.0:
            west, east = west - margin_deg, east + margin_deg
        south, north = max(-90.0, self.south - margin_deg), min(90.0, self.north + margin_deg)
        return replace(self, west=west, south=south, east=east, north=north)

    def target(self, lattice: Lattice) -> Target:
        """The grid of the command, over the part of the window that a coarse field covers.

        Raises:
            ValueError: If that is nothing.
        """
        return targets.within(targets.at_resolution(lattice, self.step_deg, self.region), self.region)

    def shown(self, longitude: Array) -> Array:
        """Longitudes as the map's axis counts them."""
        turns = round((float(longitude[0]) - self.west) / 360.0) if len(longitude) else 0
        return longitude - 360.0 * turns


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What is known of a window: the members there, whatever of them is shown.

    Attributes:
        window: On the screen.
        target: Its grid.
        answer: Members [M, 1, n, m] and components [1, n, m, K].
        coarse: The nearest coarse value of each point [n, m], kelvin.
        error: The members' mean less the truth, where that is known: on the truth's own points in the window.
    """

    window: Window
    target: Target
    answer: Answer
    coarse: NDArray[np.floating]
    error: tuple[NDArray[np.floating], Target] | None = None

    @cached_property
    def longitude(self) -> Array:
        """As the map's axis counts it."""
        return self.window.shown(self.target.longitude)


def look(ensemble: Ensemble, window: Window, step: Step) -> Seen:
    """Ask the members of one time for a window.

    Args:
        ensemble: Of one time.
        window: Where.
        step: Told of the progress; raises where it is not wanted any more.

    Raises:
        ValueError: If the window lies outside the coarse field.
    """
    lattice = ensemble.lattice
    assert isinstance(lattice, Lattice)
    target = window.target(lattice)
    values, weights = asked(ensemble, target, step)
    return Seen(
        window=window,
        target=target,
        answer=Answer(values=values, weights=weights),
        coarse=nearest(ensemble.coarse[0], lattice, target),
    )


def _dividing(width: float, step: float) -> float:
    """The least step not below `step` that divides a width, so that no strip of the map is left; seven digits.

    >>> _dividing(360.0, 2.012), _dividing(12.0, 0.5)
    (2.022471, 0.5)
    """
    exact = width / max(1, math.floor(width / step * (1 + 1e-9)))
    digits = 10.0 ** (6 - math.floor(math.log10(exact)))
    return float(f"{math.floor(exact * digits * (1 + 1e-12)) / digits:.7g}")


def with_error(seen: Seen, ensemble: Ensemble, truth: tuple[NDArray[np.floating], Lattice] | None, step: Step) -> Seen:
    """Add the error at the truth's own points in the window, every so many-th where they are many.

    Args:
        seen: What is known of the window.
        ensemble: The same.
        truth: Fields [1, N, M] and their grid.
        step: Told of the progress.

    Raises:
        ValueError: If the truth is not known there.
    """
    if truth is None:
        raise ValueError(
            "the truth is not known: errors are shown of a store's fields, of which every n-th point is given"
        )
    fields, lattice = truth
    whole = Target(latitude=lattice.latitude, longitude=lattice.longitude)
    try:
        inside = targets.within(whole, seen.window.widened(np.rad2deg(lattice.spacing_rad)).region)
    except ValueError as error:
        raise ValueError("no point of the truth is on the screen: zoom out") from error
    every = max(1, math.ceil(math.sqrt(len(inside.latitude) * len(inside.longitude) / QUICK_POINTS)))
    part = replace(inside, latitude=inside.latitude[::every], longitude=inside.longitude[::every])
    known = nearest(fields[0], lattice, part)
    return replace(seen, error=(asked(ensemble, part, step)[0].mean(axis=0)[0] - known, part))


def asked(ensemble: Ensemble, target: Target, step: Step) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Members [M, T, n, m] and components [T, n, m, K] on a grid, on two threads, in steps that can be ended."""
    shape = (len(target.latitude), len(target.longitude))
    latitude, longitude = (each.ravel() for each in np.meshgrid(target.latitude, target.longitude, indexing="ij"))
    size = PLACES // 2
    parts = [slice(first, first + size) for first in range(0, len(latitude), size)]
    members, times = len(ensemble.fields), len(ensemble.times)
    values = np.empty((members, times, len(latitude)), np.float32)
    weights = np.empty((times, len(latitude), ensemble.teller.model.spec.components), np.float32)

    def ask(part: slice) -> None:
        values[..., part], weights[:, part] = ensemble.at(latitude[part], longitude[part])

    for done in range(0, len(parts), 2):  # two cores
        step(done, len(parts))
        list(_pool.map(ask, parts[done : done + 2]))
    return values.reshape(members, times, *shape), weights.reshape(times, *shape, -1)


def nearest(values: NDArray[np.floating], lattice: Lattice, target: Target) -> NDArray[np.floating]:
    """The value [n, m] of the coarse cell that each point of a grid lies in; NaN outside the outermost cells."""
    rows, columns = lattice.latitude, lattice.longitude
    row = np.abs(target.latitude[:, None] - rows).argmin(axis=1)
    away = np.abs((target.longitude[:, None] - columns + 180.0) % 360.0 - 180.0)
    return values[np.ix_(row, away.argmin(axis=1))]
