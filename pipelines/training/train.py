"""The training run from its driver's side: the plan, the MLflow run, the workers, and how it ended.

The driver opens the store, makes the plan and the MLflow run, and starts the workers. Every order and every draw is a
function of (seed, epoch, step), so a run that goes on from its `last` checkpoint goes on as if it had not stopped.
"""

from __future__ import annotations

import json
import platform
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from mlflow.exceptions import MlflowException

from pipelines.config import Config
from pipelines.data.sources import public_name
from pipelines.data.store import Store, open_store
from pipelines.training.calibrate import calibrate, check_calibration
from pipelines.training.champions import register_version
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.cluster import Workers, run_workers
from pipelines.training.folder import Progress, RunFolder
from pipelines.training.journal import Journal
from pipelines.training.loop import WorkerTask
from pipelines.training.plan import Plan, make_plan, split_of
from pipelines.training.registry import ARTIFACT, check_name
from pipelines.training.tracking import Tracking, flatten, git_revision

LIBRARIES = ("torch", "ray", "mlflow", "xarray", "zarr", "dask", "numpy")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        name: The run's.
        checkpoint: The best checkpoint's folder.
        run_id: MLflow's.
        metrics: The best validation's.
        model_version: Of the registered model, where one was asked for.
    """

    name: str
    checkpoint: Path
    run_id: str
    metrics: dict[str, float]
    model_version: str | None = None


def train(
    config: Config,
    store: str,
    *,
    workers: Workers = 0,
    name: str | None = None,
    resume: bool = False,
    register: str | None = None,
    skip_corrupt: bool = False,
    max_failures: int = 8,
    statics: Sequence[str] = (),
    calibrated: bool = False,
    progress: Callable[[Progress], None] | None = None,
    illustrate: Callable[[Path, str], list[Path]] | None = None,
) -> TrainResult:
    """Train a model on a store.

    Args:
        config: The run (see `pipelines.load_config`).
        store: A canonical store's path or URL; every worker opens it itself.
        workers: Ray Train workers; 0 trains in this process; (least, most) as many as the cluster has room for, more
            or fewer when nodes come and go.
        name: Of the run and of its folder `runs/NAME`; the config's and the date's otherwise.
        resume: Go on where `runs/NAME` stopped.
        register: Register the best checkpoint under this name.
        skip_corrupt: Go on without the samples of damaged chunks, and count them.
        max_failures: Lost workers after which the run is given up (it can be resumed); -1 for never.
        statics: Files of fields that do not change, such as orography; the checkpoint keeps what it needs of them.
        calibrated: Add a conformal layer, fitted on the validation split, to the best checkpoint.
        progress: Called now and then from another thread.
        illustrate: Called with the best checkpoint and the store; the files that it returns become artifacts.

    Raises:
        FileExistsError: If a run of this name exists and `resume` is false.
        FileNotFoundError: If there is nothing to resume.
        ValueError: If config and store do not suit each other, or a resumed run's differ from what it began with.
        OSError: If MLflow cannot be reached.
        KeyboardInterrupt: If the process was told to end (SIGTERM, Ctrl-C); after a SIGTERM the run's state was saved.
    """
    _check(workers, config.training.batch_size)
    if register is not None:
        check_name(register)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"a run's name is letters, digits, '-', '_' and '.', got {name!r}")
    opened = open_store(store, skip_corrupt=skip_corrupt)
    if calibrated:
        if config.context is None:
            raise ValueError("--calibrate is of members that downscale: this config has no context")
        check_calibration(split_of(config, opened).validation)
    name = name or f"{opened.variable}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder = RunFolder(Path("runs").absolute() / name)
    plan = (_resumed_plan if resume else _fresh_plan)(folder, config, opened, statics)
    with _mlflow(f"nothing was begun in {folder.path}"):
        tracking = _tracking(folder, name, plan, opened, workers, resume)
    task = WorkerTask(
        plan=plan,
        store=str(store) if "://" in str(store) else str(Path(store).absolute()),
        split=split_of(config, opened),
        folder=folder,
        tracking_uri=tracking.uri,
        run_id=tracking.run_id,
        skip_corrupt=skip_corrupt,
        versions={library: version(library) for library in LIBRARIES} | {"python": platform.python_version()},
    )
    with _mlflow(f"what it was not told is kept in {folder.path}, --resume tells it"), _told(tracking, folder):
        with _watched(folder.path / "progress.json", progress):
            run_workers(task, workers, max_failures=max_failures)
        if folder.asked_to_stop:
            raise KeyboardInterrupt(f"saved in {folder.last}: --resume goes on from there")
        if calibrated:
            calibrate(folder.best, opened, task.split.validation)
        best, _ = load_checkpoint(folder.best)
        tracking.artifact(folder.best, ARTIFACT)
        for path in illustrate(folder.best, str(store)) if illustrate else []:
            tracking.artifact(path, "maps")
        registered = register_version(register, tracking.run_id, best.metrics) if register is not None else None
    return TrainResult(
        name=name,
        checkpoint=folder.best,
        run_id=tracking.run_id,
        metrics=best.metrics,
        model_version=registered,
    )


def _check(workers: Workers, batch_size: int) -> None:
    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    if least < 0 or (isinstance(workers, tuple) and not 1 <= least < most):
        raise ValueError(
            f"workers must be 0 (train in this process), more, or a range such as 1:4, got {least}"
            + (f":{most}" if isinstance(workers, tuple) else "")
        )
    if most > batch_size:
        raise ValueError(f"training.batch_size {batch_size} cannot be shared by {most} workers: use fewer")


@contextmanager
def _mlflow(then: str) -> Iterator[None]:
    """Say in one sentence that MLflow cannot be reached, and what then."""
    try:
        yield
    except MlflowException as error:
        raise OSError(f"MLflow cannot be reached, or refuses: {' '.join(str(error).split())[:200]}; {then}") from error


@contextmanager
def _told(tracking: Tracking, folder: RunFolder) -> Iterator[None]:
    """Tell MLflow how the block ended, after every metric that it was not told yet."""
    try:
        yield
    except BaseException as error:
        # Ray's own handlers of signals leave by SystemExit.
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        with suppress(MlflowException, OSError):  # what ended the block matters more
            Journal(folder.journal, tracking).deliver()
            tracking.finish(status)
        raise
    finally:
        with suppress(FileNotFoundError):
            folder.clear()
    Journal(folder.journal, tracking).deliver()
    tracking.finish("FINISHED")


def _fresh_plan(folder: RunFolder, config: Config, store: Store, statics: Sequence[str]) -> Plan:
    if folder.described.exists() or folder.has_checkpoint:
        raise FileExistsError(
            f"a run named {folder.path.name} exists already: choose another --name, or go on with --resume"
        )
    plan = make_plan(config, store, statics)
    folder.path.mkdir(parents=True, exist_ok=True)
    return plan


def _resumed_plan(folder: RunFolder, config: Config, store: Store, statics: Sequence[str]) -> Plan:
    """The plan that the run began with, if what is given now is the same; static fields need not be given again."""
    if folder.described.exists():
        with folder.locked():
            folder.recover()
    if not folder.has_checkpoint:
        raise FileNotFoundError(
            f"there is nothing to resume in {folder.path}: the run has no checkpoint, start one under another --name"
        )
    plan = load_checkpoint(folder.last)[0].plan
    before, now = (flatten(each.model_dump(mode="json")) for each in (plan.config, config))
    changed = [f"{key} {before.get(key)} -> {now.get(key)}" for key in now | before if before.get(key) != now.get(key)]
    if changed:
        raise ValueError(
            f"the config differs from the one that run {folder.path.name} began with: {'; '.join(changed[:5])}"
        )
    if plan.fingerprint != store.fingerprint:
        raise ValueError(
            f"the store's content differs from what run {folder.path.name} began with (fingerprint "
            f"{plan.fingerprint[:12]} -> {store.fingerprint[:12]}): resume with the same store"
        )
    if statics:
        before, now = (
            {each.name: f"{each.name} in {each.units}, {each.fingerprint}" for each in known}
            for known in (plan.statics, make_plan(config, store, statics).statics)
        )
        if before != now:
            raise ValueError(
                f"the static fields differ from those that run {folder.path.name} began with: "
                f"{'; '.join(before.values()) or 'none'} -> {'; '.join(now.values())}"
            )
    return plan


def _tracking(folder: RunFolder, name: str, plan: Plan, store: Store, workers: Workers, resume: bool) -> Tracking:
    folder.clear()
    if resume:
        tree = json.loads(folder.described.read_text())
        tracking = Tracking(tree["tracking_uri"], tree["run_id"])
        tracking.resume()
        return tracking
    params = flatten(plan.config.model_dump(mode="json"))
    tracking = Tracking.start(name, params, run_tags(plan.config, store, workers))
    folder.described.write_text(json.dumps({"tracking_uri": tracking.uri, "run_id": tracking.run_id}))
    return tracking


def run_tags(config: Config, store: Store, workers: Workers) -> dict[str, str]:
    """What MLflow is told of a run beside its parameters."""
    return {
        "git_sha": git_revision(),
        "store": public_name(store.path),  # a signed link, or a password in a URL, is not for all who read tags
        "data_source": store.source,
        "data_license": store.license,
        "data_fingerprint": store.fingerprint,
        "config_hash": config.fingerprint,
        "seed": str(config.seed),
        "world_size": ":".join(map(str, workers)) if isinstance(workers, tuple) else str(max(1, workers)),
    }


@contextmanager
def _watched(path: Path, progress: Callable[[Progress], None] | None) -> Iterator[None]:
    """Pass on what rank 0 writes of its progress, wherever it runs on this file system."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        seen = None
        while not done.wait(0.5):
            try:
                text = path.read_text()
            except OSError:
                continue
            if text != seen:
                seen = text
                progress(Progress.from_json(text))

    thread = threading.Thread(target=watch, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            progress(Progress.from_json(path.read_text()))
