"""`vamoh doctor`: each line with what is right and what is wrong, and a real Ray."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from infra.doctor import findings, services
from infra.doctor.probe import fingerprint, probe
from tests.infra.launch.conftest import vamoh as in_its_own_process

GIB = 2**30


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return probe()


def states(found: list[findings.Finding]) -> dict[str, str]:
    return {each.name: each.state for each in found}


def test_a_machine_says_what_it_has(told: dict[str, Any]) -> None:
    assert told["code"] == fingerprint() and len(told["code"]) == 12
    assert {"program", "GPUs", "free disk in /tmp", "free /dev/shm", "open files"} == states(
        findings.machine([told])
    ).keys()


@pytest.mark.parametrize(
    ("changed", "name", "state", "todo"),
    [
        ({"disk": 1 * GIB}, "free disk in /tmp", "fail", "RAY_TMPDIR"),
        ({"disk": 9 * GIB}, "free disk in /tmp", "warn", "RAY_TMPDIR"),
        ({"shm": 2**20}, "free /dev/shm", "fail", "--shm-size"),
        ({"shm": None}, "free /dev/shm", "ok", ""),
        ({"files": 256}, "open files", "fail", "ulimit"),
        ({"python": "3.10.4"}, "program", "fail", "3.11"),
        ({"driver": True, "gpus": 0}, "GPUs", "warn", "torch with CUDA"),
        ({"gpus": 2, "cuda": "13.0", "nccl": None, "bf16": True}, "GPUs", "warn", "NCCL"),
        ({"gpus": 2, "cuda": "13.0", "nccl": "2.29.1", "bf16": True}, "GPUs", "ok", ""),
        ({"gpus": 2, "cuda": "13.0", "nccl": "2.29.1", "bf16": False}, "GPUs", "warn", "float32"),
    ],
)
def test_what_a_machine_lacks_is_found(changed: dict[str, Any], name: str, state: str, todo: str, told) -> None:
    healthy = {**told, "disk": 99 * GIB, "shm": 9 * GIB, "files": 65536}
    (found,) = (each for each in findings.machine([{**healthy, **changed}, healthy]) if each.name == name)
    assert found.state == state
    assert todo in found.todo


def test_a_node_with_other_libraries_or_other_code_is_named(told: dict[str, Any]) -> None:
    assert set(states(findings.parity(told, [told])).values()) == {"ok"}
    for name, state in (("ray", "fail"), ("torch", "fail"), ("code", "fail"), ("python", "fail"), ("numpy", "warn")):
        other = {**told, "host": "n7", name: "0.0.1"}
        (found,) = (each for each in findings.parity(told, [told, other]) if each.state != "ok")
        assert (found.state, "0.0.1 on n7" in found.said) == (state, True)


def test_a_clock_that_is_off_is_found() -> None:
    assert findings.clocks({"n1": 0.01, "n2": 0.2}).state == "ok"
    assert findings.clocks({"n1": 0.01, "n2": 2.0}).state == "warn"
    found = findings.clocks({"n1": 0.01, "n2": 60.0})
    assert (found.state, "n2" in found.todo) == ("fail", True)


def test_storage_that_is_not_shared_is_found() -> None:
    good = {"host": "n1", "sees": True, "writes": ""}
    assert findings.storage("/s", [good, good], 2).state == "ok"
    assert "not seen by n1" in findings.storage("/s", [{**good, "sees": False}], 1).said
    assert "n1 (Read-only file system)" in findings.storage("/s", [{**good, "writes": "Read-only file system"}], 0).said
    assert findings.storage("/s", [good, good], 1).state == "fail"


@pytest.mark.parametrize(
    ("uri", "state", "said"),
    [
        ("http://127.0.0.1:9", "fail", "127.0.0.1:9 does not answer"),
        ("http://ann:planted@127.0.0.1:9", "fail", "holds a password"),
        ("", "ok", "none yet"),
    ],
)
def test_an_mlflow_that_cannot_be_used_is_found(uri: str, state: str, said: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (found,) = services.mlflow()
    assert found.state == state
    assert said in found.said and "planted" not in found.said + found.todo


def test_a_database_with_the_schema_of_another_mlflow_is_found(monkeypatch, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("create table alembic_version (version_num varchar(32))")
        database.execute("insert into alembic_version values ('451aebb31d03')")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/old.db")
    (found,) = services.mlflow()
    assert (found.state, "schema 451aebb31d03" in found.said) == ("fail", True)
    assert "mlflow db upgrade" in found.todo


def test_a_token_that_others_can_read_fails_and_so_does_the_command(monkeypatch, tmp_path: Path, vamoh) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("0" * 64)
    for mode, state, code in ((0o644, "fail", 3), (0o600, "ok", 0)):
        (tmp_path / "token").chmod(mode)
        done = vamoh("doctor", "--json", "--shared", tmp_path)
        found = {each["name"]: each for each in json.loads(done.out)}
        assert (found["token"]["state"], done.code) == (state, code), done.out
        assert (found["token"]["todo"] == f"chmod 600 {tmp_path / 'token'}") == (mode == 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token"]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert services.token().state == "fail"


@pytest.mark.ray
@pytest.mark.cluster
def test_every_node_of_a_real_ray_is_asked(cluster, workplace: Path, tmp_path: Path) -> None:
    done = in_its_own_process(workplace, "doctor", "--json", "--shared", tmp_path, **cluster.environment)
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    for name in (
        "Ray",
        "same ray on all nodes",
        "same vamoh on all nodes",
        "clocks",
        "shared storage",
        "token",
        "upload",
    ):
        assert found[name]["state"] == "ok", found[name]
    assert "1 nodes at 127.0.0.1:" in found["Ray"]["said"]
    assert list(tmp_path.iterdir()) == []
