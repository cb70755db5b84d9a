"""On a cluster of several processes and nodes: whatever is lost, the run ends as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from pipelines.config import Config
from pipelines.data.store import Store
from pipelines.data.stream import Samples
from pipelines.training import cluster as training_cluster
from pipelines.training.folder import Progress
from pipelines.training.loop import Worker, run_worker
from pipelines.training.step import Drawn
from pipelines.training.tracking import client
from pipelines.training.train import TrainResult, train

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
EPOCHS, PER_EPOCH = 5, 4
# An uneven last batch; between the validations a checkpoint after nearly every step, so that epochs are cut anywhere.
OVERRIDES = (f"training.epochs={EPOCHS}", "training.batch_size=4", "training.last_batch=keep", "split.validation=0.1")
OFTEN = "training.checkpoint_minutes=0.0001"
KEPT = {"best", "last", "run.json", "metrics.jsonl", "metrics.sent"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder with one MLflow database for all runs here."""
    folder = tmp_path_factory.mktemp("survival")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        patch.setenv("RAY_worker_niceness", "0")  # as in every Ray that is started here
        yield folder


@pytest.fixture(scope="module")
def nodes(workplace: Path) -> Iterator[Cluster]:
    """A head without room for workers, and two nodes with room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(wait=False, num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def config(tiny: Callable[..., Config]) -> Config:
    return tiny(*OVERRIDES, OFTEN)


@pytest.fixture(scope="module")
def whole(nodes: Cluster, store: Store, config: Config) -> TrainResult:
    """Two workers, undisturbed."""
    return train(config, store.path, workers=2, name="whole")


def disturbed(trick: Callable[[ModuleType], None]) -> Callable[[dict[str, Any]], None]:
    """What workers run: a trick that changes the code there, then the real thing."""

    def run(loop: dict[str, Any]) -> None:
        from pipelines.training import loop as module

        trick(module)
        run_worker(loop)

    return run


def tensors(name: str) -> dict[str, Any]:
    files = ("last/model", "last/state", "best/model")
    return {
        f"{file}.{key}": value
        for file in files
        for key, value in load_file(Path("runs", name, f"{file}.safetensors")).items()
    }


def assert_same_end(name: str, result: TrainResult, whole: TrainResult, *, within: float = 0.0) -> None:
    """The same weights and moments, one value of every epoch, a finished run and nothing left over."""
    one, other = tensors("whole"), tensors(name)
    assert one.keys() == other.keys()
    apart = {key: float((one[key].double() - other[key].double()).abs().max()) for key in one if one[key].numel()}
    assert max(apart.values()) <= within, max(apart, key=lambda key: apart[key])
    mlflow = client()
    for key in ("loss", "elbo", "validation_crps"):
        histories = [mlflow.get_metric_history(run, key) for run in (whole.run_id, result.run_id)]
        ours, theirs = ([(value.step, value.value) for value in sorted(h, key=lambda v: v.step)] for h in histories)
        assert [step for step, _ in theirs] == [step for step, _ in ours], key
        assert [value for _, value in theirs] == pytest.approx([value for _, value in ours], abs=10 * within), key
    assert sorted(v.step for v in mlflow.get_metric_history(result.run_id, "loss")) == list(range(1, EPOCHS + 1))
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"
    assert {path.name for path in Path("runs", name).iterdir()} - {"progress.json"} == KEPT


def test_kill_9_of_a_worker_in_an_epoch_and_of_one_that_writes_a_checkpoint(
    whole, store, config, workplace, monkeypatch
) -> None:
    in_epoch, writing = workplace / "killed-in-epoch", workplace / "killed-writing"

    def trick(module: ModuleType) -> None:
        from pipelines.training import checkpoint

        once, writes, saved = module.Worker._step, checkpoint.save_file, []
        again = in_epoch.exists()

        def step(worker: Worker, *given: object) -> object:
            if worker.rank == 1 and worker.step == PER_EPOCH + 2 and not in_epoch.exists():
                in_epoch.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return once(worker, *given)

        def save(given: object, path: Path) -> None:
            saved.append(path)
            if len(saved) == 5 and again and not writing.exists():
                writing.touch()
                path.write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
            writes(given, path)

        module.Worker._step = step
        checkpoint.save_file = save  # type: ignore[assignment]

    monkeypatch.setattr(training_cluster, "run_worker", disturbed(trick))
    result = train(config, store.path, workers=2, name="killed")
    assert in_epoch.exists() and writing.exists()
    assert_same_end("killed", result, whole)


def slowly(module: ModuleType) -> None:
    once, alone = module.Worker._step, []

    def step(worker: Worker, *given: object) -> object:
        alone.append(worker.world_size == 1)
        time.sleep(0.15 if sum(alone) <= 3 else 4.0)  # alone it waits, after three steps, for another node
        return once(worker, *given)

    module.Worker._step = step


def test_sigterm_saves_and_ends_and_the_run_goes_on_later(whole, store, config, monkeypatch) -> None:
    monkeypatch.setattr(training_cluster, "run_worker", disturbed(slowly))

    def terminate(now: Progress) -> None:
        if now.step > PER_EPOCH + 1 and not told:
            told.append(now.step)
            os.kill(os.getpid(), signal.SIGTERM)

    told: list[int] = []
    rarely = config.model_copy(update={"training": config.training.model_copy(update={"checkpoint_minutes": 0.0})})
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="saved in .*runs/term/last: --resume goes on from there"):
        train(rarely, store.path, workers=2, name="term", progress=terminate)
    assert signal.getsignal(signal.SIGTERM) == before
    described = json.loads(Path("runs/term/last/checkpoint.json").read_text())
    assert PER_EPOCH * described["stream"]["epoch"] + described["stream"]["batch"] >= told[0]
    run = json.loads(Path("runs/term/run.json").read_text())["run_id"]
    assert client().get_run(run).info.status == "KILLED"
    monkeypatch.undo()
    monkeypatch.chdir(Path("runs").absolute().parent)
    result = train(rarely, store.path, workers=2, name="term", resume=True)
    assert_same_end("term", result, whole)


def test_a_loss_that_is_not_finite_stops_all_workers_before_the_step(store, nodes, config, monkeypatch) -> None:
    def trick(module: ModuleType) -> None:
        once = module.Worker._step

        def step(worker: Worker, samples: Samples, drawn: Drawn, following: object) -> object:
            if worker.step == 6:
                Path(worker.task.folder.path, f"seen-{worker.rank}-{time.time_ns()}").touch()
                if worker.rank == 1:
                    drawn.noise.fill_(float("nan"))
            return once(worker, samples, drawn, following)

        module.Worker._step = step

    monkeypatch.setattr(training_cluster, "run_worker", disturbed(trick))
    with pytest.raises(ValueError, match="the loss is not finite: .*not_finite.json names them") as caught:
        train(config, store.path, workers=2, name="faulty")
    assert "\n" not in str(caught.value)
    assert len(list(Path("runs/faulty").glob("seen-*"))) == 2, "it was tried again"
    found = json.loads(Path("runs/faulty/not_finite.json").read_text())
    assert (found["epoch"], found["batch"], found["step"]) == (2, 3, 7)
    assert len({sample["position"] for sample in found["samples"]}) == 4
    assert {sample["rank"] for sample in found["samples"]} == {0, 1}
    described = json.loads(Path("runs/faulty/last/checkpoint.json").read_text())
    assert (described["stream"]["epoch"], described["stream"]["batch"]) <= (1, 2)
    run = json.loads(Path("runs/faulty/run.json").read_text())["run_id"]
    assert client().get_run(run).info.status == "FAILED"


def test_a_node_goes_and_another_comes(whole, nodes, store, config, monkeypatch) -> None:
    monkeypatch.setattr(training_cluster, "run_worker", disturbed(noting_its_world))
    monkeypatch.setattr(training_cluster, "RESIZE_S", 1.0)
    ended: list[TrainResult] = []
    run = threading.Thread(
        target=lambda: ended.append(train(config, store.path, workers=(1, 2), name="elastic")), daemon=True
    )
    run.start()
    until(lambda: worlds()[-1:] == [2] and progress("elastic") >= PER_EPOCH + 1)
    nodes.remove_node(next(iter(nodes.worker_nodes)))
    look_again(nodes)
    until(lambda: worlds()[-1:] == [1])
    at = progress("elastic")
    until(lambda: progress("elastic") > at + 1)
    nodes.add_node(num_cpus=1)
    look_again(nodes)
    run.join(timeout=300)
    assert ended, "it did not end"
    assert worlds() == [2, 1, 2]
    Path("runs/elastic/worlds").unlink()
    assert_same_end("elastic", ended[0], whole, within=1e-4)


def look_again(nodes: Cluster) -> None:
    """Have Ray know at once which nodes there are for a run of any size; it looks every 20 s by itself."""
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1 + len(nodes.worker_nodes))
    ray.get(get_or_create_autoscaling_coordinator().get_reserved_resources.remote("", recompute=True))


def noting_its_world(module: ModuleType) -> None:
    slowly(module)
    once = module.Worker.run

    def run(worker: Worker, *given: object, **named: object) -> None:
        if worker.rank == 0:
            with Path(worker.task.folder.path, "worlds").open("a") as file:
                file.write(f"{worker.world_size}\n")
        once(worker, *given, **named)

    module.Worker.run = run


def worlds() -> list[int]:
    path = Path("runs/elastic/worlds")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def progress(name: str) -> int:
    path = Path("runs", name, "progress.json")
    return Progress.from_json(path.read_text()).step if path.exists() else 0


def until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience, "it takes too long"
        time.sleep(0.05)


DRIVER = """
import json, sys
from pipelines.config import parse_config
from pipelines.training.train import train
def note(progress):
    print(progress.step, flush=True)
train(parse_config(json.load(sys.stdin)), sys.argv[1], workers=2, name=sys.argv[2], progress=note)
"""


# The last one: for minutes Ray keeps a killed driver's share of the cluster from elastic runs.
def test_kill_9_of_the_driver_and_resume(whole, nodes, store, config) -> None:
    patched = (
        "from pipelines.training import cluster\nfrom pipelines.training.loop import run_worker\n"
        "def slow(loop):\n"
        "    import time\n    from pipelines.training import loop as module\n    once = module.Worker._step\n"
        "    def step(worker, *given):\n        time.sleep(0.2)\n        return once(worker, *given)\n"
        "    module.Worker._step = step\n    run_worker(loop)\n"
        "cluster.run_worker = slow\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", patched + DRIVER, store.path, "driver"],
        env=os.environ | {"RAY_ADDRESS": nodes.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None and driver.stdout is not None
    driver.stdin.write(config.model_dump_json())
    driver.stdin.close()
    steps = iter(lambda: int(driver.stdout.readline() or -1), -1)  # type: ignore[union-attr]
    assert any(step > PER_EPOCH + 1 for step in steps), "the driver ended by itself"
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    result = train(config, store.path, workers=2, name="driver", resume=True)
    assert_same_end("driver", result, whole)
