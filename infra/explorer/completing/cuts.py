"""What takes a part away: holes that are drawn and halves of a map or a picture; a plane through a shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import panel as pn
import xarray as xr

from infra.explorer.completing.canvas import Canvas
from infra.explorer.completing.holes import AXES, SIDES, Mask, Polygon, beyond, half, inside, normal_of, rectangle
from infra.explorer.completing.inputs import punched
from infra.explorer.imagining.planes import Frame
from infra.explorer.imagining.solids import STONE, empty, plain, with_plane
from infra.explorer.imagining.view import turning_pane
from pipelines.data.box import Box

_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width"}
MOST_SHOWN = 64  # cells along an edge: it must follow the sliders
DRAW, HALF = "Drawn holes", "One side"


class Cuts(Protocol):
    """How a kind of data loses a part.

    Attributes:
        controls: Widgets.
        pane: What is left.
        missing: Places [*grid].
    """

    controls: list[Any]
    pane: Any
    missing: Mask

    def begin(self, sample: xr.DataArray) -> None:
        """Go on with another sample (1, *grid)."""


class PlanarCuts:
    """Of fields and pictures.

    Args:
        on_earth: Of fields.
        changed: Told when another part is missing.
    """

    def __init__(self, on_earth: bool, changed: Callable[[], None]) -> None:
        self._changed, self._polygons, self._ready = changed, list[Polygon](), False
        self._canvas = Canvas(self._drawn)
        self.pane: Any = self._canvas.pane
        self.missing = np.zeros((1, 1), dtype=bool)
        self._way = pn.widgets.RadioButtonGroup(name="What is missing", options=[HALF, DRAW], value=HALF, **_WIDE)
        self._side = pn.widgets.Select(name="Side that is missing", options=list(SIDES[on_earth]), **_WIDE)
        self._share = pn.widgets.FloatSlider(
            name="Share that is missing", start=0.05, end=0.95, step=0.05, value=0.5, **_WIDE
        )
        told = (
            "Drag on the map or picture to draw a box that is missing, or choose the lasso beside it and draw any "
            "shape. From the keyboard, set a box here and add it."
        )
        self._told = pn.pane.HTML(f'<p style="margin:4px 0;font-size:13px">{told}</p>', **_WIDE)
        names = ("Longitudes (degrees east)", "Latitudes (degrees north)") if on_earth else (
            "Columns (pixels)", "Rows (pixels)"
        )  # fmt: skip
        self._across = pn.widgets.RangeSlider(name=names[0], start=0, end=1, value=(0, 1), **_WIDE)
        self._down = pn.widgets.RangeSlider(name=names[1], start=0, end=1, value=(0, 1), **_WIDE)
        add = pn.widgets.Button(name="Add this box", **_WIDE)
        undo, clear = pn.widgets.Button(name="Undo", **_WIDE), pn.widgets.Button(name="Clear", **_WIDE)
        self._box = pn.Column(
            self._told, self._across, self._down, add, pn.Row(undo, clear, **_WIDE), visible=False, **_WIDE
        )
        self.controls: list[Any] = [self._way, self._side, self._share, self._box]
        self._way.param.watch(lambda event: self._another_way(), "value")
        for widget in (self._side, self._share):
            widget.param.watch(lambda event: self._cut(), "value")
        add.on_click(lambda event: self._drawn(rectangle(*self._across.value, *self._down.value)))
        undo.on_click(lambda event: self._redrawn(self._polygons[:-1]))
        clear.on_click(lambda event: self._redrawn([]))

    def begin(self, sample: xr.DataArray) -> None:
        """See `Cuts`."""
        self._field, self._frame = sample, Frame.of(sample)
        frame = self._frame
        if not self._ready:
            _span(self._across, frame.left, frame.right)
            _span(self._down, min(frame.bottom, frame.top), max(frame.bottom, frame.top))
        self._ready = True
        self._canvas.begin(self._field[0], "What is left")
        self._cut(told=False)

    def _another_way(self) -> None:
        drawing = self._way.value == DRAW
        self._box.visible = drawing
        self._side.visible = self._share.visible = not drawing
        self._cut()

    def _drawn(self, polygon: Polygon) -> None:
        self._redrawn([*self._polygons, polygon])

    def _redrawn(self, polygons: list[Polygon]) -> None:
        self._polygons = polygons
        if self._way.value != DRAW:
            self._way.value = DRAW  # which cuts
        else:
            self._cut()

    def _cut(self, *, told: bool = True) -> None:
        if not self._ready:
            return
        if self._way.value == DRAW:
            self.missing = inside(self._polygons, self._frame)
        else:
            self.missing = half(self._frame, self._side.value, float(self._share.value or 0.5))
        self._canvas.update(punched(self._field, self.missing)[0])
        if told:
            self._changed()


class SolidCuts:
    """Of shapes.

    Args:
        changed: Told when another part is missing.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed, self._ready = changed, False
        self.pane: Any = turning_pane()
        self.missing = np.zeros((1, 1, 1), dtype=bool)
        self._axis = pn.widgets.Select(name="Cut across the axis", options=list(AXES), value="z", **_WIDE)
        self._tilt = pn.widgets.IntSlider(name="Tilt of the cut (degrees)", start=-45, end=45, step=5, value=0, **_WIDE)
        self._place = pn.widgets.FloatSlider(
            name="Place of the cut (half edges)", start=-0.95, end=0.95, step=0.05, value=0.0, **_WIDE
        )
        self._above = pn.widgets.RadioButtonGroup(
            name="Side that is missing", options={"Beyond is missing": True, "Before is missing": False}, **_WIDE
        )
        self.controls: list[Any] = [self._axis, self._tilt, self._place, self._above]
        for widget in self.controls:
            widget.param.watch(lambda event: self._cut(), "value")

    def begin(self, sample: xr.DataArray) -> None:
        """See `Cuts`."""
        self._solid, self._ready = sample, True
        self._cut(told=False)

    def _cut(self, *, told: bool = True) -> None:
        if not self._ready:
            return
        normal, offset = normal_of(self._axis.value, float(self._tilt.value or 0)), float(self._place.value or 0)
        solid = self._solid.values[0]
        self.missing = beyond(Box(solid.shape), normal, offset, above=self._above.value)
        every = -(-max(solid.shape) // MOST_SHOWN)
        left = np.where(self.missing, 0, solid)[::every, ::every, ::every]
        figure = plain(left, title="What is left", colour=STONE) if (left > 0).any() else empty("What is left")
        self.pane.object = with_plane(figure, normal, offset)
        if told:
            self._changed()


def _span(widget: pn.widgets.RangeSlider, low: float, high: float) -> None:
    """Let a slider choose between two values; its middle third to begin with."""
    third = (high - low) / 3
    widget.param.update(start=low, end=high, step=(high - low) / 100, value=(low + third, high - third))


def cuts_for(domain: str, changed: Callable[[], None]) -> Cuts:
    """What suits a kind of data."""
    return SolidCuts(changed) if domain == "cube" else PlanarCuts(domain == "sphere", changed)
