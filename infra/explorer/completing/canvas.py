"""A map or a picture on which holes are drawn: a box by dragging, any shape with the lasso."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import panel as pn
import xarray as xr
from bokeh.events import SelectionGeometry
from bokeh.models import BoxSelectTool, LassoSelectTool

from infra.explorer.completing.holes import Polygon, rectangle
from infra.explorer.imagining.planes import plane, redraw

LEAST = 3  # corners of what is drawn


class Canvas:
    """The figure that is drawn on.

    Args:
        drawn: Told of what was drawn [n, 2], in the figure's units.
    """

    def __init__(self, drawn: Callable[[Polygon], None]) -> None:
        self._drawn = drawn
        self.pane = pn.pane.Bokeh(None, sizing_mode="stretch_width")

    def begin(self, field: xr.DataArray, title: str) -> None:
        """Show a field or a picture whose holes are NaN; its colours stay."""
        chart = plane(field, title=title)
        box, lasso = (
            BoxSelectTool(description="Draw a box that is missing"),
            LassoSelectTool(description="Draw any shape that is missing", continuous=False),
        )
        box.continuous = box.persistent = lasso.persistent = False
        chart.add_tools(box, lasso)
        chart.toolbar.active_drag = box
        chart.on_event(SelectionGeometry, self._selected)
        self._chart = chart
        self.pane.object = chart

    def update(self, field: xr.DataArray) -> None:
        """Show other holes in it."""
        redraw(self._chart, field)

    def _selected(self, event: SelectionGeometry) -> None:
        if not event.final:
            return
        polygon = polygon_of(cast(Mapping[str, Any], event.geometry))
        if len(polygon) >= LEAST:
            self._drawn(polygon)


def polygon_of(geometry: Mapping[str, Any]) -> Polygon:
    """What Bokeh tells of a selection, as corners [n, 2]."""
    if geometry["type"] == "rect":
        return rectangle(*(float(geometry[key]) for key in ("x0", "x1", "y0", "y1")))
    across, up = (np.asarray(_listed(geometry[key]), np.float64) for key in ("x", "y"))
    return np.stack([across, up], axis=-1)


def _listed(values: object) -> object:
    """Numbers as a list: a browser may send them by their places."""
    return [values[key] for key in sorted(values, key=int)] if isinstance(values, dict) else values
