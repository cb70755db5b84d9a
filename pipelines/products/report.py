"""The report: one HTML page that needs nothing outside itself, no network, no script.

Figures are embedded as PNG. The page is written to a temporary name and renamed, so a reader never sees half of it.
"""

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure

from pipelines.data.atomic import written_beside

_DOTS_PER_INCH = 140
_SHOWN_PER_INCH = 100  # on the page, where there is room: text of figure and page look alike


@dataclass(frozen=True, kw_only=True)
class Score:
    """A column of the score table.

    Attributes:
        header: its name.
        explanation: what it measures, shown below the table.
        has_unit: whether it carries the field's unit.
        target: the perfect value; the method closest to it is emphasised. None where methods cannot be ranked so.
    """

    header: str
    explanation: str
    has_unit: bool = True
    target: float | None = 0.0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A further table of texts.

    Attributes:
        title: above it.
        header: of the columns.
        rows: a name and its values each.
        note: below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


SCORES: Mapping[str, Score] = {
    "rmse": Score(header="RMSE", explanation="root mean square error of the (mean) field; lower is better"),
    "mae": Score(header="MAE", explanation="mean absolute error of the (mean) field; lower is better"),
    "bias": Score(header="Bias", explanation="mean of forecast minus truth; zero is best"),
    "crps": Score(
        header="CRPS",
        explanation="continuous ranked probability score of the whole distribution, for a single field its mean "
        "absolute error; lower is better",
    ),
    "spread_skill": Score(
        header="Spread / skill",
        explanation="the members' spread over the error of their mean; one is best, below it the ensemble is too sure",
        has_unit=False,
        target=1.0,
    ),
    "coverage_90": Score(
        header="90 % interval",
        explanation="the fraction of truth inside the central 90 % interval; M members, when reliable, cover "
        "(M − 1) / (M + 1) of it, if that is less: 0.778 with eight",
        has_unit=False,
        target=None,
    ),
}


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    scores_table: Mapping[str, Mapping[str, float]],
    figures: Sequence[tuple[str, str, Figure]],
    provenance: Mapping[str, object],
    units: str = "K",
    reference: str = "bilinear",
    tables: Sequence[Table] = (),
) -> Path:
    """Write the page.

    Args:
        path: the HTML file; its folder is made, an older page replaced.
        title: what was downscaled, from what to what.
        summary: one paragraph of plain text.
        scores_table: method to scores under the keys of `SCORES`, ours first; a missing score is a dash.
        figures: title, caption that says what to see, and figure.
        provenance: name to value: data licence and attribution, model, run, seed, versions, command.
        units: of the scores.
        reference: the method that ours is compared with in the headline, where it is in the table.
        tables: further ones, below the figures.

    Returns:
        The path.

    Raises:
        ValueError: if a score has an unknown name.
        OSError: if the disk is full; an older page stays.

    """
    unknown = sorted({key for scores in scores_table.values() for key in scores} - SCORES.keys())
    if unknown:
        raise ValueError(f"the report has no column for the scores {unknown}; expected some of {list(SCORES)}")
    template = Template(files("pipelines.products").joinpath("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(title),
        summary=escape(summary),
        headline=_headline(scores_table, units, reference),
        scores=_table(scores_table, units, reference),
        figures="\n".join(figure_of(*figure) for figure in figures),
        tables="\n".join(map(_further, tables)),
        provenance="\n".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in provenance.items()
        ),
    )
    with written_beside(path, overwrite=True) as beside:
        beside.write_text(page, encoding="utf-8")
    return Path(path)


def _headline(table: Mapping[str, Mapping[str, float]], units: str, reference: str) -> str:
    """How much better the first method is than the reference, as large figures."""
    ours = next(iter(table), "")
    if reference not in table or ours == reference:
        return ""
    tiles = []
    for key in ("rmse", "crps"):
        if key in table[ours] and table[reference].get(key):
            score, base = table[ours][key], table[reference][key]
            change = 100 * (score / base - 1)
            than = f"{'lower' if change < 0 else 'higher'} than {escape(reference)} ({base:.3f} {escape(units)})"
            tiles.append(
                f'<div class="tile"><span class="label">{SCORES[key].header}</span>'
                f'<span class="number">{score:.3f}&nbsp;{escape(units)}</span>'
                f"<span><strong>{abs(change):.0f}&nbsp;%</strong> {than}</span></div>"
            )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _table(table: Mapping[str, Mapping[str, float]], units: str, reference: str) -> str:
    keys = [key for key in SCORES if any(key in scores for scores in table.values())]
    compared = reference in table and "rmse" in table[reference]
    head = "".join(
        f'<th scope="col">{escape(SCORES[key].header)}{f" ({escape(units)})" if SCORES[key].has_unit else ""}</th>'
        for key in keys
    )
    if compared:
        head += f'<th scope="col">RMSE against {escape(reference)}</th>'
    best = {key: _best(table, key) for key in keys}
    rows = []
    for position, (method, scores) in enumerate(table.items()):
        cells = "".join(_cell(scores.get(key), emphasised=method in best[key]) for key in keys)
        if compared:
            cells += f"<td>{_change(scores.get('rmse'), table[reference]['rmse'])}</td>"
        ours = ' class="ours"' if position == 0 else ""
        rows.append(f'<tr{ours}><th scope="row">{escape(method)}</th>{cells}</tr>')
    notes = "".join(
        f"<li><strong>{escape(SCORES[key].header)}</strong>: {escape(SCORES[key].explanation)}.</li>" for key in keys
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table><thead><tr><th scope="col">Method'
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">The best of each column is bold and marked ★.</p><ul class="note">{notes}</ul>'
    )


def _further(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(text)}</td>" for text in texts)}</tr>'
        for name, *texts in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}"><table class="small"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f"</table></div>{note}"
    )


def _best(table: Mapping[str, Mapping[str, float]], key: str) -> list[str]:
    """The methods whose printed score is closest to perfect; nobody is best without company."""
    target = SCORES[key].target
    if target is None:
        return []
    distance = {
        method: round(abs(scores[key] - target), 3)
        for method, scores in table.items()
        if key in scores and np.isfinite(scores[key])
    }
    if len(distance) < 2:
        return []
    return [method for method, value in distance.items() if value == min(distance.values())]


def _cell(score: float | None, *, emphasised: bool) -> str:
    if score is None or not np.isfinite(score):
        return "<td>–</td>"
    text = f"{round(score, 3) + 0.0:.3f}".replace("-", "−")  # adding zero makes -0.000 one without a sign
    return f'<td class="best">★&nbsp;{text}</td>' if emphasised else f"<td>{text}</td>"


def _change(score: float | None, base: float) -> str:
    if score is None or not np.isfinite(score) or base <= 0:
        return "–"
    percent = round(100 * (score / base - 1))
    return f"{percent:+d}&nbsp;%".replace("-", "−") if percent else "0&nbsp;%"


def figure_of(title: str, caption: str, figure: Figure) -> str:
    """A figure within the page, with what to see in it below."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    width, height = struct.unpack(">II", image.getvalue()[16:24])  # PNG: the first fields of the first chunk
    shown = round(width * _SHOWN_PER_INCH / _DOTS_PER_INCH)
    return (
        f'<figure><h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" style="max-width:{shown}px" '
        f'alt="{escape(title)}. {escape(caption)}"></div><figcaption>{escape(caption)}</figcaption></figure>'
    )
