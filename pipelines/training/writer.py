"""Checkpoints written beside training: copied to memory at once, written by one thread, one after another."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pipelines.data.atomic import written_beside
from pipelines.training.checkpoint import Snapshot, write_checkpoint
from pipelines.training.folder import RunFolder


class CheckpointError(OSError):
    """A checkpoint that training cannot do without could not be written."""


class CheckpointWriter:
    """Writes snapshots in a thread; one that cannot be written is tried again with the next, training goes on.

    Args:
        folder: The run's.
        keep: How many checkpoints to go on from are kept, the newest ones.

    Attributes:
        failures: Attempts that failed.
        failure: What the newest of them said; empty where the newest attempt succeeded.
    """

    def __init__(self, folder: RunFolder, keep: int) -> None:
        self.failures, self.failure = 0, ""
        self._folder, self._keep = folder, keep
        self._waiting: dict[Path, tuple[Snapshot, int]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, snapshots: dict[Path, Snapshot], step: int) -> None:
        """Write snapshots, each to its folder and in this order, after a step; waits for those before them."""
        self._wait()
        self._waiting |= {folder: (snapshot, step) for folder, snapshot in snapshots.items()}
        self._writing = self._pool.submit(self._write)

    def flush(self) -> None:
        """Wait until all is written.

        Raises:
            CheckpointError: If something could not be written.
        """
        self._wait()
        if self._waiting:
            self._pool.submit(self._write).result()
        if self._waiting:
            raise CheckpointError(self.failure)

    def close(self) -> None:
        """Wait for what is being written, and end the thread."""
        self._pool.shutdown()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self) -> None:
        self.failure = ""
        for folder, (snapshot, step) in list(self._waiting.items()):
            try:
                write_checkpoint(folder, snapshot)
                if folder == self._folder.last and self._keep > 1:
                    self._keep_too(step)
                del self._waiting[folder]
            except OSError as error:
                self.failures += 1
                self.failure = " ".join(str(error).split())

    def _keep_too(self, step: int) -> None:
        """Keep a copy under its step, and let go of the oldest."""
        with written_beside(self._folder.earlier / f"{step:08d}", overwrite=True) as beside:
            shutil.copytree(self._folder.last, beside)
        for old in sorted(self._folder.earlier.iterdir())[: -self._keep]:
            shutil.rmtree(old)
