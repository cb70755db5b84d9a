"""A sweep from its driver's side: what is asked of it, Ray Tune's run of the trials, and what it leaves behind.

Everything lies in `runs/NAME/`: `sweep.json` (the record), a folder for each trial, and at the end `best.yaml` and
`report.html`. Ray Tune's own state is not kept: the record says which combinations were drawn, each trial's folder how
far it is, and a sweep that goes on is put together from these.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ray
import yaml
from mlflow.exceptions import MlflowException

from pipelines.data.atomic import written_beside
from pipelines.data.store import open_store
from pipelines.training.cluster import started_ray
from pipelines.training.plan import make_plan
from pipelines.training.registry import check_name
from pipelines.training.tracking import Tracking, flatten, git_revision, tracking_uri
from pipelines.training.train import run_tags
from tuning.begin import fresh_record, going_on, resumed_record
from tuning.ledger import Ledger
from tuning.record import FILE, LOCK, SweepRecord, TrialRecord
from tuning.room import Room
from tuning.runs import SWEEP, Runs, keep_files, register_best
from tuning.space import SpaceConfig
from tuning.trial import Job
from tuning.tuner import run_trials

BEST = "best.yaml"
Show = Callable[[SweepRecord], None]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep left behind.

    Attributes:
        name: The sweep's.
        folder: Its own.
        best: The best trial.
        config: What `vamoh train` takes to train it again.
        report: The page.
        run_id: MLflow's, of the parent run.
        model, model_version: Of the registered model.
        seconds: It took.
        states: How many trials ended how.
    """

    name: str
    folder: Path
    best: TrialRecord
    config: Path
    report: Path
    run_id: str
    model: str
    model_version: str
    seconds: float
    states: dict[str, int]


def tune(
    space: SpaceConfig,
    store: str,
    *,
    name: str | None = None,
    resume: bool = False,
    room: Room | None = None,
    register: str | None = None,
    show: Show | None = None,
) -> SweepResult:
    """Search a space on a store.

    Args:
        space: The sweep (see `tuning.space.load_space`).
        store: A canonical store's path or URL.
        name: Of the sweep and of its folder `runs/NAME`; the variable's and the date's otherwise.
        resume: Go on where `runs/NAME` stopped.
        room: What a trial is given, and how many run at a time; one CPU each and as many as fit otherwise.
        register: The model that the best trial's checkpoint becomes a version of; the sweep's name otherwise.
        show: Called now and then with the record.

    Raises:
        FileExistsError: If something of this name exists and `resume` is false.
        FileNotFoundError: If there is nothing to resume.
        ValueError: If space, store and machines do not suit each other, a resumed sweep's differ from what it began
            with, or no trial finished.
        OSError: If MLflow cannot be reached.
        KeyboardInterrupt: If the process was told to end (Ctrl-C, SIGTERM).
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"a sweep's name is letters, digits, '-', '_' and '.', got {name!r}")
    if register is not None:
        check_name(register)
    room, opened = room or Room(), open_store(store)
    make_plan(space.config({}), opened)
    name = name or f"{opened.variable}-sweep-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder = Path("runs").absolute() / name
    place = str(store) if "://" in str(store) else str(Path(store).absolute())
    record = resumed_record(folder, space, opened) if resume else fresh_record(folder, space, opened, place)
    with started_ray(room.workers):
        at_a_time = room.at_a_time([node["Resources"] for node in ray.nodes() if node["Alive"]])
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if resume:
                record = SweepRecord.from_json(folder / FILE)
            with _mlflow(f"nothing was begun in {folder}"):
                parent = _parent(record)
                ledger = Ledger(folder, going_on(record, space, place, parent))
                ledger.settle()
                runs = Runs(parent, ledger, lambda config: run_tags(config, opened, room.workers))
            ledger.save()
            job = Job(
                folder=folder,
                store=place,
                metric=space.metric,
                workers=room.workers,
                cpus=room.cpus,
                population=space.method == "pbt",
                versions=record.versions,
            )
            with _told(ledger, runs), _mlflow(f"the sweep is in {folder}, --resume tells it"):
                with runs:
                    run_trials(space, ledger, job, room, at_a_time, show)
                if show is not None:
                    show(ledger.record)
                return _finish(ledger, runs, space, register or name)


def _finish(ledger: Ledger, runs: Runs, space: SpaceConfig, model: str) -> SweepResult:
    """Write what the sweep found, and tell MLflow."""
    from tuning.report import write_report

    ledger.save()
    runs.tell(stopped=True)
    ledger.save()
    record = ledger.record
    best = record.best
    if best is None or best.best is None:
        errors = [trial.error for trial in record.trials if trial.error]
        raise ValueError(f"no trial of {record.name} finished: {errors[-1] if errors else 'all were stopped early'}")
    described = f"The best of sweep {record.name}: {record.metric} {best.best:.4g} on its validation samples."
    config = space.config(best.values, [f"seed={best.seed}"]).model_copy(update={"description": described})
    with written_beside(ledger.folder / BEST, overwrite=True) as beside:
        beside.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    report = write_report(record, ledger.folder)
    point = next(point for point in best.curve if point.metrics.get(record.metric) == best.best)
    scores = {key: value for key, value in point.metrics.items() if key.startswith("validation_")}
    number = register_best(model, record.name, runs.parent, best, scores)
    totals = {"seconds": record.seconds, "trial_seconds": sum(trial.seconds for trial in record.trials)}
    files = [ledger.folder / BEST, ledger.folder / FILE, report]
    keep_files(runs.parent, files, {**totals, f"best_{record.metric}": best.best})
    runs.parent.finish("FINISHED")
    states = [trial.state for trial in record.trials]
    return SweepResult(
        name=record.name,
        folder=ledger.folder,
        best=best,
        config=ledger.folder / BEST,
        report=report,
        run_id=runs.parent.run_id,
        model=model,
        model_version=number,
        seconds=record.seconds,
        states={state: states.count(state) for state in sorted(set(states))},
    )


@contextmanager
def _told(ledger: Ledger, runs: Runs) -> Iterator[None]:
    """Keep the record and tell MLflow where the block does not end well, as far as it can be done."""
    try:
        yield
    except BaseException as error:
        with suppress(MlflowException, OSError):  # what ended the block matters more
            ledger.save()
            runs.tell(stopped=True)
            ledger.save()
            # Ray's own handlers of signals leave by SystemExit.
            runs.parent.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        raise
    finally:
        shutil.rmtree(ledger.folder / "ray", ignore_errors=True)


def _parent(record: SweepRecord) -> Tracking:
    """The sweep's own run."""
    if record.run_id:
        parent = Tracking(tracking_uri(), record.run_id)
        parent.resume()
        return parent
    params = {key: value for key, value in flatten(record.space).items() if key != "description"}
    tags = {
        SWEEP: record.name,
        "git_sha": git_revision(),
        "data_fingerprint": record.fingerprint,
        "mlflow.note.content": str(record.space.get("description", "")),
    }
    return Tracking.start(record.name, params, tags)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the only driver of this sweep.

    Raises:
        ValueError: If another one is at it.
    """
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"sweep {folder.name} is being run by another process: wait for it, or end it") from None
        yield


@contextmanager
def _mlflow(then: str) -> Iterator[None]:
    """Say in one sentence that MLflow cannot be reached, and what then."""
    try:
        yield
    except MlflowException as error:
        raise OSError(f"MLflow cannot be reached, or refuses: {' '.join(str(error).split())[:200]}; {then}") from error
