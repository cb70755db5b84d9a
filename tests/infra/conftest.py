"""The command line, called in this process without leaving a trace in it."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Vamoh = Callable[..., Ended]


@pytest.fixture
def vamoh(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Vamoh]:
    """Run `vamoh` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    disabled = logging.root.manager.disable

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    yield run
    signal.signal(signal.SIGTERM, handler)
    logging.disable(disabled)
    os.environ.clear()
    os.environ.update(environment)
