"""Learning curves, the heat map of a sweep, and skill over resolution, as Bokeh figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import FixedTicker, HoverTool, LinearColorMapper
from bokeh.models.annotations import ColorBar, Legend, LegendItem
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from infra.explorer.comparing.records import Curve
from infra.explorer.imagining.planes import tips
from pipelines.products.charts import CATEGORIES, with_units
from tuning.axes import Axis
from tuning.cells import best_of, cells_of
from tuning.palette import contrast, score_range
from tuning.record import SweepRecord
from tuning.wording import number

DASHES = ("solid", "dashed", "dotdash", "dotted")
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "plus", "x")
_INK, _ACCENT, _LINE = "#17202a", "#d55e00", "#c3ccd2"


def unit_of(metric: str, domain: str) -> str:
    """The unit of a metric of a run on a domain; empty where it is not known.

    >>> unit_of("validation_crps", "sphere"), unit_of("validation_elbo", "cube"), unit_of("epoch", "cube")
    ('K', 'nats', '')
    """
    name = metric.removeprefix("best_").removeprefix("validation_").removeprefix("training_")
    if name in ("rmse", "crps", "mae", "bias", "energy"):
        return {"sphere": "K"}.get(domain, "")
    if name in ("elbo", "log_score", "loss", "reconstruction", "kl_z", "kl_c"):
        return "nats"
    return "s" if "seconds" in name else ""


def curves_figure(curves: Sequence[Curve], metric: str, unit: str = "") -> Any:  # noqa: ANN401
    """A line for each run; a click on its name hides it.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not curves:
        raise ValueError(f"none of the chosen runs has {metric!r}: choose another metric, or other runs")
    chart = _chart("Epoch", with_units(metric.replace("_", " "), unit), f"Learning curves: {metric.replace('_', ' ')}")
    items = []
    for place, curve in enumerate(curves):
        told = {"epoch": list(curve.epochs), "value": list(curve.values), "name": [curve.name] * len(curve.epochs)}
        items.append(LegendItem(label=curve.name, renderers=_line(chart, "epoch", "value", told, place)))
    chart.add_tools(HoverTool(tooltips=tips(("", "@name"), ("Epoch", "@epoch"), (metric, f"@value{{0.0000}} {unit}"))))
    _legend(chart, items)
    return chart


def skill_figure(rows: Sequence[Mapping[str, Any]], score: str) -> Any:  # noqa: ANN401
    """A score of each system against the spacing of what it is given, at the output that is finest.

    Args:
        rows: Of `pipelines.products.curve.skill_curve`.
        score: rmse or crps.

    Raises:
        ValueError: If there is nothing to draw.
    """
    finest = [row for row in rows if row["every"] == 1]
    names = list(dict.fromkeys(name for row in finest for name in row[score]))
    if not names:
        raise ValueError(
            f"no {score} is kept over resolutions: vamoh evaluate MODEL --store STORE --curve 2,4,8 --keep"
        )
    chart = _chart("Spacing of the input (km)", f"{score.upper()} (K)", f"{score.upper()} against resolution")
    items = []
    for place, name in enumerate(names):
        known = sorted((row for row in finest if name in row[score]), key=lambda row: float(row["input_km"]))
        told = {
            "km": [float(row["input_km"]) for row in known],
            "value": [float(row[score][name]) for row in known],
            "name": [name] * len(known),
            "taught": ["taught on such input" if row["trained"] else "not taught on such input" for row in known],
        }
        items.append(LegendItem(label=name, renderers=_line(chart, "km", "value", told, place)))
    rows_told = [
        ("", "@name"),
        ("Input", "@km{0.0} km"),
        (score.upper(), "@value{0.000} K"),
        ("The model was", "@taught"),
    ]
    chart.add_tools(HoverTool(tooltips=tips(*rows_told)))
    chart.y_range.start = 0
    _legend(chart, items)
    return chart


def heat_map(record: SweepRecord, across: Axis, down: Axis) -> Any:  # noqa: ANN401
    """The mean score of each pair of values of two searched keys, over seeds and all other keys; the best is framed.

    Raises:
        ValueError: If no trial has a score.
    """
    told, mapper = heat_cells(record, across, down)
    columns, rows = across.cells(), _rows_of(across, down)
    better = "lower" if record.mode == "min" else "higher"
    metric = record.metric.replace("_", " ")
    named = with_units(metric, unit_of(record.metric, str(record.config.get("model", {}).get("domain", ""))))
    up = "" if across.key == down.key else down.label.replace("_", " ")
    chart = _chart(across.label.replace("_", " "), up, f"{record.name}: mean {metric}")
    chart.x_range.start, chart.x_range.end = -0.5, len(columns) - 0.5
    chart.y_range.start, chart.y_range.end = -0.5, len(rows) - 0.5
    drawn = chart.rect(
        "column", "row", width=0.96, height=0.92, source=told, fill_color="fill", line_color="edge", line_width="width"
    )
    chart.text(
        "column", "row", text="text", source=told, text_align="center", text_baseline="middle", text_color="ink",
        text_font_size="13px",
    )  # fmt: skip
    for axis, cells in ((chart.xaxis, columns), (chart.yaxis, rows)):
        axis.ticker = FixedTicker(ticks=list(range(len(cells))))
        axis.major_label_overrides = {place: name for place, (_, _, name) in enumerate(cells)}
    rows_told = [(across.label, "@across"), (down.label, "@down"), (metric, "@text"), ("Trials", "@trials")]
    chart.add_tools(HoverTool(renderers=[drawn], tooltips=tips(*rows_told)))
    chart.grid.visible = False
    chart.add_layout(
        ColorBar(color_mapper=mapper, title=f"{named}, {better} is better", height=10, title_text_font_style="normal"),
        "below",
    )
    return chart


def heat_cells(record: SweepRecord, across: Axis, down: Axis) -> tuple[dict[str, list[Any]], LinearColorMapper]:
    """What stands in the cells, and the colours of their scores: the best are dark.

    Raises:
        ValueError: If no trial has a score.
    """
    cells = cells_of(record, across, down)
    means = [cell.mean for cell in cells if cell.mean is not None]
    if not means:
        raise ValueError(f"no trial of {record.name} has a {record.metric} yet")
    best, worst = score_range(record, means)
    low, high = sorted((best, worst))
    palette = Viridis256 if record.mode == "min" else Viridis256[::-1]
    high = high if high > low else low + abs(low) * 1e-3 + 1e-12
    mapper = LinearColorMapper(palette=palette, low=low, high=high)
    framed, columns, rows = best_of(record, cells), across.cells(), _rows_of(across, down)
    told: dict[str, list[Any]] = {
        key: [] for key in ("column", "row", "mean", "text", "fill", "edge", "width", "ink", "across", "down", "trials")
    }
    for cell in cells:
        row = min(cell.row, len(rows) - 1)
        fill = (
            "#ffffff" if cell.mean is None else palette[min(255, max(0, round(255 * (cell.mean - low) / (high - low))))]
        )
        text = ("failed" if cell.failed else "–") if cell.mean is None else number(cell.mean)
        text += "°" if cell.mean is not None and not cell.finished else ""
        text += "" if cell.spread is None else f"\n±{cell.spread:.1g}"
        states = ", ".join(f"#{trial.number} {trial.state.lower()}" for trial in cell.trials[:8])
        for key, value in {
            "column": cell.column,
            "row": row,
            "mean": cell.mean,
            "text": text,
            "fill": fill,
            "edge": _ACCENT if cell is framed else _LINE,
            "width": 4 if cell is framed else 1,
            "ink": _ink_on(fill),
            "across": columns[cell.column][2],
            "down": rows[row][2],
            "trials": states,
        }.items():
            told[key].append(value)
    return told, mapper


def _rows_of(across: Axis, down: Axis) -> list[tuple[float, float, str]]:
    """The cells of the second key; one that holds all where it is the first one again."""
    return [(-1.0, 2.0, "all")] if across.key == down.key else down.cells()


def _parts(digits: str) -> tuple[float, ...]:
    return tuple(int(digits[place : place + 2], 16) / 255 for place in (1, 3, 5))


def _ink_on(fill: str) -> str:
    """Black or white, whichever is read better on a colour."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(_parts(fill), _parts(ink)))


def _chart(across: str, up: str, title: str) -> Any:  # noqa: ANN401 - Bokeh's types do not know its own attributes
    chart: Any = figure(
        title=title,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        sizing_mode="stretch_width",
        height=440,
        min_width=260,
        toolbar_location="right",
    )
    chart.xaxis.axis_label, chart.yaxis.axis_label = across, up
    chart.axis.axis_label_text_font_style = "normal"
    chart.axis.axis_label_text_color = chart.axis.major_label_text_color = chart.title.text_color = _INK
    chart.toolbar.logo = None
    return chart


def _line(chart: Any, across: str, up: str, told: Mapping[str, Any], place: int) -> list[Any]:  # noqa: ANN401
    """A line with marks, told apart by colour, by dash and by mark."""
    colour, dash = CATEGORIES[place % len(CATEGORIES)], DASHES[place // len(CATEGORIES) % len(DASHES)]
    line = chart.line(across, up, source=dict(told), color=colour, line_width=2, line_dash=dash)
    marks = chart.scatter(
        across, up, source=line.data_source, color=colour, size=7, marker=MARKERS[place % len(MARKERS)]
    )
    return [line, marks]


def _legend(chart: Any, items: list[LegendItem]) -> None:  # noqa: ANN401
    legend = Legend(
        items=items, click_policy="hide", location="left", label_text_font_size="13px", label_text_color=_INK
    )
    legend.ncols = 1 if max(len(str(item.label)) for item in items) > 40 else 2
    chart.add_layout(legend, "below")
