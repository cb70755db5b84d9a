"""Pictures of solids: parallel rays, the first place where the probability is one half, light from above.

Everything is read off the grid, so that no mesh and no graphics library is needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.products.solids import palette

LEVEL = 0.5
FROM_DEG, ABOVE_DEG = 35.0, 25.0  # where the camera stands
REACH = 1.3  # half the picture's width, in coordinate units
LIGHT = (0.35, -0.55, 0.76)
STONE = (0.62, 0.68, 0.75)


def picture(
    probability: NDArray[np.floating],
    components: NDArray[np.integer] | None = None,
    *,
    tint: NDArray[np.floating] | None = None,
    up: int = 2,
    size: int = 160,
) -> NDArray[np.float32]:
    """Draw a solid.

    Args:
        probability: [x, y, z] in the cube.
        components: [x, y, z], coloured by them.
        tint: [x, y, z] from 0 to 1, or NaN: how much of a second colour there is (what was made up).
        up: The axis that points upwards.
        size: Pixels along an edge.

    Returns:
        [size, size, 3] within 0 and 1, on white.
    """
    others = [axis for axis in range(3) if axis != up]
    order = (*others, up) if up != 1 else (2, 0, 1)
    solid = np.pad(np.asarray(probability, np.float32).transpose(order), 1)
    shape = np.array(solid.shape)
    around, above = math.radians(FROM_DEG), math.radians(ABOVE_DEG)
    away = -np.array([math.cos(above) * math.sin(around), -math.cos(above) * math.cos(around), math.sin(above)])
    right = np.array([math.cos(around), math.sin(around), 0.0])
    upward = np.cross(right, away)
    across = (np.arange(size) + 0.5) / size * 2 - 1
    start = REACH * (across[None, :, None] * right - across[:, None, None] * upward) - 1.8 * away
    step = 1.0 / max(shape)
    found, hit = np.full((size, size), np.nan), np.zeros((size, size), dtype=bool)
    before = np.zeros((size, size), np.float32)
    for distance in np.arange(0, 3.6, step):
        here = _at(solid, start + distance * away, shape)
        new = ~hit & (here > LEVEL)
        found[new] = distance - step * (here[new] - LEVEL) / np.maximum(here[new] - before[new], 1e-6)
        hit |= new
        before = here
    places = (start + np.nan_to_num(found)[..., None] * away)[hit]
    # the slope of what is smoothed a little: a voxel's own is noise
    smooth = ndimage.gaussian_filter(solid, 0.8)
    slope = np.stack([_at(each, places, shape) for each in np.gradient(smooth)], axis=-1)
    normal = -slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9)
    light = np.array(LIGHT) / np.linalg.norm(LIGHT)
    shade = 0.45 + 0.55 * np.clip(normal @ light, 0, 1)
    colour = np.broadcast_to(np.array(STONE), places.shape)
    if components is not None:
        named = np.pad(np.asarray(components).transpose(order), 1, mode="edge")
        colour = (palette() / 255)[_at(named, places + 0.5 * step * away, shape, order=0).astype(int) % len(palette())]
    if tint is not None:
        share = np.nan_to_num(_at(np.pad(tint.transpose(order), 1, mode="edge"), places, shape))[:, None]
        colour = colour * (1 - share) + (palette()[1] / 255) * share
    image = np.ones((size, size, 3), np.float32)
    image[hit] = np.clip(colour * shade[:, None], 0, 1)
    return image


def _at(
    grid: NDArray[np.floating], places: NDArray[np.floating], shape: NDArray[np.integer], order: int = 1
) -> NDArray[np.float32]:
    """A padded grid's values at places in the cube, nothing outside."""
    index = (places + 1) / 2 * (shape - 2) + 0.5
    found: NDArray[np.float32] = ndimage.map_coordinates(
        grid, index.reshape(-1, 3).T, order=order, output=np.float32, mode="constant"
    ).reshape(places.shape[:-1])
    return found
