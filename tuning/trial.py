"""A trial: one training run, in the process that Ray Tune gives it or with Ray Train's workers nested in it.

It begins where its folder says, as every run does: at its `last` checkpoint if there is one. So a trial whose process,
node or driver was lost goes on where it was. What it raises is told to Ray Tune once, which begins it again in a new
process; the second time it is FAILED. A loss that is not finite is not tried again: it would be the same.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from pipelines.config import Config, load_config
from pipelines.data.atomic import written_beside
from pipelines.data.store import open_store
from pipelines.training.cluster import local_device, train_with_ray
from pipelines.training.folder import RunFolder
from pipelines.training.loop import WorkerTask, run_rank
from pipelines.training.plan import make_plan, split_of
from tuning.trace import CONFIG, note, read_trace

NUMBER, EPOCH = "number", "epoch"
DESCRIBED, TRACEBACK = "checkpoint.json", "traceback.txt"
ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every trial of a sweep is told.

    Attributes:
        folder: The sweep's, which all machines see.
        store: Path or URL.
        metric: That is searched for.
        workers: Ray Train workers of a trial; 0 trains in the trial's own process.
        cpus: Of a trial without workers.
        population: Whether checkpoints pass from trial to trial.
        versions: Of the driver's libraries.
    """

    folder: Path
    store: str
    metric: str
    workers: int
    cpus: int
    population: bool
    versions: dict[str, str]


def trial_name(number: int) -> str:
    """The name of a trial, and of its folder.

    >>> trial_name(7)
    'trial-007'
    """
    return f"trial-{number:03d}"


def number_of(name: str) -> int:
    """The number of a trial.

    >>> number_of("trial-007")
    7
    """
    return int(name.rpartition("-")[2])


def run_trial(job: Job, given: Mapping[str, Any]) -> None:
    """Train as far as Ray Tune lets it.

    Args:
        job: The sweep's.
        given: The trial's `number`, and the values of what is searched.
    """
    folder = RunFolder(job.folder / trial_name(given[NUMBER]))
    changes = [f"{key}={json.dumps(value)}" for key, value in given.items() if key != NUMBER]
    config = load_config(str(folder.path / CONFIG), changes)
    training = config.training
    trace = read_trace(folder.path, epochs=training.epochs, validate_every=training.validate_every)
    if trace.ended is not None:
        return  # its end was not told before the driver was lost
    note(folder.path, began=True)
    try:
        _train(job, config, folder)
    except Exception as error:  # the border of a trial: whatever it is, the sweep goes on
        diverged = folder.faulty.exists() or isinstance(error, FloatingPointError)
        (folder.path / TRACEBACK).write_text(traceback.format_exc())
        note(folder.path, error=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
        if not diverged and len(trace.errors) + 1 < ATTEMPTS:
            raise
        note(folder.path, ended="FAILED")
        return
    note(folder.path, ended="FINISHED")


def _train(job: Job, config: Config, folder: RunFolder) -> None:
    opened = open_store(job.store)
    plan = make_plan(config, opened)
    folder.clear()
    inherited = tune.get_checkpoint() if job.population else None
    if inherited is not None:
        with inherited.as_directory() as theirs:
            _inherit(Path(theirs), folder.last)
    task = WorkerTask(
        plan=plan,
        store=job.store,
        split=split_of(config, opened),
        folder=folder,
        tracking_uri="",
        run_id="",
        skip_corrupt=False,
        versions=job.versions,
    )
    if job.workers:
        from ray.tune.integration.ray_train import TuneReportCallback

        train_with_ray(task, job.workers, job.workers, max_failures=0, callbacks=[TuneReportCallback()])
    else:
        beside = max(1, (os.cpu_count() or 1) // job.cpus)
        run_rank(task, local_device(), _Reporter(job, folder), beside=beside, durable=job.population)
    if folder.failure is not None:
        raise ValueError(folder.failure)


class _Reporter:
    """Tells Ray Tune of every validation, once; in a population with the checkpoint that others may go on from."""

    def __init__(self, job: Job, folder: RunFolder) -> None:
        self._job, self._folder, self._epoch = job, folder, 0

    def __call__(self, metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == self._epoch:
            return  # the members' law was fitted since
        self._epoch = metrics["epoch"]
        if not math.isfinite(metrics[self._job.metric]):
            raise FloatingPointError(f"{self._job.metric} is not finite: lower the learning rates")
        told = {self._job.metric: metrics[self._job.metric], EPOCH: self._epoch}
        kept = tune.Checkpoint.from_directory(str(self._folder.last)) if self._job.population else None
        tune.report(told, checkpoint=kept)


def _inherit(theirs: Path, last: Path) -> None:
    """Go on from another trial's checkpoint; which of one's own was the best is still known."""
    own = json.loads((last / DESCRIBED).read_text()) if (last / DESCRIBED).exists() else {}
    with written_beside(last, overwrite=True) as beside:
        shutil.copytree(theirs, beside)
        described = json.loads((beside / DESCRIBED).read_text())
        described |= {"best": own.get("best"), "stale": own.get("stale", 0)}
        (beside / DESCRIBED).write_text(json.dumps(described))
