"""A small store, a run of seconds, and `vamoh` in a process of its own."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from infra.launch.local import LocalCluster, local_cluster
from pipelines.config import load_config
from pipelines.data.climate import ingest
from tests.training.conftest import TINY

MARK = f"cluster-{uuid.uuid4()}"  # in the environment of the cluster's processes
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def workplace(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, the globe at 12 degrees, and `tiny.yaml`, which trains on it in a second."""
    folder = tmp_path_factory.mktemp("launch")
    ingest(era5_sample, folder / "store", every=12)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(load_config("downscale", TINY).model_dump(mode="json")))
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A Ray of one node with the Jobs API."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAMOH_MARK", MARK)
        manager = local_cluster(1, cpus=2, dashboard=True)
        started = manager.__enter__()
    yield started
    manager.__exit__(None, None, None)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's, as a user's shell would have it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "VAMOH_"))}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | changes


def vamoh(folder: Path, *words: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *map(str, words)],
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def start(folder: Path, *words: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """Start the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "infra.cli", *map(str, words)],
        cwd=folder,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as a terminal's child has it
    )


def until(
    condition: Callable[[], object],
    seconds: float = 120.0,
    said: Callable[[], object] = lambda: "",
    every: float = 0.1,
) -> None:
    """Wait for it; `every` so many seconds it is asked for."""
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience, f"it takes too long: {said()}"
        time.sleep(every)


def processes(mark: str) -> list[str]:
    """The command lines of living processes with this word in their environment or command line, this one apart."""
    found = []
    for each in Path("/proc").iterdir():
        if not each.name.isdigit() or each.name == str(os.getpid()):
            continue
        try:
            told = (each / "environ").read_bytes() + b"\0" + (each / "cmdline").read_bytes()
            if mark.encode() in told and (each / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append((each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def end(process: "subprocess.Popen[str]") -> None:
    """End a process that a test started, whatever became of the test."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()
