"""What a second worker brings, and what Ray costs: `python -m tests.benchmarks.scaling`.

The preset `downscale` on ERA5 of the globe, 46 x 90 points, 32 fields a worker and step (`--each`), and as many fields
in the store for each worker: an epoch has as many steps, whatever the workers. A worker has one thread and one
processor for all that it does, its reading included. All runs live at once and take turns of two epochs,
with the validation and the checkpoint that lie between them, in an order that is drawn anew each round; a run whose
turn it is not is stopped, Ray's own processes with it. So the figures that are compared are of the same minute: a
ratio is the median over the rounds of the ratios within a round; `.error` is its standard error, and `.fastest` the
ratio of the fastest turns, which nobody else disturbed.

    efficiency_2        the step of one worker over that of two, each in Ray with a batch of its own (weak scaling)
    efficiency_2_plain  the same of one process and of two of torch.distributed, without Ray
    efficiency_2_apart  the same of one process and of two that do not know of each other: what the machine allows
    efficiency_2_agreed the same two, had each waited for the other's gradient in every step, and it cost nothing: what
                        the machine allows workers who agree on every step, whatever starts them
    ray_overhead        the step of two workers in Ray over that of the same two in plain torch.distributed, less one
    ray_overhead_1      the same of one worker in Ray and of one in the command's own process
    first_step_s        from the command to the end of the first step, with no Ray workers and with two
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything

import torch
from ray import train
from torch import multiprocessing

from infra.cli import main as vamoh
from pipelines.config import load_config
from pipelines.data.store import open_store, write_store
from pipelines.training import cluster
from pipelines.training.folder import RunFolder
from pipelines.training.learner import Learner, UnderWay
from pipelines.training.loop import Ready, Worker, WorkerTask, run_worker
from pipelines.training.plan import make_plan, split_of
from pipelines.training.tracking import Tracking
from tests.benchmarks.fields import era5_hours
from tests.benchmarks.processes import family

FIELDS = 352  # a worker; seven batches of 32 are left to train on, and 15 fields, two parts, to validate on
FIRST, TURN = 3, 2  # epochs before the first turn, in which libraries are loaded, and epochs of a turn
RUNS = {"here_1": 1, "apart_1": 1, "plain_2": 2, "ray_1": 1, "ray_2": 2}  # and their workers
SETTINGS = (
    "training.validate_every=2",
    "training.members=2",
    "training.threads=1",
    "training.checkpoint_minutes=0",
    "split.validation=0.06",
)


def settings(workers: int, each: int, rounds: int) -> list[str]:
    """The overrides of the preset, for so many fields each."""
    return [*SETTINGS, f"training.epochs={FIRST + TURN * (2 * rounds + 2)}", f"training.batch_size={each * workers}"]


def store_of(workers: int) -> str:
    """The store for so many workers."""
    return f"{workers}.zarr"


# --- what the runs do -------------------------------------------------------------------------------------------------


def take_turns(name: str, rank: int, processor: int) -> None:
    """Keep this process to one processor, and its epochs to its turns; in Ray, gloo's threads run already."""
    processors = sorted(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processors[processor % len(processors)]})
    train_epoch, step, begin = Worker._train_epoch, Worker._step, Learner.begin
    steps: list[list[float]] = []  # of this turn: until the gradient is there, and until the next step

    def timed_begin(learner: Learner, *given: object, **named: object) -> UnderWay:
        begun = time.perf_counter()
        under_way = begin(learner, *given, **named)
        steps.append([time.perf_counter() - begun])
        return under_way

    def timed_step(worker: Worker, *given: object) -> Ready | None:
        begun = time.perf_counter()
        ahead = step(worker, *given)
        steps[-1].append(time.perf_counter() - begun - steps[-1][0])
        return ahead

    def in_turn(worker: Worker) -> None:
        turn, rest = divmod(worker.epoch - FIRST, TURN)
        if turn >= 0 and rest == 0:
            mark = arrived(name, turn, rank)
            mark.with_suffix(f"{mark.suffix}-").write_text(json.dumps(steps))
            mark.with_suffix(f"{mark.suffix}-").rename(mark)
            steps.clear()
            while not called(name, turn).exists():
                time.sleep(0.005)
        train_epoch(worker)

    Worker._train_epoch, Worker._step, Learner.begin = in_turn, timed_step, timed_begin  # type: ignore[method-assign]


def arrived(name: str, turn: int, rank: int) -> Path:
    """The mark of a worker that waits; in it are the times of the steps that it took in its last turn."""
    return Path(os.environ["TURNS"], f"{name}.{turn}.{rank}")


def called(name: str, turn: int) -> Path:
    """The mark of a turn that has begun."""
    return Path(os.environ["TURNS"], f"{name}.{turn}")


def ray_worker(loop: dict[str, Any]) -> None:
    """What Ray's workers run."""
    rank = train.get_context().get_world_rank()
    take_turns(os.environ["NAME"], rank, rank)
    run_worker(loop)


def in_command(name: str, each: int, rounds: int) -> int:
    """`vamoh train`, with no Ray workers or with some."""
    workers = RUNS[name]
    if name.startswith("ray"):
        cluster.run_worker = ray_worker
    else:
        take_turns(name, 0, int(name == "apart_1"))
    overrides = [part for setting in settings(workers, each, rounds) for part in ("--set", setting)]
    given = ["train", "downscale", "--store", store_of(workers), "--name", name, *overrides]
    return vamoh([*given, "--workers", str(workers if name.startswith("ray") else 0)])


def in_plain_torch(name: str, each: int, rounds: int) -> int:
    """The same loop in processes that torch starts."""
    workers = RUNS[name]
    store = open_store(store_of(workers))
    config = load_config("downscale", settings(workers, each, rounds))
    folder = RunFolder(Path("runs", name).absolute())
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
    return 0


def plain_worker(rank: int, task: WorkerTask, workers: int, port: int) -> None:
    """One of them."""
    take_turns(os.environ["NAME"], rank, rank)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    Worker(task, torch.device("cpu"), rank=rank, world_size=workers, beside=workers).run(lambda metrics: None)


# --- turns ------------------------------------------------------------------------------------------------------------


class Run:
    """A run that trains when it is called, and is stopped otherwise.

    Args:
        name: One of RUNS.
        each: Fields a worker and step.
        rounds: Of the benchmark.

    Attributes:
        first_step_s: From its start to its first step, seconds.
        turns: That it has had.
    """

    def __init__(self, name: str, each: int, rounds: int) -> None:
        self.name, self.turns, begun = name, 0, time.time()
        command = [sys.executable, "-m", __spec__.name, "--run", name, "--each", str(each), "--rounds", str(rounds)]
        tracking = f"sqlite:///{Path(name).absolute()}.db"  # its own: it may be stopped while it locks it
        given = os.environ | {"NAME": name, "MLFLOW_TRACKING_URI": tracking}
        with Path(f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=given, start_new_session=True)
        self._await(Path("runs", name, "progress.json"))
        self.first_step_s = time.time() - begun
        self.wait()
        self.stop()

    def call(self) -> None:
        """Let it take its next turn, which begins now."""
        called(self.name, self.turns).touch()
        self.turns += 1

    def wait(self) -> None:
        """Until all its workers have come to the end of their turn."""
        for rank in range(RUNS[self.name]):
            self._await(arrived(self.name, self.turns, rank))

    def stop(self) -> None:
        """Let none of its processes run."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let all of them run."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """End all of them, wherever they are."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        for process in family(self.process.pid):
            os.kill(process, number)

    def _await(self, mark: Path) -> None:
        while not mark.exists():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended:\n{Path(f'{self.name}.log').read_text()[-2000:]}")
            time.sleep(0.005)


def turn(runs: Sequence[Run]) -> float:
    """Seconds that a turn takes, of runs that have it at once."""
    for run in runs:
        run.go_on()
    time.sleep(1.0)  # what is due in Ray by now
    begun = time.perf_counter()
    for run in runs:
        run.call()
    for run in runs:
        run.wait()
    spent = time.perf_counter() - begun
    for run in runs:
        run.stop()
    return spent


def waiting(runs: Sequence[Run]) -> float:
    """Seconds that two would have spent longer in their last turn, had both had each other's gradient in every step.

    As in the exchange of gradients they would have drawn the next batch meanwhile; nothing else would have cost any
    time.
    """
    taken = [json.loads(arrived(run.name, run.turns, 0).read_text()) for run in runs]
    ends = [0.0] * len(runs)
    for steps in zip(*taken, strict=True):
        agreed = max(end + begin for end, (begin, _) in zip(ends, steps, strict=True))
        ends = [max(end + begin + rest, agreed) for end, (begin, rest) in zip(ends, steps, strict=True)]
    return max(ends) - max(sum(map(sum, steps)) for steps in taken)


def compare(rounds: int, each: int) -> dict[str, float]:
    """All figures."""
    steps = {}
    for workers in set(RUNS.values()):
        fields, target = era5_hours(FIELDS * workers, every=4), Path(store_of(workers)).absolute()
        store = write_store(fields, target, source="", license="")
        learned = split_of(load_config("downscale", list(SETTINGS)), store).train
        steps[workers] = TURN * (len(learned) // (each * workers))
    runs: dict[str, Run] = {}
    spent: dict[str, list[float]] = {}
    together = {name: [name] for name in RUNS if name != "apart_1"} | {"apart_2": ["here_1", "apart_1"]}
    try:
        for name in RUNS:
            runs[name] = Run(name, each, rounds)
            print(f"{name}: its first step after {runs[name].first_step_s:.1f} s", flush=True)
        for number in range(rounds):
            for name in random.Random(number).sample(sorted(together), len(together)):
                seconds = turn([runs[one] for one in together[name]])
                spent.setdefault(name, []).append(seconds / steps[RUNS[together[name][0]]])
                if name == "apart_2":
                    agreed = seconds + waiting([runs[one] for one in together[name]])
                    spent.setdefault("agreed_2", []).append(agreed / steps[1])
            said = ", ".join(f"{name} {spent[name][-1]:.3f}" for name in spent)
            print(f"round {number + 1}, seconds a step: {said}", flush=True)
    finally:
        for run in runs.values():
            run.end()
    figures = {f"scaling.step_s.{name}": statistics.median(values) for name, values in spent.items()}
    figures |= {f"scaling.first_step_s.{name}": run.first_step_s for name, run in runs.items()}

    def add(name: str, one: str, other: str, less: float = 0.0) -> None:
        ratios = [first / second - less for first, second in zip(spent[one], spent[other], strict=True)]
        figures[f"scaling.{name}"] = statistics.median(ratios)
        figures[f"scaling.{name}.fastest"] = min(spent[one]) / min(spent[other]) - less
        if len(ratios) > 1:
            figures[f"scaling.{name}.error"] = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5  # of a median

    add("efficiency_2", "ray_1", "ray_2")
    add("efficiency_2_plain", "here_1", "plain_2")
    add("efficiency_2_apart", "here_1", "apart_2")
    add("efficiency_2_agreed", "here_1", "agreed_2")
    add("ray_overhead", "ray_2", "plain_2", 1.0)
    add("ray_overhead_1", "ray_1", "here_1", 1.0)
    return figures


def main() -> int:
    """Print a table; write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--each", type=int, default=32, help="fields a worker and step")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        do = in_plain_torch if given.run.startswith("plain") else in_command
        return do(given.run, given.each, given.rounds)
    target = None if given.json is None else given.json.absolute()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TURNS"] = folder
        os.chdir(folder)
        found = compare(given.rounds, given.each)
        os.chdir("/")
    for key, value in found.items():
        print(f"{key:<36}{value:.3f}")
    print(f"weak scaling, two workers: {found['scaling.efficiency_2']:.2f} (at least 0.85)")
    print(f"Ray Train beside plain torch: {found['scaling.ray_overhead']:+.1%} a step (at most 5 %)")
    if target is not None:
        target.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
