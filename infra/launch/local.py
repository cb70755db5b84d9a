"""A Ray of several nodes on this machine, for as long as a block lasts.

Each node is what it would be on a machine of its own: a raylet with its agents and workers. All of them listen on the
loopback interface only, and answer whoever gives this cluster's own token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.training.cluster import LOOPBACK
from pipelines.training.token import MODE, PATH, VALUE, write_token

PATIENCE_S = 60.0  # until the nodes are gone


@dataclass(frozen=True, kw_only=True)
class LocalCluster:
    """Where it is.

    Attributes:
        address: Of Ray, for drivers.
        dashboard: Of Ray's Jobs API, host:port; empty without one.
        token: The file that holds its token.
    """

    address: str
    dashboard: str
    token: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be served by this cluster, and to listen on the loopback interface only."""
        return {"RAY_ADDRESS": self.address, MODE: "token", PATH: str(self.token), **LOOPBACK}


def cpus_per_node(nodes: int) -> int:
    """This machine's processors shared by so many nodes, at least one each."""
    return max(1, (os.cpu_count() or 1) // nodes)


@contextmanager
def local_cluster(nodes: int, *, cpus: int | None = None, dashboard: bool = False) -> Iterator[LocalCluster]:
    """Start nodes on this machine, and end every process of them after the block, or when this process ends.

    Args:
        nodes: How many; the first is Ray's head too.
        cpus: That each may use; by default its share of this machine's.
        dashboard: Whether to serve the Jobs API.

    Raises:
        ValueError: If there would be no node.
        OSError: If they do not start.
    """
    if nodes < 1 or (cpus is not None and cpus < 1):
        raise ValueError(f"a cluster has at least one node with one processor, got --nodes {nodes}")
    folder = Path(tempfile.mkdtemp(prefix="vamoh-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    token = folder / "token"
    write_token(token)
    asked = {"folder": str(folder), "nodes": nodes, "cpus": cpus or cpus_per_node(nodes), "dashboard": dashboard}
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", VALUE)}
    log = (folder / "keeper.log").open("wb")
    keeper = subprocess.Popen(
        [sys.executable, "-m", "infra.launch.keeper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # a Ctrl-C is the launcher's to handle
        env=environment | {MODE: "token", PATH: str(token), "PYTHONPATH": _import_path()} | LOOPBACK,
    )
    try:
        assert keeper.stdin is not None and keeper.stdout is not None
        keeper.stdin.write(json.dumps(asked) + "\n")
        keeper.stdin.flush()
        answer = keeper.stdout.readline()
        if not answer:
            said = (folder / "keeper.log").read_text(errors="replace").strip() if folder.exists() else ""
            raise OSError(f"the cluster did not start: {said.splitlines()[-1] if said else 'Ray said nothing'}")
        yield LocalCluster(token=token, **json.loads(answer))
    finally:
        log.close()
        _end(keeper)


def _end(keeper: subprocess.Popen[str]) -> None:
    """Have the keeper end the nodes and itself, whatever comes meanwhile."""
    assert keeper.stdin is not None and keeper.stdout is not None
    keeper.stdin.close()
    while True:
        try:
            keeper.wait(PATIENCE_S)
            break
        except KeyboardInterrupt:  # it is ending already
            continue
    keeper.stdout.close()


def _import_path() -> str:
    """Where processes that are started elsewhere find this program, installed or not."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
