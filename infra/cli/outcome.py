"""How a command ends: its exit code, and one line for people where something went wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer

DONE, BUG, MISTAKE = 0, 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

_OURS = r"(vamoh|pipelines|tuning|infra)\b"
_NOISY_LOGGERS = ("alembic", "mlflow", "ray", "distributed", "fsspec", "cfgrib", "matplotlib", "urllib3")
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
    terminated = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        # Whatever cleans up after Ctrl-C does so after SIGTERM too.
        terminated.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = command()
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _stopped(TERMINATED if terminated.is_set() else INTERRUPTED)
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
        # Ray replaces our handler of SIGTERM by one that exits with the signal's number.
        if stop.code in (TERMINATED, int(signal.SIGTERM)):
            return _stopped(TERMINATED)
        return stop.code if isinstance(stop.code, int) else BUG
    except Exception as error:  # the border of the program: whatever it is, it ends in one line
        hint = "" if debug else "; run it again with --debug and report what it prints"
        return _fail(f"this is a bug in vamoh: {type(error).__name__}: {_sentence(error)}{hint}", BUG, debug)


def _stopped(code: int) -> int:
    _say(f"{'interrupted' if code == INTERRUPTED else 'terminated'}, nothing half-written was kept")
    return code


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
    for logger in _NOISY_LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=_OURS)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *place: object, **more: object) -> None:
    _say(f"warning: {' '.join(str(message).split())}")
