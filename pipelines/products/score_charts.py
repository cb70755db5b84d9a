"""Charts of scores: spectra against truth's, ranks, and skill over resolution, as matplotlib Figures without pyplot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pipelines.products.charts import CATEGORIES

_STYLES = ("-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1, 1, 1)))
_MARKERS = "osD^vP"


def power_ratios(
    wavelength_km: Sequence[float],
    power: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str],
    judged_from_km: float,
    band: float = 0.2,
    coarse_km: float | None = None,
) -> Figure:
    """Draw each system's power over truth's; one is right, and the grey band is within 20 %.

    Args:
        wavelength_km: decreasing.
        power: of `truth` and of every system, K2 km.
        names: which systems, ours first.
        judged_from_km: the wavelength of three target cells; shorter ones are hatched.
        band: half the width of the band.
        coarse_km: the shortest wave that the coarse input resolves, to be marked.
    """
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    wavelength, truth = np.asarray(wavelength_km), np.asarray(power["truth"])
    axes.axhspan(1 - band, 1 + band, color="#dfe5ea", zorder=0, label=f"within {100 * band:.0f} % of truth")
    axes.axhline(1.0, color="black", linewidth=1.2)
    for index, name in enumerate(name for name in names if name in power):
        axes.plot(
            wavelength,
            np.asarray(power[name]) / truth,
            label=name,
            color=CATEGORIES[index % len(CATEGORIES)],
            linestyle=_STYLES[index % len(_STYLES)],
            linewidth=2.6 if index == 0 else 1.8,
        )
    axes.set_xscale("log")
    axes.set_xlim(wavelength.max() * 1.05, wavelength.min() / 1.05)
    axes.set_ylim(0, 1.8)
    if judged_from_km > wavelength.min() * 1.001:
        axes.axvspan(
            judged_from_km,
            wavelength.min() / 1.05,
            facecolor="none",
            hatch="///",
            edgecolor="#c9c9c9",
            linewidth=0,
            zorder=0,
        )
        axes.annotate("< 3 cells", (judged_from_km, 1.74), ha="left", va="top", fontsize=9, color="#404040")
    if coarse_km is not None and wavelength.min() < coarse_km < wavelength.max():
        axes.axvline(coarse_km, color="#5f5f5f", linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "the coarse input ends here ", (coarse_km, 1.74), ha="right", va="top", fontsize=9, color="#404040"
        )
    axes.set_xlabel("Zonal wavelength (km)", fontsize=11)
    axes.set_ylabel("Power over that of truth", fontsize=11)
    _kilometres(axes, wavelength)
    axes.legend(fontsize=9.5, frameon=False, loc="lower left")
    _plain(axes)
    return figure


def ranks(counts: Sequence[int]) -> Figure:
    """Draw a rank histogram: how often truth has so many members below it, as a share of what is flat."""
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    axes = figure.subplots()
    share = np.asarray(counts, np.float64) * len(counts) / max(sum(counts), 1)
    axes.bar(np.arange(len(share)), share, width=0.9, color=CATEGORIES[0])
    axes.axhline(1.0, color="black", linewidth=1.4, linestyle="--", label="flat: truth could be one of the members")
    axes.set_ylim(0, max(1.35, 1.2 * float(share.max())))
    axes.set_xlabel("Members below truth", fontsize=11)
    axes.set_ylabel("Frequency over flat", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=17))
    axes.legend(fontsize=10, frameon=False, loc="upper center")
    _plain(axes)
    return figure


def skill_curves(rows: Sequence[Mapping[str, Any]], *, units: str = "K") -> Figure:
    """Draw RMSE over the input's resolution and, where there are any, over the output's.

    Args:
        rows: of `curve.skill_curve`.
        units: of the scores.
    """
    inputs = sorted((row for row in rows if row["every"] == 1), key=lambda row: row["input_km"])
    own = {row["factor"] for row in rows if row["every"] > 1}
    outputs = sorted((row for row in rows if row["factor"] in own), key=lambda row: row["output_km"])
    charts = [(inputs, "input_km", "Input spacing (km)", "From coarser and coarser input, to the finest grid")]
    if outputs:
        spacing = outputs[0]["input_km"]
        charts.append((outputs, "output_km", "Output spacing (km)", f"From input of {spacing:.0f} km, to other grids"))
    figure = Figure(figsize=(5.6 * len(charts) + 0.4, 4.4), layout="constrained")
    panels = figure.subplots(1, len(charts), squeeze=False, sharey=True)[0]
    for axes, (chart, key, label, title) in zip(panels, charts, strict=True):
        for index, name in enumerate(chart[0]["rmse"]):
            axes.plot(
                [row[key] for row in chart],
                [row["rmse"][name] for row in chart],
                label=name,
                color=CATEGORIES[index % len(CATEGORIES)],
                linestyle=_STYLES[index % len(_STYLES)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=6 if index == 0 else 4.5,
                linewidth=2.6 if index == 0 else 1.6,
            )
        axes.set_xlabel(label, fontsize=11)
        axes.set_title(title, fontsize=11)
        axes.set_ylim(bottom=0)
        _plain(axes)
    trained = [row["input_km"] for row in inputs if row["trained"]]
    if trained:
        step = 0.15 * inputs[0]["input_km"]
        panels[0].axvspan(min(trained) - step, max(trained) + step, color="#eaf2fa", zorder=0, label="trained on")
    panels[0].set_ylabel(f"RMSE ({units})", fontsize=11)
    panels[0].legend(fontsize=9.5, frameon=False, loc="upper left")
    return figure


def _kilometres(axes: Axes, wavelength: np.ndarray) -> None:
    ticks = [step * 10**power for power in range(1, 5) for step in (1, 1.5, 2, 3, 5, 7)]
    shown = [tick for tick in ticks if wavelength.min() / 1.05 <= tick <= wavelength.max() * 1.05]
    if wavelength.max() / wavelength.min() > 20:
        shown = [
            tick for tick in shown if f"{tick:g}"[0] in "125" and "." not in f"{tick / 10 ** int(np.log10(tick)):g}"
        ]
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)
