"""The live view: a table on a terminal, plain lines elsewhere, and nothing twice."""

import io
import re
from dataclasses import replace

import pytest

from infra.cli.live import Live
from tests.tuning.records import GRID, grid_score, make_record
from tuning.record import SweepRecord


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def record() -> SweepRecord:
    return make_record(GRID, grid_score, seeds=2, failed=0.15, stopped=0.2)


def until(record: SweepRecord, over: int, running: int = 0) -> SweepRecord:
    """The record when so many trials were over, and so many of the next ones ran."""
    now = [replace(trial, state="RUNNING", error="") for trial in record.trials[over : over + running]]
    return replace(record, trials=(*record.trials[:over], *now), seconds=10.0 * over)


def shown(record: SweepRecord, stream: io.StringIO, first: int = 0) -> str:
    """What is written while the trials from `first` on end one after the other, each shown twice."""
    total = len(record.trials)
    with Live(total, record.metric, stream=stream) as live:
        for over in range(first, total + 1):
            for _ in range(2):
                live.show(until(record, over, running=2))
    return stream.getvalue()


def test_there_is_a_line_for_every_trial_that_is_over(record: SweepRecord) -> None:
    lines = shown(record, io.StringIO()).splitlines()
    words = {"FINISHED": "finished", "PRUNED": "stopped early", "FAILED": "failed"}
    for trial in record.trials:
        begin = f"trial {trial.number} {words[trial.state]} after "
        assert sum(line.startswith(begin) for line in lines) == 1
        (line,) = (line for line in lines if line.startswith(begin))
        assert f"seed {trial.seed}" in line and line.endswith(")")
        assert (trial.error in line) if trial.error else "ValueError" not in line
    assert len(lines) == len(set(lines))


def test_every_new_best_is_said_once(record: SweepRecord) -> None:
    lines = shown(record, io.StringIO()).splitlines()
    bests = [until(record, over).best for over in range(len(record.trials) + 1)]
    changes = [
        now.number
        for before, now in zip(bests, bests[1:], strict=False)
        if now and (not before or before.number != now.number)
    ]
    said = [re.search(r"trial (\d+)", line) for line in lines if "the best" in line]
    assert [int(found.group(1)) for found in said if found] == changes


def test_a_sweep_that_goes_on_does_not_say_again_what_was_over(record: SweepRecord) -> None:
    lines = shown(record, io.StringIO(), first=5).splitlines()
    assert lines[0].startswith("5 of 24 trials are over; the best is trial ")
    assert [line.split()[1] for line in lines[1:] if re.match(r"trial \d+ \w+", line)] == [str(n) for n in range(5, 24)]


def test_a_sweep_of_which_nothing_is_over_says_nothing(record: SweepRecord) -> None:
    stream = io.StringIO()
    with Live(24, record.metric, stream=stream) as live:
        live.show(until(record, 0))
        live.show(until(record, 0, running=2))
    assert stream.getvalue() == ""


def test_what_is_left_is_counted_at_the_pace_of_those_that_are_over(record: SweepRecord) -> None:
    finished = [replace(trial, state="FINISHED", error="", seconds=30.0) for trial in record.trials]
    running = [replace(trial, state="RUNNING", seconds=10.0) for trial in finished[4:6]]
    stream = io.StringIO()
    with Live(24, record.metric, stream=stream) as live:
        live.show(replace(record, trials=()))
        live.show(replace(record, trials=(*finished[:4], *running)))
    # 20 trials of 30 s but for 20 s that are done, two at a time
    assert stream.getvalue().splitlines()[-1].endswith("(4/24, 4 min 50 s left)")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_terminal_shows_a_table_that_fits(record: SweepRecord, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": str(width), "LINES": "12", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    text = shown(record, Terminal())
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|4[0-7]|9[0-7])[\d;]*m", text), "colours, although NO_COLOR is set"
    last = re.split(r"\x1b\[2K(?=a sweep)", text)[-1]
    lines = [re.sub(r"\x1b\[[?\d;]*\w", "", line).rstrip("\r") for line in last.splitlines()]
    assert max(map(len, lines)) <= width and len([line for line in lines if line]) <= 12
    assert lines[0].startswith("a sweep: 24/24 trials (")
    best = record.best
    assert best is not None
    assert sum(bool(re.match(rf" *{best.number}  best ", line)) for line in lines) == 1


def test_a_terminal_has_colours_where_they_are_wanted(record: SweepRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.search(r"\x1b\[3[12]m", shown(record, Terminal()))


def test_a_terminal_that_cannot_move_its_cursor_is_given_lines(
    record: SweepRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(record, Terminal())
