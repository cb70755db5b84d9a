"""What a trial leaves in its folder: when its attempts began, how they ended, and its validations.

`trial.jsonl` has a line for every event; the validations are lines of the run's own journal, `metrics.jsonl`, where a
step has one line however often the trial was begun. So the curve is the same whoever reads it, and whenever.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.training.folder import RunFolder
from tuning.record import CurvePoint

EVENTS, CONFIG = "trial.jsonl", "config.yaml"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What is known of a trial.

    Attributes:
        attempts: How often it was begun.
        errors: What its attempts raised, a line each.
        ended: How it ended by itself; None where it did not.
        curve: Its validations.
        seconds: Spent on it, what was between the attempts not counted.
        seconds_per_sample: Of training, the least of its epochs; None before the first.
    """

    attempts: int
    errors: tuple[str, ...]
    ended: Literal["FINISHED", "FAILED"] | None
    curve: tuple[CurvePoint, ...]
    seconds: float
    seconds_per_sample: float | None


def note(folder: Path, **event: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Add an event: `began=True`, `error="..."` or `ended="FINISHED"`."""
    line = json.dumps({"at": int(time.time() * 1000), **event})
    with (folder / EVENTS).open("ab") as file:
        # A kill may have left half a line, which is nothing.
        file.write(f"{'' if _ends_a_line(file.name) else chr(10)}{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_trace(folder: Path, *, epochs: int, validate_every: int) -> Trace:
    """Read what a trial left.

    Args:
        folder: The trial's.
        epochs, validate_every: Of its config: they say which lines of the journal are validations.
    """
    events = _lines(folder / EVENTS)
    steps = _lines(RunFolder(folder).journal)
    seen = [event["at"] for event in events] + [step["timestamp"] for step in steps]
    clock = _Clock([event["at"] for event in events if "began" in event], seen)
    due = [s for s in steps if s["step"] % validate_every == 0 or s["step"] == epochs]
    rates = [s["metrics"]["samples_per_second"] for s in steps if s["metrics"].get("samples_per_second")]
    ended = [event["ended"] for event in events if "ended" in event]
    return Trace(
        attempts=sum("began" in event for event in events),
        errors=tuple(event["error"] for event in events if "error" in event),
        ended=ended[-1] if ended else None,
        curve=tuple(
            CurvePoint(epoch=s["step"], seconds=clock.spent(s["timestamp"]), metrics=dict(s["metrics"])) for s in due
        ),
        seconds=clock.spent(),
        seconds_per_sample=1 / max(rates) if rates else None,
    )


class _Clock:
    """Time spent in attempts.

    Args:
        begun: When each began, ms.
        seen: Every moment of which something is known, ms.
    """

    def __init__(self, begun: list[int], seen: Iterable[int]) -> None:
        times = sorted(seen)
        ends = [*begun[1:], float("inf")][: len(begun)]
        self._attempts = [
            (start, max((t for t in times if start <= t < end), default=start))
            for start, end in zip(begun, ends, strict=True)
        ]

    def spent(self, until: float = float("inf")) -> float:
        """Seconds until a moment."""
        return sum(max(0.0, min(last, until) - start) for start, last in self._attempts if start <= until) / 1000


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, as far as they are JSON."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # half a line, which a kill left
    return found


def _ends_a_line(path: str) -> bool:
    size = os.path.getsize(path)
    if not size:
        return True
    with open(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"
