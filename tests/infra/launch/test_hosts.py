"""Three hosts with addresses of their own (network namespaces): training across them, one cut off meanwhile.

make packages; .venv/bin/python -m pytest -m long tests/infra/launch/test_hosts.py      # as root
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines.training.folder import Progress
from pipelines.training.token import write_token
from tests.infra.launch.conftest import clean_environment, end, until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.long]

ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
EPOCHS = 80
# Ray's own patience with a host that is silent is half a minute, and a minute for the host itself.
HASTE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Namespaces on one bridge, which lies in a namespace too."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.switch = f"{mark}s"
        self.names = [f"{mark}{number}" for number in range(len(ADDRESSES))]
        self.started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Hosts":
        for name in (self.switch, *self.names):
            ip("netns", "add", name)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("link", "add", name, "netns", self.switch, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self.switch, "link", "set", name, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in (*self.names, self.switch):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def plug(self, number: int, state: str) -> None:
        ip("-n", self.switch, "link", "set", self.names[number], state)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts(f"v{uuid.uuid4().hex[:5]}")
    try:
        made.__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        made.__exit__()
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"no network namespaces here (root, and a kernel with veth and bridge): {said.strip()}")
    yield made
    for process in made.started:
        end(process)
    for pid in (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()):
        try:
            if made.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    made.__exit__()


def run(hosts: Hosts, number: int, folder: Path, *words: str) -> "subprocess.Popen[str]":
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "GLOO_SOCKET_IFNAME": "eth0"}
    given |= HASTE | {"VAMOH_MARK": hosts.mark}
    if "start" not in words:
        given["RAY_ADDRESS"] = f"{ADDRESSES[0]}:6379"
    with (folder / f"host-{number}-{words[1]}.log").open("a") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", hosts.names[number], sys.executable, "-m", *words],
            cwd=folder, env=clean_environment(**given), stdout=log, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
    hosts.started.append(process)
    return process


def ray_start(hosts: Hosts, number: int, folder: Path) -> "subprocess.Popen[str]":
    address = ADDRESSES[number]
    role = ["--head", "--port=6379", f"--temp-dir=/tmp/{hosts.mark}", "--include-dashboard=false"]
    place = role if number == 0 else [f"--address={ADDRESSES[0]}:6379"]
    return run(hosts, number, folder, "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
               "--disable-usage-stats", f"--node-ip-address={address}", *place)  # fmt: skip


def joined(hosts: Hosts, number: int, folder: Path) -> "subprocess.Popen[str]":
    """Start a host's Ray, and wait until it is there."""
    log = folder / f"host-{number}-start.log"
    process = ray_start(hosts, number, folder)
    until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, 60, log.read_text)
    assert process.poll() is None, log.read_text()
    return process


def steps(run_folder: Path) -> int:
    path = run_folder / "progress.json"
    return Progress.from_json(path.read_text()).step if path.exists() else 0


def test_a_host_is_cut_off_in_an_epoch_and_comes_back_and_training_ends_as_if_nothing_had_been(
    hosts: Hosts, workplace: Path
) -> None:
    write_token(workplace / "token")
    settings = ("--set", f"training.epochs={EPOCHS}", "--set", "training.checkpoint_minutes=0.03")
    words = ("train", "tiny.yaml", "--store", "store", *settings)
    nodes = [joined(hosts, number, workplace) for number in range(3)]
    driver = run(hosts, 0, workplace, "infra.cli", *words, "--workers", "3", "--name", "hosts")

    def said() -> str:
        return "\n".join(path.read_text() for path in sorted(workplace.glob("host-*.log")))

    folder = workplace / "runs" / "hosts"
    until(lambda: steps(folder) > 20 and (folder / "last" / "checkpoint.json").exists(), 180, said)
    hosts.plug(2, "down")
    until(lambda: "has been marked dead" in said(), 90, said)
    assert steps(folder) < 2 * EPOCHS and driver.poll() is None, said()
    hosts.plug(2, "up")
    until(lambda: nodes[2].poll() is not None, 90, said)  # its raylet hears that it was given up
    ray_start(hosts, 2, workplace)  # as the host's own supervisor, or infra.launch.node, would
    driver.wait(300)
    assert driver.returncode == 0, said()
    assert f"epoch {EPOCHS}/{EPOCHS}" in said()
    undisturbed = run(hosts, 0, workplace, "infra.cli", *words, "--workers", "3", "--name", "whole")
    undisturbed.wait(300)
    assert undisturbed.returncode == 0, said()
    one, other = (load_file(workplace / "runs" / name / "last" / "model.safetensors") for name in ("hosts", "whole"))
    assert one.keys() == other.keys()
    # Three gradients are summed in another order once the hosts have other ranks: float32's rounding, and no more.
    assert max(float((one[key].double() - other[key].double()).abs().max()) for key in one) < 1e-4
