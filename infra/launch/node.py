"""`python -m infra.launch.node FOLDER`: a node's part of the Ray of one Slurm job, until the job's driver is done.

The first task starts Ray's head and writes its address to FOLDER/head, the others join it; all of them see the folder.
They end when FOLDER/done is there. A SIGTERM is for the driver: Ray stays until it has saved.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infra.launch.keeper import adopt_orphans, end_descendants
from pipelines.training.token import write_token

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux' prctl
TRIES = 5  # to join: a node that the head has given up on (a network that was away) comes back as a new one


def main(arguments: Sequence[str]) -> int:
    """Start a node, or with `--token` write the job's token, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.launch.node")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--token", action="store_true", help="write a fresh token to FOLDER/token, and end")
    given = parser.parse_args(list(arguments))
    if given.token:
        write_token(given.folder / "token")
        return 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    adopt_orphans()
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    local = tempfile.mkdtemp(prefix=f"vamoh-{os.environ.get('SLURM_JOB_ID', '')}-", dir="/tmp")
    done = given.folder / "done"
    try:
        for _ in range(1 if first else TRIES):
            _hold(given.folder, local, first)
            if done.exists():
                return 0
            end_descendants()
        said = (Path(local) / "ray.log").read_text(errors="replace").strip().splitlines()
        _publish(given.folder / "failed", f"Ray ended on {socket.gethostname()}: {said[-1] if said else 'no word'}")
        return 1
    finally:
        end_descendants()
        shutil.rmtree(local, ignore_errors=True)


def _hold(folder: Path, local: str, first: bool) -> None:
    """Start this node's Ray, and return when the job is done, or Ray ended before."""
    head, done, address = folder / "head", folder / "done", own_address(os.environ)
    if not first:
        _wait(lambda: head.exists() or done.exists())
    if done.exists():
        return
    port = free_port()
    where = f"{address}:{port}" if first else head.read_text()
    ray = _start(ray_start(os.environ, address, head=where, local=local, first=first), local)
    if first:
        _wait(lambda: listens(address, port) or ray.poll() is not None)
        if ray.poll() is None:
            _publish(head, where)
    _wait(lambda: done.exists() or ray.poll() is not None)


def ray_start(environment: Mapping[str, str], address: str, *, head: str, local: str, first: bool) -> list[str]:
    """The `ray start` of a node.

    Args:
        environment: Slurm's: SLURM_CPUS_ON_NODE, and SLURM_GPUS_ON_NODE where there are any.
        address: This node's.
        head: The head's, host:port.
        local: A folder of this node with a short name: a socket's path has at most 107 bytes.
        first: Whether this is the head.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={address}", f"--num-cpus={environment.get('SLURM_CPUS_ON_NODE', os.cpu_count())}"]
    command += [f"--num-gpus={environment.get('SLURM_GPUS_ON_NODE', '0')}"]
    if first:
        port = head.rpartition(":")[2]
        return [*command, "--head", f"--port={port}", f"--temp-dir={local}", "--include-dashboard=false",
                f"--ray-client-server-port={free_port()}"]  # fmt: skip
    return [*command, f"--address={head}"]


def own_address(environment: Mapping[str, str]) -> str:
    """The address at which the other nodes find this one: loopback where there are none."""
    if environment.get("SLURM_JOB_NUM_NODES") == "1":
        return "127.0.0.1"
    try:
        return socket.gethostbyname(environment.get("SLURMD_NODENAME", ""))
    except OSError:
        from ray.util import get_node_ip_address

        return str(get_node_ip_address())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def _start(command: Sequence[str], local: str) -> subprocess.Popen[bytes]:
    def die_with_parent() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)

    with (Path(local) / "ray.log").open("wb") as log:
        # A session of its own: where Slurm signals process groups, Ray is not told to end while the driver saves.
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _publish(path: Path, text: str) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.rename(path)


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
