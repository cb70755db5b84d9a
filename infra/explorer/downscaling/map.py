"""Two maps one above the other, with a handle between them: what is left of it shows the one, right of it the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import RangesUpdate, Tap
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    HoverTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from infra.explorer.downscaling.layers import PALETTES, Layer
from infra.explorer.downscaling.view import Window
from pipelines.data.sphere import Lattice
from pipelines.products.coastlines import coastlines_within

Edges = tuple[float, float, float, float]
DEGREES = """
const hemisphere = %s;
let turned = hemisphere[0] == 'E' ? ((tick + 180) %% 360 + 360) %% 360 - 180 : tick;
turned = Math.round(turned * 1e6) / 1e6;
const side = turned > 0 ? hemisphere[0] : turned < 0 ? hemisphere[1] : '';
return Math.abs(turned) + '°' + (Math.abs(turned) == 180 && hemisphere[0] == 'E' ? '' : side);
"""
HIGHEST_PX, WIDEST_PX = 620, 1180  # of a map without its axes
HANDLE = 40  # per cent of the width, where it does not hide the axis' name
_MISSING = "#d9d9d9"
_SLACK = 0.5  # of a window's width: coastlines are drawn so far beyond it, for panning


class Maps:
    """The two maps.

    Args:
        lattice: Of the coarse field, which the whole map shows.
        moved: Called when the visitor has panned or zoomed.
        tapped: Called with the longitude and latitude of a click.
    """

    def __init__(
        self, lattice: Lattice, moved: Callable[[], None], tapped: Callable[[float, float], None] | None = None
    ) -> None:
        self.whole = whole_of(lattice)
        self._x: Any  # Bokeh's ranges may be of dates, too
        self._y: Any
        self._x, self._y, self.aspect = ranges_of(lattice)
        self._coast = ColumnDataSource({"x": [], "y": []})
        self._mark = ColumnDataSource({"x": [], "y": []})
        self._sources = [ColumnDataSource({name: [] for name in ("image", "x", "y", "dw", "dh")}) for _ in range(2)]
        self._mappers = [LinearColorMapper(palette=PALETTES["field"], low=0, high=1, nan_color=_MISSING) for _ in "ab"]
        self.figures = [
            map_figure((self._x, self._y), self.aspect, source, mapper, self._coast)
            for source, mapper in zip(self._sources, self._mappers, strict=True)
        ]
        for each in self.figures:
            each.scatter("x", "y", source=self._mark, marker="circle_cross", size=18, line_color="#d81b60",
                         line_width=3, fill_alpha=0.0)  # fmt: skip
            each.on_event(RangesUpdate, lambda event: moved())
            if tapped is not None:
                each.on_event(Tap, lambda event: tapped(event.x, event.y))
        self.pixels = 900  # of the map's width; a guess until the browser has told

        def told(name: str, old: object, new: int) -> None:
            self.pixels = int(new)
            moved()

        self.figures[0].on_change("inner_width", told)

    @property
    def edges(self) -> Edges:
        """West, south, east, north of what is on the screen."""
        return self._x.start, self._y.start, self._x.end, self._y.end

    def go(self, edges: Edges) -> None:
        """Show a part of the map."""
        west, south, east, north = edges
        self._x.update(start=west, end=east)
        self._y.update(start=south, end=north)

    def move(self, right: float = 0.0, up: float = 0.0, zoom: float = 1.0) -> None:
        """Pan by shares of the window, and zoom in by a factor."""
        west, south, east, north = self.edges
        limits = (self._x.bounds, self._y.bounds)
        zoom = max(zoom, (east - west) / self._x.max_interval, (north - south) / self._y.max_interval)
        spans = [(east - west) / zoom, (north - south) / zoom]
        middles = [(west + east) / 2 + right * (east - west), (south + north) / 2 + up * (north - south)]
        ends = []
        for middle, span, (low, high) in zip(middles, spans, limits, strict=True):
            start = min(max(middle - span / 2, low), high - span)
            ends.append((start, start + span))
        self.go((ends[0][0], ends[1][0], ends[0][1], ends[1][1]))

    def mark(self, longitude: float, latitude: float) -> None:
        """Mark a place."""
        self._mark.data = {"x": [longitude], "y": [latitude]}

    def draw(self, drawn: tuple[Layer, Layer], window: Window) -> None:
        """Show two maps of a window."""
        for layer, source, mapper in zip(drawn, self._sources, self._mappers, strict=True):
            mapper.update(**colours(layer))
            source.data = image(layer, window)
        lines = coast(window)
        self._coast.data = {"x": lines[:, 0], "y": lines[:, 1]}

    def swipe(self) -> pn.layout.Swipe:
        """Both, with the handle between them."""
        return pn.layout.Swipe(
            *(pn.pane.Bokeh(each, sizing_mode="stretch_width", margin=0) for each in self.figures),
            styles={"max-width": f"{min(WIDEST_PX + 68, int(self.aspect * (HIGHEST_PX + 56)))}px"},
            value=HANDLE, slider_width=8, slider_color="#14213d", sizing_mode="stretch_width", margin=(0, 8),
        )  # fmt: skip


def map_figure(
    ranges: tuple[Range1d, Range1d], aspect: float, source: ColumnDataSource, mapper: LinearColorMapper,
    coast: ColumnDataSource,
) -> figure:  # fmt: skip
    """One map, to be panned and zoomed.

    Args:
        ranges: Of longitude and latitude, which maps may share.
        aspect: Width over height.
        source: Of the image, as `image` gives it.
        mapper: Its colours.
        coast: Columns x and y.
    """
    wheel = WheelZoomTool()
    drawn = figure(
        x_range=ranges[0], y_range=ranges[1], tools=[PanTool(), wheel, TapTool()], toolbar_location=None,
        sizing_mode="scale_width", aspect_ratio=aspect, lod_threshold=None,
        min_border_left=54, min_border_right=14, min_border_top=6, min_border_bottom=30,
    )  # fmt: skip
    drawn.toolbar.active_scroll = wheel
    colour: Any = {"color_mapper": mapper}  # its types leave this one out
    shown = drawn.image(image="image", x="x", y="y", dw="dw", dh="dh", source=source, **colour)
    drawn.add_tools(HoverTool(renderers=[shown], tooltips=[("value", "@image{0.00}"), ("at", "$y{0.00}, $x{0.00}")]))
    drawn.line("x", "y", source=coast, color="#000000", line_width=1.1)
    for axis, sides, name in ((drawn.xaxis[0], "['E', 'W']", "Longitude"), (drawn.yaxis[0], "['N', 'S']", "Latitude")):
        axis.formatter = CustomJSTickFormatter(code=DEGREES % sides)
        axis.ticker = AdaptiveTicker(desired_num_ticks=5, mantissas=[1, 2, 3, 4.5, 6, 9])
        axis.update(major_label_text_font_size="13px", major_label_text_color="#17202a", axis_label=name,
                    axis_label_text_font_size="13px", axis_label_text_font_style="normal", axis_label_standoff=2,
                    minor_tick_line_color=None)  # fmt: skip
    drawn.grid.visible = False
    return drawn


def colours(layer: Layer) -> dict[str, Any]:
    """Of a colour mapper: palette and limits; components are whole numbers, with half of one around them."""
    room = 0.5 if layer.kind == "component" else 0.0
    return {"palette": layer.palette, "low": layer.limits[0] - room, "high": layer.limits[1] + room}


def ranges_of(lattice: Lattice) -> tuple[Range1d, Range1d, float]:
    """Longitudes and latitudes of a map of all that a coarse field covers, and its width over its height."""
    west, south, east, north = whole_of(lattice)
    x = Range1d(start=west, end=east, bounds=(west - 360, east + 360) if lattice.periodic else _around(west, east))
    y = Range1d(start=south, end=north, bounds=(-90, 90) if lattice.periodic else _around(south, north))
    x.update(max_interval=east - west, min_interval=2e-4)
    y.update(max_interval=north - south, min_interval=1e-4)
    stretch = 1.0 if lattice.periodic else np.cos(np.deg2rad((south + north) / 2))
    tall = min(HIGHEST_PX, WIDEST_PX * (north - south) / ((east - west) * stretch))
    wide = float(np.clip(tall * (east - west) * stretch / (north - south), 0.6 * tall, WIDEST_PX))
    return x, y, (wide + 68) / (tall + 56)  # with the axes


def image(layer: Layer, window: Window) -> dict[str, Any]:
    """A layer as Bokeh draws it: from the south-west corner up."""
    latitude, longitude = layer.target.latitude, window.shown(layer.target.longitude)
    high, wide = _step(latitude), _step(longitude)
    return {
        "image": [np.ascontiguousarray(layer.values[::-1].astype(np.float32))],
        "x": [float(longitude[0]) - wide / 2],
        "y": [float(latitude[-1]) - high / 2],
        "dw": [len(longitude) * wide],
        "dh": [len(latitude) * high],
    }


def coast(window: Window) -> NDArray[np.float64]:
    """Coastlines in and around a window, no finer than it shows: longitudes and latitudes [n, 2], NaN between lines."""
    margin_x, margin_y = (_SLACK * span for span in (window.east - window.west, window.north - window.south))
    west, east = window.west - margin_x, window.east + margin_x
    lines = coastlines_within(west, min(east, west + 720.0))
    low, high = np.array([west, window.south - margin_y]), np.array([east, window.north + margin_y])
    with np.errstate(invalid="ignore"):
        inside = np.asarray(((lines >= low) & (lines <= high)).all(axis=1))
    near = inside.copy()  # what leads out of the window is drawn too
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    rounded = np.round(lines / max(window.step_deg, 0.01))
    gap = ~near | np.isnan(lines[:, 0])
    with np.errstate(invalid="ignore"):
        same = np.zeros(len(lines), dtype=bool)
        same[1:] = (rounded[1:] == rounded[:-1]).all(axis=1) & ~gap[:-1]
    again = np.zeros(len(lines), dtype=bool)
    again[1:] = gap[1:] & gap[:-1]
    found = np.where(gap[:, None], np.nan, lines)[~(same & ~gap) & ~again]
    return np.asarray(found, np.float64)


def whole_of(lattice: Lattice) -> Edges:
    """West, south, east, north of all that a coarse field covers."""
    if lattice.periodic:
        return -180.0, -90.0, 180.0, 90.0
    latitude, longitude = lattice.latitude, lattice.longitude
    return float(longitude[0]), float(latitude[-1]), float(longitude[-1]), float(latitude[0])


def _around(low: float, high: float) -> tuple[float, float]:
    return low - 0.25 * (high - low), high + 0.25 * (high - low)


def _step(axis: NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(axis)).mean()) if len(axis) > 1 else 1.0
