"""Which places are missing: inside what was drawn, on one side of a line across a map, beyond a plane through a shape.

A place is missing where its point, or the centre of its cell, lies there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path
from numpy.typing import NDArray

from infra.explorer.imagining.planes import Frame
from pipelines.data.box import Box

Mask = NDArray[np.bool_]
Polygon = NDArray[np.float64]
SIDES = {True: ("east", "west", "north", "south"), False: ("right", "left", "top", "bottom")}
AXES = ("x", "y", "z")


def inside(polygons: Sequence[Polygon], frame: Frame) -> Mask:
    """Places [rows, columns] inside any of the polygons [n, 2] (across, down), in the figure's units."""
    rows, columns = np.meshgrid(frame.down, frame.across, indexing="ij")
    places = np.stack([columns.ravel(), rows.ravel()], axis=-1)
    found = np.zeros(len(places), dtype=bool)
    for polygon in polygons:
        if len(polygon) >= 3:
            found |= Path(np.vstack([polygon, polygon[:1]]), closed=True).contains_points(places)
    return found.reshape(rows.shape)


def rectangle(left: float, right: float, bottom: float, top: float) -> Polygon:
    """A box as a polygon."""
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])


def half(frame: Frame, side: str, share: float) -> Mask:
    """Places [rows, columns] in a share of the frame's width or height, at one of its `SIDES`."""
    across = (frame.across - frame.left) / (frame.right - frame.left)
    up = (frame.down - frame.bottom) / (frame.top - frame.bottom)
    shape = (len(frame.down), len(frame.across))
    match side:
        case "east" | "right":
            chosen = across[None, :] > 1 - share
        case "west" | "left":
            chosen = across[None, :] < share
        case "north" | "top":
            chosen = up[:, None] > 1 - share
        case "south" | "bottom":
            chosen = up[:, None] < share
        case _:
            raise ValueError(f"a side is one of {', '.join(SIDES[frame.on_earth])}, got {side!r}")
    return np.array(np.broadcast_to(chosen, shape))


def normal_of(axis: str, tilt_deg: float) -> NDArray[np.float64]:
    """The unit normal [3] of a plane across an axis, tilted towards the axis after it (x, y, z, x)."""
    number, angle = AXES.index(axis), np.deg2rad(tilt_deg)
    normal = np.zeros(3)
    normal[number], normal[(number + 1) % 3] = np.cos(angle), np.sin(angle)
    return normal


def beyond(box: Box, normal: NDArray[np.float64], offset: float, *, above: bool) -> Mask:
    """Cells [x, y, z] whose centres lie beyond a plane, so far from the middle of the cube, or on its near side."""
    height = (box.coords @ normal).reshape(box.shape)
    return np.asarray(height > offset if above else height < offset)
