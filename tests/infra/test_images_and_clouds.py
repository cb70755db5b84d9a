"""The files for clouds and containers, as far as they can be checked where neither is."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
CLOUDS, IMAGES = ROOT / "infra" / "cloud", ROOT / "infra" / "docker"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(params=["aws", "gcp"])
def cloud(request: pytest.FixtureRequest) -> dict[str, Any]:
    return prepare_config(yaml.safe_load((CLOUDS / f"{request.param}.yaml").read_text()))


def test_ray_takes_a_cloud_and_refuses_what_it_does_not_know(cloud: dict[str, Any]) -> None:
    validate_config(cloud)
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(cloud | {"max_wrokers": 1})


def test_a_cloud_has_spot_workers_that_come_and_go_and_asks_for_the_token(cloud: dict[str, Any]) -> None:
    spot = cloud["available_node_types"]["spot"]
    assert (spot["min_workers"], spot["max_workers"], spot["resources"]["GPU"]) == (0, 8, 1)
    assert "spot" in str(spot["node_config"]).lower()
    assert cloud["available_node_types"][cloud["head_node_type"]]["resources"]["CPU"] == 0
    for kind in ("head", "worker"):
        (start,) = (line for line in cloud[f"{kind}_start_ray_commands"] if "ray start" in line)
        assert start.startswith("RAY_AUTH_MODE=token ray start")
    assert "--dashboard-host=127.0.0.1" in cloud["head_start_ray_commands"][-1]
    assert "/home/ray/.ray/auth_token" in cloud["file_mounts"]


@pytest.mark.parametrize("name", ["Dockerfile", "mlflow.Dockerfile"])
def test_all_that_an_image_copies_and_installs_exists(name: str) -> None:
    text = (IMAGES / name).read_text()
    copied = [word for line in re.findall(r"^COPY (.*)", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied and [path for path in copied if not (ROOT / path).exists()] == []
    for group in re.findall(r'"\.\[([a-z,]+)\]"', text):
        assert set(group.split(",")) <= EXTRAS.keys()
    assert re.search(r"^USER 1000$", text, re.MULTILINE), "it runs as root"
    if name == "Dockerfile":
        sent = [line[1:] for line in (IMAGES / f"{name}.dockerignore").read_text().splitlines() if line.startswith("!")]
        assert sorted(sent) == sorted(copied)


def test_the_entry_point_starts_from_a_wheel_in_an_environment_of_its_own(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copied = re.findall(r"^COPY (.*) \S+$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    for path in (ROOT / word for line in copied for word in line.split()):
        if path.is_dir():
            shutil.copytree(path, tree / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(path, tree)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tree]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = tmp_path.glob("vamoh-*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel], check=True
    )
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # Its dependencies are those of this environment, but for the editable vamoh in it.
    (site / "dependencies.pth").write_text(f"{Path(yaml.__file__).parents[1]}\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for words in (
        ["--version"],
        ["launch", "slurm", "--time", "1", "--dry-run", "--", "train", "era5", "--store", "a"],
    ):
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / "vamoh", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "infra.launch.again" in done.stdout
    where = subprocess.run(
        [python, "-c", "import infra; print(infra.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(site) in where.stdout


def test_the_services_use_files_for_passwords_and_answer_on_this_machine_only() -> None:
    services = yaml.safe_load((IMAGES / "compose.yaml").read_text())
    for name, service in services["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert set(service.get("secrets", [])) <= services["secrets"].keys()
        for variable, value in service.get("environment", {}).items():
            assert variable.endswith("_FILE") or not re.search("PASSWORD|SECRET|TOKEN|KEY", variable), variable
            assert "@" not in value
    build = services["services"]["mlflow"]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    assert ".." not in str(services["secrets"])


@pytest.mark.long
def test_the_mlflow_server_lets_in_those_with_a_password(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    password = "planted-" + os.urandom(8).hex()
    (tmp_path / "mlflow_password").write_text(password)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"SECRETS": str(tmp_path), "HOST": "127.0.0.1", "PORT": str(port), "BACKEND": f"sqlite:///{tmp_path}/m.db",
             "AUTH_BACKEND": f"sqlite:///{tmp_path}/auth.db", "ARTIFACTS": str(tmp_path / "artifacts"), "WORKERS": "1",
             "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}  # fmt: skip
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            ["bash", IMAGES / "mlflow-server.sh"],
            env=given,
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        where = f"http://127.0.0.1:{port}"
        patience = time.monotonic() + 120
        while not answers(f"{where}/health"):
            assert server.poll() is None and time.monotonic() < patience, log.read_text()
            time.sleep(0.5)
        asked = f"{where}/api/2.0/mlflow/experiments/search?max_results=1"
        for credentials in ("", "admin:wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request(asked, credentials))
        assert urllib.request.urlopen(request(asked, f"admin:{password}")).status == 200
        assert password not in log.read_text()
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
        assert not any(password.encode() in line for line in lines)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def request(url: str, credentials: str) -> urllib.request.Request:
    from base64 import b64encode

    headers = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"} if credentials else {}
    return urllib.request.Request(url, headers=headers)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False
