"""`vamoh launch slurm` in a real Slurm: a controller and two nodes on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.launch.slurm import Allocation, batch_script
from tests.infra.launch.conftest import processes, until, vamoh

DAEMONS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol", "srun")
CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1
MpiDefault=none
ReturnToService=2
KillWait=60
MailProg=/bin/true
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """A Slurm of its own keys and ports; its configuration."""
    missing = [name for name in DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"Slurm is not installed here (no {', '.join(missing)}): make packages")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root here")
    folder = Path(tempfile.mkdtemp(prefix="vamoh-slurm-", dir="/tmp"))
    folder.chmod(0o755)  # munged wants its socket to be reached by everybody
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    path = folder / "slurm.conf"
    controller, first, second = (free_port() for _ in range(3))
    host = socket.gethostname().split(".")[0]
    path.write_text(CONFIG.format(host=host, folder=folder, controller=controller, first=first, second=second))
    munge = {name: folder / f"munge.{name}" for name in ("key", "socket", "pid", "log", "seed")}
    subprocess.run(["mungekey", "-c", "-k", munge["key"]], check=True)
    files = [f"--{name}-file={munge[name]}" for name in ("key", "pid", "log", "seed")] + [f"--socket={munge['socket']}"]
    environment = os.environ | {"SLURM_CONF": str(path), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    daemons = []
    with (folder / "daemons.log").open("wb") as log:
        for command in (
            ["munged", "--foreground", *files],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-N", "n2"],
        ):
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
            until(lambda name=command[0]: name != "munged" or munge["socket"].is_socket(), 30)
    try:
        until(lambda: ask(path, "sinfo", "-h", "-o", "%T %D") == "idle 2", 30, (folder / "daemons.log").read_text)
        yield path
    finally:
        ask(path, "scancel", "--user=root")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def ask(slurm: Path, *command: str) -> str:
    done = subprocess.run(
        command, env=os.environ | {"SLURM_CONF": str(slurm)}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def state(slurm: Path, job: str) -> str:
    told = dict(word.split("=", 1) for word in ask(slurm, "scontrol", "show", "job", job).split() if "=" in word)
    return told.get("JobState", "")


def submitted(slurm: Path, folder: Path, *words: str, mark: str) -> str:
    asked = (
        "launch",
        "slurm",
        "--nodes",
        "2",
        "--time",
        "10:00",
        "--",
        "train",
        "tiny.yaml",
        "--store",
        "store",
        *words,
    )
    done = vamoh(folder, *asked, SLURM_CONF=str(slurm), VAMOH_MARK=mark)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def log(folder: Path, job: str) -> str:
    return "".join(path.read_text() for path in folder.glob(f"train-*-{job}.log"))


@pytest.mark.ray
@pytest.mark.cluster
def test_a_job_that_is_queued_again_goes_on_with_its_run_and_ends(slurm: Path, workplace: Path) -> None:
    settings = ("training.epochs=100", "training.validate_every=20", "training.checkpoint_minutes=0.02")
    long = [word for setting in settings for word in ("--set", setting)]
    job = submitted(slurm, workplace, "--workers", "2", "--name", "again", *long, mark="slurm-again")
    run = workplace / "runs" / "again"
    until((run / "last" / "checkpoint.json").exists, 240, lambda: log(workplace, job))
    (token,) = workplace.glob("runs/.launches/*/token")
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    assert [line for line in processes("slurm-again") if secret in line] == []
    ask(slurm, "scontrol", "requeue", job)
    until(lambda: state(slurm, job) == "PENDING", 90, lambda: log(workplace, job), every=0.5)
    assert "--resume goes on from there" in log(workplace, job), "it was ended before it had saved"
    assert processes("slurm-again") == []
    ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait for two minutes
    until(lambda: state(slurm, job) in ("COMPLETED", "FAILED"), 300, lambda: log(workplace, job), every=0.5)
    assert state(slurm, job) == "COMPLETED", log(workplace, job)
    assert "epoch 100/100" in log(workplace, job)
    assert secret not in log(workplace, job)
    assert not list(workplace.glob("runs/.launches/*/token"))
    assert processes("slurm-again") == []


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.long
def test_a_job_that_is_cancelled_leaves_no_process(slurm: Path, workplace: Path) -> None:
    job = submitted(slurm, workplace, "--name", "cancelled", "--set", "training.epochs=100000", mark="slurm-cancelled")
    until((workplace / "runs" / "cancelled" / "progress.json").exists, 120, lambda: log(workplace, job))
    ask(slurm, "scancel", job)
    until(lambda: not ask(slurm, "squeue", "-h"), 90, lambda: log(workplace, job))
    assert state(slurm, job) == "CANCELLED"
    assert "--resume goes on from there" in log(workplace, job)
    assert processes("slurm-cancelled") == []


def test_what_slurm_refuses_is_said_in_one_line(slurm: Path, workplace: Path) -> None:
    asked = ("launch", "slurm", "--time", "10:00", "--partition", "none", "--", "train", "era5", "--store", "store")
    done = vamoh(workplace, *asked, SLURM_CONF=str(slurm))
    assert done.returncode == 2
    assert "Slurm refuses the job" in done.stderr and "partition" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_script_asks_for_what_was_asked_and_is_shell(tmp_path: Path, vamoh) -> None:
    asked = ("--nodes", "2", "--gpus-per-node", "4", "--time", "8:00:00", "--account", "met", "--sbatch", "qos=high",
             "--setup", "module load cuda", "--dry-run")  # fmt: skip
    done = vamoh("launch", "slurm", *asked, "--", "train", "era5", "--store", "a b.zarr", "--workers", "8")
    assert done.code == 0
    assert done.out.startswith("#!/bin/bash\n#SBATCH --job-name=train-")
    lines = done.out.splitlines()
    for line in ("nodes=2", "ntasks-per-node=1", "gpus-per-node=4", "time=8:00:00", "account=met", "requeue",
                 "signal=B:USR1@120", "qos=high"):  # fmt: skip
        assert f"#SBATCH --{line}" in lines, line
    assert "--store 'a b.zarr' --workers 8 --name train-" in done.out
    assert lines.index("module load cuda") < next(i for i, line in enumerate(lines) if line.startswith("VAMOH_ID="))
    (tmp_path / "job.sh").write_text(done.out)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time", "soon"), "--time expects Slurm's form"),
        (("--time", "1:00", "--sbatch", "qos=a\n#SBATCH --uid=0"), "--sbatch expects an option of sbatch"),
    ],
)
def test_what_is_no_option_of_slurm_is_refused(options: tuple[str, ...], said: str, vamoh) -> None:
    done = vamoh("launch", "slurm", *options, "--dry-run", "--", "train", "era5", "--store", "a")
    assert done.code == 2
    assert said in done.err


def test_a_command_is_quoted_for_the_shell(tmp_path: Path) -> None:
    words = ["train", "era5", "--store", "$(touch planted); `x` 'y'", "--name", "a"]
    script = batch_script(words, Allocation(nodes=1, time="1:00"), launch="a", python=sys.executable)
    head = script[: script.index("set -uo pipefail")] + 'printf "%s\\n" "${VAMOH_COMMAND[@]}"\n'
    done = subprocess.run(["bash", "-c", head], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == words
    assert list(tmp_path.iterdir()) == []
