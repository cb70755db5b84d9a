"""A command as one Slurm job: the batch script, and `sbatch`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}")


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What is asked of Slurm.

    Attributes:
        nodes: How many.
        time: The longest that an attempt may last, as Slurm writes it, e.g. 8:00:00 or 1-00:00:00.
        gpus_per_node: GPUs of each.
        cpus_per_node: Processors of each; None for all that the partition gives.
        memory_per_node: e.g. 64G; None for the partition's.
        partition: None for the cluster's own.
        account: Who pays.
        warning_s: How long before the end the run is told to save.
        more: Further options of sbatch, e.g. `qos=high`.
    """

    nodes: int
    time: str
    gpus_per_node: int = 0
    cpus_per_node: int | None = None
    memory_per_node: str | None = None
    partition: str | None = None
    account: str | None = None
    warning_s: int = 120
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _TIME.fullmatch(self.time):
            raise ValueError(f"--time expects Slurm's form, e.g. 8:00:00 or 1-00:00:00, got {self.time!r}")
        for option in self.more:
            if not re.fullmatch(r"[a-z][a-z-]*(=[^\s#]+)?", option):
                raise ValueError(f"--sbatch expects an option of sbatch, e.g. qos=high or exclusive, got {option!r}")


def batch_script(
    command: Sequence[str], allocation: Allocation, *, launch: str, python: str, setup: Sequence[str] = ()
) -> str:
    """The script that `sbatch` takes.

    Args:
        command: Of vamoh; it has a name, so that a job that is queued again goes on with its run.
        allocation: What is asked for.
        launch: The launch's id.
        python: The interpreter that has vamoh, on every node.
        setup: Lines of shell before anything else, e.g. `module load cuda`.
    """
    asked = {
        "job-name": launch,
        "nodes": allocation.nodes,
        "ntasks-per-node": 1,
        "time": allocation.time,
        "cpus-per-task": allocation.cpus_per_node,
        "gpus-per-node": allocation.gpus_per_node or None,
        "mem": allocation.memory_per_node,
        "partition": allocation.partition,
        "account": allocation.account,
        "output": f"{launch}-%j.log",
        "open-mode": "append",  # an attempt goes on below the last
        "requeue": "",
        "signal": f"B:USR1@{allocation.warning_s}",
    }
    options = [f"{name}={value}" if value != "" else name for name, value in asked.items() if value is not None]
    lines = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in [*options, *allocation.more]), *setup]
    words = " ".join(shlex.quote(word) for word in command)
    lines += [f"VAMOH_ID={shlex.quote(launch)}", f"VAMOH_PYTHON={shlex.quote(python)}", f"VAMOH_COMMAND=({words})"]
    return "\n".join([*lines, "", files("infra.launch").joinpath("slurm.sh").read_text()])


def submit(script: str) -> str:
    """Hand a script to `sbatch`.

    Returns:
        The job's number.

    Raises:
        FileNotFoundError: If there is no Slurm here.
        ValueError: If Slurm refuses it.
    """
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("there is no sbatch here: submit from a login node, or write the script with --dry-run")
    Path("runs", ".launches").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"Slurm refuses the job: {' '.join(done.stderr.split()).removeprefix('sbatch: error: ')}")
    return done.stdout.strip().split(";")[0]
