"""What is written, on a terminal and elsewhere."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from infra.cli.console import print_facts, print_lines, print_table, progress, to_json


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 40 columns, for both streams."""
    for name, value in (("COLUMNS", "40"), ("LINES", "20"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        yield terminal


def lines_of(terminal: Terminal) -> list[str]:
    """What was written, without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue().replace("\r", "\n")).splitlines()


def test_off_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("writing", "samples") as update:
        for done in range(11):
            update(done, 10, "epoch 1/2")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("writing: 10/10 samples, ")
    assert captured.err.endswith("; epoch 1/2\n")
    assert "\x1b" not in captured.err


def test_on_a_narrow_terminal_the_bar_keeps_its_count_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with narrow_terminal(monkeypatch) as terminal, progress("training", "steps") as update:
        for done in range(4):
            update(done, 3, "epoch 3/3 rmse 0.3412, crps 0.1512, elbo -1.234e+04")
    lines = lines_of(terminal)
    assert any("3/3" in line and line.endswith("00:00") for line in lines)
    assert any(line.startswith("epoch 3/3 rmse 0.3412, crps") and line.endswith("…") for line in lines)
    assert max(map(len, lines)) <= 40


def test_facts_fold_and_maps_are_left_out_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with narrow_terminal(monkeypatch) as terminal:
        print_facts([("fingerprint", "f" * 64)])
        print_lines("#" * 60)
    lines = lines_of(terminal)
    assert max(map(len, lines)) <= 40
    assert sum(line.count("f") for line in lines[:-1]) == 65  # and the one of "fingerprint"
    assert lines[-1] == "(a map needs 60 columns)"


def test_a_table_that_does_not_fit_becomes_lists_without_losing_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, rows = ["", "rmse", "spread_skill"], [["bilinear + mean residual", "0.3541", ""], ["vamoh", "0.3", "1.02"]]
    with narrow_terminal(monkeypatch) as terminal:
        print_table(columns, rows)
        print_table(columns[:2], [["vamoh", "0.3"]])
    assert [line.split() for line in lines_of(terminal)] == [
        ["bilinear", "+", "mean", "residual"], ["rmse", "0.3541"], [], ["vamoh"], ["rmse", "0.3"],
        ["spread_skill", "1.02"], [],
        ["rmse"], ["vamoh", "0.3"],
    ]  # fmt: skip


def test_json_keeps_words_of_every_language_and_no_nan() -> None:
    assert to_json([float("inf"), "Île", 1]) == '[\n  null,\n  "Île",\n  1\n]'
