"""What the answers of nodes and services mean: a line each, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
Told = Mapping[str, Any]

_GIB = 2**30
LEAST = {"disk": (2 * _GIB, 20 * _GIB), "shm": (64 * 2**20, 2 * _GIB), "files": (1024, 4096)}  # fail below, warn below
SKEW_S = (0.5, 5.0)  # warn above, fail above


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line.

    Attributes:
        name: What was looked at.
        state: Whether it is as it should be.
        said: How it is.
        todo: What to do; empty where it is well.
    """

    name: str
    state: State
    said: str
    todo: str = ""


def machine(told: Sequence[Told]) -> list[Finding]:
    """Python, GPUs, disk, shared memory and open files of all nodes; the first is the driver's machine."""
    found = [_python(told[0]), _gpus(told)]
    for name, title, todo in (
        ("disk", "free disk in /tmp", "free some, or have Ray write elsewhere: RAY_TMPDIR"),
        (
            "shm",
            "free /dev/shm",
            "give the container more (--shm-size, an emptyDir in memory): objects would go to disk",
        ),
        ("files", "open files", "raise the limit: ulimit -n 65536"),
    ):
        found.append(_least(told, name, title, todo))
    return found


def parity(driver: Told, nodes: Sequence[Told]) -> list[Finding]:
    """Whether every node has the driver's Python, libraries and code."""
    found = []
    for name, state in (("python", "fail"), ("ray", "fail"), ("torch", "fail"), ("code", "fail"), ("numpy", "warn")):
        others = sorted({f"{node.get(name)} on {node['host']}" for node in nodes if node.get(name) != driver.get(name)})
        title = f"same {'vamoh' if name == 'code' else name} on all nodes"
        if others:
            todo = "give all nodes the image or the environment of the driver"
            said = f"{driver.get(name)} here, {', '.join(others)}"
            found.append(Finding(name=title, state="fail" if state == "fail" else "warn", said=said, todo=todo))
        else:
            found.append(Finding(name=title, state="ok", said=str(driver.get(name))))
    return found


def clocks(skews: Mapping[str, float]) -> Finding:
    """How far the nodes' clocks are from the driver's, in seconds."""
    host, skew = max(skews.items(), key=lambda item: abs(item[1]))
    state: State = "fail" if abs(skew) > SKEW_S[1] else "warn" if abs(skew) > SKEW_S[0] else "ok"
    todo = "" if state == "ok" else f"set the clock of {host} (chrony, ntp): logs and tokens would be out of order"
    return Finding(name="clocks", state=state, said=f"at most {abs(skew):.2f} s apart", todo=todo)


def storage(folder: str, nodes: Sequence[Told], seen_here: int) -> Finding:
    """Whether all nodes see and write a folder; `seen_here` counts the files of theirs that the driver sees."""
    name = "shared storage"
    blind = sorted({str(node["host"]) for node in nodes if not node["sees"]})
    refused = sorted({f"{node['host']} ({node['writes']})" for node in nodes if node["writes"]})
    if blind or refused:
        said = f"{folder} is not seen by {', '.join(blind)}" if blind else f"not writable on {', '.join(refused)}"
        return Finding(
            name=name, state="fail", said=said, todo="mount one file system on all nodes, writable for this user"
        )
    if seen_here < len(nodes):
        return Finding(
            name=name,
            state="fail",
            said=f"{seen_here} of {len(nodes)} nodes' files in {folder} are seen here",
            todo="mount one file system on all nodes; each has a folder of its own there now",
        )
    return Finding(name=name, state="ok", said=f"{folder}: written by {len(nodes)} nodes, and seen")


def _python(told: Told) -> Finding:
    versions = f"Python {told['python']}, Ray {told.get('ray')}, torch {told.get('torch')}, vamoh {told['code']}"
    if tuple(map(int, told["python"].split(".")[:2])) < (3, 11):
        return Finding(name="program", state="fail", said=versions, todo="vamoh needs Python 3.11 or newer")
    return Finding(name="program", state="ok", said=versions)


def _gpus(told: Sequence[Told]) -> Finding:
    name, gpus = "GPUs", sum(node["gpus"] for node in told)
    for node in told:
        if node["driver"] and not node["gpus"]:
            said = f"{node['host']} has NVIDIA's driver, and torch {node.get('torch')} sees no GPU"
            return Finding(
                name=name, state="warn", said=said, todo="install a torch with CUDA that the driver supports"
            )
        if node["gpus"] and node["nccl"] is None:
            todo = "install a torch with NCCL: workers on several GPUs would talk through the processors"
            return Finding(name=name, state="warn", said=f"no NCCL on {node['host']}", todo=todo)
    if not gpus:
        return Finding(name=name, state="ok", said="none: training runs on processors")
    with_gpu = next(node for node in told if node["gpus"])
    bf16 = all(node["bf16"] for node in told if node["gpus"])
    said = f"{gpus}, CUDA {with_gpu['cuda']}, NCCL {with_gpu['nccl']}, bf16 {'yes' if bf16 else 'no'}"
    todo = "" if bf16 else "leave training.precision at float32"
    return Finding(name=name, state="ok" if bf16 else "warn", said=said, todo=todo)


def _least(told: Sequence[Told], name: str, title: str, todo: str) -> Finding:
    known = [node for node in told if node[name] is not None]
    if not known:
        return Finding(name=title, state="ok", said="not on this system")
    worst = min(known, key=lambda node: node[name])
    fails, warns = LEAST[name]
    state: State = "fail" if worst[name] < fails else "warn" if worst[name] < warns else "ok"
    amount = f"{worst[name]}" if name == "files" else f"{worst[name] / _GIB:.1f} GiB"
    where = "" if len(told) == 1 else f" on {worst['host']}"
    return Finding(name=title, state=state, said=f"{amount}{where}", todo="" if state == "ok" else todo)
