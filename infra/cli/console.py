"""What a command writes: results to stdout, for people or as JSON; progress to stderr, a bar or plain lines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from os import PathLike
from typing import Any, Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

# A file or a pipe has no width to fit into: nothing is cut there.
_PIPE_WIDTH = 1000
_PLAIN_SECONDS = 10.0


class Update(Protocol):
    """Told of progress."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Say that so many of so many are done, and what else is worth a word."""


def console(stream: TextIO | None = None) -> Console:
    """Make a console that prints text as it is."""
    stream = sys.stdout if stream is None else stream
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and texts, side by side."""
    grid = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in rows:
        grid.add_row(name, text)
    _print(grid)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_texts: int = 1) -> None:
    """Print a table, or a list for every row where it does not fit; after `num_texts` columns there are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < num_texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    out = console()
    if out.measure(table, options=out.options.update(width=_PIPE_WIDTH)).maximum <= out.width:
        _print(table)
        return
    for row in rows:
        print_facts([(name, text) for name, text in zip(columns, row, strict=True) if text])
        print()


def print_lines(text: str) -> None:
    """Print lines that have a shape, where they fit."""
    out = console()
    needed = max(map(len, text.splitlines()), default=0)
    out.print(text if needed <= out.width else f"(a map needs {needed} columns)", soft_wrap=True)


def print_json(value: object) -> None:
    """Print JSON to stdout."""
    print(to_json(value))


def to_json(value: object) -> str:
    """Write a value as JSON; what is not a number is null there.

    >>> print(to_json({"rmse": float("nan")}))
    {
      "rmse": null
    }
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def number(value: object) -> str:
    """Write a number for a table.

    >>> number(0.30561), number(24), number("t2m")
    ('0.3056', '24', 't2m')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def brief(value: object) -> str:
    """Write a value, a list or a mapping of values on one line.

    >>> brief({"rmse": 0.30561, "split": "test"}), brief([-10.0, 50.0]), brief(None)
    ('rmse 0.3056, split test', '-10, 50', '')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    return "" if value is None else number(value)


@contextmanager
def progress(what: str, unit: str) -> Iterator[Update]:
    """Show how far a command is: a bar with rate and time left on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        yield _PlainProgress(what, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        _Count(),
        _Rate(unit),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with _NotedProgress(*columns, console=console(sys.stderr), expand=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, note: str = "") -> None:
            bar.note = note
            bar.update(task, completed=done, total=total)

        yield update


def _print(table: Table) -> None:
    """Print a table without the blanks that fill its last column where nobody sees them."""
    out = console()
    with out.capture() as capture:
        out.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


class _NotedProgress(Progress):
    """A bar with a line of words below it, which narrow terminals cut instead of the bar."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(self.note, no_wrap=True, overflow="ellipsis")


class _Count(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")


class _Rate(ProgressColumn):
    """How many a second."""

    def __init__(self, unit: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} {self._unit}/s")


class _PlainProgress:
    """A line every few seconds, and one at the end."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._begun = self._said = time.monotonic()
        self._ended = False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._said < _PLAIN_SECONDS and (done < total or self._ended):
            return
        self._said, self._ended = now, done >= total
        rate = done / max(now - self._begun, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        words = f"; {note}" if note else ""
        line = f"{self._what}: {done}/{total} {self._unit}, {rate:.3g} {self._unit}/s{left}{words}"
        print(line, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that a command returns
    """Turn what commands return into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
