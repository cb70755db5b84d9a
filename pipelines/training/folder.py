"""A run's folder: its checkpoints, and the notes by which the driver and the workers understand each other.

It must be seen by the driver and by every worker: one machine, or a file system that they share.

    last/             weights, optimiser state and progress: where training goes on
    best/             the weights with the best validation CRPS: what is registered and used
    earlier/STEP/     the newest `last` checkpoints, where `training.keep` is more than one
    run.json          which MLflow run this is; locked by the worker that writes here
    metrics.jsonl     what MLflow is told (see `journal`)
    not_finite.json   the samples of the batch whose loss was not finite

and while training runs:

    progress.json     how far it is
    stop              the driver asks the workers to save and to end
    failure.json      what no other attempt can mend
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.data.atomic import written_beside
from pipelines.training.checkpoint import recover

LOCK_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch, epochs, step, steps: Done, and in all.
        metrics: Newest values.
        warning: What the user should know of; empty for nothing.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    metrics: dict[str, float]
    warning: str = ""

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Read what a worker wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / "last"

    @property
    def best(self) -> Path:
        """The checkpoint to use."""
        return self.path / "best"

    @property
    def earlier(self) -> Path:
        """Where older checkpoints to go on from lie."""
        return self.path / "earlier"

    @property
    def described(self) -> Path:
        """Which MLflow run this is."""
        return self.path / "run.json"

    @property
    def journal(self) -> Path:
        """What MLflow is told."""
        return self.path / "metrics.jsonl"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.last / "checkpoint.json").is_file()

    def recover(self) -> None:
        """Repair what a kill in the middle of a write left; to be called when no process writes here."""
        for folder in (self.last, self.best, *self.earlier.glob("[0-9]*[0-9]")):
            recover(folder)
        for unfinished in self.earlier.glob("*.tmp-*"):
            recover(unfinished.with_suffix(""))
        for note in self.path.glob("*.tmp-*"):
            note.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget what was noted for one attempt at the run."""
        for name in ("stop", "failure.json"):
            (self.path / name).unlink(missing_ok=True)

    # --- notes of the driver ----------------------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """Have the workers save and end after the step that they are in."""
        (self.path / "stop").touch()

    @property
    def asked_to_stop(self) -> bool:
        """Whether the workers are to end."""
        return (self.path / "stop").exists()

    # --- notes of the workers ---------------------------------------------------------------------------------------

    def note(self, progress: Progress) -> None:
        """Say how far training is; where the disk is full nobody is told."""
        with suppress(OSError):
            self._write("progress.json", asdict(progress))

    def fail(self, error: Exception) -> None:
        """Say what no other attempt can mend."""
        self._write("failure.json", {"said": " ".join(str(error).split())})

    @property
    def failure(self) -> str | None:
        """What no other attempt can mend, if there is something."""
        path = self.path / "failure.json"
        return str(json.loads(path.read_text())["said"]) if path.exists() else None

    @property
    def faulty(self) -> Path:
        """What is known of the batch whose loss or gradient was not finite."""
        return self.path / "not_finite.json"

    def note_faulty(self, found: dict[str, Any]) -> None:
        """Keep what is known of a batch whose loss or gradient is not finite."""
        self._write(self.faulty.name, found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes here.

        Raises:
            ValueError: If another process trains this run, and goes on doing so.
        """
        patience = time.monotonic() + LOCK_PATIENCE_S
        with self.described.open("r+") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > patience:
                        raise ValueError(
                            f"run {self.path.name} is being trained by another process: wait for it, or end it"
                        ) from None
                    time.sleep(0.2)
            yield

    def _write(self, name: str, tree: dict[str, Any]) -> None:
        with written_beside(self.path / name, overwrite=True) as beside:
            beside.write_text(json.dumps(tree, indent=1))
