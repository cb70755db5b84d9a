"""A sweep while it runs, in the terminal: a table that is kept up to date, or lines where nobody watches.

A line is written once: for a trial that is over, and for a new best that it did not say already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Group
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from infra.cli.console import console
from tuning.record import SweepRecord, TrialRecord
from tuning.scores import finite
from tuning.wording import STATES, duration, number, values_text

NARROW, LEAST_ROWS = 80, 4
_STYLES = {"RUNNING": "bold", "FINISHED": "green", "PRUNED": "yellow", "FAILED": "red"}


class Live:
    """Shows a sweep's record each time that it is given.

    Args:
        total: Trials that there will be.
        metric: That is searched for.
        stream: Where to; standard error otherwise, so that results can be piped.
    """

    def __init__(self, total: int, metric: str, *, stream: TextIO | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        watched = stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
        self._view: _Table | _Lines = _Table(total, metric, stream) if watched else _Lines(total, metric, stream)

    def __enter__(self) -> Live:
        self._view.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.end()

    def show(self, record: SweepRecord) -> None:
        """Show how the sweep is now."""
        self._view.show(record)


class _Lines:
    """A line for every trial that is over, and for every new best."""

    def __init__(self, total: int, metric: str, stream: TextIO) -> None:
        self._total, self._metric, self._stream = total, metric, stream
        self._over: set[int] | None = None
        self._best: int | None = None

    def begin(self) -> None:
        """Nothing yet."""

    def end(self) -> None:
        """Nothing more."""

    def show(self, record: SweepRecord) -> None:
        over = [trial for trial in record.trials if trial.state != "RUNNING"]
        best = record.best
        if self._over is None:  # what was over before, a sweep that goes on has said already
            self._over, self._best = {trial.number for trial in over}, best.number if best else None
            if over:
                known = "" if best is None else f"; the best is {self._scored(best)}"
                self._say(f"{len(over)} of {self._total} trials are over{known}")
            return
        new = [trial for trial in over if trial.number not in self._over]
        better = best is not None and best.number != self._best
        for trial in new:
            self._over.add(trial.number)
            words = self._sentence(record, trial)
            if best is not None and better and trial.number == best.number:
                words, better = f"{words}: the best so far", False
            left = _seconds_left(record, self._total) if trial is new[-1] else None
            words += f" ({len(self._over)}/{self._total}{'' if left is None else f', {duration(left)} left'})"
            self._say(words)
        if best is not None and better:
            self._say(f"the best is now {self._scored(best)}")
        self._best = best.number if best else None

    def _scored(self, trial: TrialRecord) -> str:
        return f"trial {trial.number} with {self._metric} {_score(trial)}"

    def _sentence(self, record: SweepRecord, trial: TrialRecord) -> str:
        """How a trial ended."""
        words = f"trial {trial.number} {STATES[trial.state]} after {duration(trial.seconds)}: "
        words += values_text(trial.values, list(record.space.get("search", {})))
        if int(record.space.get("seeds", 1)) > 1:
            words += f", seed {trial.seed}"
        score = "" if finite(trial.best) is None else f", {self._metric} {_score(trial)}"
        return words + score + (f": {trial.error}" if trial.error else "")

    def _say(self, words: str) -> None:
        print(words, file=self._stream, flush=True)


class _Table:
    """A table of the trials that run and of those that matter, as many as the terminal has lines for."""

    def __init__(self, total: int, metric: str, stream: TextIO) -> None:
        self._total, self._metric = total, metric
        self._console = console(stream)
        self._live = RichLive(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def begin(self) -> None:
        self._live.start()

    def end(self) -> None:
        self._live.stop()

    def show(self, record: SweepRecord) -> None:
        self._live.update(self._drawn(record), refresh=True)

    def _drawn(self, record: SweepRecord) -> Group:
        lines = [Text(words, no_wrap=True, overflow="ellipsis") for words in self._head(record)]
        rows = max(LEAST_ROWS, self._console.height - len(lines) - 3)
        return Group(*lines, self._trials(record, rows))

    def _head(self, record: SweepRecord) -> list[str]:
        states = [trial.state for trial in record.trials]
        over = len(states) - states.count("RUNNING")
        counts = ", ".join(f"{states.count(state)} {word}" for state, word in STATES.items() if state in states)
        left = _seconds_left(record, self._total)
        time = f"{duration(record.seconds)} gone" + ("" if left is None else f", about {duration(left)} left")
        best = record.best
        lines = [f"{record.name}: {over}/{self._total} trials ({counts or 'none begun'})", time]
        if best is not None:
            names = list(record.space.get("search", {}))
            lines.append(f"best {self._metric} {_score(best)}, trial {best.number}: {values_text(best.values, names)}")
        return lines

    def _trials(self, record: SweepRecord, rows: int) -> Table:
        wide = self._console.width >= NARROW
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("epoch", justify="right", no_wrap=True)
        table.add_column(self._metric if wide else self._metric.removeprefix("validation_"), justify="right")
        if wide:
            table.add_column("time", justify="right", no_wrap=True)
        names, best = list(record.space.get("search", {})), record.best
        epochs = record.config.get("training", {}).get("epochs")
        for trial in _shown(record, rows):
            mark = "best" if best is not None and trial.number == best.number else STATES[trial.state]
            epoch = str(trial.curve[-1].epoch) if trial.curve else "0"
            cells: list[str | Text] = [
                str(trial.number),
                Text(mark if wide else mark.split()[0], style=_STYLES[trial.state]),
                values_text(trial.values, names),
                f"{epoch}/{epochs}" if epochs else epoch,
                _score(trial),
                *([duration(trial.seconds)] if wide else []),
            ]
            table.add_row(*cells)
        return table


def _shown(record: SweepRecord, rows: int) -> Sequence[TrialRecord]:
    """Those that run, the best one and the newest, by their numbers."""
    best = record.best
    kept = sorted(
        record.trials,
        key=lambda trial: (
            trial.state != "RUNNING",
            best is None or trial.number != best.number,
            -trial.number,
        ),
    )[:rows]
    return sorted(kept, key=lambda trial: trial.number)


def _seconds_left(record: SweepRecord, total: int) -> float | None:
    """What is left at the pace so far; None before the first trial is over."""
    over = [trial.seconds for trial in record.trials if trial.state != "RUNNING"]
    paces = [trial.seconds for trial in record.trials if trial.state in ("FINISHED", "PRUNED")] or over
    running = [trial.seconds for trial in record.trials if trial.state == "RUNNING"]
    if not over or total <= len(over):
        return None
    usual = sum(paces) / len(paces)
    rest = (total - len(over)) * usual - sum(min(seconds, usual) for seconds in running)
    return rest / max(1, len(running))


def _score(trial: TrialRecord) -> str:
    score = finite(trial.best)
    return "–" if score is None else number(score)
