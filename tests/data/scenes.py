"""Scenes like those of Shapes3D, not the real data: drawn by a formula: a floor, a wall, an object, each of a hue."""

import colorsys
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

SIDE = 64


def scene(factors: NDArray[np.float64], side: int = SIDE) -> NDArray[np.uint8]:
    """Draw one scene [side, side, 3] from floor hue, wall hue, object hue, scale, shape and orientation."""
    floor, wall, hue, scale, shape, turn = factors
    y, x = np.meshgrid(*(2 * [(np.arange(side) + 0.5) * 2 / side - 1]), indexing="ij")
    horizon = 0.1 + 0.15 * np.sin(np.deg2rad(turn)) * x
    picture = np.where((y < horizon)[..., None], _colour(wall, 0.9 - 0.1 * x), _colour(floor, 0.7 + 0.2 * y))
    size = 0.35 * scale
    across, down = np.abs(x) / size, (y - 0.2) / size
    inside = [
        np.maximum(across, np.abs(down)) < 1,  # cube
        (across < 0.7) & (np.abs(down) < 1.2 - 0.2 * across**2),  # cylinder
        across**2 + down**2 < 1,  # sphere
        across**2 + np.maximum(np.abs(down) - 0.7, 0) ** 2 < 0.4,  # capsule
    ][int(shape)]
    light = np.clip(1 - 0.3 * across - 0.25 * down, 0.2, 1)
    return (255 * np.where(inside[..., None], _colour(hue, light), picture)).round().astype(np.uint8)


def factors(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw the factors of scenes [count, 6] from the values that Shapes3D has."""
    rng = np.random.default_rng(seed)
    hues = rng.integers(10, size=(count, 3)) / 10
    rest = (
        rng.choice(np.linspace(0.75, 1.25, 8), count),
        rng.integers(4, size=count),
        rng.choice(np.linspace(-30, 30, 15), count),
    )
    return np.column_stack([hues, *rest])


def scenes(count: int, seed: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    """Draw scenes [count, side, side, 3]."""
    return np.stack([scene(row, side) for row in factors(count, seed)])


def write_shapes3d(path: Path, count: int, seed: int = 0) -> Path:
    """Write scenes in the layout of Shapes3D's file."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "images", data=scenes(count, seed), chunks=(min(count, 32), SIDE, SIDE, 3), compression="gzip"
        )
        file.create_dataset("labels", data=factors(count, seed))
    return path


def _colour(hue: float, light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(colorsys.hsv_to_rgb(hue, 0.8, 1.0)) * light[..., None]
