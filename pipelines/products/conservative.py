"""First-order conservative regridding: the baseline for cell means, where a coarse value fills its cell.

    fine_i = sum_j |cell_i and cell_j| C_j / |cell_i|,

with areas on the sphere. Cells end half-way between points. Separable, as interpolation is: one small matrix an axis.

Differs: xarray-regrid, which tests compare this with, leaves points beyond the outermost centres out (the outer half of
every border cell, of which a field of means has many) and gives a row at a pole no weight.
"""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from pipelines.data.grid import goes_round
from pipelines.products.residuals import Array


def conservative(coarse: xr.DataArray, latitude: ArrayLike, longitude: ArrayLike) -> xr.DataArray:
    """Spread each coarse cell's value over the fine cells in it; fine cells in several get the mean by area.

    Missing coarse values are left out of the mean. Beyond the outermost cell its value goes on.

    Args:
        coarse: dims (..., latitude, longitude), degrees, in any order.
        latitude: (n,) degrees, in any order.
        longitude: (m,) degrees, in either convention.

    Returns:
        (..., n, m) on the given coordinates, in the unit and precision of `coarse`.
    """
    fine_latitude, fine_longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    field = coarse.transpose(..., "latitude", "longitude")
    rows = _shares(_heights(field["latitude"].values), _heights(fine_latitude))
    columns = _shares(_arcs(field["longitude"].values), _arcs(fine_longitude), turn=360.0)
    values = field.values.astype(np.float64)
    seen = np.isfinite(values)
    weight = rows @ seen.astype(np.float64) @ columns.T
    with np.errstate(invalid="ignore", divide="ignore"):
        fine = np.where(weight > 1e-9, rows @ np.where(seen, values, 0.0) @ columns.T / weight, np.nan)
    kept = {name: coord for name, coord in field.coords.items() if not {"latitude", "longitude"} & set(coord.dims)}
    return xr.DataArray(
        fine.astype(np.result_type(coarse.dtype, np.float32)),
        dims=field.dims,
        coords={**kept, "latitude": fine_latitude, "longitude": fine_longitude},
        name=coarse.name,
        attrs=coarse.attrs,
    )


def _heights(latitude: Array) -> Array:
    """(n, 2) ends of the rows' bands, as the sine of latitude: areas are differences."""
    return np.sin(np.deg2rad(np.clip(_ends(np.asarray(latitude, np.float64)), -90.0, 90.0)))


def _arcs(longitude: Array) -> Array:
    """(m, 2) ends of the columns' arcs, degrees; of a grid that goes round they close."""
    degrees = np.asarray(longitude, np.float64)
    ends = _ends(degrees)
    order = np.argsort(degrees)
    if degrees.size > 1 and goes_round(degrees[order]):
        first, last = order[0], order[-1]
        ends[first, 0] = (degrees[first] + degrees[last] - 360.0) / 2
        ends[last, 1] = ends[first, 0] + 360.0
    return ends


def _ends(points: Array) -> Array:
    """(n, 2) where the cells of points begin and end: half-way to the neighbours, and as far beyond the outermost."""
    if points.size == 1:
        return np.array([[points[0] - 0.5, points[0] + 0.5]])
    order = np.argsort(points)
    between = (points[order][1:] + points[order][:-1]) / 2
    edges = np.concatenate([[2 * points[order][0] - between[0]], between, [2 * points[order][-1] - between[-1]]])
    ends = np.empty((points.size, 2))
    ends[order] = np.stack([edges[:-1], edges[1:]], axis=-1)
    return ends


def _shares(coarse: Array, fine: Array, *, turn: float = 0.0) -> Array:
    """(fine, coarse) shares of each fine cell that lie in each coarse cell; outside all of them, of the nearest."""
    turns = np.array([-turn, 0.0, turn]) if turn else np.zeros(1)
    low = np.maximum(fine[:, None, None, 0], coarse[None, :, None, 0] + turns)
    high = np.minimum(fine[:, None, None, 1], coarse[None, :, None, 1] + turns)
    overlap = (high - low).max(axis=-1)  # negative: how far apart they are
    inside = np.maximum(overlap, 0.0)
    outside = ~(inside > 0).any(axis=1)
    inside[outside, overlap[outside].argmax(axis=1)] = 1.0
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float64)
