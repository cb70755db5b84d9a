"""What a run meets in one process: full disks, damaged chunks, servers that go away, and being told to end."""

import http.server
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipelines.config import Config
from pipelines.data.store import Store
from pipelines.training import loop, writer
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.folder import RunFolder
from pipelines.training.journal import Journal
from pipelines.training.tracking import Tracking, client
from pipelines.training.train import TrainResult, train

ROOT = Path(__file__).parents[2]
OFTEN = ("training.batch_size=4", "training.checkpoint_minutes=0.00001")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with one MLflow database for all runs here."""
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(autouse=True)
def _there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def whole(workplace: Path, store: Store, tiny: Callable[..., Config]) -> TrainResult:
    """A run that nothing happens to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return train(tiny(*OFTEN), store.path, name="whole")


def assert_same_weights(name: str, other: str = "whole") -> None:
    for file in ("last/model", "last/state", "best/model"):
        ours, theirs = (load_file(f"runs/{run}/{file}.safetensors") for run in (name, other))
        assert ours.keys() == theirs.keys()
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours), file


def steps_of(mlflow: MlflowClient, run_id: str) -> list[int]:
    return sorted(value.step for value in mlflow.get_metric_history(run_id, "loss"))


def status(name: str) -> str:
    run_id = json.loads(Path("runs", name, "run.json").read_text())["run_id"]
    return str(client().get_run(run_id).info.status)


@pytest.mark.parametrize("always", [False, True])
def test_training_goes_on_past_a_full_disk(always, whole, store, tiny, monkeypatch) -> None:
    once, limits = writer.write_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)
    written: list[Path] = []

    def on_a_full_disk(folder: Path, snapshot: object) -> None:
        written.append(folder)
        full = len(written) > 3 and (always or len(written) < 9)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000 if full else limits[0], limits[1]))
        try:
            once(folder, snapshot)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert not list(Path("runs", name).glob("last.*")) + list(Path("runs", name).glob("best.*"))
            if full:
                load_checkpoint(Path("runs", name, "last"))

    monkeypatch.setattr(writer, "write_checkpoint", on_a_full_disk)
    name, said = f"full-{always}", set()
    note = RunFolder.note
    monkeypatch.setattr(RunFolder, "note", lambda run, now: (said.add(now.warning), note(run, now))[1])
    if always:
        with pytest.raises(OSError, match="(no space left to write|cannot be written: .*File too large)"):
            train(tiny(*OFTEN), store.path, name=name)
        assert status(name) == "FAILED"
        monkeypatch.undo()
        monkeypatch.chdir(Path(whole.checkpoint).parents[2])
        result = train(tiny(*OFTEN), store.path, name=name, resume=True)
    else:
        result = train(tiny(*OFTEN), store.path, name=name)
        assert any("training goes on" in warning for warning in said)
        assert client().get_metric_history(result.run_id, "checkpoint_failures")
    assert_same_weights(name)
    assert steps_of(client(), result.run_id) == [1, 2, 3, 4]
    assert status(name) == "FINISHED"


def test_the_newest_checkpoints_are_kept_and_each_is_one_to_go_on_from(whole, store, tiny) -> None:
    config = tiny("training.keep=3", *OFTEN)
    train(config, store.path, name="kept")
    kept = sorted(path.name for path in Path("runs/kept/earlier").iterdir())
    steps = [load_checkpoint(Path("runs/kept/earlier", name))[0].stream for name in kept]
    assert len(kept) == 3
    assert [(at["epoch"], at["batch"] > 0) for at in steps] == [(3, True), (3, True), (4, False)]
    shutil.rmtree("runs/kept/last")
    shutil.copytree(Path("runs/kept/earlier", kept[0]), "runs/kept/last")
    train(config, store.path, name="kept", resume=True)
    assert_same_weights("kept")


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_a_damaged_chunk_is_named_or_skipped_and_counted(how, store, tiny, tmp_path) -> None:
    from pipelines.data.chunks import ChunkPlan
    from pipelines.data.store import write_store

    plan = ChunkPlan(chunk=2, shard=None, slab=24)
    damaged = write_store(store.field, tmp_path / "damaged", source="", license="", plan=plan)
    chunk = next(Path(damaged.path, damaged.variable, "c", "1").rglob("0"))
    while chunk.is_dir():
        chunk = chunk / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    with pytest.raises(OSError, match="chunk .*/c/1/0/0 of .* is damaged .*: it holds samples 2 to 3 .*--skip-corrupt"):
        train(tiny(), damaged.path, name=f"damaged-{how}")
    result = train(tiny(), damaged.path, name=f"skipped-{how}", skip_corrupt=True)
    skipped = client().get_metric_history(result.run_id, "skipped_samples")
    assert len(skipped) == 4
    assert {value.value for value in skipped} <= {0.0, 1.0, 2.0}
    assert any(value.value for value in skipped)
    assert status(f"skipped-{how}") == "FINISHED"


def test_two_processes_do_not_train_one_run(whole, store, tiny, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.training.folder.LOCK_PATIENCE_S", 0.3)
    with RunFolder(Path("runs/whole").absolute()).locked():
        with pytest.raises(ValueError, match="run whole is being trained by another process"):
            train(tiny(*OFTEN), store.path, name="whole", resume=True)
    assert status("whole") == "FINISHED"


COMMAND = """
import sys, time
from infra.cli import main
from pipelines.training import loop
once = loop.Worker._step
def step(worker, *given):
    following = once(worker, *given)
    if worker.step == 6:
        print("in the second epoch", flush=True)
    time.sleep(0.2)
    return following
loop.Worker._step = step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_sigterm_saves_says_so_and_ends_with_143(whole, store, tiny, tmp_path) -> None:
    import yaml

    described = tmp_path / "tiny.yaml"
    config = tiny(*OFTEN)
    described.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", str(described), "--store", store.path, "--name", "terminated"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in the second epoch\n"
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM), error
    assert "terminated/last: --resume goes on from there" in error and "Traceback" not in error
    assert status("terminated") == "KILLED"
    assert load_checkpoint(Path("runs/terminated/last"))[0].stream["batch"] > 0
    train(config, store.path, name="terminated", resume=True)
    assert_same_weights("terminated")


class Proxy:
    """Stands between MLflow's client and its server; may go away, or lose the answers."""

    def __init__(self, port: int) -> None:
        self.away, self.loses, self.target = False, 0, f"http://127.0.0.1:{port}"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if outer.away:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                length = int(self.headers.get("Content-Length", 0))
                headers = {key: self.headers[key] for key in ("Content-Type",) if key in self.headers}
                body = self.rfile.read(length) if length else None
                asked = urllib.request.Request(outer.target + self.path, body, headers, method=self.command)
                try:
                    with urllib.request.urlopen(asked) as answer:
                        code, said = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    code, said = error.code, error.read()
                if outer.loses and "log-batch" in self.path:
                    outer.loses -= 1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def proxy(workplace: Path) -> Iterator[Proxy]:
    """A real MLflow server, behind a proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        + ["--backend-store-uri", f"sqlite:///{workplace}/served.db", "--artifacts-destination", f"{workplace}/served"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    patience = time.monotonic() + 120
    while time.monotonic() < patience:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            break
        time.sleep(0.3)
    proxy = Proxy(port)
    yield proxy
    proxy.server.shutdown()
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.long)])
def test_mlflow_may_go_away_and_come_back(seconds, whole, proxy, store, tiny, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setattr("pipelines.training.journal.RETRY_S", 0.5)
    once = loop.Worker._train_epoch

    def epoch(worker: loop.Worker) -> None:
        if worker.epoch == 1:
            proxy.loses = 2
            time.sleep(3)
        elif worker.epoch == 3:
            proxy.away = True
            threading.Timer(seconds, lambda: setattr(proxy, "away", False)).start()
        once(worker)

    monkeypatch.setattr(loop.Worker, "_train_epoch", epoch)
    result = train(tiny(*OFTEN), store.path, name=f"away-{seconds}")
    assert_same_weights(f"away-{seconds}")
    mlflow = MlflowClient(proxy.uri)
    for key in ("loss", "validation_crps"):
        ours = {value.step: value.value for value in mlflow.get_metric_history(result.run_id, key)}
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        theirs = {value.step: value.value for value in client().get_metric_history(whole.run_id, key)}
        assert ours == theirs
        assert len(mlflow.get_metric_history(result.run_id, key)) == len(ours)
    assert proxy.loses == 0
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"


def test_a_journal_tells_every_line_once_whatever_it_is_told_of_delivery(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    tracking = SimpleNamespace(log=lambda metrics, step, timestamp: told.append((step, metrics["loss"])))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "timestamp": 5, "metrics": {"loss": 0.5}}\n{"step": 2, "tim')
    journal = Journal(path, tracking)  # type: ignore[arg-type]
    assert journal.last_step == 1
    for step, loss in ((1, 9.0), (2, 0.25), (3, 0.125), (2, 9.0)):
        journal.log({"loss": loss}, step)
    journal.close()
    Journal(path, tracking).deliver()  # type: ignore[arg-type]
    assert told == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_an_unreachable_mlflow_is_one_sentence(store, tiny, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(OSError, match="MLflow cannot be reached, .*: .*; nothing was begun in") as caught:
        train(tiny(), store.path, name="unreachable")
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert isinstance(train(tiny("training.epochs=1"), store.path, name="unreachable"), TrainResult)
    assert isinstance(Tracking("sqlite:///x.db", "0"), Tracking)
