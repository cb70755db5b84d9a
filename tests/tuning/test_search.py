"""What is tried next, and what is stopped, follow from the space and the record alone: also after a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from tuning.ledger import Ledger
from tuning.record import SweepRecord
from tuning.schedule import Halving, rungs, scheduler_of
from tuning.search import Search
from tuning.space import SpaceConfig
from tuning.trace import note

SPACE = Callable[..., SpaceConfig]
LEDGER = Callable[..., Ledger]
SEARCH = {
    "model.components": {"int": [1, 10]},
    "model.generator": {"choice": [[4], [8, 8]]},
    "training.beta": {"float": [0.0, 2.0], "when": {"model.components": list(range(2, 11))}},
}


@pytest.fixture
def ledger(tmp_path: Path) -> LEDGER:
    """The ledger of a space that has no trials yet, or that goes on."""

    def build(space: SpaceConfig, resume: bool = False) -> Ledger:
        if resume:
            return Ledger(tmp_path, SweepRecord.from_json(tmp_path / "sweep.json"))
        tree = json.loads(space.model_dump_json(exclude_none=True, by_alias=True))
        return Ledger(
            tmp_path,
            SweepRecord(
                name="s", space=tree, metric=space.metric, mode=space.mode, store="", fingerprint="", started="",
                seconds=0.0, trials=(), versions={},
            ),
        )  # fmt: skip

    return build


def finish(ledger: Ledger, number: int, *crps: float, ended: str | None = "FINISHED") -> None:
    """Leave in a trial's folder what its process would have left."""
    folder = ledger.path(number)
    note(folder, began=True)
    lines = [
        {"step": step, "timestamp": step, "metrics": {"validation_crps": value, "samples_per_second": 10.0 / value}}
        for step, value in enumerate(crps, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if ended is not None:
        note(folder, ended=ended)


def sweep(search: Search, ledger: Ledger, until: int) -> None:
    """Let trials end until there are so many: those with fewer components are better."""
    while len(ledger.record.trials) < until:
        name = f"tune-{len(ledger.record.trials)}"
        given = search.suggest(name)
        assert isinstance(given, dict)
        finish(ledger, given["number"], *[abs(given["model.components"] - 3.0) + 0.1] * 4)
        search.on_trial_complete(name, {})


@pytest.mark.parametrize("method", ["tpe", "random", "grid"])
def test_a_search_that_goes_on_hands_out_what_was_not_finished_and_then_new_ones(method, space, ledger) -> None:
    keys = {key: value for key, value in SEARCH.items() if key != "training.beta" or method != "grid"}
    config = space(search=keys, method=method, trials=8)
    first = ledger(config)
    search = Search(config, first)
    sweep(search, first, 5)
    open_ = [search.suggest("a"), search.suggest("b")]
    again = ledger(config, resume=True)
    later = Search(config, again)
    assert later.left == config.total - 5
    assert [later.suggest("c"), later.suggest("d")] == open_
    fresh = later.suggest("e")
    assert fresh is not None and fresh["number"] == 7
    if method != "tpe":
        assert fresh == search.suggest("f"), "it does not depend on the stop"
    for number in range(config.total - 8):
        assert later.suggest(f"g{number}") is not None
    assert later.suggest("h") == Searcher.FINISHED
    values = [json.dumps(trial.values, sort_keys=True) for trial in again.record.trials]
    assert method == "tpe" or len(set(values)) == len(values)


def test_the_search_learns_where_the_best_are_also_from_before_a_stop(space, ledger) -> None:
    config = space(search=SEARCH, trials=60, seed=1)
    first = ledger(config)
    sweep(Search(config, first), first, 30)
    again = ledger(config, resume=True)
    sweep(Search(config, again), again, 50)
    components = [trial.values["model.components"] for trial in again.record.trials]
    near = [sum(abs(value - 3) <= 1 for value in part) / len(part) for part in (components[:10], components[30:])]
    assert near[1] > 0.6 > near[0]


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_what_the_run_has_by_itself_is_tried_first_where_it_lies_in_the_space(method, space, ledger) -> None:
    search = {
        "model.generator": {"choice": [[5], [8]]},
        "model.components": {"int": [1, 3]},
        "training.learning_rate": {"log": [1e-4, 1e-1]},
        "training.beta": {"float": [0.5, 2.0], "when": {"model.generator": [[8]]}},
    }
    config = space(search=search, method=method)
    given = Search(config, ledger(config)).suggest("a")
    assert given is not None
    base = config.config({})
    assert given == {
        "number": 0,
        "model.generator": [5],
        "model.components": base.model.components,
        "training.learning_rate": base.training.learning_rate,
    }
    assert space(search=search, method=method, defaults=False).own() is None
    assert space(search={**search, "model.generator": {"choice": [[6], [8]]}}, method=method).own() is None


def test_seeds_repeat_a_combination_and_are_told_together(space, ledger) -> None:
    config = space(search=SEARCH, trials=3, seeds=2)
    entered = ledger(config)
    search = Search(config, entered)
    sweep(search, entered, 6)
    trials = entered.record.trials
    assert [trial.seed for trial in trials] == [0, 1] * 3
    assert all(trials[number].values == trials[number + 1].values for number in (0, 2, 4))
    assert [entered.config(trial.number).seed for trial in trials] == [0, 1] * 3
    assert search.suggest("more") == Searcher.FINISHED


def test_two_objectives_are_searched_together_without_early_stops(space, ledger) -> None:
    config = space(search=SEARCH, trials=8, against="seconds_per_sample")
    entered = ledger(config)
    sweep(Search(config, entered), entered, 8)
    assert all(trial.seconds_per_sample == pytest.approx(trial.best / 10) for trial in entered.record.trials)
    assert rungs(config) == [] and type(scheduler_of(config, entered.record)) is FIFOScheduler


def test_rungs_are_epochs_of_validations_before_the_last(space) -> None:
    every = {"training.epochs": 60, "training.validate_every": 5}
    assert rungs(space(search=SEARCH, set=every, grace=2, reduction=3)) == [10, 30]
    assert rungs(space(search=SEARCH, set=every, grace=2, reduction=6)) == [10]
    assert rungs(space(search=SEARCH, set=every, grace=12)) == []
    assert rungs(space(search=SEARCH, set=every, asha=False)) == []


def test_what_is_behind_is_stopped_also_behind_those_from_before_a_stop(space, ledger) -> None:
    config = space(search=SEARCH, method="random", trials=9, grace=1, reduction=2)
    first = ledger(config)
    search = Search(config, first)
    for number, crps in enumerate((1.0, 1.1, 1.2, 1.3)):
        search.suggest(f"a{number}")
        finish(first, number, *[crps] * 4)
        search.on_trial_complete(f"a{number}", {})
    search.suggest("late")
    finish(first, 4, 1.05, 1.05, ended=None)
    again = ledger(config, resume=True)
    again.settle()
    scheduler = scheduler_of(config, again.record)
    assert isinstance(scheduler, Halving)

    def told(number: int, *crps: float) -> list[str]:
        one = SimpleNamespace(trial_id=f"new-{number}", config={"number": number})
        scheduler.on_trial_add(None, one)
        seen = len(again.record.trials[number].curve) if number == 4 else 0
        results = [{"epoch": epoch, "validation_crps": v} for epoch, v in enumerate(crps, seen + 1)]
        return [scheduler.on_trial_result(None, one, result) for result in results]

    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert told(4, 9.0, 9.0) == [go, go], "it was past the last rung"
    assert told(5, 1.4) == [stop]
    assert told(6, 1.01, 1.3) == [go, stop]
    assert told(7, 0.9, 0.9, 5.0, 5.0) == [go] * 4, "the last epoch is no rung"


def test_a_population_searches_what_may_change_in_training(space, ledger) -> None:
    rates = {"training.learning_rate": {"log": [1e-4, 1e-2]}, "training.beta": {"float": [0.5, 2.0]}}
    config = space(search=rates, method="pbt", trials=4, set={"training.validate_every": 2}, interval=3)
    scheduler = scheduler_of(config, ledger(config).record)
    assert isinstance(scheduler, PopulationBasedTraining)
    assert scheduler._custom_explore_fn({"training.learning_rate": 0.5, "training.beta": 0.1}) == {
        "training.learning_rate": 1e-2,
        "training.beta": 0.5,
    }


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"method": "pbt"}, "a population changes what may change in training .*, not model.components"),
        (
            {"method": "pbt", "seeds": 2, "search": {"training.beta": {"float": [0, 1]}}},
            "a population has one seed a member, one metric, and no `when`",
        ),
        ({"set": {"model.components": 2}}, "model.components is searched: it cannot be set too"),
        ({"metric": "validation_elbo"}, "validation_elbo is of the classic model"),
        ({"metric": "validation_crsp"}, "metric"),
        ({"search": {"training.select": {"choice": ["validation_rmse"]}}}, "it cannot be searched"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(space, keys, said) -> None:
    with pytest.raises(ValueError, match=said):
        space(**{"search": SEARCH, **keys})
