"""What stands idle beside a training's workers, as one of them finds it."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import ray

from pipelines.training.loop import run_worker
from pipelines.training.quiet import resting
from tests.benchmarks.processes import family, read

NEEDED = {f"ray::{name}" for name in ("RayTrainWorker", "TrainController", "DashboardAgent", "RuntimeEnvAgent", "IDLE")}


def told_of_what_idles(loop: dict[str, Any]) -> None:
    """What a worker does, having noted which processes stand beside it, and how often its idle thread wakes up."""

    def woken() -> int:
        status = read(os.getpid(), f"task/{os.getpid()}/status").decode()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    with resting():
        time.sleep(0.5)
        before = woken()
        time.sleep(2.0)
        often = woken() - before
    run_worker(loop)
    ours = [_command(each) for each in family(os.getppid())]  # of this Ray's raylet; another may just be ending
    actors = sorted({re.split(r"[. ]", each)[0] for each in ours if each.startswith("ray::")})
    session = Path(ray._private.worker._global_node.get_session_dir_path()).name
    every = [_command(each) for each in family(int(os.environ["DRIVER"]))]
    daemons = [each for each in every if session in each and re.search(r"/(log_)?monitor\.py|/dashboard\.py", each)]
    told = {"woken": often, "actors": actors, "daemons": daemons}
    (loop["task"].folder.path / f"told-{os.getpid()}").write_text(json.dumps(told))


def _command(process: int) -> str:
    return read(process, "cmdline").decode().replace("\0", " ")
