"""`vamoh launch local`: a real Ray of several nodes, and no process of it afterwards."""

import os
import re
import signal
import stat
import time
import uuid
from pathlib import Path

import pytest

from infra.launch.local import LocalCluster
from tests.infra.launch.conftest import MARK, end, processes, start, until

pytestmark = [pytest.mark.ray, pytest.mark.cluster]


def listening(pids: set[str]) -> set[str]:
    """The addresses, in hexadecimal, at which these processes wait for connections."""
    sockets = set()
    for pid in pids:
        for number in Path("/proc", pid, "fd").iterdir():
            try:
                sockets.add(os.readlink(number))
            except OSError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].rpartition(":")[0])
    return found


def pids(mark: str) -> set[str]:
    return {each.name for each in Path("/proc").iterdir() if each.name.isdigit() and _marked(each, mark)}


def _marked(process: Path, mark: str) -> bool:
    try:
        return mark.encode() in (process / "environ").read_bytes()
    except OSError:
        return False


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_two_nodes_train_together_tell_no_secret_and_leave_no_process(workplace: Path) -> None:
    mark, planted = str(uuid.uuid4()), f"planted-{uuid.uuid4().hex}"
    secrets = {name: planted for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "GITHUB_TOKEN")}
    words = ("train", "tiny.yaml", "--store", "store", "--workers", "2", "--name", "local")
    launched = start(workplace, "launch", "local", "--nodes", "2", "--", *words, VAMOH_MARK=mark, **secrets)
    logs: dict[Path, bytes] = {}
    said, token = "", ""
    try:
        assert launched.stdout is not None
        said = launched.stdout.readline()
        assert "2 nodes at 127.0.0.1:" in said
        folder = token_folder(mark)
        token = (folder / "token").read_text()
        while launched.poll() is None:
            assert [line for line in processes(mark) if planted in line or token in line] == []
            logs |= {path: content(path) for path in folder.glob("session_*/logs/**/*") if path.is_file()}
            time.sleep(0.5)
        said += launched.stdout.read()
    finally:
        end(launched)
    assert launched.returncode == 0, said
    assert processes(mark) == []
    assert not folder.exists()
    assert (workplace / "runs" / "local" / "best" / "checkpoint.json").is_file()
    assert len(logs) > 10
    kept = {path: content(path) for place in ("runs", "mlruns") for path in (workplace / place).rglob("*")}
    for path, text in [*logs.items(), *kept.items(), (Path("output"), said.encode())]:
        assert planted.encode() not in text and token.encode() not in text, path


def token_folder(mark: str) -> Path:
    """Where the cluster of the processes with this mark lies."""
    for pid in pids(mark):
        variables = dict(
            pair.split(b"=", 1) for pair in content(Path("/proc", pid, "environ")).split(b"\0") if b"=" in pair
        )
        if b"RAY_AUTH_TOKEN_PATH" in variables:
            return Path(os.fsdecode(variables[b"RAY_AUTH_TOKEN_PATH"])).parent
    raise AssertionError("no process has the token's path")


def content(path: Path) -> bytes:
    """What is in a file; nothing, if it is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_every_port_is_on_the_loopback_interface_and_the_token_is_the_owners(cluster: LocalCluster) -> None:
    assert stat.S_IMODE(cluster.token.stat().st_mode) == 0o600
    assert cluster.address.startswith("127.0.0.1:") and cluster.dashboard.startswith("127.0.0.1:")
    found = listening(pids(MARK))
    assert found and found <= LOOPBACK, found
    assert [line for line in processes(MARK) if cluster.token.read_text() in line] == []


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long, id="ctrl_c"), pytest.param(signal.SIGKILL, id="kill_9")],
)
def test_no_process_is_left_of_a_launcher_that_is_ended(number: signal.Signals, workplace: Path) -> None:
    mark = str(uuid.uuid4())
    words = ("train", "tiny.yaml", "--store", "store", "--workers", "1", "--name", f"ended-{number}")
    launched = start(workplace, "launch", "local", "--nodes", "2", "--", *words, VAMOH_MARK=mark)
    try:
        assert launched.stdout is not None
        assert "2 nodes at" in launched.stdout.readline()
        assert sum("raylet" in line.split(" ")[0] for line in processes(mark)) == 2
        launched.send_signal(number)
        launched.wait(60)
        until(lambda: not processes(mark), 30, lambda: processes(mark))
        if number == signal.SIGINT:
            assert launched.returncode in (130, -signal.SIGINT)  # a shell calls both 130
    finally:
        end(launched)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "after `--` comes a command of vamoh"),
        (("--", "rm", "-rf", "x"), "after `--` comes a command of vamoh, one of train, .*: got 'rm'"),
        (("--", "train", "era5"), r"Missing option '--store' \(see vamoh train --help\)"),
        (("--", "train", "era5", "--stoer", "x", "--store", "/x"), "No such option: --stoer"),
        (("--", "evaluate", "m", "--store", "s3://ann:secret@host/x"), "a URL with a password"),
    ],
)
@pytest.mark.parametrize("kind", [("local",), ("slurm", "--time", "1:00"), ("job", "--address", "http://h:1")])
def test_what_is_wrong_with_a_command_is_said_before_anything_is_started(
    kind: tuple[str, ...], words: tuple[str, ...], said: str, vamoh
) -> None:
    done = vamoh("launch", *kind, *words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert re.search(said, done.err), done.err


def test_a_dry_run_starts_nothing(vamoh) -> None:
    done = vamoh(
        "launch", "local", "--nodes", "3", "--cpus-per-node", "2", "--dry-run", "--", "train", "a", "--store", "b"
    )
    assert done.code == 0
    assert done.out == "3 nodes with 2 processors each, on 127.0.0.1; in them:\n  vamoh train a --store b\n"
