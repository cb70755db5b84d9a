"""The training run: Ray Train around `step`, checkpoints, MLflow, and the way back after a stop.

The driver opens the store, makes the plan and the MLflow run, and starts the workers (none: the loop runs in this
process, without Ray processes). Every order and every draw is a function of (seed, epoch, step), so a run that is
resumed from its `last` checkpoint goes on as if it had not stopped.

    runs/NAME/last/         weights, optimiser state and progress, after each validation
    runs/NAME/best/         the weights with the best validation CRPS: what is registered and used
    runs/NAME/run.json      which MLflow run this is
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pipelines.config import Config
from pipelines.data.store import open_store
from pipelines.training.checkpoint import load_checkpoint, recover
from pipelines.training.loop import Progress, WorkerTask, run_worker
from pipelines.training.plan import Plan, make_plan, split_of
from pipelines.training.registry import ARTIFACT, check_name, register_version
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
    workers: int = 0,
    name: str | None = None,
    resume: bool = False,
    register: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    illustrate: Callable[[Path, str], list[Path]] | None = None,
) -> TrainResult:
    """Train a model on a store.

    Args:
        config: The run (see `pipelines.load_config`).
        store: A canonical store's path or URL; every worker opens it itself.
        workers: Ray Train workers; 0 trains in this process.
        name: Of the run and of its folder `runs/NAME`; the config's and the date's otherwise.
        resume: Go on where `runs/NAME` stopped.
        register: Register the best checkpoint under this name.
        progress: Called now and then from another thread.
        illustrate: Called with the best checkpoint and the store; the files that it returns become artifacts.

    Raises:
        FileExistsError: If a run of this name exists and `resume` is false.
        FileNotFoundError: If there is nothing to resume.
        ValueError: If config and store do not suit each other, or a resumed run's differ from what it began with.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 (train in this process) or more, got {workers}")
    if workers and config.training.batch_size % workers:
        raise ValueError(
            f"training.batch_size {config.training.batch_size} cannot be shared by {workers} workers: use a multiple"
        )
    if register is not None:
        check_name(register)
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"a run's name is letters, digits, '-', '_' and '.', got {name!r}")
    opened = open_store(store)
    name = name or f"{opened.variable}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder = Path("runs").absolute() / name
    plan = _resumed_plan(folder, config, opened.fingerprint) if resume else _fresh_plan(folder, config, store)
    tracking = _tracking(folder, name, plan, workers, resume)
    task = WorkerTask(
        plan=plan,
        store=str(store) if "://" in str(store) else str(Path(store).absolute()),
        split=split_of(config, opened),
        folder=folder,
        tracking_uri=tracking.uri,
        run_id=tracking.run_id,
        resume=resume,
        versions={library: version(library) for library in LIBRARIES} | {"python": platform.python_version()},
    )
    try:
        with _watched(folder / "progress.json", progress):
            _run(task, workers)
        best, _ = load_checkpoint(folder / "best")
        tracking.artifact(folder / "best", ARTIFACT)
        for path in illustrate(folder / "best", str(store)) if illustrate else []:
            tracking.artifact(path, "maps")
        registered = None
        if register is not None:
            registered = register_version(register, tracking.run_id, best.metrics)
    except (KeyboardInterrupt, SystemExit):  # Ray's own handlers of signals leave by the second
        tracking.finish("KILLED")
        raise
    except BaseException:
        tracking.finish("FAILED")
        raise
    tracking.finish("FINISHED")
    return TrainResult(
        name=name,
        checkpoint=folder / "best",
        run_id=tracking.run_id,
        metrics=best.metrics,
        model_version=registered,
    )


def _fresh_plan(folder: Path, config: Config, store: str) -> Plan:
    if (folder / "run.json").exists():
        raise FileExistsError(
            f"a run named {folder.name} exists already: choose another --name, or go on with --resume"
        )
    plan = make_plan(config, open_store(store))
    folder.mkdir(parents=True, exist_ok=True)
    return plan


def _resumed_plan(folder: Path, config: Config, fingerprint: str) -> Plan:
    """The plan that the run began with, if what is given now is the same."""
    for kept in ("last", "best"):
        recover(folder / kept)
    if not (folder / "last" / "checkpoint.json").is_file():
        raise FileNotFoundError(
            f"there is nothing to resume in {folder}: the run has no checkpoint, start one under another --name"
        )
    plan = load_checkpoint(folder / "last")[0].plan
    before, now = (flatten(each.model_dump(mode="json")) for each in (plan.config, config))
    changed = [f"{key} {before.get(key)} -> {now.get(key)}" for key in now | before if before.get(key) != now.get(key)]
    if changed:
        raise ValueError(f"the config differs from the one that run {folder.name} began with: {'; '.join(changed[:5])}")
    if plan.fingerprint != fingerprint:
        raise ValueError(
            f"the store's content differs from what run {folder.name} began with (fingerprint "
            f"{plan.fingerprint[:12]} -> {fingerprint[:12]}): resume with the same store"
        )
    return plan


def _tracking(folder: Path, name: str, plan: Plan, workers: int, resume: bool) -> Tracking:
    described = folder / "run.json"
    if resume:
        tree = json.loads(described.read_text())
        tracking = Tracking(tree["tracking_uri"], tree["run_id"])
        tracking.resume()
        return tracking
    params = flatten(plan.config.model_dump(mode="json"))
    tags = {
        "git_sha": git_revision(),
        "data_fingerprint": plan.fingerprint,
        "config_hash": plan.config.fingerprint,
        "seed": str(plan.config.seed),
        "world_size": str(max(1, workers)),
    }
    tracking = Tracking.start(name, params, tags)
    described.write_text(json.dumps({"tracking_uri": tracking.uri, "run_id": tracking.run_id}))
    return tracking


def _run(task: WorkerTask, workers: int) -> None:
    """Run the workers to their end.

    Raises:
        ValueError: If what they were given cannot be trained on.
        RuntimeError: If a worker failed otherwise.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    started, interrupt = False, signal.getsignal(signal.SIGINT)
    if workers and not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        if address:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                "local", num_cpus=max(workers, os.cpu_count() or 1), log_to_driver=False, logging_level=logging.ERROR
            )
        started = True
    try:
        TorchTrainer(
            run_worker,
            train_loop_config={"task": task},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=_gpus_in_cluster(workers)),
            run_config=RunConfig(name=f"attempt-{time.time_ns()}", storage_path=str(task.folder / "ray")),
        ).fit()
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    except WorkerGroupError as error:
        cause = next(iter(error.worker_failures.values()), error)
        foreseen = isinstance(cause, ValueError | OSError | FloatingPointError)
        said = f"a training worker failed: {str(cause).strip().splitlines()[-1]}"
        raise (ValueError if foreseen else RuntimeError)(said) from error
    finally:
        if started:
            ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # Ray leaves its own behind
        shutil.rmtree(task.folder / "ray", ignore_errors=True)


def _gpus_in_cluster(workers: int) -> bool:
    if not workers:
        return False
    import ray

    return ray.cluster_resources().get("GPU", 0) >= workers


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
