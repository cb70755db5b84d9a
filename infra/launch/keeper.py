"""`python -m infra.launch.keeper`: the process that holds a Ray of several nodes on this machine.

It reads one line of JSON, `{"folder": ..., "nodes": N, "cpus": C, "dashboard": bool}`, starts the nodes, answers with a
line of JSON, and holds them until its input ends. The input is a pipe from the launcher, so it ends when the launcher
does, however that comes about. As Linux makes it the parent of every orphan below it, it can then end them all.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_SET_CHILD_SUBREAPER = 36  # of Linux' prctl
_MEMORY = 256 * 2**20  # bytes of each node's object store: training passes nothing large through it


def main() -> None:
    """Hold the nodes that the first line of the input asks for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    adopt_orphans()
    asked = json.loads(sys.stdin.readline())
    folder = Path(asked["folder"])
    try:
        print(json.dumps(_start(folder, asked["nodes"], asked["cpus"], asked["dashboard"])), flush=True)
        sys.stdin.read()
    finally:
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # Ray's own ways to end would look for the processes that are gone


def _start(folder: Path, nodes: int, cpus: int, dashboard: bool) -> dict[str, str]:
    from ray.cluster_utils import Cluster

    given: dict[str, Any] = {"node_ip_address": "127.0.0.1", "num_cpus": cpus, "object_store_memory": _MEMORY}
    head = {"temp_dir": str(folder), "include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=given | head)
    for _ in range(nodes - 1):
        cluster.add_node(**given)
    return {"address": cluster.address, "dashboard": cluster.webui_url if dashboard else ""}


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> None:
    """Kill every process below this one; what is orphaned meanwhile becomes a child of this one, and is killed too."""
    import ray  # noqa: F401 - psutil lies within it
    import psutil  # type: ignore[import-untyped,unused-ignore]  # isort: skip

    while True:
        alive = 0
        for each in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if each.status() != psutil.STATUS_ZOMBIE:
                    each.kill()
                    alive += 1
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main()
