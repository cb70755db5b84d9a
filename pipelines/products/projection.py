"""The geometry of a map: the projection of the globe, and the edges of a field's cells.

The globe is drawn in the Equal Earth projection: areas are right, so a patch of error has the weight that it has in the
scores. It is written out here because the usual library for it, with the PROJ inside, crashes a process that has read
GRIB through ecCodes' wheels, which carry another PROJ.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def equal_earth(longitude: Array, latitude: Array) -> tuple[Array, Array]:
    """Project degrees onto the plane; equal areas stay equal.

    Source: Savric, Patterson and Jenny (2018), The Equal Earth map projection, eq. 4.

    Args:
        longitude: degrees in -180..180.
        latitude: degrees, of the same shape.

    Returns:
        x and y in radii of the globe.

    """
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    half_sqrt3 = np.sqrt(3.0) / 2.0
    theta = np.arcsin(half_sqrt3 * np.sin(np.deg2rad(latitude)))
    square = theta**2
    slope = a1 + 3 * a2 * square + square**3 * (7 * a3 + 9 * a4 * square)
    x = np.deg2rad(longitude) * np.cos(theta) / (half_sqrt3 * slope)
    return x, theta * (a1 + a2 * square + square**3 * (a3 + a4 * square))


def cell_edges(centres: Array, lowest: float = -np.inf, highest: float = np.inf) -> Array:
    """Edges (n + 1,) halfway between monotonic centres (n,), the outer ones as far out as the nearest inner ones.

    >>> cell_edges(np.array([90.0, 86.0, 82.0]), -90.0, 90.0)
    array([90., 88., 84., 80.])
    """
    if centres.size == 1:
        return np.clip(centres[0] + np.array([-0.5, 0.5]), lowest, highest)
    middles = 0.5 * (centres[1:] + centres[:-1])
    edges = np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])
    return np.clip(edges, lowest, highest)


def cut_at_date_line(longitude: Array, values: Array) -> tuple[Array, Array]:
    """Order a global field from -180 to 180; the cell that the date line cuts is drawn on both sides.

    Args:
        longitude: (n,) degrees, increasing, going round the globe.
        values: (..., n).

    Returns:
        Edges (m + 1,) from -180 to 180 and values (..., m), m being n or n + 1.

    """
    wrapped = np.mod(longitude + 180.0, 360.0) - 180.0
    order = np.argsort(wrapped)
    centres, values = wrapped[order], values[..., order]
    middles = 0.5 * (centres[1:] + centres[:-1])
    seam = 0.5 * (centres[-1] + centres[0] + 360.0)
    if seam < 180.0 - 1e-9:  # the westernmost cell begins east of the line's eastern side
        return np.concatenate([[-180.0], middles, [seam, 180.0]]), np.concatenate([values, values[..., :1]], axis=-1)
    if seam > 180.0 + 1e-9:
        edges = np.concatenate([[-180.0, seam - 360.0], middles, [180.0]])
        return edges, np.concatenate([values[..., -1:], values], axis=-1)
    return np.concatenate([[-180.0], middles, [180.0]]), values
