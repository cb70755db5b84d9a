"""Line charts: power spectra and training histories, as matplotlib Figures without pyplot."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# Okabe and Ito's palette, told apart in every kind of colour blindness
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#5F5F5F")

_LINE_STYLES = ("-", "--", "-.", ":")


def spectra(
    lines: Mapping[str, xr.DataArray],
    *,
    title: str = "",
    reference: str = "Truth",
    coarse_wavelength_km: float | None = None,
) -> Figure:
    """Draw power spectra over the wavelength, large scales on the left.

    Args:
        lines: name to power (wavelength,) as `zonal_spectrum` gives it.
        title: above the axes.
        reference: the name of the line that the others should follow, drawn in black.
        coarse_wavelength_km: the shortest wave that the coarse input resolves, to be marked.

    """
    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes = figure.subplots()
    index = 0
    for name, power in lines.items():
        if name == reference:
            axes.plot(power["wavelength"], power, color="black", linewidth=2.8, alpha=0.85, label=name)
            continue
        style = _LINE_STYLES[index % len(_LINE_STYLES)]
        colour = CATEGORIES[index % len(CATEGORIES)]
        axes.plot(power["wavelength"], power, color=colour, linestyle=style, linewidth=1.8, label=name)
        index += 1
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    if coarse_wavelength_km is not None:
        axes.axvline(coarse_wavelength_km, color="#5f5f5f", linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "the coarse input ends here ",
            (coarse_wavelength_km, 0.98),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize=10,
            color="#404040",
        )
    if reference in lines:  # far below it nothing is to be seen but how steep a filter is
        low, high = float(lines[reference].min()), float(lines[reference].max())
        if np.isfinite(low) and low > 0:
            axes.set_ylim(low / 100, high * 5)
    units = next((line.attrs["units"] for line in lines.values() if "units" in line.attrs), "")
    axes.set_xlabel("Zonal wavelength (km)", fontsize=11)
    axes.set_ylabel(with_units("Power spectral density", units), fontsize=11)
    kilometres = FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(kilometres)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=10)
    axes.legend(fontsize=10, frameon=False, loc="lower left")
    _plain(axes, title)
    return figure


def curves(history: xr.Dataset, *, groups: Mapping[str, Sequence[str]] | None = None, title: str = "") -> Figure:
    """Draw a training history, one small chart for each group of variables.

    Args:
        history: variables with the dim `epoch`; a variable's unit is in its `attrs["units"]`.
        groups: chart title to the variables in it; by default each variable has a chart of its own.
        title: above all charts.

    Raises:
        ValueError: if there is nothing to draw.

    """
    charts = groups or {str(name): [str(name)] for name in history.data_vars}
    if not charts:
        raise ValueError("a training history without variables cannot be drawn")
    columns = 2 if len(charts) == 4 else min(3, len(charts))
    rows = -(-len(charts) // columns)
    width = 12.0 if columns == 3 else 5.0 * columns
    figure = Figure(figsize=(width, 2.9 * rows + (0.4 if title else 0.0)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (heading, names) in zip(grid.flat, charts.items(), strict=False):
        for index, name in enumerate(names):
            line = history[name].dropna("epoch")
            axes.plot(
                line["epoch"],
                line,
                color=CATEGORIES[index % len(CATEGORIES)],
                linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
                linewidth=1.8,
                marker="o" if line.size == 1 else None,
                label=name,
            )
        axes.set_xlabel("Epoch", fontsize=10)
        axes.set_ylabel(with_units("", history[names[0]].attrs.get("units", "")), fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.tick_params(labelsize=9)
        if len(names) > 1:
            axes.legend(fontsize=9, frameon=False)
        _plain(axes, heading)
    for axes in np.ravel(grid)[len(charts) :]:
        axes.set_axis_off()
    return figure


def with_units(label: str, units: str) -> str:
    """A label with its unit, powers raised.

    >>> with_units("Power", "K2 km")
    'Power (K² km)'
    """
    raised = " ".join(f"{part[:-1]}²" if part.endswith("2") and len(part) > 1 else part for part in units.split())
    return f"{label} ({raised})" if label and raised else label or raised


def _plain(axes: Axes, title: str) -> None:
    if title:
        axes.set_title(title, fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
