"""The report of a sweep: one HTML page that needs nothing outside itself.

Figures are inline SVG in the page's own colours, light and dark. The script only sorts the table of trials; without it
everything is there. The page is written to a temporary name and renamed, so a reader never sees half of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import yaml
from matplotlib.figure import Figure

from pipelines.data.atomic import written_beside
from tuning import charts
from tuning.axes import Axis, axes_of
from tuning.embed import svg
from tuning.importance import Importance, importance
from tuning.palette import CLASSES, scale_css
from tuning.record import SweepRecord, TrialRecord
from tuning.scores import finite, ranked_points, rungs, scored, seed_noise
from tuning.wording import STATES, duration, number, short_names, value_text, values_text

FILE = "report.html"
COMPONENTS, DEPTH = "model.components", "model.flow_depth"
_BEST_POINTS = 10


def write_report(record: SweepRecord, folder: Path) -> Path:
    """Write the page.

    Args:
        record: The sweep, finished or not.
        folder: Where `report.html` is written, an older one replaced.

    Returns:
        The page's path.

    Raises:
        OSError: If it cannot be written; an older page stays.
    """
    template = Template(files("tuning").joinpath("report.html").read_text(encoding="utf-8"))
    matters = importance(record)
    page = template.substitute(
        title=escape(f"Sweep {record.name}"),
        scale_light=scale_css(dark=False),
        scale_dark=scale_css(dark=True),
        summary=_summary(record),
        tiles=_tiles(record),
        points=_points(record),
        figures=_figures(record, matters),
        trials=_trials(record),
        provenance=_provenance(record),
    )
    path = Path(folder) / FILE
    with written_beside(path, overwrite=True) as beside:
        beside.write_text(page, encoding="utf-8")
    return path


def _summary(record: SweepRecord) -> str:
    space = record.space
    names = list(short_names(list(space.get("search", {}))).values())
    states = [trial.state for trial in record.trials]
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in STATES.items() if state in states)
    seeds = space.get("seeds", 1)
    how = f"{space.get('method', 'search')}{f', {seeds} seeds a point' if seeds > 1 else ''}"
    about = escape(str(space.get("description", "")).rstrip("."))
    return (
        f"{about + '. ' if about else ''}{_count(record.trials)} over "
        f"{escape(', '.join(names))} ({escape(how)}) around <code>{escape(str(space.get('train', '')))}</code>: "
        f"{counts or 'none begun'}. What is searched for is the {'least' if record.mode == 'min' else 'greatest'} "
        f"<code>{escape(record.metric)}</code>."
    )


def _tiles(record: SweepRecord) -> str:
    spent = sum(trial.seconds for trial in record.trials)
    together = f"in {duration(record.seconds)}, {spent / record.seconds:.1f} at a time" if record.seconds > 0 else ""
    compute = _tile("Total compute", duration(spent), f"of {_count(record.trials)} {together}")
    best = record.best
    if best is None or best.best is None:
        return _tile("Best", "none", "no trial has finished with a score") + compute
    point = next(point for point in ranked_points(record) if best in point.trials)
    over = ""
    if point.spread is not None:
        over = f"; the {len(point.trials)} seeds of its point {number(point.mean)} ± {point.spread:.2g}"
    values = values_text(best.values, list(record.space.get("search", {})))
    return (
        _tile(f"Best {record.metric}", number(best.best), f"trial {best.number}{over}")
        + _tile("Best values", values, f"<code>best.yaml</code> trains it again, seed {best.seed}", kind="words")
        + compute
    )


def _count(trials: Sequence[TrialRecord]) -> str:
    return f"{len(trials)} {'trial' if len(trials) == 1 else 'trials'}"


def _tile(label: str, figure: str, text: str, kind: str = "number") -> str:
    return (
        f'<div class="tile"><span class="label">{escape(label)}</span>'
        f'<span class="{kind}">{escape(figure)}</span><span>{text}</span></div>'
    )


def _points(record: SweepRecord) -> str:
    """The best points of the space, their seeds averaged."""
    ranked = ranked_points(record)
    if not ranked:
        return '<p class="note">No trial has finished with a score.</p>'
    axes, seeded = axes_of(record), any(len(point.trials) > 1 for point in ranked)
    heads = ["", *(axis.label for axis in axes), record.metric]
    heads += ["± over seeds", "Finished"] if seeded else []
    rows = []
    for place, point in enumerate(ranked[:_BEST_POINTS]):
        cells = [str(place + 1), *(_value(point.values, axis) for axis in axes), number(point.mean)]
        if seeded:
            spread = "" if point.spread is None else f"{point.spread:.2g}"
            cells += [spread, f"{point.finished} of {len(point.trials)}"]
        kind = ' class="best"' if place == 0 else ""
        rows.append(f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    noise = seed_noise(record)
    note = f"{min(len(ranked), _BEST_POINTS)} of {len(ranked)} with a finished trial."
    if noise is not None:
        note += (
            f" Seeds of one point differ by ±{noise:.2g} (standard deviation, pooled over the points): smaller "
            "differences between points say nothing."
        )
    return _table("Best points", heads, rows) + f'<p class="note">{escape(note)}</p>'


def _figures(record: SweepRecord, matters: Importance) -> str:
    """What there is to draw: nothing is drawn of nothing."""
    known, axes = scored(record), axes_of(record)
    if not known:
        return '<p class="note">There is no score to draw.</p>'
    steps = f'<span class="legend">{"".join(_swatch(step) for step in range(CLASSES))}</span>'
    legend = f"Best {steps} worst"
    parts = []
    pair = _pair(axes, matters)
    if len(pair) == 2:
        named = f"{pair[0].label} × {pair[1].label}"
        caption = (
            f"Mean of the trials' best {record.metric}, over seeds{' and all other keys' if len(axes) > 2 else ''}; "
            "± is their standard deviation; ° marks what was all stopped early. {legend}; the best cell is framed."
        )
        parts.append(_figure("map", named, caption, charts.heat_map(record, *pair), legend))
    elif axes:
        caption = "One mark a trial, a bar for the mean of each value; hollow marks were stopped early or failed."
        parts.append(_figure("dots", f"Along {axes[0].label}", caption, charts.dots(record, axes[0])))
    compared = rungs(record)
    caption = "Validations of every trial. {legend}; grey lines were stopped early (×), failed (■) or still run."
    if compared:
        caption += f" At the rungs (epochs {', '.join(map(str, compared))}) the scheduler stopped those behind others."
    parts.append(_figure("curves", "Learning curves", caption, charts.curves(record), legend))
    if matters.shares:
        labels = {axis.key: axis.label for axis in axes}
        caption = f"{matters.note} A key's share of the variance that it explains by itself."
        parts.append(_figure("bars", "Parameter importance", caption, charts.bars(matters.shares, labels)))
    else:
        parts.append(f'<figure><h3>Parameter importance</h3><p class="note">{escape(matters.note)}</p></figure>')
    if any(each.trial.seconds_per_sample for each in known):
        caption = (
            "Each trial's best score against what a sample costs it in training. No trial is both better and quicker "
            "than one on the line; hollow marks did not finish."
        )
        parts.append(_figure("pareto", "Pareto front", caption, charts.pareto(record)))
    caption = (
        "One line a trial, through its values to its score; the best are on top. {legend}; dashed lines did not finish."
    )
    parts.append(_figure("parallel", "Parallel coordinates", caption, charts.parallel(record, axes), legend))
    return f'<div class="figures">{"".join(parts)}</div>'


def _pair(axes: Sequence[Axis], matters: Importance) -> list[Axis]:
    """Components and depth where both are searched; else the two keys that matter most."""
    keyed = {axis.key: axis for axis in axes}
    if COMPONENTS in keyed and DEPTH in keyed:
        return [keyed[COMPONENTS], keyed[DEPTH]]
    ordered = [*matters.shares, *(key for key in keyed if key not in matters.shares)]
    return [keyed[key] for key in ordered[:2]]


def _swatch(step: int) -> str:
    return f'<i style="background: var(--scale-{step})"></i>'


def _figure(name: str, title: str, caption: str, figure: Figure, legend: str = "") -> str:
    wide = figure.get_figwidth() > 1.3 * charts.WIDTH_IN
    plain = caption.replace("{legend}; ", "")
    drawing = svg(figure, name, escape(f"{title}. {plain}", quote=True))
    return (
        f"<figure{' class=wide' if wide else ''}><h3>{escape(title)}</h3>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">{drawing}</div>'
        f"<figcaption>{escape(caption).replace('{legend}', legend)}</figcaption></figure>"
    )


def _trials(record: SweepRecord) -> str:
    """Every trial; a click on a heading sorts them."""
    if not record.trials:
        return '<p class="note">None was begun.</p>'
    axes, best = axes_of(record), record.best
    failed = any(trial.error for trial in record.trials)
    heads = ["#", "State", *(axis.label for axis in axes), "Seed", record.metric, "Epochs", "Time", "ms a sample"]
    rows = []
    for trial in record.trials:
        cells = [_cell(str(trial.number)), _cell(STATES[trial.state], kind=_kind(trial))]
        cells += [_cell(_value(trial.values, axis), key=axis.position(trial.values)) for axis in axes]
        cells.append(_cell(str(trial.seed)))
        known = finite(trial.best)
        cells.append(_cell("–", key="") if known is None else _cell(number(known), key=known))
        cells.append(_cell(str(trial.curve[-1].epoch) if trial.curve else "0"))
        cells.append(_cell(duration(trial.seconds), key=trial.seconds))
        speed = trial.seconds_per_sample
        cells.append(_cell("–", key="") if speed is None else _cell(f"{1000 * speed:.3g}", key=speed))
        cells += [_cell(trial.error, kind="error")] if failed else []
        rows.append(f"<tr{' class=best' if trial is best else ''}>{''.join(cells)}</tr>")
    return _table("Trials", [*heads, *(["Error"] if failed else [])], rows, kind="sortable")


def _kind(trial: TrialRecord) -> str:
    return "text failed" if trial.state == "FAILED" else "text"


def _cell(text: str, *, key: float | str | None = None, kind: str = "") -> str:
    sort = "" if key is None else f' data-key="{key}"'
    styled = f' class="{kind}"' if kind else ""
    return f"<td{sort}{styled}>{escape(text)}</td>"


def _value(values: Mapping[str, object], axis: Axis) -> str:
    return value_text(values[axis.key]) if axis.key in values else ""


def _table(label: str, heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    left = {name: ' class="text"' for name in ("State", "Error")}
    head = "".join(f'<th scope="col"{left.get(name, "")}>{escape(name)}</th>' for name in heads)
    tall = " tall" if len(rows) > 20 else ""
    return (
        f'<div class="scroll{tall}" tabindex="0" role="region" aria-label="{escape(label)}"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _provenance(record: SweepRecord) -> str:
    """Where it comes from, and the space as it was asked for."""
    facts = {
        "Store": record.store,
        "Store's fingerprint": record.fingerprint,
        "Started": record.started,
        "Wall time": duration(record.seconds),
        "MLflow run": record.run_id or "–",
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Space": yaml.safe_dump(json.loads(json.dumps(record.space)), sort_keys=False, width=100).rstrip(),
    }
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
