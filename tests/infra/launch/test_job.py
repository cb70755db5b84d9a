"""`vamoh launch job` on a real Ray with its Jobs API: what travels, what comes back, and who is let in."""

import json
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from infra.launch.job import environment
from infra.launch.local import LocalCluster
from infra.launch.package import LIMIT, collect, write_package
from tests.infra.launch.conftest import until, vamoh


def at(cluster: LocalCluster, token: Path | None = None) -> tuple[str, ...]:
    return "--address", f"http://{cluster.dashboard}", "--token-file", str(token or cluster.token)


@pytest.mark.ray
@pytest.mark.cluster
def test_a_job_trains_streams_its_log_and_ends_with_its_exit_code(cluster, workplace: Path) -> None:
    options = ("--python", sys.executable, "--shared", workplace / "shared", "--working-dir", workplace)
    words = ("train", "tiny.yaml", "--store", workplace / "store", "--workers", "1", "--name", "job")
    done = vamoh(workplace, "launch", "job", *at(cluster), *options, "--name", "first", "--", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "packed 0." in done.stderr and "epoch 4/4" in done.stdout
    assert (workplace / "shared" / "runs" / "job" / "best" / "checkpoint.json").is_file()
    again = vamoh(workplace, "launch", "job", *at(cluster), *options, "--name", "second", "--", *words)
    assert again.returncode == 2
    assert "a run named job exists already" in again.stdout
    told = json.loads(vamoh(workplace, "launch", "status", "second", "--json", *at(cluster)).stdout)
    assert (told["status"], told["exit_code"]) == ("FAILED", 2)
    assert "a run named job exists" in vamoh(workplace, "launch", "logs", "second", *at(cluster)).stdout


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.long
def test_a_job_that_is_stopped_saves_its_run(cluster, workplace: Path) -> None:
    options = ("--python", sys.executable, "--shared", workplace / "shared", "--no-wait", "--name", "long")
    words = ("train", "tiny.yaml", "--store", workplace / "store", "--name", "long", "--set", "training.epochs=100000")
    done = vamoh(workplace, "launch", "job", *at(cluster), *options, "--", *words)
    assert (done.returncode, done.stdout) == (0, "long\n"), done.stderr
    progress = workplace / "shared" / "runs" / "long" / "progress.json"
    until(progress.exists)
    assert "is told to save and end" in vamoh(workplace, "launch", "stop", "long", *at(cluster)).stdout
    ended = vamoh(workplace, "launch", "logs", "-f", "long", *at(cluster))
    assert ended.returncode == 143
    assert "--resume goes on from there" in ended.stdout
    assert (workplace / "shared" / "runs" / "long" / "last" / "checkpoint.json").is_file()


@pytest.mark.ray
@pytest.mark.cluster
def test_a_submission_without_the_token_gets_401(cluster, workplace: Path) -> None:
    asked = json.dumps({"entrypoint": "true"}).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(
            f"http://{cluster.dashboard}/api/jobs/", asked, {"Content-Type": "application/json", **headers}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code in (401, 403), headers
    unauthenticated = urllib.request.Request(f"http://{cluster.dashboard}/api/jobs/", asked)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(unauthenticated)
    wrong = workplace / "wrong-token"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    done = vamoh(workplace, "launch", "stop", "any", *at(cluster, wrong))
    assert done.returncode == 2
    assert "does not take the token" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_token_that_others_can_read_is_refused(tmp_path: Path, vamoh) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    token.chmod(0o644)
    done = vamoh("launch", "status", "any", "--address", "http://127.0.0.1:1", "--token-file", token)
    assert (done.code, done.err) == (2, f"vamoh: error: others can read the token in {token}: chmod 600 {token}\n")


def test_a_cluster_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    token.chmod(0o600)
    done = vamoh(tmp_path, "launch", "status", "any", "--address", "http://127.0.0.1:1", "--token-file", token)
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr and len(done.stderr.splitlines()) == 1


def test_history_data_and_secrets_stay_and_the_program_travels(tmp_path: Path) -> None:
    left = (
        ".git/config",
        "runs/a/best/model.safetensors",
        "uk.zarr/zarr.json",
        "era5.nc",
        ".env",
        "id_rsa",
        "a/b.grib",
    )
    for name in (*left, "mine.yaml", "notes/plan.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    package = collect(tmp_path, exclude=["notes"])
    assert not {*left, "link", "notes/plan.md"} & set(package.files)
    assert {"mine.yaml", "infra/launch/slurm.sh", "pipelines/presets/era5.yaml"} <= set(package.files)
    assert "era5.nc" in collect(tmp_path, include=["era5.nc"]).files
    size = write_package(package, tmp_path / "one.zip")
    write_package(package, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert size == (tmp_path / "one.zip").stat().st_size < 2 * 2**20
    assert set(zipfile.ZipFile(tmp_path / "one.zip").namelist()) == set(package.files)


def test_a_package_that_ray_would_not_take_is_refused_before_it_is_sent(tmp_path: Path, monkeypatch, vamoh) -> None:
    import os

    monkeypatch.setattr("infra.launch.package.LIMIT", 2**20)
    assert LIMIT == 100 * 2**20
    (tmp_path / "large.bin").write_bytes(os.urandom(2**20))
    (tmp_path / "token").touch(mode=0o600)
    asked = ("--address", "http://127.0.0.1:1", "--dry-run", "--", "train", "a", "--store", "s3://a/b")
    done = vamoh("launch", "job", *asked)
    assert done.code == 2
    assert "Ray takes 1.0 MiB: leave files out with --exclude (the largest: large.bin" in done.err
    assert vamoh("launch", "job", "--exclude", "*.bin", *asked).code == 0


def test_a_store_of_this_machine_is_no_store_of_a_cluster(vamoh) -> None:
    done = vamoh("launch", "job", "--address", "http://h:1", "--dry-run", "--", "train", "era5", "--store", "uk.zarr")
    assert done.code == 2
    assert "--store uk.zarr is a path on this machine" in done.err


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "planted"),
        ("MLFLOW_TRACKING_PASSWORD=planted", ""),
        ("WHERE=http://ann:planted@host", ""),
    ],
)
def test_a_secret_is_kept_out_of_a_jobs_environment(asked: str, value: str, monkeypatch) -> None:
    monkeypatch.setenv(asked.partition("=")[0], value)
    with pytest.raises(ValueError, match="is secret") as refused:
        environment([asked])
    assert "planted" not in str(refused.value)


def test_a_job_is_told_where_mlflow_is(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert environment(["A=b"]).items() >= {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "A": "b"}.items()
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValueError, match="give NOWHERE=VALUE"):
        environment(["NOWHERE"])
