"""A sweep in MLflow: a parent run, and a child for each trial, brought to say what the record says.

One thread of the driver tells everything, so no two processes wait for one database; and it asks first what is there
already, so a sweep that goes on tells nothing twice. Where MLflow is away for a while it catches up later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from pipelines.config import Config
from pipelines.training.champions import register_version
from pipelines.training.folder import RunFolder
from pipelines.training.journal import Journal
from pipelines.training.registry import ARTIFACT
from pipelines.training.tracking import Tracking, client, flatten
from tuning.ledger import Ledger
from tuning.record import State, TrialRecord
from tuning.trace import CONFIG
from tuning.trial import TRACEBACK

PARENT, SWEEP, TRIAL = "mlflow.parentRunId", "vamoh.sweep", "vamoh.trial"
STATUS: dict[State, str] = {"RUNNING": "RUNNING", "FINISHED": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}
EVERY_S = 2.0


class Runs:
    """The parent run and its children.

    Args:
        parent: The sweep's.
        ledger: Of its trials.
        tags: Of the run of a trial, given its config.
    """

    def __init__(self, parent: Tracking, ledger: Ledger, tags: Callable[[Config], dict[str, str]]) -> None:
        self.parent, self._ledger, self._tags = parent, ledger, tags
        self._told: dict[int, str] = {}  # the status that MLflow has of a trial
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._tell_on, name="mlflow", daemon=True)
        for number, run_id, status in _children(parent):
            self._told[number] = status
            if number < len(ledger.record.trials):
                ledger.change(number, run_id=run_id)

    def __enter__(self) -> Runs:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def tell(self, *, stopped: bool = False) -> None:
        """Bring MLflow to say what the record says.

        Args:
            stopped: Nothing runs any more: trials that are not over were killed, until the sweep goes on.

        Raises:
            MlflowException: If MLflow does not take it.
            OSError: If a file of a trial cannot be read.
        """
        with self._lock:
            for trial in self._ledger.record.trials:
                status = "KILLED" if stopped and trial.state == "RUNNING" else STATUS[trial.state]
                if self._told.get(trial.number) != status or status == "RUNNING":
                    self._tell_trial(trial, status)

    def _tell_trial(self, trial: TrialRecord, status: str) -> None:
        folder = RunFolder(self._ledger.path(trial.number))
        run = Tracking(self.parent.uri, trial.run_id) if trial.run_id else self._begin(trial, folder)
        if status == "RUNNING" and self._told.get(trial.number) != "RUNNING":
            run.resume()
        self._told[trial.number] = "RUNNING"
        Journal(folder.journal, run).deliver()
        if status == "RUNNING":
            return
        if trial.state == "FINISHED":
            run.artifact(folder.best, ARTIFACT)
        mlflow = client(run.uri)
        mlflow.set_tag(run.run_id, "vamoh.state", trial.state)
        if trial.error:
            mlflow.set_tag(run.run_id, "vamoh.error", trial.error)
            if (folder.path / TRACEBACK).exists():
                run.artifact(folder.path / TRACEBACK)
        if trial.best is not None:
            mlflow.log_metric(run.run_id, f"best_{self._ledger.record.metric}", trial.best)
        run.finish(status)
        self._told[trial.number] = status

    def _begin(self, trial: TrialRecord, folder: RunFolder) -> Tracking:
        config = self._ledger.config(trial.number)
        record = self._ledger.record
        tags = {**self._tags(config), PARENT: self.parent.run_id, SWEEP: record.name, TRIAL: str(trial.number)}
        run = Tracking.start(f"{record.name}/{trial.name}", flatten(config.model_dump(mode="json")), tags)
        self._ledger.change(trial.number, run_id=run.run_id)
        run.artifact(folder.path / CONFIG)
        return run

    def _tell_on(self) -> None:
        while not self._done.wait(EVERY_S):
            with suppress(MlflowException, OSError):  # the next time, or at the end, where it is said
                self.tell()


def register_best(name: str, sweep: str, parent: Tracking, trial: TrialRecord, scores: Mapping[str, float]) -> str:
    """Register a trial's checkpoint, once; returns the version.

    Args:
        name: The model's.
        sweep: The sweep's name; the version has the alias `sweep-NAME`.
        parent: The sweep's run, whose id is the version's tag `sweep`.
        trial: The best one.
        scores: Kept as tags of the version.
    """
    mlflow = client()
    with suppress(MlflowException):  # no such model yet
        for version in mlflow.search_model_versions(f"name='{name}'"):
            if version.tags.get("sweep") == parent.run_id and version.run_id == trial.run_id:
                return str(version.version)
    number = register_version(name, trial.run_id, dict(scores))
    mlflow.set_model_version_tag(name, number, "sweep", parent.run_id)
    mlflow.set_registered_model_alias(name, f"sweep-{sweep}", number)
    return number


def keep_files(parent: Tracking, paths: list[Path], metrics: Mapping[str, float]) -> None:
    """Log what the whole sweep left to its own run."""
    for path in paths:
        parent.artifact(path)
    mlflow = client(parent.uri)
    for key, value in metrics.items():
        mlflow.log_metric(parent.run_id, key, value)


def _children(parent: Tracking) -> list[tuple[int, str, str]]:
    """(number, run, status) of every trial that MLflow knows of."""
    mlflow = client(parent.uri)
    experiment = mlflow.get_run(parent.run_id).info.experiment_id
    found: list[tuple[int, str, str]] = []
    token: Any = None
    while True:
        page = mlflow.search_runs(
            [experiment], filter_string=f"tags.`{PARENT}` = '{parent.run_id}'", max_results=1000, page_token=token
        )
        found += [(int(run.data.tags[TRIAL]), run.info.run_id, run.info.status) for run in page]
        token = page.token
        if not token:
            return found
