"""Coastlines that draw without a network.

The lines are Natural Earth's 1:50m land, version 4.1.0 (naturalearthdata.com), in the public domain: "Made with Natural
Earth". They were taken from the TopoJSON `land-50m.json` of the npm package world-atlas 2.0.2 (ISC licence): arcs
decoded, the polygons' artificial edges along the date line and the south pole left out, lines cut where they cross the
date line, coordinates rounded to 0.01 degrees and repeated points dropped. `coastlines.npz` keeps, in hundredths of a
degree as int16, `starts` (lines, 2), `lengths` (lines,) and the steps `deltas` (points - lines, 2) from point to point,
longitude before latitude.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@cache
def coastlines() -> Array:
    """Longitude and latitude of all lines, degrees.

    Returns:
        (n, 2) longitudes in -180..180 and latitudes, a row of NaN between two lines; read-only.

    """
    with files("pipelines.products").joinpath("coastlines.npz").open("rb") as file, np.load(file) as stored:
        starts, lengths, deltas = (stored[name].astype(np.int64) for name in ("starts", "lengths", "deltas"))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    steps = np.empty((lengths.sum(), 2), np.int64)
    inner = np.ones(len(steps), dtype=bool)
    inner[first] = False
    steps[inner] = deltas
    steps[first] = starts
    points = np.cumsum(steps, axis=0)
    # a running sum over all lines: each line's sum starts from the end of the line before
    before = np.concatenate([[[0, 0]], points[first[1:] - 1]])
    points -= np.repeat(before, lengths, axis=0)
    lines = np.insert(points / 100.0, first[1:], np.nan, axis=0)
    lines.setflags(write=False)  # it is cached
    return lines


def coastlines_within(west: float, east: float) -> Array:
    """The lines in the longitude convention of a map from `west` to `east`.

    Args:
        west: degrees, in any convention.
        east: degrees, beyond `west` by at most 360.

    Returns:
        (n, 2) as in `coastlines`, repeated in each turn of the globe that the map touches.

    """
    turns = range(int(np.floor((west + 180.0) / 360.0)), int(np.floor((east + 180.0 - 1e-9) / 360.0)) + 1)
    gap = np.full((1, 2), np.nan)
    return np.concatenate([np.concatenate([coastlines() + [360.0 * turn, 0.0], gap]) for turn in turns])
