"""What rank 0 writes while a run trains: checkpoints, metrics, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from pipelines.training.checkpoint import Checkpoint, take_snapshot
from pipelines.training.folder import Progress, RunFolder
from pipelines.training.journal import Journal
from pipelines.training.learner import Learner
from pipelines.training.tracking import Tracking
from pipelines.training.writer import CheckpointWriter

NOTED_S = 0.5


class Record:
    """A run's record, which one process writes.

    Args:
        folder: The run's.
        tracking: Of the run; None only keeps the metrics.
        keep: Checkpoints to go on from that are kept.
    """

    def __init__(self, folder: RunFolder, tracking: Tracking | None, keep: int) -> None:
        self._folder = folder
        self._writer, self._journal = CheckpointWriter(folder, keep), Journal(folder.journal, tracking)
        self._noted = 0.0

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Write and deliver an epoch's metrics."""
        failures = self._writer.failures
        self._journal.log({**metrics, "checkpoint_failures": failures} if failures else metrics, epoch)

    def keep(self, checkpoint: Checkpoint, learner: Learner, *, step: int, best: bool) -> None:
        """Have a checkpoint to go on from written, and the best one if it is that; returns once they are copied."""
        snapshots = {self._folder.best: take_snapshot(checkpoint, learner.average)} if best else {}
        training = learner.model, learner.optimizer
        snapshots[self._folder.last] = take_snapshot(checkpoint, learner.average, training=training)
        self._writer.save(snapshots, step)

    def note(self, progress: Progress, *, always: bool = False) -> None:
        """Say how far training is, now and then."""
        if always or time.monotonic() - self._noted > NOTED_S:
            self._noted = time.monotonic()
            failure = self._writer.failure
            self._folder.note(replace(progress, warning=f"{failure}; training goes on" if failure else ""))

    def flush(self) -> None:
        """Wait until the checkpoints are written.

        Raises:
            CheckpointError: If one could not be.
        """
        self._writer.flush()

    def close(self) -> None:
        """End the threads."""
        self._writer.close()
        self._journal.close()
