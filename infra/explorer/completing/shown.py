"""What came of a completion, as figures: one of several, their mean and their spread, and how good both are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from infra.explorer.imagining.planes import plane, span_of
from infra.explorer.imagining.solids import by_origin, by_spread
from pipelines.products.charts import with_units


def spread_of(made: xr.DataArray) -> xr.DataArray:
    """The standard deviation over the completions (item, realization, *grid) of one item, over channels on average."""
    values = made.isel({made.dims[0]: 0}).astype(np.float64)
    spread = values.std("realization", ddof=1 if made.sizes["realization"] > 1 else 0)
    spread = spread.mean("channel") if "channel" in spread.dims else spread
    return spread.assign_attrs(units=made.attrs.get("units", ""))


def mean_of(made: xr.DataArray) -> xr.DataArray:
    """The mean over the completions of one item."""
    mean = made.isel({made.dims[0]: 0}).astype(np.float64).mean("realization")
    return mean.assign_attrs(made.attrs)


def planar(made: xr.DataArray, number: int) -> list[Any]:
    """Bokeh figures of a field's or picture's completions: one, the mean, the spread; None for what one has not."""
    mean, one = mean_of(made), made.isel({made.dims[0]: 0, "realization": number}).assign_attrs(made.attrs)
    several = made.sizes["realization"]
    span = None if "channel" in made.dims else span_of(made)
    if several == 1:
        return [plane(one, title="The only completion", span=span), None, None]
    return [
        plane(one, title=f"Completion {number} of {several}", span=span),
        plane(mean, title=f"Mean of {several} completions", span=span),
        plane(spread_of(made), title=f"Spread of {several} completions", kind="spread"),
    ]


def solid(made: xr.DataArray, seen: NDArray[np.bool_], number: int) -> list[Any]:
    """Plotly figures of a shape's completions: one with what was added in orange, and the mean by the spread."""
    one, mean, several = made[0, number].values, mean_of(made).values, made.sizes["realization"]
    if several == 1:
        return [by_origin(one, seen, title="The only completion"), None]
    return [
        by_origin(one, seen, title=f"Completion {number} of {several}"),
        by_spread(mean, spread_of(made).values, title=f"Mean of {several} completions, by their spread"),
    ]


def summary(made: xr.DataArray, truth: xr.DataArray, seen: NDArray[np.bool_]) -> str:
    """A sentence on the spread where something was missing, and on the error that it stands for.

    Args:
        made: (1, realization, *grid).
        truth: (1, *grid), the sample as it was.
        seen: [*grid].
    """
    units = str(made.attrs.get("units", ""))
    spread, error = spread_of(made).values, mean_of(made).values - truth.values[0]
    error = np.sqrt((error**2).mean(axis=-1)) if "channel" in made.dims else np.abs(error)
    gone, kept = ~seen, seen
    told = with_units("", units if units != "1" else "").strip("()")
    told = f" {told}" if told else ""
    wrong = f"wrong by {np.sqrt((error[gone] ** 2).mean()):.3g}{told}"
    counted = f"{gone.sum():,} of {gone.size:,} places were missing"
    if made.sizes["realization"] == 1:
        return f"{counted}. There the completion is {wrong} (root mean square)."
    deviation = f"{np.sqrt((spread[gone] ** 2).mean()):.3g}{told}"
    return (
        f"{counted}. There the completions have a standard deviation of {deviation}, "
        f"and their mean is {wrong} (root mean squares). What was observed is kept: they differ there by "
        f"{spread[kept].max(initial=0.0):.2g}."
    )
