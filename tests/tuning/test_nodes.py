"""On a cluster: a node that is lost in the middle of a sweep, and trials that are trained by several workers."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from pipelines.data.store import Store
from pipelines.training.tracking import client
from tuning import tuner as tuning_tuner
from tuning.record import SweepRecord
from tuning.room import Room
from tuning.space import SpaceConfig
from tuning.sweep import SweepResult, tune
from tuning.trial import Job, run_trial

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SPACE = Callable[..., SpaceConfig]
SEARCH = {"training.learning_rate": {"choice": [1e-3, 2e-3, 3e-3]}}


@pytest.fixture(scope="module")
def nodes(workplace: Path) -> Iterator[Cluster]:
    """A head without room for trials, and two nodes with room for one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        patch.setenv("RAY_worker_niceness", "0")  # as in every Ray that is started here
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(wait=False, num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def held(gate: Path) -> Callable[[Job, Mapping[str, Any]], None]:
    """A trial that stays in its third epoch until the gate is there; a closure, which travels by value."""

    def run(job: Job, given: Mapping[str, Any]) -> None:
        from pipelines.training.loop import Worker

        once = Worker._keep

        def keep(worker: Worker, **best: bool) -> None:
            while worker.epoch >= 3 and not gate.exists():
                time.sleep(0.05)
            once(worker, **best)

        Worker._keep = keep
        try:
            run_trial(job, given)
        finally:
            Worker._keep = once

    return run


def record(name: str) -> SweepRecord | None:
    path = Path("runs", name, "sweep.json")
    return SweepRecord.from_json(path) if path.exists() else None


def epochs(found: SweepRecord) -> list[list[int]]:
    return [[point.epoch for point in trial.curve] for trial in found.trials]


def test_trials_of_several_workers_run_beside_each_other_without_waiting_for_ever(nodes, space, store: Store) -> None:
    search = {"training.learning_rate": {"choice": [1e-3, 2e-3]}}
    grid = space(search=search, method="grid", asha=False, set={"training.epochs": 2})
    result = tune(grid, store.path, name="nested", room=Room(workers=2))
    found = record("nested")
    assert found is not None and result.states == {"FINISHED": 2}
    assert epochs(found) == [[1, 2]] * 2
    for trial in found.trials:
        run = client().get_run(trial.run_id)
        assert (run.info.status, run.data.tags["world_size"]) == ("FINISHED", "2")


# The last one: it takes a node away.
def test_a_lost_node_costs_no_trial(nodes, space, store: Store, monkeypatch) -> None:
    gate = Path("lost").absolute()
    monkeypatch.setattr(tuning_tuner, "run_trial", held(gate))
    grid = space(search=SEARCH, method="grid", asha=False)
    ended: list[SweepResult] = []
    driver = threading.Thread(target=lambda: ended.append(tune(grid, store.path, name="node")), daemon=True)
    driver.start()
    patience = time.monotonic() + 240
    while not ((now := record("node")) and sum(len(trial.curve) > 1 for trial in now.trials) >= 2):
        assert time.monotonic() < patience and driver.is_alive()
        time.sleep(0.2)
    nodes.remove_node(next(iter(nodes.worker_nodes)))
    gate.touch()
    driver.join(timeout=240)
    assert ended and ended[0].states == {"FINISHED": 3}
    found = record("node")
    assert found is not None and epochs(found) == [[1, 2, 3, 4]] * 3
    began = [Path("runs/node", trial.name, "trial.jsonl").read_text().count('"began"') for trial in found.trials]
    assert sum(began) == 4, "only the lost one was begun again"
