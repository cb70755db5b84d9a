"""Bilinear and bicubic interpolation of a coarse latitude-longitude field: the baselines that know no training data.

Both are separable, fine = W_latitude coarse W_longitude^T, so each axis becomes one small matrix. On a grid that goes
round the globe longitude wraps, and a pole row is one point. Both return the coarse value at a coarse point.
"""

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import distance_transform_edt

from pipelines.data.grid import goes_round

Array = NDArray[np.float64]

_ROWS_BEYOND_POLE = 4  # a spline forgets a row at this distance to better than one part in a hundred


def bilinear(coarse: xr.DataArray, latitude: ArrayLike, longitude: ArrayLike) -> xr.DataArray:
    """Interpolate linearly along latitude and longitude.

    Missing coarse values are left out and the weights of the others renormalised; a fine point with no observed corner
    is NaN. Beyond the outermost row or column the field is constant, for one coarse cell at most.

    Args:
        coarse: dims (..., latitude, longitude); degrees; latitude in either order, longitude increasing.
        latitude: (n,) degrees, in any order.
        longitude: (m,) degrees, in either convention.

    Returns:
        (..., n, m) on the given coordinates, in the unit and precision of `coarse`.

    Raises:
        ValueError: if a fine point lies more than one coarse cell outside.

    """
    return _on_grid(coarse, latitude, longitude, "linear")


def bicubic(coarse: xr.DataArray, latitude: ArrayLike, longitude: ArrayLike) -> xr.DataArray:
    """Interpolate with cubic splines along latitude and longitude.

    A global field is continued over the poles (the row beyond lies at longitude + 180). Missing coarse values take the
    nearest observed one, and the result is missing where that of `bilinear` is.

    Args:
        coarse: dims (..., latitude, longitude); degrees; latitude in either order, longitude increasing.
        latitude: (n,) degrees, in any order.
        longitude: (m,) degrees, in either convention.

    Returns:
        (..., n, m) on the given coordinates, in the unit and precision of `coarse`.

    Raises:
        ValueError: if a fine point lies more than one coarse cell outside.

    """
    return _on_grid(coarse, latitude, longitude, "cubic")


def _on_grid(
    coarse: xr.DataArray, latitude: ArrayLike, longitude: ArrayLike, kind: Literal["linear", "cubic"]
) -> xr.DataArray:
    fine_latitude = np.asarray(latitude, dtype=np.float64)
    fine_longitude = np.asarray(longitude, dtype=np.float64)
    field = coarse.transpose(..., "latitude", "longitude")
    values = interpolate(
        field.values, field.latitude.values, field.longitude.values, fine_latitude, fine_longitude, kind
    )
    leading = field.dims[:-2]
    coordinates = {name: c for name, c in field.coords.items() if set(c.dims) <= set(leading)}
    return xr.DataArray(
        values.astype(np.result_type(field.dtype, np.float32)),
        dims=(*leading, "latitude", "longitude"),
        coords={**coordinates, "latitude": fine_latitude, "longitude": fine_longitude},
        name=coarse.name,
        attrs=coarse.attrs,
    )


def interpolate(
    values: NDArray[np.floating],
    coarse_latitude: NDArray[np.floating],
    coarse_longitude: NDArray[np.floating],
    latitude: Array,
    longitude: Array,
    kind: Literal["linear", "cubic"] = "linear",
) -> Array:
    """The same as `bilinear` and `bicubic` on plain arrays, in float64.

    Args:
        values: (..., a, b) on the coarse grid, NaN where missing.
        coarse_latitude: (a,) degrees.
        coarse_longitude: (b,) degrees, increasing.
        latitude: (n,) degrees.
        longitude: (m,) degrees.
        kind: the polynomial along each axis.

    Returns:
        (..., n, m).

    Raises:
        ValueError: if a fine point lies more than one coarse cell outside.

    """
    rows, columns = np.asarray(coarse_latitude, np.float64), np.asarray(coarse_longitude, np.float64)
    field = np.asarray(values, np.float64)
    if rows.size > 1 and rows[0] > rows[-1]:
        rows, field = rows[::-1], field[..., ::-1, :]
    periodic = goes_round(columns)
    pole = np.abs(latitude) > 90 - 1e-9
    latitude = _clamp(latitude, rows, "latitude")
    at = _unwrap(longitude, columns, periodic)
    linear = _linear_matrix(rows, latitude), _linear_matrix(columns, at, periodic)
    observed = np.isfinite(field)
    complete = bool(observed.all())

    fine = _apply(linear, np.where(observed, field, 0.0))
    if not complete:
        weight = _apply(linear, observed.astype(np.float64))
        fine = np.divide(fine, weight, out=np.full_like(fine, np.nan), where=weight > 1e-6)
    if kind == "cubic":
        missing = np.isnan(fine)
        whole = field if complete else _nearest_observed(field, observed)
        rows, whole = _continue_over_poles(rows, columns, whole) if periodic else (rows, whole)
        fine = _apply((_spline_matrix(rows, latitude), _spline_matrix(columns, at, periodic)), whole)
        fine[missing] = np.nan
    if periodic:
        fine[..., pole, :] = fine[..., pole, :].mean(axis=-1, keepdims=True)
    return fine


def _apply(matrices: tuple[Array, Array], field: Array) -> Array:
    along_latitude, along_longitude = matrices
    return along_latitude @ field @ along_longitude.T  # (n, a) @ (..., a, b) @ (b, m)


def _unwrap(longitude: Array, knots: Array, periodic: bool) -> Array:
    """Bring `longitude` into the convention of `knots`."""
    if periodic:
        return knots[0] + np.mod(longitude - knots[0], 360.0)
    middle = 0.5 * (knots[0] + knots[-1])
    return _clamp(middle + np.mod(longitude - middle + 180.0, 360.0) - 180.0, knots, "longitude")


def _clamp(points: Array, knots: Array, axis: str) -> Array:
    cell = float(np.diff(knots).max()) if knots.size > 1 else 0.0
    outside = float(np.maximum(knots[0] - points, points - knots[-1]).max(initial=0.0))
    if outside > cell + 1e-6:
        raise ValueError(
            f"{axis} to interpolate to must stay within one coarse cell ({cell:g} degrees) of the coarse field's "
            f"{knots[0]:g} to {knots[-1]:g}, but reaches {outside:g} degrees outside; select a smaller region"
        )
    return np.clip(points, knots[0], knots[-1])


def _linear_matrix(knots: Array, points: Array, periodic: bool = False) -> Array:
    """Weights (points, knots) of linear interpolation; `periodic` closes the circle after the last knot."""
    if knots.size == 1:
        return np.ones((points.size, 1))
    closed = np.append(knots, knots[0] + 360.0) if periodic else knots
    left = np.clip(np.searchsorted(closed, points, side="right") - 1, 0, closed.size - 2)
    fraction = (points - closed[left]) / (closed[left + 1] - closed[left])
    matrix = np.zeros((points.size, knots.size))
    each = np.arange(points.size)
    matrix[each, left] = 1.0 - fraction
    matrix[each, (left + 1) % knots.size] += fraction
    return matrix


def _spline_matrix(knots: Array, points: Array, periodic: bool = False) -> Array:
    """Weights (points, knots) of the interpolating cubic spline (of lower degree on fewer than four knots)."""
    if knots.size == 1:
        return np.ones((points.size, 1))
    each = np.eye(knots.size)
    if periodic:
        spline = make_interp_spline(
            np.append(knots, knots[0] + 360.0), np.vstack([each, each[:1]]), k=3, bc_type="periodic"
        )
    else:
        spline = make_interp_spline(knots, each, k=min(3, knots.size - 1))
    return np.asarray(spline(points), np.float64)


def _continue_over_poles(rows: Array, columns: Array, field: Array) -> tuple[Array, Array]:
    """Add rows beyond each pole that the grid reaches, if the opposite meridians are on the grid."""
    half, odd = divmod(columns.size, 2)
    if odd or rows.size < 3 or not np.allclose(columns[half:] - columns[:half], 180.0):
        return rows, field
    cell = float(np.diff(rows).max())
    for pole in (90.0, -90.0):
        if abs(pole - (rows[-1] if pole > 0 else rows[0])) > cell:
            continue
        inner = np.flatnonzero(np.abs(rows) < 90 - 1e-9)
        inner = inner[-_ROWS_BEYOND_POLE:][::-1] if pole > 0 else inner[:_ROWS_BEYOND_POLE][::-1]
        beyond, opposite = 2 * pole - rows[inner], np.roll(field[..., inner, :], half, axis=-1)
        parts = (field, opposite) if pole > 0 else (opposite, field)
        rows = np.concatenate([rows, beyond] if pole > 0 else [beyond, rows])
        field = np.concatenate(parts, axis=-2)
    return rows, field


def _nearest_observed(field: Array, observed: NDArray[np.bool_]) -> Array:
    """Fill every field's missing values with the nearest observed one, counted in cells."""
    filled = np.zeros_like(field)
    for index in np.ndindex(field.shape[:-2]):
        if observed[index].any():
            row, column = distance_transform_edt(~observed[index], return_distances=False, return_indices=True)
            filled[index] = field[index][row, column]
    return filled
