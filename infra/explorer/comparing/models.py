"""The registered models with their scores, and the gate that a challenger passes to become the champion."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import panel as pn

from infra.explorer.comparing import records
from infra.explorer.comparing.records import Version
from infra.explorer.imagining.layout import command_html, side_by_side
from infra.explorer.work import Step, Work
from pipelines.data.store import Store
from pipelines.products.gate import pass_gate
from pipelines.products.verdict import Verdict
from pipelines.training.registry import CHAMPION
from tuning.wording import number

_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width"}
_CELL = "padding:5px 10px;border-bottom:1px solid #c3ccd2;text-align:left;vertical-align:top"
MEMBERS = 32
NO_STORE = "To compare a challenger with its champion, start with a store: vamoh explore --store STORE."


class Models:
    """The part of the tab.

    Args:
        store: Where a challenger meets the champion; None for none.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._work = Work("Asking MLflow")
        self._versions: dict[str, Version] = {}
        self._table = pn.pane.HTML("", **_WIDE)
        self._verdict = pn.pane.HTML("", **_WIDE)
        self._challenger = pn.widgets.Select(name="Challenger", options=[], **_WIDE)
        self._members = pn.widgets.IntSlider(name="Members of the ensembles", start=2, end=64, value=MEMBERS, **_WIDE)
        self._ask = pn.widgets.Button(name="Promote through the gate …", button_type="primary", disabled=True, **_WIDE)
        self._question = pn.pane.HTML("", **_WIDE)
        yes = pn.widgets.Button(name="Yes, compare and promote", button_type="primary", **_WIDE)
        no = pn.widgets.Button(name="No, leave it", **_WIDE)
        self._confirmation = pn.Column(self._question, yes, no, visible=False, **_WIDE)
        note = [] if store is not None else [pn.pane.HTML(f"<p>{escape(NO_STORE)}</p>", **_WIDE)]
        self.view = side_by_side(
            [self._challenger, self._members, self._ask, self._confirmation, *note],
            [self._work.view(), self._verdict, self._table],
        )
        self._ask.on_click(lambda event: self._confirm())
        yes.on_click(lambda event: self._promote())
        no.on_click(lambda event: self._leave())
        self._challenger.param.watch(lambda event: self._leave(), "value")

    def read(self) -> None:
        """Read what is registered."""
        self._work.start(lambda step: records.versions(), self._has_read)

    def _has_read(self, versions: list[Version]) -> None:
        if not versions:
            raise ValueError("no model is registered yet: vamoh train PRESET --store STORE --register NAME")
        self._table.object = table(versions)
        waiting = [version for version in versions if CHAMPION not in version.aliases]
        self._versions = {version.label: version for version in waiting}
        self._challenger.options = list(self._versions)
        self._challenger.value = next(iter(self._versions), None)
        self._ask.disabled = not waiting or self._store is None

    def _confirm(self) -> None:
        version = self._versions[self._challenger.value]
        assert self._store is not None
        self._question.object = (
            f"<p>{escape(version.label)} is compared with the champion of {escape(version.name)} on "
            f"{escape(self._store.path)}. If its CRPS is lower beyond chance and nothing else is worse, it becomes the "
            "champion, for everybody who uses this registry.</p>"
        )
        self._confirmation.visible = True

    def _leave(self) -> None:
        self._confirmation.visible = False

    def _promote(self) -> None:
        self._confirmation.visible = False
        self._verdict.object = ""
        version, store, members = self._versions[self._challenger.value], self._store, int(self._members.value or 2)
        assert store is not None

        def job(step: Step) -> tuple[Version, Verdict]:
            with records.answering():
                return version, pass_gate(version.name, version.version, store.path, members=members)

        self._work.start(job, self._judged, what="Comparing the two models")

    def _judged(self, result: tuple[Version, Verdict]) -> None:
        version, verdict = result
        assert self._store is not None
        self._verdict.object = told(version, verdict) + command_html(
            "The same from the command line:", "vamoh", "models", "promote", version.name, version.version, "--store",
            self._store.path, "--members", self._members.value,
        )  # fmt: skip
        self.read()


def told(version: Version, verdict: Verdict) -> str:
    """What the gate said, as HTML: a sentence, and the numbers that it compared."""
    done = "is the champion" if verdict.passed else "is not promoted"
    sentence = f"{version.label} {done}: {verdict.reason}."
    doubts = "".join(f"<li>{escape(doubt)}</li>" for doubt in verdict.doubts)
    rows = [
        (key, number(each.challenger), number(each.champion), f"{number(each.low)} to {number(each.high)}")
        for key, each in verdict.compared.items()
    ]
    heads = ("", f"version {version.version}", "champion", "difference, 5 % to 95 %")
    shown = _rows(heads, rows) if rows else ""
    said = f'<p role="status" style="font-size:15px;font-weight:600">{escape(sentence)}</p>'
    return said + shown + (f"<ul>{doubts}</ul>" if doubts else "")


def table(versions: Sequence[Version]) -> str:
    """Every version with its scores, as HTML."""
    heads = ("Model", "Version", "Alias", "Created (UTC)", "Scores on its validation samples", "Evaluations kept")
    rows = [
        (
            each.name,
            each.version,
            ", ".join(each.aliases),
            f"{each.created:%Y-%m-%d %H:%M}",
            ", ".join(f"{key.removeprefix('validation_')} {number(value)}" for key, value in each.scores.items()),
            str(len(each.evaluations) or ""),
        )
        for each in versions
    ]
    return _rows(heads, rows)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls within itself where the page is narrow; what it says is no HTML."""
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(text)}</td>' for text in row) + "</tr>" for row in rows
    )
    return (
        '<div style="overflow-x:auto" tabindex="0"><table style="border-collapse:collapse;font-size:14px">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
