"""Ask this machine, every node of a Ray, the shared storage and the services around them."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.doctor import findings, services
from infra.doctor.findings import Finding
from infra.doctor.probe import probe

PATIENCE_S = 60.0  # for a node's answer


def examine(address: str | None, shared: Path | None) -> list[Finding]:
    """Look at everything.

    Args:
        address: Of a running Ray; None looks at this machine alone.
        shared: The folder where runs/ will be, which all nodes must see.
    """
    mark = uuid.uuid4().hex[:12]
    with _marked(shared, mark) as refused:
        driver = probe()
        nodes: list[dict[str, Any]] = []
        cluster: list[Finding] = []
        if address is not None:
            nodes, skews, lost = _ask_nodes(address, None if refused else shared, mark)
            cluster += lost
            if nodes:
                cluster += [*findings.parity(driver, nodes), findings.clocks(skews)]
        if shared is not None and not refused:
            asked = nodes or [probe(str(shared), mark)]
            seen = len(list(shared.glob(f".vamoh-doctor-{mark}-*")))
            cluster.append(findings.storage(str(shared), asked, seen))
        elif refused:
            todo = "make the folder, writable for this user"
            cluster.append(Finding(name="shared storage", state="fail", said=f"{shared}: {refused}", todo=todo))
    around = [*services.mlflow(), services.token(), services.upload(Path("."))]
    return [*findings.machine([driver, *nodes]), *cluster, *around]


@contextmanager
def _marked(shared: Path | None, mark: str) -> Iterator[str]:
    """Leave a mark in the shared folder for the nodes to see; yields why that could not be done."""
    if shared is None:
        yield ""
        return
    try:
        (shared / f".vamoh-doctor-{mark}").touch()
    except OSError as error:
        yield error.strerror or str(error)
        return
    try:
        yield ""
    finally:
        for path in shared.glob(f".vamoh-doctor-{mark}*"):
            with suppress(FileNotFoundError):
                path.unlink()


def _ask_nodes(
    address: str, shared: Path | None, mark: str
) -> tuple[list[dict[str, Any]], dict[str, float], list[Finding]]:
    """What each node says of itself, how far its clock is from ours in seconds, and what went wrong."""
    import ray
    from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name, begun_here = "Ray", not ray.is_initialized()
    try:
        if begun_here:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        said = f"{address} cannot be joined: {' '.join(str(error).split())[:200]}"
        return (
            [],
            {},
            [Finding(name=name, state="fail", said=said, todo="see that it runs, and that the token is its own")],
        )
    told, skews, lost = [], {}, []
    try:
        asked = ray.remote(num_cpus=0, max_retries=0)(probe)
        alive = [node for node in ray.nodes() if node["Alive"]]
        for node in alive:
            place = asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            try:
                ray.get(place.remote(), timeout=PATIENCE_S)  # starts the process there, so that the next is quick
                before = time.time()
                answer = ray.get(place.remote(None if shared is None else str(shared), mark), timeout=PATIENCE_S)
                after = time.time()
            except (RayError, GetTimeoutError) as error:
                said = f"{node['NodeManagerAddress']} does not answer: {str(error).strip().splitlines()[-1][:200]}"
                lost.append(Finding(name=name, state="fail", said=said, todo="see that vamoh is installed there"))
                continue
            answer["host"] = f"{answer['host']} ({node['NodeManagerAddress']})"
            told.append(answer)
            skews[answer["host"]] = max(0.0, abs(answer["clock"] - (before + after) / 2) - (after - before) / 2)
        if not lost:
            lost.append(Finding(name=name, state="ok", said=f"{len(alive)} nodes at {address} answer"))
    finally:
        if begun_here:
            ray.shutdown()
    return told, skews, lost


def ray_address(given: str | None) -> str | None:
    """The Ray that is meant: the one given, else RAY_ADDRESS, else none."""
    return given or os.environ.get("RAY_ADDRESS") or None
