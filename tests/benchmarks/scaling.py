"""What a second worker brings, and what Ray costs: `python -m tests.benchmarks.scaling`.

The preset `downscale` on ERA5 of the globe, 46 x 90 points, 32 fields a worker and step (`--each`), one thread each;
runs in turns. A step's time is that of two epochs, with the validation and the checkpoint that lie between them, over
their steps: the median of all such pairs but those of the first three epochs, in which libraries are loaded and
connections made. A worker has one processor for all that it does, its reading included.

    efficiency_2   the step of one worker over that of two, each in Ray with a batch of its own (weak scaling)
    ray_overhead   the step of two workers in Ray over that of the same two in plain torch.distributed, less one
    first_step_s   from the command to the end of the first step, with no Ray workers and with two
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything

import torch
from ray import train
from torch import multiprocessing

from pipelines.config import Config, load_config
from pipelines.data.store import Store, write_store
from pipelines.training.folder import RunFolder
from pipelines.training.loop import Worker, WorkerTask, run_worker
from pipelines.training.plan import make_plan, split_of
from pipelines.training.tracking import Tracking
from tests.benchmarks.fields import era5_hours

FIELDS, EPOCHS, FIRST = 448, 11, 3
SETTINGS = (
    f"training.epochs={EPOCHS}",
    "training.validate_every=2",
    "training.members=2",
    "training.threads=1",
    "training.checkpoint_minutes=0",
    "split.validation=0.05",
)


def settings(workers: int, each: int) -> list[str]:
    """The overrides of the preset, for so many fields each."""
    return [*SETTINGS, f"training.batch_size={each * max(1, workers)}"]


PROGRAM = """
import sys
from infra.cli import main
from pipelines.training import cluster
from tests.benchmarks.scaling import pinned_worker
cluster.run_worker = pinned_worker
sys.exit(main(sys.argv[1:]))
"""


def pin(rank: int) -> None:
    """Keep this process to one processor: in Ray, gloo's threads run already."""
    processors = sorted(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processors[rank % len(processors)]})


def pinned_worker(loop: dict[str, Any]) -> None:
    """What Ray's workers run."""
    pin(train.get_context().get_world_rank())
    run_worker(loop)


def in_ray(store: Store, workers: int, each: int, name: str) -> tuple[list[float], float]:
    """Seconds a step of each pair of epochs, and to the first step, of `vamoh train --workers N`."""
    overrides = [part for setting in settings(workers, each) for part in ("--set", setting)]
    program = PROGRAM if workers else "import sys; from infra.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", "downscale", "--store", store.path, *overrides]
    begun, noted = time.time(), Path("runs", name, "progress.json")
    process = subprocess.Popen(
        [*command, "--workers", str(workers), "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not noted.exists() and process.poll() is None:
        time.sleep(0.02)
    first = time.time() - begun
    if process.wait() != 0:
        raise SystemExit(f"run {name} ended with {process.returncode}")
    return step_seconds(name, load_config("downscale", settings(workers, each)), store), first


def in_plain_torch(store: Store, workers: int, each: int, name: str) -> list[float]:
    """Seconds a step of each pair of epochs of the same loop in processes that torch starts."""
    config, folder = load_config("downscale", settings(workers, each)), RunFolder(Path("runs", name).absolute())
    folder.path.mkdir(parents=True)
    tracking = Tracking.start(name, {}, {})
    task = WorkerTask(
        plan=make_plan(config, store),
        store=store.path,
        split=split_of(config, store),
        folder=folder,
        tracking_uri=tracking.uri,
        run_id=tracking.run_id,
        skip_corrupt=False,
        versions={},
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(plain_worker, args=(task, workers, port), nprocs=workers)
    return step_seconds(name, config, store)


def plain_worker(rank: int, task: WorkerTask, workers: int, port: int) -> None:
    """One of them."""
    pin(rank)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    worker = Worker(task, torch.device("cpu"), rank=rank, world_size=workers, beside=workers)
    worker.run(lambda metrics: None)
    worker.close()
    torch.distributed.barrier()  # the first one has the members' law to fit, which the others wait for
    torch.distributed.destroy_process_group()


def step_seconds(name: str, config: Config, store: Store) -> list[float]:
    """From the journal, of each pair of epochs after the first three."""
    lines = [json.loads(line) for line in Path("runs", name, "metrics.jsonl").read_text().splitlines()]
    steps = len(split_of(config, store).train) // config.training.batch_size
    ends = [line["timestamp"] / 1000 for line in lines]
    ends = ends[FIRST - 1 :: 2]
    return [(later - first) / (2 * steps) for first, later in itertools.pairwise(ends)]


def compare(turns: int, each: int) -> dict[str, float]:
    """All figures."""
    field = era5_hours(FIELDS, every=4)
    store = write_store(field, Path("store").absolute(), source="", license="")
    found: dict[str, list[float]] = {}

    def add(key: str, *values: float) -> None:
        found.setdefault(key, []).extend(values)
        print(f"  {key} {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})", flush=True)

    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}")
        for workers in (0, 1, 2):
            steps, first = in_ray(store, workers, each, f"ray-{workers}-{turn}")
            add(f"step_s.ray_{workers}", *steps)
            add(f"first_step_s.ray_{workers}", first)
        for workers in (1, 2):
            add(f"step_s.plain_{workers}", *in_plain_torch(store, workers, each, f"plain-{workers}-{turn}"))
    middle = {f"scaling.{key}": statistics.median(values) for key, values in found.items()}

    def ratio(one: str, other: str) -> float:
        return middle[f"scaling.{one}"] / middle[f"scaling.{other}"]

    return middle | {
        "scaling.efficiency_2": ratio("step_s.ray_1", "step_s.ray_2"),
        "scaling.efficiency_2_plain": ratio("step_s.plain_1", "step_s.plain_2"),
        "scaling.ray_overhead": ratio("step_s.ray_2", "step_s.plain_2") - 1,
        "scaling.ray_overhead_1": ratio("step_s.ray_1", "step_s.plain_1") - 1,
    }


def main() -> None:
    """Print a table; write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--each", type=int, default=32, help="fields a worker and step")
    given = parser.parse_args()
    target = None if given.json is None else given.json.absolute()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = compare(given.turns, given.each)
        os.chdir("/")
    for key, value in found.items():
        print(f"{key:<32}{value:.3f}")
    print(f"weak scaling, two workers: {found['scaling.efficiency_2']:.2f} (at least 0.85)")
    print(f"Ray Train beside plain torch: {found['scaling.ray_overhead']:+.1%} a step (at most 5 %)")
    if target is not None:
        target.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
