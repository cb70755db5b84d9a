"""The gradient of a member by differences over a kilometre: a member is a function, so that it can be asked anywhere.

Nothing of a result's grid comes into it. What the model interpolates and looks up in tables has kinks between their
points, where the derivative is one-sided; a difference over a kilometre has none, and is exact between them to what
float32 coordinates leave: some 1e-4 K/km.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sphere import EARTH_RADIUS_KM, Lattice, unit_vectors

STEP_KM = 0.5
Array = NDArray[np.float64]
Field = Callable[[Array, Array], NDArray[np.float32]]


def gradient(field: Field, latitude: Array, longitude: Array, lattice: Lattice) -> NDArray[np.float32]:
    """Eastward and northward, K/km.

    Args:
        field: Latitudes and longitudes [N] in degrees -> values [..., N] in kelvin.
        latitude, longitude: [N] degrees.
        lattice: Of the input: at its edge the difference is that to the inside.

    Returns:
        [..., N, 2]. At a pole they are those of the meridian that longitude names.
    """
    step = STEP_KM / EARTH_RADIUS_KM
    turn, north = np.deg2rad(longitude), np.deg2rad(latitude)
    place = unit_vectors(latitude, longitude)
    east = np.stack([-np.sin(turn), np.cos(turn), np.zeros_like(turn)], axis=-1)
    turned = [_inside(*_degrees(place * np.cos(step) + sign * np.sin(step) * east), lattice) for sign in (1, -1)]
    up = np.stack([-np.sin(north) * np.cos(turn), -np.sin(north) * np.sin(turn), np.cos(north)], axis=-1)
    top = max(float(lattice.latitude[0]), float(latitude.max()))
    bottom = min(float(lattice.latitude[-1]), float(latitude.min()))
    reach = np.rad2deg(step)
    raised = [(np.clip(latitude + sign * reach, bottom, top), longitude) for sign in (1, -1)]
    slopes = []
    for (ahead, behind), axis in ((turned, east), (raised, up)):
        apart = ((unit_vectors(*ahead) - unit_vectors(*behind)) * axis).sum(axis=-1) * EARTH_RADIUS_KM
        slopes.append((field(*ahead) - field(*behind)) / apart)
    return np.stack(slopes, axis=-1).astype(np.float32)


def _degrees(place: Array) -> tuple[Array, Array]:
    """Latitude and longitude of unit vectors [N, 3]."""
    level = np.hypot(place[:, 0], place[:, 1])
    return np.rad2deg(np.arctan2(place[:, 2], level)), np.rad2deg(np.arctan2(place[:, 1], place[:, 0]))


def _inside(latitude: Array, longitude: Array, lattice: Lattice) -> tuple[Array, Array]:
    """Keep a place within the input's meridians, where it does not go round the globe."""
    if lattice.periodic:
        return latitude, longitude
    middle = (lattice.longitude[0] + lattice.longitude[-1]) / 2
    half = (lattice.longitude[-1] - lattice.longitude[0]) / 2
    return latitude, middle + np.clip((longitude - middle + 180.0) % 360.0 - 180.0, -half, half)
