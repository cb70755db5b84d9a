"""A sweep finds the best of its trials, tells MLflow the truth about each, and survives what trials and drivers do."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow.entities import Run

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.training.champions import promote
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.registry import champion_of, load_model
from pipelines.training.tracking import client, flatten
from tuning import tuner as tuning_tuner
from tuning.record import SweepRecord
from tuning.room import Room
from tuning.space import SpaceConfig
from tuning.sweep import SweepResult, tune
from tuning.trial import NUMBER, Job, run_trial

pytestmark = pytest.mark.ray

SPACE = Callable[..., SpaceConfig]
SEARCH = {
    "model.components": {"int": [1, 3]},
    "training.learning_rate": {"log": [1e-4, 1e-2]},
    "training.beta": {"float": [0.5, 1.5], "when": {"model.components": [2, 3]}},
}


@pytest.fixture(scope="module", autouse=True)
def _cluster(workplace: Path) -> Iterator[None]:
    """One Ray for all of them, with room for two trials."""
    ray.init("local", num_cpus=2, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def learned(space: SPACE) -> SpaceConfig:
    return space(search=SEARCH, trials=6, grace=1, reduction=2)


@pytest.fixture(scope="module")
def swept(learned: SpaceConfig, store: Store) -> tuple[SweepResult, list[SweepRecord]]:
    """One sweep from its beginning to its end."""
    shown: list[SweepRecord] = []
    return tune(learned, store.path, name="swept", show=shown.append), shown


def record(name: str) -> SweepRecord:
    return SweepRecord.from_json(Path("runs", name, "sweep.json"))


def children(result: SweepResult) -> dict[int, Run]:
    """MLflow's runs of the trials; one each."""
    mlflow = client()
    experiment = mlflow.get_run(result.run_id).info.experiment_id
    found = mlflow.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    numbers = [int(run.data.tags["vamoh.trial"]) for run in found]
    assert len(set(numbers)) == len(numbers), "a trial has two runs"
    return dict(zip(numbers, found, strict=True))


def test_a_sweep_ends_with_its_best_trial(swept, learned) -> None:
    result, shown = swept
    found = record("swept")
    assert len(found.trials) == 6 and sum(result.states.values()) == 6
    assert {trial.state for trial in found.trials} == {"FINISHED", "PRUNED"}
    finished = [trial for trial in found.trials if trial.state == "FINISHED"]
    assert result.best == min(finished, key=lambda trial: trial.best) == found.best
    checkpoint, _ = load_checkpoint(Path("runs/swept", result.best.name, "best"))
    assert checkpoint.metrics["validation_crps"] == result.best.best
    for trial in found.trials:
        assert len(trial.curve) == 4 if trial.state == "FINISHED" else 1 <= len(trial.curve) < 4
        assert [point.epoch for point in trial.curve] == list(range(1, len(trial.curve) + 1))
        assert 0 < trial.curve[0].seconds <= trial.curve[-1].seconds <= trial.seconds
        assert ("training.beta" in trial.values) == (trial.values["model.components"] > 1)
        assert trial.seconds_per_sample is not None and trial.seconds_per_sample > 0
    for last, trial in zip(shown[-1].trials, found.trials, strict=True):
        assert last.run_id in ("", trial.run_id)  # MLflow may not have been told of it yet
        assert replace(last, run_id=trial.run_id) == trial
    assert not Path("runs/swept/ray").exists()


def test_what_is_best_can_be_trained_as_it_is(swept) -> None:
    result, _ = swept
    config = load_config(str(result.config))
    assert config.description.startswith("The best of sweep swept: validation_crps")
    assert {key: flatten(config.model_dump())[key] for key in result.best.values} == result.best.values
    trained = load_checkpoint(Path("runs/swept", result.best.name, "best"))[0].plan.config
    assert config.model_copy(update={"description": ""}) == trained.model_copy(update={"description": ""})


def test_mlflow_has_a_parent_and_a_child_a_trial_with_truthful_states(swept) -> None:
    result, _ = swept
    mlflow, runs = client(), children(result)
    parent = mlflow.get_run(result.run_id)
    assert parent.info.status == "FINISHED" and parent.info.run_name == "swept"
    assert {each.path for each in mlflow.list_artifacts(result.run_id)} == {"best.yaml", "report.html", "sweep.json"}
    for trial in record("swept").trials:
        run = runs[trial.number]
        assert run.info.run_id == trial.run_id
        assert run.info.status == {"FINISHED": "FINISHED", "PRUNED": "KILLED"}[trial.state]
        assert {key: run.data.params[key] for key in trial.values} == {k: str(v) for k, v in trial.values.items()}
        history = mlflow.get_metric_history(trial.run_id, "validation_crps")
        assert [(m.step, m.value) for m in history] == [
            (point.epoch, point.metrics["validation_crps"]) for point in trial.curve
        ]
        kept = {each.path for each in mlflow.list_artifacts(trial.run_id)}
        assert kept == ({"config.yaml", "checkpoint"} if trial.state == "FINISHED" else {"config.yaml"})


def test_the_best_is_registered_for_its_sweep_and_can_be_promoted(swept) -> None:
    result, _ = swept
    version = client().get_model_version(result.model, result.model_version)
    assert (result.model, version.tags["sweep"], version.run_id) == ("swept", result.run_id, result.best.run_id)
    assert client().get_model_version_by_alias("swept", "sweep-swept").version == version.version
    assert load_model("models:/swept@sweep-swept")[0].metrics["validation_crps"] == result.best.best
    promote("swept", result.model_version)
    assert champion_of("swept") == result.model_version


def test_a_sweep_that_is_over_goes_on_to_the_same_end(swept, learned, store) -> None:
    before, runs = record("swept"), children(swept[0])
    again = tune(learned, store.path, name="swept", resume=True)
    assert record("swept").trials == before.trials
    assert (again.best, again.model_version, again.run_id) == (
        swept[0].best,
        swept[0].model_version,
        swept[0].run_id,
    )
    assert {n: r.info.end_time for n, r in children(again).items()} == {n: r.info.end_time for n, r in runs.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "swept"}, "there is something named swept in runs/ already: choose another --name, or go on with"),
        ({"name": "none", "resume": True}, "there is no sweep to resume in .*none"),
        ({"name": "../x"}, "name is letters, digits"),
        ({"room": Room(cpus=3)}, "no trial fits: it needs 3 CPUs; the largest machine has 2"),
        ({"room": Room(gpus=0.5)}, "no trial fits: it needs 1 CPUs and 0.5 GPUs; the largest machine has 2 and 0"),
        ({"room": Room(workers=3)}, "it needs 3 CPUs, one for each worker; the cluster has 2"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(swept, learned, store, changes, said) -> None:
    with pytest.raises((ValueError, OSError), match=said) as caught:
        tune(learned, store.path, **changes)
    assert "\n" not in str(caught.value)


def test_other_spaces_and_data_are_refused_with_the_difference(swept, space, store) -> None:
    other = space(search={**SEARCH, "model.components": {"int": [1, 4]}}, trials=6, grace=1, reduction=2)
    with pytest.raises(ValueError, match=r"began with: search.model.components.int \[1, 3\] -> \[1, 4\]$"):
        tune(other, store.path, name="swept", resume=True)
    fewer = ingest(store.field.isel(time=slice(0, 20)).load(), "fewer", variable=None)
    same = space(search=SEARCH, trials=6, grace=1, reduction=2)
    with pytest.raises(ValueError, match="the store's content differs from what sweep swept began with"):
        tune(same, fewer.path, name="swept", resume=True)
    with pytest.raises(ValueError, match=r"differs .*: train .*tiny.yaml -> downscale"):
        tune(same.model_copy(update={"train": "downscale"}), store.path, name="swept", resume=True)


def disturbed(trick: Callable[[int, Path], None]) -> Callable[[Job, Mapping[str, Any]], None]:
    """What a trial runs: a trick after each epoch from the second on, told its number and its folder."""

    def run(job: Job, given: Mapping[str, Any]) -> None:
        from pipelines.training.loop import Worker

        once = Worker._keep

        def keep(worker: Worker, **best: bool) -> None:
            once(worker, **best)
            if worker.epoch >= 2:
                trick(given[NUMBER], worker.task.folder.path)

        Worker._keep = keep
        try:
            run_trial(job, given)
        finally:
            Worker._keep = once

    return run


def test_faults_of_trials_do_not_end_the_sweep(space, store, monkeypatch) -> None:
    def trick(number: int, folder: Path) -> None:
        tries = folder / "tries"
        with tries.open("a") as file:
            file.write("x")
        first = len(tries.read_text()) == 1
        if number == 0 or (number == 1 and first):
            raise RuntimeError("a fault\nof this trial")
        if number == 2 and first:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(tuning_tuner, "run_trial", disturbed(trick))
    wild = {f"training.{rate}": 1e-2 for rate in ("grid_rate", "local_rate")}
    search = {"training.learning_rate": {"choice": [1e-3, 2e-3, 3e-3, 1e30]}}
    faulty = space(search=search, method="grid", asha=False, set=wild | {"training.clip": 1e30})
    result = tune(faulty, store.path, name="faults")
    trials = record("faults").trials
    assert [trial.state for trial in trials] == ["FAILED", "FINISHED", "FINISHED", "FAILED"]
    assert trials[0].error == "RuntimeError: a fault of this trial"
    assert "is not finite" in trials[3].error
    attempts = [Path("runs/faults", trial.name, "trial.jsonl").read_text().count('"began"') for trial in trials]
    assert attempts == [2, 2, 2, 1]
    assert [[point.epoch for point in trial.curve] for trial in trials[1:3]] == [[1, 2, 3, 4]] * 2
    statuses = [children(result)[trial.number].info.status for trial in trials]
    assert statuses == ["FAILED", "FINISHED", "FINISHED", "FAILED"]
    assert children(result)[0].data.tags["vamoh.error"] == trials[0].error
    assert "in trick" in Path("runs/faults", trials[0].name, "traceback.txt").read_text()


def test_in_a_population_the_worst_goes_on_from_the_best_with_other_rates(space, store) -> None:
    rates = {"training.learning_rate": {"log": [1e-5, 1e-2]}, "training.beta": {"float": [0.2, 2.0]}}
    fixed = {"training.schedule": "constant", "training.epochs": 6}
    result = tune(space(search=rates, method="pbt", trials=4, interval=2, set=fixed), store.path, name="population")
    trials = record("population").trials
    assert result.states == {"FINISHED": 4}
    used = [[point.metrics["learning_rate"] for point in trial.curve] for trial in trials]
    assert all(len(each) == 6 for each in used)
    changed = [number for number, each in enumerate(used) if len(set(each)) > 1]
    assert changed, "nobody went on from another"
    drawn = [load_config(str(Path("runs/population", trial.name, "config.yaml"))).training for trial in trials]
    for number in changed:
        assert used[number][0] == pytest.approx(drawn[number].learning_rate)
        assert trials[number].values["training.learning_rate"] == pytest.approx(used[number][-1])
        jump = next(epoch for epoch in range(1, 6) if used[number][epoch] != used[number][epoch - 1])
        crps = [point.metrics["validation_crps"] for point in trials[number].curve]
        others = [trial.curve[jump - 1].metrics["validation_crps"] for trial in trials if trial.number != number]
        assert crps[jump - 1] > min(others), "it was not behind"
        assert crps[jump] < crps[jump - 1]
    assert len({trial.run_id for trial in trials}) == len(children(result)) == 4


def test_two_objectives_leave_a_front_and_seeds_are_trials_of_their_own(space, store) -> None:
    search = {"model.components": {"int": [1, 6]}}
    both = space(search=search, trials=2, seeds=2, against="seconds_per_sample", set={"training.epochs": 1})
    result = tune(both, store.path, name="front")
    trials = record("front").trials
    assert result.states == {"FINISHED": 4}
    assert [(trial.seed, trial.values == trials[trial.number // 2 * 2].values) for trial in trials] == [
        (0, True), (1, True), (0, True), (1, True)
    ]  # fmt: skip
    assert all(trial.seconds_per_sample for trial in trials)
    assert len({trial.best for trial in trials}) == 4
