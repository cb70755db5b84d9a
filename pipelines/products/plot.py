"""Figures: xarray objects in, matplotlib Figures out, no model read. Maps are drawn here, line charts in `charts`.

Figures are made without pyplot, so no window opens and no state is shared. Colour maps are perceptually uniform and
safe for colour-blind readers; errors are centred at zero; every colour bar carries its unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from pipelines.data.grid import goes_round
from pipelines.products.charts import CATEGORIES, curves, spectra, with_units
from pipelines.products.coastlines import coastlines, coastlines_within
from pipelines.products.projection import cell_edges, cut_at_date_line, equal_earth

Array = NDArray[np.float64]
Extent = tuple[float, float, float, float]  # west, east, south, north, degrees
Kind = Literal["field", "error", "spread", "component"]

__all__ = ["Panel", "comparison", "curves", "maps", "spectra"]

_COLOUR_MAPS: Mapping[Kind, str] = {"field": "viridis", "error": "RdBu_r", "spread": "cividis"}
_MISSING = "#d9d9d9"
_FIGURE_INCHES = 11.0
_WIDEST_MAP_INCHES = 7.0
_TALL = 0.75  # height over width
_CLIPPED_PERCENTILE = 99.5  # of errors and spreads, so that one point does not wash out the map


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One map.

    Attributes:
        field: dims (latitude, longitude), degrees, its unit in `attrs["units"]`; NaN is drawn grey.
        title: what it shows.
        kind: how it is coloured. An `error` is centred at zero, a `spread` starts at zero, a `component` holds the
            index 0..K-1 of the mixture component.
        scale: panels of one name share their colour scale; alone when empty.
    """

    field: xr.DataArray
    title: str
    kind: Kind = "field"
    scale: str = ""


def maps(panels: Sequence[Panel], *, columns: int | None = None, title: str = "") -> Figure:
    """Draw maps with coastlines, a colour bar under each.

    Args:
        panels: global fields (Equal Earth) and regional ones (longitude and latitude, true to scale in the middle).
        columns: maps side by side; by default two, or three where they are tall.
        title: above all maps.

    Raises:
        ValueError: if there is no panel, or a field has other dims than latitude and longitude.

    """
    if not panels:
        raise ValueError("a figure of maps needs at least one panel")
    for panel in panels:
        if set(panel.field.dims) != {"latitude", "longitude"}:
            raise ValueError(
                f"the map {panel.title!r} needs the dims latitude and longitude, got {tuple(panel.field.dims)}; "
                "select one time and member, or average"
            )
    extent = _common_extent([panel.field for panel in panels])
    aspect = max(_aspect(panel.field, extent) for panel in panels)
    columns = min(columns or (2 if aspect < _TALL else 3), len(panels))
    rows = -(-len(panels) // columns)
    width = min(_FIGURE_INCHES / columns, _WIDEST_MAP_INCHES)
    height = (width * aspect + 1.1) * rows + (0.4 if title else 0.0)
    figure = Figure(figsize=(width * columns, height), layout=ConstrainedLayoutEngine(compress=True, h_pad=0.12))
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        colours, norm, extend = _colouring(panel, panels)
        if goes_round(panel.field["longitude"].values):
            mesh = _draw_globe(axes, panel.field, colours, norm)
        else:
            mesh = _draw_region(axes, panel.field, colours, norm, extent)
        axes.set_title(panel.title, fontsize=12)
        _colour_bar(figure, axes, mesh, panel, extend)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    return figure


def comparison(
    coarse: xr.DataArray,
    mean: xr.DataArray,
    *,
    truth: xr.DataArray | None = None,
    spread: xr.DataArray | None = None,
    component: xr.DataArray | None = None,
    title: str = "",
) -> Figure:
    """Draw one downscaled field: what came in, what came out, and how right and how sure it is.

    Args:
        coarse: dims (latitude, longitude), what was downscaled.
        mean: dims (latitude, longitude), the members' mean.
        truth: on the grid of `mean`, or unknown.
        spread: the members' standard deviation.
        component: index of the mixture component with the largest weight.
        title: above all maps.
    """
    panels = [
        Panel(field=coarse, title=f"Coarse input, {_size(coarse)}", scale="field"),
        Panel(field=mean, title=f"Downscaled mean, {_size(mean)}", scale="field"),
    ]
    if truth is not None:
        error = (mean - truth).assign_attrs(units=mean.attrs.get("units", truth.attrs.get("units", "")))
        panels.append(Panel(field=truth, title=f"Truth, {_size(truth)}", scale="field"))
        panels.append(Panel(field=error, title="Error: downscaled mean minus truth", kind="error"))
    if spread is not None:
        panels.append(Panel(field=spread, title="Spread of the members", kind="spread"))
    if component is not None:
        panels.append(Panel(field=component, title="Dominant mixture component", kind="component"))
    return maps(panels, title=title)


def _draw_globe(axes: Axes, field: xr.DataArray, colours: Colormap, norm: Normalize) -> QuadMesh:
    values = field.transpose("latitude", "longitude").values
    edges, values = cut_at_date_line(field["longitude"].values.astype(np.float64), values)
    latitude = cell_edges(field["latitude"].values.astype(np.float64), -90.0, 90.0)
    x, y = equal_earth(*np.meshgrid(edges, latitude))
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(values), cmap=colours, norm=norm, rasterized=True)
    lines = coastlines()
    axes.plot(*equal_earth(lines[:, 0], lines[:, 1]), color="black", linewidth=0.5)
    along = np.linspace(-1.0, 1.0, 181)
    for meridian in range(-120, 180, 60):
        axes.plot(*equal_earth(np.full(181, float(meridian)), 90 * along), color="black", linewidth=0.3, alpha=0.35)
    for parallel in range(-60, 90, 30):
        axes.plot(*equal_earth(180 * along, np.full(181, float(parallel))), color="black", linewidth=0.3, alpha=0.35)
    rim = np.concatenate([np.full(181, -180.0), np.full(181, 180.0), [-180.0]])
    axes.plot(*equal_earth(rim, 90 * np.concatenate([along, along[::-1], along[:1]])), color="black", linewidth=0.8)
    axes.set_aspect("equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return mesh


def _draw_region(axes: Axes, field: xr.DataArray, colours: Colormap, norm: Normalize, extent: Extent) -> QuadMesh:
    longitude, latitude = _edges(field)
    values = np.ma.masked_invalid(field.transpose("latitude", "longitude").values)
    mesh = axes.pcolormesh(longitude, latitude, values, cmap=colours, norm=norm, rasterized=True)
    west, east, south, north = extent
    lines = coastlines_within(west, east)
    axes.plot(lines[:, 0], lines[:, 1], color="black", linewidth=0.9)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(_stretch(field))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 5, 6, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda degrees, _: _degrees(degrees, "E", "W")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda degrees, _: _degrees(degrees, "N", "S")))
    axes.tick_params(labelsize=9)
    return mesh


def _edges(field: xr.DataArray) -> tuple[Array, Array]:
    """Cell edges along longitude and latitude, degrees."""
    longitude, latitude = (field[name].values.astype(np.float64) for name in ("longitude", "latitude"))
    return cell_edges(longitude), cell_edges(latitude, -90.0, 90.0)


def _common_extent(fields: Sequence[xr.DataArray]) -> Extent:
    """What all regional maps cover, so that they can be compared place by place; all of it if that is nothing."""
    bounds = [(x.min(), x.max(), y.min(), y.max()) for x, y in map(_edges, fields)]
    west, east, south, north = np.array(bounds).T
    if west.max() < east.min() and south.max() < north.min():
        return float(west.max()), float(east.min()), float(south.max()), float(north.min())
    return float(west.min()), float(east.max()), float(south.min()), float(north.max())


def _colouring(panel: Panel, panels: Sequence[Panel]) -> tuple[Colormap, Normalize, str]:
    """The colour map, its limits, and at which ends values lie beyond them."""
    together = [p for p in panels if p is panel or (panel.scale and p.scale == panel.scale)]
    values = np.concatenate([p.field.values[np.isfinite(p.field.values)].ravel() for p in together])
    if values.size == 0:
        values = np.zeros(1)
    if panel.kind == "component":
        count = int(values.max()) + 1
        colours = ListedColormap([CATEGORIES[k % len(CATEGORIES)] for k in range(count)]).with_extremes(bad=_MISSING)
        return colours, BoundaryNorm(np.arange(count + 1) - 0.5, count), "neither"
    colours = colormaps[_COLOUR_MAPS[panel.kind]].with_extremes(bad=_MISSING)
    if panel.kind == "field":
        return colours, Normalize(float(values.min()), float(values.max())), "neither"
    limit = float(np.percentile(np.abs(values), _CLIPPED_PERCENTILE)) or 1.0
    if panel.kind == "spread":
        return colours, Normalize(0.0, limit), "max" if values.max() > limit else "neither"
    return colours, Normalize(-limit, limit), "both" if np.abs(values).max() > limit else "neither"


def _colour_bar(figure: Figure, axes: Axes, mesh: ScalarMappable, panel: Panel, extend: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.85, aspect=32, pad=0.03, extend=extend)
    bar.ax.tick_params(labelsize=9)
    if panel.kind == "component":
        count = mesh.get_cmap().N
        bar.set_ticks(list(range(count)), labels=[str(k + 1) for k in range(count)])
        bar.set_label("component", fontsize=10)
        return
    quantities = {"error": "error", "spread": "standard deviation", "field": panel.field.attrs.get("long_name", "")}
    bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.set_label(with_units(str(quantities[panel.kind]), str(panel.field.attrs.get("units", ""))), fontsize=10)


def _aspect(field: xr.DataArray, extent: Extent) -> float:
    """Height over width of a map."""
    if goes_round(field["longitude"].values):
        return 0.51
    west, east, south, north = extent
    return float(np.clip((north - south) * _stretch(field) / (east - west), 0.3, 1.5))


def _stretch(field: xr.DataArray) -> float:
    """How much longer a degree of latitude is than one of longitude in the middle of the map."""
    middle = 0.5 * (field["latitude"].values.min() + field["latitude"].values.max())
    return float(1.0 / max(np.cos(np.deg2rad(middle)), 0.1))


def _size(field: xr.DataArray) -> str:
    return f"{field.sizes['latitude']} × {field.sizes['longitude']}"


def _degrees(degrees: float, positive: str, negative: str) -> str:
    """A tick label, longitudes beyond the date line brought back.

    >>> _degrees(190.0, "E", "W"), _degrees(-2.5, "E", "W"), _degrees(0.0, "N", "S")
    ('170°W', '2.5°W', '0°')
    """
    wrapped = (degrees + 180.0) % 360.0 - 180.0
    letter = positive if wrapped > 0 else negative
    return f"{abs(wrapped):g}°{letter}" if wrapped % 180.0 else f"{abs(wrapped):g}°"
