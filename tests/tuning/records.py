"""Records of sweeps that never ran, of any shape: what the report and the live view are given in their tests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tuning.record import CurvePoint, State, SweepRecord, TrialRecord
from tuning.space import SpaceConfig

Score = Callable[[Mapping[str, Any]], float]
GRID: dict[str, Any] = {
    "description": "How many components, and how deep a flow.",
    "search": {"model.components": {"choice": [1, 2, 3, 5]}, "model.flow_depth": {"choice": [0, 4, 16]}},
    "method": "grid",
}
WIDE: dict[str, Any] = {
    "search": {
        "model.latent": {"choice": [4, 8, 16, 32]},
        "model.generator": {"choice": [[8, 8], [16, 16], [32, 32]]},
        "model.flow_depth": {"int": [0, 80]},
        "training.learning_rate": {"log": [5.0e-4, 1.0e-2]},
        "training.beta": {"float": [0.2, 2.0], "when": {"model.latent": [16, 32]}},
    },
    "trials": 20,
}
NOISE = 0.002


def grid_score(values: Mapping[str, Any]) -> float:
    """Best at three components and depth 4."""
    return 0.14 + 0.01 * abs(values["model.components"] - 3) + 0.001 * abs(values["model.flow_depth"] - 4)


def wide_score(values: Mapping[str, Any]) -> float:
    """The learning rate matters most, the generator a little, the rest not."""
    narrow = values["model.generator"] == [8, 8]
    return 0.14 + 0.05 * abs(math.log(values["training.learning_rate"] / 2e-3)) + (0.01 if narrow else 0.0)


def make_record(
    tree: Mapping[str, Any],
    score: Score,
    *,
    seeds: int = 1,
    failed: float = 0.0,
    stopped: float = 0.0,
    missing: bool = False,
    seed: int = 0,
) -> SweepRecord:
    """A sweep over `tree`, a space without its `train`.

    Args:
        tree: The space.
        score: What a point's trials reach, but for some noise.
        seeds: Trials of each point.
        failed, stopped: The share of trials that failed after a while, and of those that were stopped at a rung.
        missing: No validation has the metric.
        seed: Of the noise.
    """
    space = SpaceConfig.model_validate({"train": "downscale", **tree, "seeds": seeds})
    rng = np.random.default_rng(seed)
    points = space.grid() if space.method == "grid" else [space.draw(rng) for _ in range(space.trials)]
    trials: list[TrialRecord] = []
    for values in points:
        for number in range(seeds):
            chance = rng.random()
            state: State = "FAILED" if chance < failed else "PRUNED" if chance < failed + stopped else "FINISHED"
            last = {"FAILED": int(rng.integers(0, 3)) * 5, "PRUNED": int(rng.choice([10, 30])), "FINISHED": 60}[state]
            trials.append(_trial(space, values, number, len(trials), state, last, score, missing, rng))
    return SweepRecord(
        name="a sweep",
        space=json.loads(space.model_dump_json(exclude_none=True, by_alias=True)),
        metric=space.metric,
        mode=space.mode,
        store="uk.zarr",
        fingerprint="0123456789abcdef",
        started="2026-11-22T10:00:00+00:00",
        seconds=sum(trial.seconds for trial in trials) / 2,
        trials=tuple(trials),
        versions={"torch": "2.13.0"},
        config={"training": {"epochs": 60, "validate_every": 5}},
        run_id="f" * 32,
    )


def _trial(
    space: SpaceConfig,
    values: dict[str, Any],
    seed: int,
    number: int,
    state: State,
    last: int,
    score: Score,
    missing: bool,
    rng: np.random.Generator,
) -> TrialRecord:
    sign = 1 if space.mode == "min" else -1
    epochs = range(5, last + 1, 5)
    reached = [score(values) + sign * 0.3 * math.exp(-epoch / 12) + NOISE * rng.standard_normal() for epoch in epochs]
    curve = tuple(
        CurvePoint(epoch=epoch, seconds=0.6 * epoch, metrics={"loss": 1.0} | ({} if missing else {space.metric: value}))
        for epoch, value in zip(epochs, reached, strict=True)
    )
    return TrialRecord(
        number=number,
        name=f"trial-{number:03d}",
        values=values,
        seed=seed,
        state=state,
        error="ValueError: <b>no</b> & no" if state == "FAILED" else "",
        seconds=3.0 + 0.6 * last,
        curve=curve,
        best=None if missing or not reached else (min if sign > 0 else max)(reached),
        seconds_per_sample=float(rng.uniform(0.002, 0.02)) if curve else None,
    )
