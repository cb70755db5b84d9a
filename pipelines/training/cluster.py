"""Where workers run: in this process, in a Ray that is started on demand, or in the one at RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from pipelines.training.folder import RunFolder
from pipelines.training.loop import WorkerTask, run_rank, run_worker
from pipelines.training.token import ensure_private_token

Workers = int | tuple[int, int]

# For a Ray on this machine alone. Read when `ray` is imported: it then takes 127.0.0.1 for its address, and listens
# nowhere else. Gloo and NCCL would otherwise take the host name's interface.
_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": _INTERFACE,
    "NCCL_SOCKET_IFNAME": _INTERFACE,
    "RAY_worker_niceness": "0",  # else workers give way to everything, Ray's own daemons included
}
# Of one that lives as long as a run: nobody looks at its metrics, and what it does besides takes from the workers.
_UNWATCHED = {
    "REPORTER_UPDATE_INTERVAL_MS": "600000",
    "RAY_metrics_report_interval_ms": "600000",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Of its processes: for clusters that grow, for what workers print, and for people who look at it.
_IDLE = ("monitor", "log_monitor", "dashboard")
RESIZE_S = 30.0  # between looks for nodes that have come
# Read by Ray Train: how often the workers are looked at (their end and a report wait for it), and how long a group may
# take to start before it is tried with the nodes that there are then. And one process less beside the workers: which
# nodes are about to go is asked by nobody here, a run goes on from its checkpoint.
_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


def run_workers(task: WorkerTask, workers: Workers, *, max_failures: int) -> None:
    """Run the workers to their end, or until a SIGTERM has made them save and end.

    Args:
        task: What each of them does.
        workers: How many; 0 works in this process; a range takes as many of them as the cluster has room for.
        max_failures: Lost workers after which it is given up; -1 for never.

    Raises:
        ValueError: If what they were given cannot be trained on.
        RuntimeError: If a worker failed otherwise.
    """
    if workers == 0:
        with _stoppable(task.folder):
            run_rank(task, local_device(), lambda metrics: None)
    else:
        least, most = workers if isinstance(workers, tuple) else (workers, workers)
        with started_ray(most) as own, _stoppable(task.folder):
            train_with_ray(task, least, most, max_failures=max_failures, own=own)
    if task.folder.failure is not None:
        raise ValueError(task.folder.failure)


def local_device() -> torch.device:
    """Where this process trains: on its GPU, if it sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_with_ray(
    task: WorkerTask, least: int, most: int, *, max_failures: int, callbacks: Sequence[Any] = (), own: bool = False
) -> None:
    """Run Ray Train's workers to their end, in the Ray that there is.

    Args:
        task: What each worker does.
        least, most: How many.
        max_failures: See `run_workers`.
        callbacks: Ray Train's `UserCallback`s.
        own: Whether that Ray ends with the run.

    Raises:
        ValueError: If what they were given cannot be trained on.
        RuntimeError: If a worker failed otherwise.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError

    from pipelines.training.quiet import Trainer

    scaling: dict[str, Any] = {"num_workers": least, "use_gpu": ray.cluster_resources().get("GPU", 0) >= least}
    if least != most:
        scaling |= {"num_workers": (least, most), "elastic_resize_monitor_interval_s": RESIZE_S}
    run = RunConfig(
        name=f"attempt-{time.time_ns()}",
        storage_path=str(task.folder.path / "ray"),
        failure_config=FailureConfig(max_failures=max_failures),
        callbacks=list(callbacks),
    )
    try:
        Trainer(
            run_worker,
            train_loop_config={"task": task, "reported": bool(callbacks)},
            scaling_config=ScalingConfig(**scaling),
            run_config=run,
            own=own,
            told=bool(callbacks),
        ).fit()
    except WorkerGroupError as error:
        if task.folder.failure is None:
            cause = next(iter(error.worker_failures.values()), error)
            said = f"a training worker failed: {str(cause).strip().splitlines()[-1]}"
            raise (ValueError if isinstance(cause, ValueError | OSError) else RuntimeError)(said) from error
    finally:
        shutil.rmtree(task.folder.path / "ray", ignore_errors=True)


@contextmanager
def started_ray(cpus: int) -> Iterator[bool]:
    """Have a Ray with room for so many workers; end it if it was started here, which is what is told."""
    if not os.environ.get("RAY_ADDRESS"):
        ensure_private_token()
        for name, value in (LOOPBACK | _UNWATCHED).items():
            os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield False
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            "local",
            num_cpus=max(cpus, os.cpu_count() or 1),
            include_dashboard=False,  # its processes would take a share of the workers' processors
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        for name in _IDLE:
            getattr(ray._private.worker._global_node, f"kill_{name}")(check_alive=False)
    try:
        yield not address
    finally:
        ray.shutdown()


@contextmanager
def _stoppable(folder: RunFolder) -> Iterator[None]:
    """On SIGTERM have the workers save and end; the second one interrupts. Ray's own handlers are taken back after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if folder.asked_to_stop:
            raise KeyboardInterrupt
        folder.ask_to_stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
