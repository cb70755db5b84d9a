"""A sweep's charts: matplotlib Figures, made without pyplot's state, in the named colours of `palette`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tuning.axes import ABSENT, Axis
from tuning.cells import best_of, cells_of, within
from tuning.palette import ACCENT, CLASSES, INK, LINE, MUTED, ON_SCALE, PAPER, SCALE, ranks, score_range, shades
from tuning.record import SweepRecord, TrialRecord
from tuning.scores import best_first, finite, front, rungs, scored, settled
from tuning.wording import number

WIDTH_IN = 5.6
_HALO = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.7, "alpha": 0.8}


def heat_map(record: SweepRecord, across: Axis, down: Axis) -> Figure:
    """The mean score of each pair of values, over seeds and over all other keys.

    Args:
        record: The sweep.
        across, down: Two searched keys.
    """
    columns, rows = across.cells(), down.cells()
    width = WIDTH_IN if len(columns) <= 10 else 0.55 * len(columns)
    figure = Figure(figsize=(width, 0.46 * len(rows) + 1.4), layout="constrained")
    plot = figure.subplots()
    cells = cells_of(record, across, down)
    shade = shades(record, [cell.mean for cell in cells if cell.mean is not None])
    best = best_of(record, cells)
    for cell in cells:
        step = None if cell.mean is None else shade(cell.mean)
        box = Rectangle((cell.column - 0.48, cell.row - 0.46), 0.96, 0.92)
        box.set(facecolor="none" if step is None else SCALE[step], edgecolor=ACCENT if cell is best else LINE)
        box.set_linewidth(3 if cell is best else 0.8)
        plot.add_patch(box)
        text = "failed" if cell.failed else "–"
        if cell.mean is not None:
            text = number(cell.mean) + ("" if cell.finished else "°")
            text += "" if cell.spread is None else f"\n±{cell.spread:.1g}"
        colour = MUTED if step is None else ON_SCALE[step]
        small = 8 if len(columns) <= 6 else 6.5
        plot.text(cell.column, cell.row, text, ha="center", va="center", fontsize=small, color=colour)
    _labelled(plot, across.label, down.label)
    plot.set_xlim(-0.5, len(columns) - 0.5)
    plot.set_ylim(-0.5, len(rows) - 0.5)
    plot.set_xticks(range(len(columns)), [name for _, _, name in columns])
    plot.set_yticks(range(len(rows)), [name for _, _, name in rows])
    plot.tick_params(length=0)
    if len(columns) > 4 and max(len(name) for _, _, name in columns) > 5:
        plot.tick_params(axis="x", labelrotation=35)
    plot.spines[:].set_visible(False)
    return figure


def dots(record: SweepRecord, axis: Axis) -> Figure:
    """Every trial's score along one key, with the mean of each value."""
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    plot = figure.subplots()
    for cell in axis.cells():
        here = settled(record, [trial for trial in record.trials if within(axis, trial, cell)])
        if here:
            middle = sum(axis.position(each.trial.values) for each in here) / len(here)
            mean = sum(each.score for each in here) / len(here)
            plot.plot([middle - 0.045, middle + 0.045], [mean, mean], color=INK, linewidth=2.2)
    for trial, score in scored(record):
        _mark(plot, trial, axis.position(trial.values), score)
    ticks = axis.ticks(8)
    plot.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
    plot.set_xlim((ABSENT if axis.conditional else 0) - 0.08, 1.08)
    _labelled(plot, axis.label, _scored_name(record))
    _plain(plot)
    return figure


def curves(record: SweepRecord) -> Figure:
    """The metric of every trial, validation by validation, and where the scheduler compared them."""
    figure = Figure(figsize=(WIDTH_IN, 3.8), layout="constrained")
    plot = figure.subplots()
    rank, seen = ranks(record), list[float]()
    for trial in sorted(record.trials, key=lambda each: -rank.get(each.number, CLASSES)):
        line = [(point.epoch, finite(point.metrics.get(record.metric))) for point in trial.curve]
        known = [(epoch, value) for epoch, value in line if value is not None]
        if not known:
            continue
        epochs, values = [epoch for epoch, _ in known], [value for _, value in known]
        seen += values
        (drawn,) = plot.plot(epochs, values, color=MUTED, linewidth=1.0, alpha=0.6)
        if trial.number in rank:
            drawn.set(color=SCALE[rank[trial.number]], linewidth=1.5, alpha=1.0, marker="o" if len(known) == 1 else "")
        elif trial.state in ("PRUNED", "FAILED"):
            mark = "x" if trial.state == "PRUNED" else "s"
            plot.plot(epochs[-1], values[-1], marker=mark, color=MUTED, markersize=4.5)
    for epoch in rungs(record):
        plot.axvline(epoch, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
        plot.text(epoch, 1.01, "rung", transform=plot.get_xaxis_transform(), fontsize=8, color=MUTED, ha="center")
    _limits(plot, record, seen)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    _labelled(plot, "Epoch", _scored_name(record))
    _plain(plot)
    return figure


def parallel(record: SweepRecord, axes: Sequence[Axis]) -> Figure:
    """A line a trial through its values, to its score on the last axis; the best are drawn last."""
    figure = Figure(figsize=(max(WIDTH_IN, 1.45 * (len(axes) + 1)), 4.0), layout="constrained")
    plot = figure.subplots()
    known, rank = best_first(record, scored(record)), ranks(record)
    top, bottom = score_range(record, [each.score for each in known])
    span = (top - bottom) or 1.0
    for trial, score in sorted(reversed(known), key=lambda each: each.trial.number in rank):
        shift = 0.014 * ((trial.number * 0.618) % 1 - 0.5)  # so that equal values are several lines
        heights = [axis.position(trial.values) + shift for axis in axes]
        heights.append(min(1.03, max(-0.03, (score - bottom) / span)))
        (drawn,) = plot.plot(heights, color=MUTED, linewidth=1.0, alpha=0.45, linestyle=(0, (4, 3)))
        if trial.number in rank:
            step = rank[trial.number]
            drawn.set(color=SCALE[step], linewidth=1.9 if step == 0 else 1.1, alpha=1.0, linestyle="-")
    scale = [(height, number(bottom + height * span)) for height in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for place, ticks in enumerate([*(axis.ticks() for axis in axes), scale]):
        plot.plot([place, place], [min(0.0, ticks[0][0]) - 0.02, 1.02], color=INK, linewidth=1.2)
        for height, text in ticks:
            plot.text(place - 0.05, height, text, ha="right", va="center", fontsize=8, color=INK, bbox=_HALO, zorder=5)
    plot.set_xlim(-0.5, len(axes) + 0.15)
    plot.set_ylim((ABSENT if any(axis.conditional for axis in axes) else 0) - 0.05, 1.06)
    names = [name.replace("_", "\n") for name in (*(axis.label for axis in axes), record.metric)]
    plot.set_xticks(range(len(names)), names, fontsize=9, color=INK)
    plot.set_yticks([])
    plot.tick_params(length=0)
    plot.spines[:].set_visible(False)
    return figure


def bars(shares: Mapping[str, float], labels: Mapping[str, str]) -> Figure:
    """How much each key matters, the most first."""
    figure = Figure(figsize=(WIDTH_IN, 0.42 * len(shares) + 0.9), layout="constrained")
    plot = figure.subplots()
    lengths = [100 * share for share in shares.values()][::-1]
    plot.barh([labels[key] for key in shares][::-1], lengths, color=ACCENT, height=0.62)
    for place, length in enumerate(lengths):
        plot.text(length + 1, place, f"{length:.0f} %", va="center", fontsize=9, color=INK)
    plot.set_xlim(0, 112)
    plot.set_xticks([0, 25, 50, 75, 100])
    _labelled(plot, "Share of the variance, %", "")
    _plain(plot)
    plot.grid(axis="y", visible=False)
    return figure


def pareto(record: SweepRecord) -> Figure:
    """The score against the time of training a sample, and the front: nobody is both better and quicker than it."""
    figure = Figure(figsize=(WIDTH_IN, 3.8), layout="constrained")
    plot = figure.subplots()
    timed = [(1000 * each.trial.seconds_per_sample, each) for each in scored(record) if each.trial.seconds_per_sample]
    costs = [place for place, _ in timed]
    for place, each in timed:
        _mark(plot, each.trial, place, each.score)
    best = [(1000 * (each.trial.seconds_per_sample or 0.0), each) for each in front(record)]
    if best:
        places, scores = [place for place, _ in best], [each.score for _, each in best]
        plot.step(places, scores, where="post", color=ACCENT, linewidth=1.6)
    if costs and max(costs) > 8 * min(costs):
        plot.set_xscale("log")
    plot.autoscale_view()
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": ACCENT, "bbox": _HALO}
    free = 2.0
    for place, each in reversed(best):  # the best ones have their names, and no name covers another
        across = plot.transLimits.transform(plot.transScale.transform((place, each.score)))[0]
        if across < free - 0.09:
            plot.annotate(f"#{each.trial.number}", (place, each.score), (4, 5), **style)
            free = across
    _limits(plot, record, [each.score for _, each in timed])
    _labelled(plot, "Training time a sample, ms", _scored_name(record))
    _plain(plot)
    return figure


def _scored_name(record: SweepRecord) -> str:
    return f"{record.metric} ({'lower' if record.mode == 'min' else 'higher'} is better)"


def _limits(plot: Axes, record: SweepRecord, values: Sequence[float]) -> None:
    """Show the good ones large; what is far worse leaves the chart."""
    best, worst = score_range(record, values)
    span = worst - best
    if values and span:
        low, high = sorted((best - 0.08 * span, worst + 0.25 * span))
        plot.set_ylim(low, high)


def _mark(plot: Axes, trial: TrialRecord, across: float, up: float) -> None:
    """Full for a trial that finished."""
    (mark,) = plot.plot(across, up, marker="o", markersize=6, color=MUTED, markerfacecolor="none", alpha=0.75)
    if trial.state == "FINISHED":
        mark.set(color=ACCENT, markerfacecolor=ACCENT)


def _labelled(plot: Axes, across: str, up: str) -> None:
    plot.set_xlabel(across, fontsize=10, color=INK)
    plot.set_ylabel(up, fontsize=10, color=INK)
    plot.tick_params(labelsize=9, colors=INK)


def _plain(plot: Axes) -> None:
    plot.spines[["top", "right"]].set_visible(False)
    plot.spines[["bottom", "left"]].set_color(MUTED)
    plot.grid(color=LINE, linewidth=0.7)
    plot.set_axisbelow(True)
