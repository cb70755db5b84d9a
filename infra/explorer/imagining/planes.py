"""Fields and pictures as Bokeh figures: longitude and latitude in degrees, or columns and rows in pixels.

Colour maps are perceptually uniform and safe for colour-blind readers; every colour bar carries its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import xarray as xr
from bokeh.models import FixedTicker, HoverTool, LinearColorMapper, Range1d
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Cividis256, Viridis256
from bokeh.plotting import figure
from numpy.typing import NDArray

from pipelines.products.charts import CATEGORIES, with_units
from pipelines.products.coastlines import coastlines_within
from pipelines.products.projection import cell_edges

Array = NDArray[np.float64]
Chart = Any  # Bokeh's figure, whose types do not know its own attributes
Kind = Literal["field", "spread", "component"]
MISSING = "#d9d9d9"
DRAWN = "values"  # the name of what shows them
_INK = "#1b2731"
_PALETTES = {"field": Viridis256, "spread": Cividis256}
_USUAL, _BESIDE, _BELOW = 520, 90, 130  # pixels: of a figure, and of what is around its picture
_EVENLY = 1e-3  # of a step: a grid whose steps differ by more is drawn by its nearest points on an even one


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a picture lies in the figure.

    Attributes:
        dims: Of the rows and of the columns.
        across, down: Centres of columns and rows, in the figure's units, as the array has them.
        left, right, bottom, top: Edges; a picture's rows go down, so its `bottom` is the larger.
    """

    dims: tuple[str, str]
    across: Array
    down: Array
    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def of(cls, field: xr.DataArray) -> Frame:
        """Of a field (..., latitude, longitude) or a picture (..., y, x)."""
        if "latitude" in field.dims:
            across, down = _centres(field)
            columns, rows = cell_edges(across), np.sort(cell_edges(down, -90.0, 90.0))
            return cls(
                dims=("latitude", "longitude"),
                across=across,
                down=down,
                left=float(columns[0]),
                right=float(columns[-1]),
                bottom=float(rows[0]),
                top=float(rows[-1]),
            )
        height, width = field.sizes["y"], field.sizes["x"]
        return cls(
            dims=("y", "x"),
            across=np.asarray(np.arange(width) + 0.5, np.float64),
            down=np.asarray(np.arange(height) + 0.5, np.float64),
            left=0.0,
            right=float(width),
            bottom=float(height),
            top=0.0,
        )

    @property
    def on_earth(self) -> bool:
        """Whether it is a map."""
        return self.dims[0] == "latitude"

    @property
    def aspect(self) -> float:
        """Width over height, true to scale in the middle of a map."""
        stretch = np.cos(np.deg2rad((self.bottom + self.top) / 2)) if self.on_earth else 1.0
        return float(np.clip((self.right - self.left) * max(stretch, 0.3) / abs(self.top - self.bottom), 0.6, 2.2))

    @property
    def whole_aspect(self) -> float:
        """That of the figure with its axes and its colour bar, which stay as they are where the figure is smaller."""
        return _USUAL / ((_USUAL - _BESIDE) / self.aspect + _BELOW)


def plane(
    field: xr.DataArray,
    *,
    title: str,
    kind: Kind = "field",
    span: tuple[float, float] | None = None,
    components: int = 0,
) -> Chart:
    """Draw a field or a picture.

    Args:
        field: (latitude, longitude), (y, x) or (y, x, channel) with its unit in `attrs`; NaN is drawn grey.
        title: What it shows.
        kind: A `spread` starts at zero, a `component` holds whole numbers from 0.
        span: Of the colours; that of the values by default.
        components: How many there are, for `kind` component.
    """
    frame = Frame.of(field)
    chart = framed(frame, title)
    if "channel" in field.dims:
        _picture(chart, frame, field.transpose("y", "x", "channel").values)
    else:
        values = np.asarray(field.transpose(*frame.dims).values, np.float32)
        mapper = _mapper(values, kind, span, components)
        _image(chart, frame, values, mapper, "" if kind == "component" else str(field.attrs.get("units", "")))
        _bar(chart, mapper, field, kind, components)
    if frame.on_earth:
        _coast(chart, frame)
    return chart


def framed(frame: Frame, title: str) -> Chart:
    """An empty figure with the axes of a map or of a picture."""
    chart: Chart = figure(
        title=title,
        x_range=Range1d(start=frame.left, end=frame.right),
        y_range=Range1d(start=frame.bottom, end=frame.top),
        tools="pan,wheel_zoom,reset,save",
        toolbar_location="right",
        sizing_mode="scale_width",
        aspect_ratio=frame.whole_aspect,
        min_width=260,
        height=None,
        max_width=round(float(np.clip(600 * frame.aspect, 420, 860))),
        background_fill_color=MISSING,
        output_backend="canvas",
    )
    chart.xaxis.axis_label = "Longitude (degrees east)" if frame.on_earth else "Column (pixels)"
    chart.yaxis.axis_label = "Latitude (degrees north)" if frame.on_earth else "Row (pixels)"
    chart.grid.visible = False
    chart.toolbar.logo = None
    chart.axis.axis_label_text_font_style = "normal"
    chart.axis.major_label_text_color = chart.axis.axis_label_text_color = chart.title.text_color = _INK
    return chart


def span_of(*fields: xr.DataArray) -> tuple[float, float]:
    """The least and the greatest of all values, so that pictures beside each other are coloured alike."""
    values = np.concatenate([field.values[np.isfinite(field.values)].ravel() for field in fields] or [np.zeros(0)])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def rgb_of(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A picture [y, x, 1 or 3], 0..255 and NaN where it is missing, as red, green, blue and opacity [y, x, 4]."""
    values = np.asarray(picture, np.float32)
    seen = np.isfinite(values).all(axis=-1)
    colours = np.nan_to_num(values).round().clip(0, 255).astype(np.uint8)
    colours = np.repeat(colours, 3, axis=-1) if colours.shape[-1] == 1 else colours
    return np.concatenate([colours, np.where(seen, 255, 0).astype(np.uint8)[..., None]], axis=-1)


def _centres(field: xr.DataArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Longitudes and latitudes."""
    longitude, latitude = (field[name].values.astype(np.float64) for name in ("longitude", "latitude"))
    return np.asarray(longitude), np.asarray(latitude)


def even(centres: Array) -> NDArray[np.int64]:
    """Which of increasing centres is nearest to each of evenly spaced ones; themselves where they are even.

    >>> even(np.array([0.0, 1.0, 2.0])).tolist()
    [0, 1, 2]
    """
    steps = np.diff(centres)
    if steps.size < 2 or np.ptp(steps) < _EVENLY * steps.max():
        return np.arange(centres.size)
    wanted = np.linspace(centres[0], centres[-1], 4 * centres.size)
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, wanted)


def tips(*rows: tuple[str, str]) -> str:
    """What a pointer is told, in dark ink: Bokeh's own table is too pale to be read by all."""
    lines = "<br>".join(f"<b>{escape(name)}</b> {value}" if name else f"<b>{value}</b>" for name, value in rows)
    return f'<div style="color:{_INK};font-size:13px">{lines}</div>'


def redraw(chart: Chart, field: xr.DataArray) -> None:
    """Put other values into what `plane` drew, in the same colours."""
    frame, drawn = Frame.of(field), chart.select_one({"name": DRAWN})
    if "channel" in field.dims:
        drawn.data_source.data = {"image": [_packed(field.transpose("y", "x", "channel").values)]}
    else:
        values = np.asarray(field.transpose(*frame.dims).values, np.float32)
        drawn.data_source.data = {"image": [_evenly_spaced(frame, values)]}


def _image(chart: Chart, frame: Frame, values: NDArray[np.float32], mapper: LinearColorMapper, units: str) -> None:
    # where rows go down, the first one belongs at y = 0, the top of a picture
    low, high = sorted((frame.bottom, frame.top))
    drawn = chart.image(
        image=[_evenly_spaced(frame, values)],
        x=frame.left,
        y=low,
        dw=frame.right - frame.left,
        dh=high - low,
        color_mapper=mapper,
        name=DRAWN,
    )
    place = (
        [("Longitude", "$x{0.00}°"), ("Latitude", "$y{0.00}°")]
        if frame.on_earth
        else [("Column", "$x{0}"), ("Row", "$y{0}")]
    )
    chart.add_tools(HoverTool(renderers=[drawn], tooltips=tips(*place, ("Value", f"@image{{0.000}} {units}"))))


def _picture(chart: Chart, frame: Frame, values: NDArray[np.generic]) -> None:
    chart.image_rgba(image=[_packed(values)], x=0, y=0, dw=frame.right, dh=frame.bottom, name=DRAWN)


def _evenly_spaced(frame: Frame, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows from the lowest coordinate to the highest, on an even grid."""
    rows = np.argsort(frame.down)
    return values[rows[even(frame.down[rows])]][:, even(frame.across)]


def _packed(values: NDArray[np.generic]) -> NDArray[Any]:
    return np.ascontiguousarray(rgb_of(values)).view(np.uint32)[..., 0]


def _mapper(
    values: NDArray[np.float32], kind: Kind, span: tuple[float, float] | None, components: int
) -> LinearColorMapper:
    if kind == "component":
        palette = [CATEGORIES[number % len(CATEGORIES)] for number in range(max(components, 1))]
        return LinearColorMapper(palette=palette, low=-0.5, high=len(palette) - 0.5, nan_color=MISSING)
    finite = values[np.isfinite(values)]
    low, high = span or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0))
    low = 0.0 if kind == "spread" else low
    return LinearColorMapper(palette=_PALETTES[kind], low=low, high=high if high > low else low + 1, nan_color=MISSING)


def _bar(chart: Chart, mapper: LinearColorMapper, field: xr.DataArray, kind: Kind, components: int) -> None:
    names = {"spread": "standard deviation", "component": "most probable component"}
    name = names.get(kind, str(field.attrs.get("long_name", field.name or "value")))
    bar = ColorBar(color_mapper=mapper, height=10, padding=6, title_text_font_style="normal", title_text_color=_INK)
    bar.title = with_units(name, "" if kind == "component" else str(field.attrs.get("units", "")))
    if kind == "component":
        bar.ticker = FixedTicker(ticks=list(range(components)))
        bar.major_label_overrides = {number: str(number + 1) for number in range(components)}
    chart.add_layout(bar, "below")


def _coast(chart: Chart, frame: Frame) -> None:
    """The lines within the map, and a little beyond it: the globe's are many."""
    lines = coastlines_within(frame.left, frame.right)
    x, y = lines.T
    margin = 0.1 * (frame.right - frame.left)
    here = (
        (x > frame.left - margin) & (x < frame.right + margin) & (y > frame.bottom - margin) & (y < frame.top + margin)
    )
    shown = np.where(here[:, None], lines, np.nan)
    kept = here | np.roll(here, 1)  # one gap after each line
    chart.line(shown[kept, 0], shown[kept, 1], color="black", line_width=0.9)
