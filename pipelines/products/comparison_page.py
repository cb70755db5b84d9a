"""The page of a comparison: one HTML file that needs nothing outside itself, with every number of the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from pipelines.data.atomic import written_beside
from pipelines.products.comparison_metrics import METRICS, shown
from pipelines.products.report import figure_of

_DIRECTIONS = {"less": "less is better", "more": "more is better", "half": "near 0.5 is best", "": ""}
_STAYS = 'style="position: sticky; left: 0; background: #fff"'  # where the table is wider than the screen
_TOLD = (
    "store", "fingerprint", "split", "samples", "from", "to", "points", "members", "seen_for_downscaling", "seed",
    "hidden_half", "features", "surface_points", "machine",
)  # fmt: skip


def write_comparison(path: str | Path, result: Mapping[str, Any], figures: Sequence[tuple[str, str, Figure]]) -> Path:
    """Write the page.

    Args:
        path: The HTML file; an older one is replaced.
        result: Of `compare`.
        figures: Title, caption and figure.
    """
    template = Template(files("pipelines.products").joinpath("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(f"Models of {Path(str(result['store'])).name} side by side"),
        summary=escape(
            f"{result['samples']} functions of the {result['split']} split ({result['from']} to {result['to']}), which "
            f"no model learned from. Every model was asked in one process, with one thread."
        ),
        headline="",
        scores=_table(result) + _reasons(result) + _meanings(result),
        figures="\n".join(figure_of(*figure) for figure in figures),
        tables=_paper(result["paper"]) + _systems(result["about"]),
        provenance="\n".join(
            f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(result[key]))}</dd>"
            for key in _TOLD
            if result.get(key) is not None
        ),
    )
    with written_beside(path, overwrite=True) as beside:
        beside.write_text(page, encoding="utf-8")
    return Path(path)


def _table(result: Mapping[str, Any]) -> str:
    """A row a metric, a column a model; what can be had without one stands to the right."""
    models, references = result["models"], result["references"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in models)
    head += "".join(f'<th scope="col">{escape(name)}<br><small>no model</small></th>' for name in references)
    lines, group = [], ""
    for key, metric in result["metrics"].items():
        if metric["group"] != group:
            group = metric["group"]
            across = 1 + len(models) + len(references)
            lines.append(f'<tr class="ours"><th scope="colgroup" colspan="{across}">{escape(group)}</th></tr>')
        cells = "".join(
            _cell(scores.get(key), best=name in result["best"].get(key, ())) for name, scores in models.items()
        )
        cells += "".join(_cell(scores.get(key), best=False) for scores in references.values())
        direction, unit = _DIRECTIONS[metric["better"]], metric["unit"]
        told = ", ".join(text for text in (unit, direction) if text)
        small = f"<br><small>{escape(told)}</small>" if told else ""
        lines.append(f'<tr><th scope="row" {_STAYS}>{escape(metric["name"])}{small}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table><thead><tr>'
        f'<th scope="col">Metric</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        '<p class="note">The best model of each row is bold and marked ★; equal numbers share it.</p>'
    )


def _cell(value: float | None, *, best: bool) -> str:
    text = escape(shown(value)).replace("-", "−")
    return f'<td class="best">★&nbsp;{text}</td>' if best else f"<td>{text}</td>"


def _reasons(result: Mapping[str, Any]) -> str:
    """Why there are dashes, and what else is to be said."""
    names = {key: metric.name for key, metric in METRICS.items()}
    lines = [
        f"<li><strong>{escape(' and '.join(gap['models']))}</strong>: {escape(gap['reason'])} "
        f"({escape('; '.join(names[key] for key in gap['metrics']))}).</li>"
        for gap in result["missing"]
    ]
    lines += [f"<li>{escape(said)}</li>" for said in result["notes"]]
    return f'<h3>What is missing, and why</h3><ul class="note">{"".join(lines)}</ul>' if lines else ""


def _meanings(result: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<li><strong>{escape(metric['name'])}</strong>: {escape(metric['meaning'])}.</li>"
        for metric in result["metrics"].values()
    )
    return f'<h3>What the numbers are</h3><ul class="note">{lines}</ul>'


def _systems(about: Mapping[str, Mapping[str, str]]) -> str:
    lines = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape('; '.join(f'{key}: {value}' for key, value in told.items()))}</dd>"
        for label, told in about.items()
    )
    return f"<h3>The models</h3><dl>{lines}</dl>"


def _paper(paper: Mapping[str, Any] | None) -> str:
    """The paper's own figures, apart from what was measured."""
    if paper is None:
        return ""
    figures = paper["figures"]
    keys = list(dict.fromkeys(key for row in figures.values() for key in row))
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in keys)
    rows = "".join(
        f'<tr><th scope="row">{escape(system)}</th>{"".join(f"<td>{_told(row.get(key))}</td>" for key in keys)}</tr>'
        for system, row in figures.items()
    )
    return (
        f"<h3>The paper's figures for {escape(paper['data_set'])}, not measured here</h3>"
        '<div class="scroll" tabindex="0" role="region" aria-label="The paper\'s figures"><table class="small"><thead>'
        f'<tr><th scope="col">System</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{escape(paper["note"])}</p>'
    )


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
