"""How a command ends: its exit code, and one line for people where something went wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer

DONE, BUG, MISTAKE = 0, 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

_ROOT = Path(__file__).parents[2]
_OURS = tuple(f"{_ROOT / package}{os.sep}" for package in ("vamoh", "pipelines", "tuning", "infra"))
# Read by these libraries when they are imported, which is after this.
_QUIET_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "GIT_PYTHON_REFRESH": "quiet",
}


def outcome_of(command: Callable[[], object], *, debug: bool) -> int:
    """Run a command and say in one line what went wrong.

    Args:
        command: returns nothing, or an exit code.
        debug: show tracebacks too, and what libraries have to say.

    Returns:
        The exit code.
    """
    if not debug:
        _quieten()
    signal.signal(signal.SIGTERM, _interrupt)
    with _received_signals() as received:
        return _outcome(command, received, debug=debug)


def _outcome(command: Callable[[], object], received: Callable[[], bytes], *, debug: bool) -> int:
    """Run a command; `received` gives the numbers of the signals that came meanwhile."""
    try:
        code = command()
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _stopped(received())
        return code if isinstance(code, int) else DONE
    except typer.TyperException as error:
        return _fail(_usage(error), MISTAKE, debug)
    except BrokenPipeError:
        # Whoever reads our output has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BUG
    except (ValueError, OSError) as error:
        return _fail(_sentence(error), MISTAKE, debug)
    except SystemExit as stop:
        # Ray replaces the handlers of both signals by its own, which leave by this way with a code of their own.
        numbers = received()
        if numbers:
            code = _stopped(numbers)
            if code == TERMINATED:
                # Ray aborts at exit after a SIGTERM; to end by the signal itself says the truth to our parent.
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            return code
        return stop.code if isinstance(stop.code, int) else BUG
    except Exception as error:  # the border of the program: whatever it is, it ends in one line
        hint = "" if debug else "; run it again with --debug and report what it prints"
        return _fail(f"this is a bug in vamoh: {type(error).__name__}: {_sentence(error)}{hint}", BUG, debug)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let whatever cleans up after Ctrl-C do so after SIGTERM too."""
    raise KeyboardInterrupt


@contextmanager
def _received_signals() -> Iterator[Callable[[], bytes]]:
    """Note the number of every signal that comes, whoever handles it."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    numbers = bytearray()

    def received() -> bytes:
        with suppress(BlockingIOError):
            numbers.extend(os.read(reader, 4096))
        return bytes(number for number in numbers if number in (signal.SIGINT, signal.SIGTERM))

    try:
        yield received
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _stopped(numbers: bytes) -> int:
    terminated = signal.SIGTERM in numbers
    _say(f"{'terminated' if terminated else 'interrupted'}, no half-written result was left")
    return TERMINATED if terminated else INTERRUPTED


def _fail(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(f"error: {sentence}")
    return code


def _say(line: str) -> None:
    """Write one line to stderr, below whatever a progress bar left there."""
    print(f"vamoh: {line}", file=sys.stderr, flush=True)


def _usage(error: typer.TyperException) -> str:
    """Say what is wrong with the command line, and where to read how it is right."""
    context: Any = getattr(error, "ctx", None)
    hint = "" if context is None else f" (see {context.command_path} --help)"
    return " ".join(error.format_message().split()).removesuffix(".") + hint


def _sentence(error: Exception) -> str:
    """Write an error on one line, without the number that the system gives it.

    >>> _sentence(FileNotFoundError(2, "No such file or directory", "a.nc"))
    'a.nc: No such file or directory'
    """
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{place}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _quieten() -> None:
    """Keep what libraries say to themselves; warnings of our own are for the user."""
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Ray and MLflow set the levels of their loggers themselves, at any time; this stands above them.
    logging.disable(logging.WARNING)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if filename.startswith(_OURS):
        _say(f"warning: {' '.join(str(message).split())}")
