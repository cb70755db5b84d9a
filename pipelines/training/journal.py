"""A run's metrics on their way to MLflow: first lines of a file, then, by a thread of their own, MLflow.

A line is a step: `{"step": 3, "timestamp": ..., "metrics": {...}}`. `metrics.sent` says how many bytes of the file were
delivered. A line that was delivered and not noted as such, because the answer was lost, is delivered again, with the
same timestamp: MLflow keeps equal metrics once. So a server may be away for as long as it likes, and a step has one
value also where it was trained again after a kill.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipelines.training.tracking import Tracking

RETRY_S = 5.0


class Journal:
    """The metrics of one run.

    Args:
        path: Of the file.
        tracking: Of the run; None where another process delivers the lines.

    Attributes:
        last_step: The last that there is a line for; 0 before the first.
    """

    def __init__(self, path: Path, tracking: Tracking | None) -> None:
        self._path, self._sent, self._tracking = path, path.with_suffix(".sent"), tracking
        self._unwritten: list[bytes] = []
        self._changed, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        lines = self._lines(0)
        self._size = sum(map(len, lines))
        self.last_step = max((json.loads(line)["step"] for line in lines), default=0)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write a step's metrics and have them delivered; a step that has its line keeps it.

        Where the disk is full the line waits in memory for the next.
        """
        if step <= self.last_step:
            return
        self.last_step = step
        line = {"step": step, "timestamp": int(time.time() * 1000), "metrics": dict(metrics)}
        self._unwritten.append(json.dumps(line).encode() + b"\n")
        with suppress(OSError):
            self._write()
        if self._thread is None and self._tracking is not None:
            self._thread = threading.Thread(target=self._deliver_on, name="metrics", daemon=True)
            self._thread.start()
        self._changed.set()

    def deliver(self) -> None:
        """Deliver what has not been delivered.

        Raises:
            MlflowException: If MLflow does not take it.
            OSError: If the disk is full.
        """
        assert self._tracking is not None
        sent = int(self._sent.read_text() or 0) if self._sent.exists() else 0
        for line in self._lines(sent):
            tree = json.loads(line)
            self._tracking.log(tree["metrics"], tree["step"], tree["timestamp"])
            sent += len(line)
            beside = self._sent.with_name(f"{self._sent.name}.tmp-{os.getpid()}-{threading.get_ident()}")
            beside.write_text(str(sent))
            beside.replace(self._sent)

    def close(self) -> None:
        """End the thread; what it has not delivered is there for the next journal of this file."""
        with suppress(OSError):
            self._write()
        self._closed.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(RETRY_S)

    def _deliver_on(self) -> None:
        from mlflow.exceptions import MlflowException

        while not self._closed.is_set():
            self._changed.wait()
            self._changed.clear()
            try:
                self.deliver()
            except (MlflowException, OSError):
                self._closed.wait(RETRY_S)
                self._changed.set()

    def _write(self) -> None:
        while self._unwritten:
            with self._path.open("ab") as file:
                file.truncate(self._size)  # what a kill or a full disk left of a line
                file.write(self._unwritten[0])
                file.flush()
                os.fsync(file.fileno())
            self._size += len(self._unwritten.pop(0))

    def _lines(self, start: int) -> list[bytes]:
        """The whole lines from a byte on."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(start)
            return [line for line in file if line.endswith(b"\n")]
