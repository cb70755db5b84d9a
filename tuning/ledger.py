"""A sweep's record while it runs: which trials there are and how each of them is, on disk before anybody acts on it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import Config, load_config
from pipelines.training.folder import RunFolder
from tuning.record import FILE, State, SweepRecord, TrialRecord
from tuning.trace import CONFIG, read_trace
from tuning.trial import trial_name

WRITTEN_S = 1.0


class Ledger:
    """The record, and the file of it.

    Args:
        folder: The sweep's.
        record: As it is now.

    Attributes:
        stopping: The user ends the sweep: trials that end now are not over.
    """

    def __init__(self, folder: Path, record: SweepRecord) -> None:
        self.folder, self.stopping = folder, False
        self._lock = threading.RLock()
        self._record, self._before, self._began = record, record.seconds, time.monotonic()
        self._written = 0.0
        self._configs: dict[int, Config] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune writes what it is given to a file of its own, which is never read."""
        return {}

    @property
    def record(self) -> SweepRecord:
        """As it is now."""
        with self._lock:
            return replace(self._record, seconds=self._before + time.monotonic() - self._began)

    def path(self, number: int) -> Path:
        """A trial's folder."""
        return self.folder / trial_name(number)

    def config(self, number: int) -> Config:
        """What a trial was begun with."""
        if number not in self._configs:
            self._configs[number] = load_config(str(self.path(number) / CONFIG))
        return self._configs[number]

    def save(self) -> None:
        """Write the file."""
        with self._lock:
            self.record.to_json(self.folder / FILE)
            self._written = time.monotonic()

    def add(self, values: Mapping[str, Any], seed: int, config: Config) -> TrialRecord:
        """Enter a new trial, and make its folder."""
        with self._lock:
            number = len(self._record.trials)
            folder = RunFolder(self.path(number))
            folder.path.mkdir(exist_ok=True)
            folder.described.write_text(json.dumps({"tracking_uri": "", "run_id": ""}))
            (folder.path / CONFIG).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
            trial = TrialRecord(number=number, name=folder.path.name, values=dict(values), seed=seed, state="RUNNING")
            self._record = replace(self._record, trials=(*self._record.trials, trial))
            self.save()
            return trial

    def change(self, number: int, **changes: Any) -> TrialRecord:  # noqa: ANN401 - a TrialRecord's fields
        """Change what is known of a trial."""
        with self._lock:
            trials = list(self._record.trials)
            trials[number] = replace(trials[number], **changes)
            self._record = replace(self._record, trials=tuple(trials))
            return trials[number]

    def look(self, number: int) -> TrialRecord:
        """Read again what a running trial has left in its folder."""
        config = self.config(number).training
        trace = read_trace(self.path(number), epochs=config.epochs, validate_every=config.validate_every)
        metric, best = self._record.metric, min if self._record.mode == "min" else max
        scores = [point.metrics[metric] for point in trace.curve if metric in point.metrics]
        return self.change(
            number,
            curve=trace.curve,
            seconds=trace.seconds,
            seconds_per_sample=trace.seconds_per_sample,
            best=best(scores) if scores else None,
            error=trace.errors[-1] if trace.errors and trace.ended != "FINISHED" else "",
        )

    def end(self, number: int, lost: str = "") -> TrialRecord:
        """Enter how a trial ended, once: by itself, by the scheduler, or because its process was `lost` too often."""
        with self._lock:
            trial = self._record.trials[number]
            if trial.state != "RUNNING":
                return trial
            trial = self.look(number)
            config = self.config(number).training
            trace = read_trace(self.path(number), epochs=config.epochs, validate_every=config.validate_every)
            state: State = trace.ended or ("FAILED" if lost else "PRUNED")
            if trace.ended is None and self.stopping:
                return trial
            trial = self.change(number, state=state, error=trial.error or (lost if state == "FAILED" else ""))
            self.save()
            return trial

    def settle(self) -> None:
        """Enter the ends that were not told before the driver was lost."""
        for trial in self.record.trials:
            if trial.state != "RUNNING":
                continue
            config = self.config(trial.number).training
            trace = read_trace(self.path(trial.number), epochs=config.epochs, validate_every=config.validate_every)
            if trace.ended is not None:
                self.end(trial.number)
            else:
                self.look(trial.number)
        self.save()

    def breathe(self, show: Callable[[SweepRecord], None] | None) -> None:
        """Now and then: write the file, and show how it is."""
        if time.monotonic() - self._written < WRITTEN_S:
            return
        with suppress(OSError):  # a full disk: the next time, or at the end
            self.save()
        self._written = time.monotonic()
        if show is not None:
            show(self.record)
