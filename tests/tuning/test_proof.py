"""Proof that a search over K and L finds what is there: three regimes want three components, clusters want a flow.

The small version, two seeds each, in this process; `python -m tests.benchmarks.proof` runs the whole sweeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.folder import RunFolder
from pipelines.training.loop import WorkerTask, run_rank
from pipelines.training.plan import Plan, make_plan, split_of
from tests.tuning.regimes import (
    CLUSTERS_SPACE,
    REGIMES_SPACE,
    Made,
    share_of_a_kind,
    share_recognised,
    write_clusters,
    write_regimes,
)
from tuning.space import load_space
from vamoh import VAMoH

SEEDS = (0, 1)


@dataclass(frozen=True)
class Ran:
    """A trial that was trained.

    Attributes:
        score: Its best validation bound, nats a value.
        plan, model: Its best checkpoint's.
    """

    score: float
    plan: Plan
    model: VAMoH


def run(space_file: Path, made: Made, values: Mapping[str, Any], seed: int, folder: Path) -> Ran:
    """Train one point of a space as a trial of a sweep is, without Ray and MLflow."""
    space = load_space(str(space_file))
    config = space.config(values, [f"seed={seed}"])
    task = WorkerTask(
        plan=make_plan(config, made.store),
        store=made.store.path,
        split=split_of(config, made.store),
        folder=RunFolder(folder),
        tracking_uri="",
        run_id="",
        skip_corrupt=False,
        versions={},
    )
    folder.mkdir()
    task.folder.described.write_text("{}")  # which MLflow run it is: none
    run_rank(task, torch.device("cpu"), lambda metrics: None)
    checkpoint, model = load_checkpoint(task.folder.best)
    return Ran(checkpoint.metrics[space.metric], checkpoint.plan, model)


@pytest.fixture(scope="module")
def regimes(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_regimes(tmp_path_factory.mktemp("regimes") / "store")


@pytest.fixture(scope="module")
def mixtures(regimes: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Ran]]:
    """One component and three, by K."""
    at = tmp_path_factory.mktemp("mixtures")
    return {
        k: [run(REGIMES_SPACE, regimes, {"model.components": k}, seed, at / f"{k}-{seed}") for seed in SEEDS]
        for k in (1, 3)
    }


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_clusters(tmp_path_factory.mktemp("clusters") / "store")


@pytest.fixture(scope="module")
def priors(clusters: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Ran]]:
    """A Gaussian prior and a flow, by L."""
    at = tmp_path_factory.mktemp("priors")
    return {
        depth: [
            run(CLUSTERS_SPACE, clusters, {"model.flow_depth": depth}, seed, at / f"{depth}-{seed}") for seed in SEEDS
        ]
        for depth in (0, 8)
    }


def assert_beyond_seed_noise(better: list[Ran], worse: list[Ran]) -> None:
    """The worst of one is above the best of the other, by more than seeds of either lie apart."""
    high, low = [ran.score for ran in better], [ran.score for ran in worse]
    noise = max(max(high) - min(high), max(low) - min(low))
    assert min(high) - max(low) > noise, f"{high} against {low}"


def test_three_regimes_want_three_components(mixtures: dict[int, list[Ran]]) -> None:
    assert_beyond_seed_noise(mixtures[3], mixtures[1])
    # One law in place of three costs about a nat a value here: log(16.6 K / 0.7 K) - log 3 = 2.07 at the very best.
    assert min(ran.score for ran in mixtures[3]) - max(ran.score for ran in mixtures[1]) > 0.5


def test_one_component_of_more_weights_than_three_explains_them_no_better(
    mixtures: dict[int, list[Ran]], regimes: Made, tmp_path: Path
) -> None:
    wide = {"model.components": 1, "model.generator": [24], "model.hypernetwork": [48]}
    ran = run(REGIMES_SPACE, regimes, wide, SEEDS[0], tmp_path / "wide")
    weights = [sum(each.numel() for each in model.parameters()) for model in (ran.model, mixtures[3][0].model)]
    assert weights[0] > 2 * weights[1]
    assert_beyond_seed_noise(mixtures[3], [ran])


def test_the_three_components_are_the_three_regimes(mixtures: dict[int, list[Ran]], regimes: Made) -> None:
    # One start in some fifteen ends where two components share a regime, and scores worse: a search takes the best.
    best = max(mixtures[3], key=lambda ran: ran.score)
    assert share_recognised(best.plan, best.model, regimes) > 0.95


def test_clusters_want_a_flow(priors: dict[int, list[Ran]]) -> None:
    assert_beyond_seed_noise(priors[8], priors[0])


def test_more_functions_drawn_from_a_flow_are_of_a_kind(priors: dict[int, list[Ran]], clusters: Made) -> None:
    shares = {depth: [share_of_a_kind(ran.plan, ran.model, clusters) for ran in runs] for depth, runs in priors.items()}
    assert min(shares[8]) > 1.5 * max(shares[0]), shares
