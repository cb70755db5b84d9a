"""Solids at high resolution without asking everywhere: cells are divided only where the surface is.

A coarse grid is asked first. Where all cells around a cell are clearly on its side of one half, what is in it has its
value; the others are asked again at twice the resolution, until the resolution that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.data.box import Box

Ask = Callable[[NDArray[np.floating]], NDArray[np.float32]]

WHOLE = 64  # cells along the longest edge that are asked everywhere
LEVEL, MARGIN = 0.5, 0.35  # a neighbourhood within one half +- the margin may hide what is smaller than a cell


def evaluated(ask: Ask, box: Box, whole: int = WHOLE) -> NDArray[np.float32]:
    """Values [N, F] at the centres of a box of any resolution; the first value is a probability of being solid.

    Args:
        ask: Places [n, 3] -> values [n, F].
        box: Where.
        whole: The largest grid, in cells along its longest edge, that is asked everywhere.
    """
    longest = max(box.shape)
    doubled = [whole * 2**step for step in range(longest.bit_length()) if whole * 2**step < longest]
    coarse = box.at(doubled[0]) if doubled else box
    values = ask(coarse.coords).reshape(*coarse.shape, -1)
    for fine in [*(box.at(size) for size in doubled[1:]), box][: len(doubled)]:
        parents = np.ix_(*[_parents(few, many) for few, many in zip(coarse.shape, fine.shape, strict=True)])
        values, divided = values[parents], undecided(values[..., 0])[parents]
        coarse, places = fine, np.nonzero(divided)
        if not len(places[0]):
            continue
        where = np.stack([axis[place] for axis, place in zip(fine.axes, places, strict=True)], axis=-1)
        values[places] = ask(where)
    return values.reshape(-1, values.shape[-1])


def undecided(probability: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Cells [x, y, z] near which the surface may pass: not all of the 27 around them are clearly on one side."""
    low = ndimage.minimum_filter(probability, 3, mode="nearest")
    high = ndimage.maximum_filter(probability, 3, mode="nearest")
    return np.asarray((low < LEVEL + MARGIN) & (high > LEVEL - MARGIN))


def _parents(coarse: int, fine: int) -> NDArray[np.int64]:
    """Which of `coarse` equal cells the centre of each of `fine` lies in."""
    return ((np.arange(fine) + 0.5) * coarse / fine).astype(np.int64)
