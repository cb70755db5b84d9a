"""A run logs what it did, keeps its best, resumes as if it had not stopped, and says truthfully how it ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipelines.config import Config
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.training import cluster, loop, systems
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.folder import Progress
from pipelines.training.registry import list_models, load_model, show_model
from pipelines.training.tracking import client, flatten
from pipelines.training.train import TrainResult, train
from tests.training.idling import NEEDED, told_of_what_idles

ROOT = Path(__file__).parents[2]
TERMS = {"elbo", "reconstruction", "kl_z", "kl_c", "local_penalty", "loss"}
RATES = {"learning_rate", "samples_per_second", "data_wait_fraction"}
KEPT = {"best", "last", "run.json", "progress.json", "metrics.jsonl", "metrics.sent"}
SCORES = {"validation_rmse", "validation_crps", "validation_log_score"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with one MLflow database for all runs here: making a database takes seconds."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(autouse=True)
def _there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield


def values(mlflow: MlflowClient, run_id: str, key: str) -> dict[int, float]:
    history = mlflow.get_metric_history(run_id, key)
    assert len({metric.step for metric in history}) == len(history), "more than one value of a step"
    return {metric.step: metric.value for metric in history}


def status(name: str) -> str:
    found = json.loads(Path("runs", name, "run.json").read_text())
    return str(client().get_run(found["run_id"]).info.status)


@pytest.fixture(scope="module")
def whole(workplace: Path, store: Store, tiny: Callable[..., Config]) -> tuple[TrainResult, list[Progress]]:
    """One run from its beginning to its end."""
    notes: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = train(
            tiny("training.epochs=6"),
            store.path,
            name="whole",
            register="t2m",
            progress=notes.append,
            illustrate=picture,
        )
    return result, notes


def picture(checkpoint: Path, store: str) -> list[Path]:
    path = checkpoint.parent / "map.txt"
    path.write_text(f"{load_checkpoint(checkpoint)[0].plan.variable} of {Path(store).name}")
    return [path]


def test_a_run_ends_finished_with_the_model_that_scored_best(whole) -> None:
    result, _ = whole
    assert status("whole") == "FINISHED"
    checkpoint, model = load_checkpoint(result.checkpoint)
    assert result.metrics == checkpoint.metrics
    assert checkpoint.random_field is not None
    crps = values(client(), result.run_id, "validation_crps")
    assert result.metrics["validation_crps"] == min(crps[epoch] for epoch in (2, 4, 6))
    assert load_model(str(result.checkpoint))[1].state_dict().keys() == model.state_dict().keys()


def test_metrics_have_one_value_an_epoch(whole) -> None:
    mlflow, run_id = client(), whole[0].run_id
    for key in TERMS | RATES:
        assert sorted(values(mlflow, run_id, key)) == [1, 2, 3, 4, 5, 6], key
    for key in SCORES:
        assert set(values(mlflow, run_id, key)) >= {2, 4, 6}, key
    assert all(0 <= share <= 1 for share in values(mlflow, run_id, "data_wait_fraction").values())
    assert all(rate > 0 for rate in values(mlflow, run_id, "samples_per_second").values())
    elbo, parts = (values(mlflow, run_id, key) for key in ("elbo", "reconstruction"))
    kl = [values(mlflow, run_id, key) for key in ("kl_z", "kl_c")]
    for epoch in elbo:
        assert elbo[epoch] == pytest.approx(parts[epoch] - kl[0][epoch] - kl[1][epoch], rel=1e-4)


def test_parameters_tags_and_artifacts_say_what_was_run(whole, store, tiny) -> None:
    result, _ = whole
    mlflow, config = client(), tiny("training.epochs=6")
    run = mlflow.get_run(result.run_id)
    assert run.info.run_name == "whole"
    assert run.data.params == {k: str(v)[:500] for k, v in flatten(config.model_dump(mode="json")).items()}
    tags = run.data.tags
    assert tags["data_fingerprint"] == store.fingerprint
    assert tags["config_hash"] == config.fingerprint
    assert (tags["seed"], tags["world_size"]) == ("0", "1")
    assert tags["git_sha"]
    kept = {entry.path for folder in ("checkpoint", "maps") for entry in mlflow.list_artifacts(result.run_id, folder)}
    assert kept >= {"checkpoint/checkpoint.json", "checkpoint/model.safetensors", "maps/map.txt"}
    if result.model_version is not None:  # what MLflow serves lies beside the checkpoint
        assert kept >= {"checkpoint/MLmodel", "checkpoint/serving_script.py", "checkpoint/README.md"}
    assert (tags["store"], tags["data_source"], tags["data_license"]) == (store.path, store.source, store.license)


def test_progress_reaches_the_end(whole) -> None:
    notes = whole[1]
    assert (notes[-1].epoch, notes[-1].epochs) == (6, 6)
    assert notes[-1].step == notes[-1].steps > 0
    assert notes[-1].metrics.keys() >= TERMS | SCORES
    assert [note.step for note in notes] == sorted(note.step for note in notes)


def test_nothing_but_checkpoints_and_notes_is_left(whole) -> None:
    left = {path.name for path in Path("runs/whole").iterdir()}
    assert left == KEPT | {"map.txt"}


def test_a_name_is_used_once(whole, store, tiny) -> None:
    with pytest.raises(FileExistsError, match="a run named whole exists already: choose another --name, or go on with"):
        train(tiny("training.epochs=6"), store.path, name="whole")
    assert status("whole") == "FINISHED"


def test_first_versions_are_champions_and_later_ones_challengers(whole, store, tiny) -> None:
    again = train(tiny("training.epochs=1", "seed=1"), store.path, register="t2m")
    assert (whole[0].model_version, again.model_version) == ("1", "2")
    rows = {row["version"]: row for row in list_models()}
    assert (rows["1"]["aliases"], rows["2"]["aliases"]) == (["champion"], ["challenger"])
    assert rows["1"]["scores"]["validation_crps"] == pytest.approx(whole[0].metrics["validation_crps"], rel=1e-5)
    checkpoint, _, origin = load_model("models:/t2m@challenger")
    assert checkpoint.plan.config.seed == 1
    assert (origin["version"], origin["run_id"]) == ("2", again.run_id)
    assert show_model("t2m")["run_id"] == whole[0].run_id
    assert load_model(whole[0].run_id)[0].epoch == whole[0].metrics.get("epoch", load_model("models:/t2m/1")[0].epoch)
    for missing, said in (("models:/none@champion", "it has t2m"), ("0" * 32, "there is no run"), ("x y", "no model")):
        with pytest.raises(ValueError, match=said):
            load_model(missing)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"register": "not a name"}, "a model's name is letters"),
        ({"name": "../elsewhere"}, "a run's name is letters"),
        ({"workers": -1}, "workers must be 0"),
        ({"workers": 7}, "training.batch_size 6 cannot be shared by 7 workers"),
        ({"workers": (2, 7)}, "training.batch_size 6 cannot be shared by 7 workers"),
        ({"workers": (3, 2)}, "workers must be 0 .* or a range such as 1:4, got 3:2"),
        ({"name": "new", "resume": True}, "there is nothing to resume in .*new"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(changes, said, store, tiny) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        train(tiny(), store.path, **changes)
    assert sorted(Path().rglob("*")) == before


def test_a_store_that_does_not_suit_the_config_is_refused(store, tiny) -> None:
    for override, said in (
        (
            "training.batch_size=60",
            "a batch of 60 needs as many training samples, .* has .*: lower training.batch_size",
        ),
        ("context.every=16", "every 16th point of a 16 x 30 grid is no grid: lower context.every"),
        ("split.test=1950-01", "the test span 1950-01 holds no sample"),
    ):
        with pytest.raises(ValueError, match=said):
            train(tiny(override), store.path, name="unsuited")
    assert not Path("runs/unsuited").exists()


def test_a_failed_run_says_so_and_leaves_no_debris(store, tiny) -> None:
    rates = [f"training.{rate}=1e30" for rate in ("learning_rate", "grid_rate", "local_rate", "clip")]
    with pytest.raises(ValueError, match="the (loss|gradient) is not finite: lower the learning rates"):
        train(tiny(*rates), store.path, name="failed")
    assert status("failed") == "FAILED"
    with pytest.raises(FileNotFoundError, match="nothing to resume in .*failed: .* under another --name"):
        train(tiny(*rates), store.path, name="failed", resume=True)


def test_an_interrupted_run_says_that_it_was_killed(store, tiny, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(systems, "validate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), store.path, name="interrupted")
    assert status("interrupted") == "KILLED"


def test_a_run_whose_folder_vanishes_fails_in_one_line(store, tiny, monkeypatch) -> None:
    def vanish(*_: object, **__: object) -> None:
        for path in sorted(Path("runs/vanished").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        Path("runs/vanished").rmdir()
        time.sleep(0.7)
        raise OSError("the disk is gone")

    monkeypatch.setattr(systems, "validate", vanish)
    with pytest.raises(OSError, match="the disk is gone"):
        train(tiny(), store.path, name="vanished", progress=lambda _: None)


DRIVER = """
import json, os, signal, sys
from pipelines.config import parse_config
from pipelines.training import loop
from pipelines.training.train import train
store, name, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
once = loop.Worker._train_epoch
def dying(worker):
    if worker.epoch == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return once(worker)
loop.Worker._train_epoch = dying
train(parse_config(json.load(sys.stdin)), store, name=name)
"""


def test_a_run_that_was_killed_resumes_as_if_it_had_not_stopped(whole, store, tiny) -> None:
    config = tiny("training.epochs=6")
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, store.path, "killed", "3"],
        input=config.model_dump_json(),
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_checkpoint(Path("runs/killed/last"))[0].epoch in (2, 3)  # the third is being written

    with pytest.raises(ValueError, match="config differs from the one that run killed began with: .*seed 0 -> 1"):
        train(tiny("training.epochs=6", "seed=1"), store.path, name="killed", resume=True)
    other = ingest(store.field.isel(time=slice(0, 20)).load(), "other", variable=None)
    with pytest.raises(ValueError, match="the store's content differs from what run killed began with"):
        train(config, other.path, name="killed", resume=True)

    result = train(config, store.path, name="killed", resume=True)
    for kept in ("last/model", "last/state", "best/model"):
        one, other = (load_file(f"runs/{name}/{kept}.safetensors") for name in ("whole", "killed"))
        assert one.keys() == other.keys()
        assert all(bool((one[key] == other[key]).all()) for key in one), kept
    for kept in ("last", "best"):
        one, other = (load_checkpoint(Path("runs", name, kept))[0] for name in ("whole", "killed"))
        assert (one.epoch, one.best, one.stale, one.random_field) == (
            other.epoch, other.best, other.stale, other.random_field
        )  # fmt: skip
    mlflow = client()
    for key in TERMS:
        expected = values(mlflow, whole[0].run_id, key)
        assert values(mlflow, result.run_id, key) == expected, key
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"


def test_batches_that_are_drawn_ahead_for_a_gpu_are_the_same(whole, store, tiny, monkeypatch) -> None:
    monkeypatch.setattr(
        loop.Worker, "_prepared", lambda worker, batch, samples: (samples, worker._draw(samples, batch))
    )
    train(tiny("training.epochs=6"), store.path, name="ahead")
    one, other = (load_file(f"runs/{name}/last/state.safetensors") for name in ("whole", "ahead"))
    assert all(bool((one[key] == other[key]).all()) for key in one)


def test_a_finished_run_resumes_to_the_same_end(whole, store, tiny) -> None:
    before = load_file("runs/whole/best/model.safetensors")
    result = train(tiny("training.epochs=6"), store.path, name="whole", resume=True)
    after = load_file(result.checkpoint / "model.safetensors")
    assert all(bool((before[key] == after[key]).all()) for key in before)
    assert sorted(values(client(), result.run_id, "loss")) == [1, 2, 3, 4, 5, 6]


def test_patience_outlives_a_stop(store, tiny, monkeypatch) -> None:
    worse = iter(range(1, 100))
    monkeypatch.setattr(
        systems, "validation_metrics", lambda _: {"validation_rmse": 1.0, "validation_crps": float(next(worse))}
    )
    config = tiny("training.epochs=9", "training.validate_every=1", "training.patience=3")
    for resume in (False, True):
        result = train(config, store.path, name="patient", resume=resume)
        assert load_checkpoint(Path("runs/patient/last"))[0].epoch == 4
        assert sorted(values(client(), result.run_id, "loss")) == [1, 2, 3, 4]
    assert load_checkpoint(result.checkpoint)[0].epoch == 1


@pytest.mark.ray
def test_two_workers_train_the_model_that_one_does_and_nothing_stands_idle_beside_them(
    whole, store, tiny, monkeypatch
) -> None:
    monkeypatch.setattr(cluster, "run_worker", told_of_what_idles)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where workers find it
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    result = train(tiny("training.epochs=6"), store.path, workers=2, name="pair")
    notes = sorted(Path("runs/pair").glob("told-*"))
    assert len(notes) == 2
    for note in notes:
        told = json.loads(note.read_text())
        assert told["woken"] < 50  # in 2 s, in which Ray would wake it up 200 times
        assert {"ray::RayTrainWorker", "ray::TrainController"} <= set(told["actors"]) <= NEEDED
        assert told["daemons"] == []
        note.unlink()
    mlflow = client()
    for key in TERMS | RATES:
        assert sorted(values(mlflow, result.run_id, key)) == [1, 2, 3, 4, 5, 6], key
    for key in ("validation_rmse", "validation_crps", "loss"):
        ours, theirs = (values(mlflow, run, key) for run in (result.run_id, whole[0].run_id))
        assert [ours[epoch] for epoch in (2, 4, 6)] == pytest.approx([theirs[epoch] for epoch in (2, 4, 6)], abs=1e-3)
    assert mlflow.get_run(result.run_id).data.tags["world_size"] == "2"
    assert status("pair") == "FINISHED"
    assert {path.name for path in Path("runs/pair").iterdir()} == KEPT
