"""A map drawn in text: five shades, each covering as many cells as any other, so that every region shows contrast."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

_SHADES = " ░▒▓█"
_MISSING = "·"
_ROWS = (4, 30)


def sketch(field: xr.DataArray, *, units: str, width: int = 60) -> str:
    """Draw a map in shades, north up, with a legend line below it.

    Args:
        field: (latitude, longitude), latitudes descending, NaN where missing (drawn as dots).
        units: for the legend.
        width: in characters; a character is taken to be twice as high as it is wide.
    """
    latitude, longitude = field["latitude"].values, field["longitude"].values
    height_deg, width_deg = abs(float(latitude[0] - latitude[-1])), abs(float(longitude[-1] - longitude[0]))
    shrink = math.cos(math.radians(float(latitude.mean())))
    num_rows = round(width * height_deg / max(width_deg * shrink, 1e-9) / 2)
    cells = _cell_means(field.values, max(_ROWS[0], min(_ROWS[1], num_rows)), width)
    missing = np.isnan(cells)
    if missing.all():
        return _MISSING * width
    edges = np.quantile(cells[~missing], np.linspace(0, 1, len(_SHADES) + 1)[1:-1])
    shade = np.searchsorted(edges, np.where(missing, edges[0], cells), side="right")
    lines = [
        "".join(_MISSING if gap else _SHADES[index] for gap, index in zip(gaps, indices, strict=True))
        for gaps, indices in zip(missing, shade, strict=True)
    ]
    bounds = " ".join(f"{edge:.1f} {shade}" for edge, shade in zip(edges, _SHADES[1:], strict=True))
    legend = f"mean over time ({units}): below {bounds}"
    return "\n".join([*lines, legend + (f"  missing {_MISSING}" if missing.any() else "")])


def _cell_means(values: NDArray[np.floating], num_rows: int, num_columns: int) -> NDArray[np.float64]:
    """Average a grid over the cells of a coarser one; where that is finer than the grid, repeat the nearest point."""
    cells = values.astype(np.float64)
    for axis, count in ((0, num_rows), (1, num_columns)):
        edges = np.linspace(0, cells.shape[axis], count + 1)
        spans = [(int(a), max(int(a) + 1, int(b))) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        parts = [np.take(cells, range(*span), axis=axis) for span in spans]
        seen = np.stack([np.sum(~np.isnan(part), axis=axis) for part in parts], axis=axis)
        total = np.stack([np.nansum(part, axis=axis) for part in parts], axis=axis)
        cells = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    return cells
