"""`python -m infra.launch.again --id ID [--folder DIR] [--nodes N] -- COMMAND...`: what a launcher has a cluster run.

It runs the command of `vamoh`. If an earlier attempt of the same launch began the run, it goes on where that one
stopped: Slurm and Kubernetes start again what they took the machine from. A run of that name that another launch began
is refused by the command itself, as ever.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from infra.launch.command import NAMED, option

PATIENCE_S = 300.0  # until all nodes have joined


def main(arguments: Sequence[str]) -> int:
    """Run a command, or go on with it.

    Args:
        arguments: What the launcher wrote.

    Returns:
        The command's exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m infra.launch.again")
    parser.add_argument("--id", required=True, help="the launch's, the same for every attempt")
    parser.add_argument("--folder", type=Path, help="where runs/ and mlruns/ go: a folder that every node sees")
    parser.add_argument("--head", type=Path, help="a file that names Ray's head, once it is there")
    parser.add_argument("--nodes", type=int, default=0, help="wait until so many have joined Ray")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(list(arguments))
    words = [word for place, word in enumerate(given.command) if place or word != "--"]
    if given.folder is not None:
        words = _with_absolute_paths(words)
        given.folder.mkdir(parents=True, exist_ok=True)
        os.chdir(given.folder)
    from infra.cli import main as vamoh
    from infra.cli.outcome import outcome_of

    def joined() -> None:
        _join(given.head, given.nodes)

    try:
        if given.nodes and (code := outcome_of(joined, debug=False)):
            return code
        return vamoh(_going_on(words, given.id))
    finally:
        if given.nodes:
            import ray

            ray.shutdown()


def _with_absolute_paths(words: Sequence[str]) -> list[str]:
    """The command for another folder: files that it names here keep being found."""
    found = []
    for word in words:
        name, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
        found.append(f"{name}{equals}{Path(value).absolute()}" if value and Path(value).is_file() else word)
    return found


def _going_on(words: list[str], launch: str) -> list[str]:
    """The command with `--resume` where an earlier attempt of this launch left something to go on from."""
    name = option(words, "--name")
    if words[0] not in NAMED or name is None or "--resume" in words:
        return words
    run, mark = Path("runs", name), Path("runs", ".launches", name)
    if not (mark.exists() and mark.read_text() == launch):
        if not run.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(launch)
        return words
    if _can_go_on(run):
        return [*words, "--resume"]
    _forget(run)
    return words


def _can_go_on(run: Path) -> bool:
    from pipelines.training.folder import RunFolder
    from tuning.record import FILE

    if RunFolder(run).described.exists():
        RunFolder(run).recover()
    return RunFolder(run).has_checkpoint or (run / FILE).exists()


def _forget(run: Path) -> None:
    """Remove what an attempt left that was stopped before its first checkpoint."""
    from pipelines.training.tracking import Tracking

    with suppress(FileNotFoundError):
        told = json.loads((run / "run.json").read_text())
        Tracking(told["tracking_uri"], told["run_id"]).finish("KILLED")
    shutil.rmtree(run, ignore_errors=True)


def _join(head: Path | None, nodes: int) -> None:
    """Connect to Ray, and wait for its nodes.

    Raises:
        OSError: If they do not come in time.
    """
    patience = time.monotonic() + PATIENCE_S
    while head is not None and not head.exists():
        _check(head, patience)
        time.sleep(0.2)
    if head is not None:
        os.environ["RAY_ADDRESS"] = head.read_text()
    import logging

    import ray

    ray.init(os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)
    while (here := sum(node["Alive"] for node in ray.nodes())) < nodes:
        _check(head, patience, f"{here} of {nodes} nodes are there")
        time.sleep(0.2)


def _check(head: Path | None, patience: float, so_far: str = "there is no head") -> None:
    failed = None if head is None else head.with_name("failed")
    if failed is not None and failed.exists():
        raise OSError(failed.read_text())
    if time.monotonic() > patience:
        raise OSError(f"Ray did not start within {PATIENCE_S:.0f} s: {so_far}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
