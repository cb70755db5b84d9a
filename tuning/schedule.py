"""Which trials are stopped early, and which go on from another's weights: Ray Tune's schedulers, told of the past."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from tuning.dimension import Dimension
from tuning.record import CurvePoint, SweepRecord
from tuning.space import SpaceConfig
from tuning.trial import EPOCH, NUMBER


def scheduler_of(space: SpaceConfig, record: SweepRecord) -> TrialScheduler:
    """The scheduler of a sweep, with what it knew of its trials."""
    training = space.config({}).training
    if space.method == "pbt":
        return population(space, interval=space.interval * training.validate_every, epochs=training.epochs)
    if not rungs(space):
        return FIFOScheduler()
    scheduler = Halving(
        lambda number: record.trials[number].curve if number < len(record.trials) else (),
        time_attr=EPOCH,
        metric=space.metric,
        mode=space.mode,
        max_t=rungs(space)[-1],
        grace_period=rungs(space)[0],
        reduction_factor=space.reduction,
        stop_last_trials=False,
    )
    for trial in record.trials:
        if trial.state != "RUNNING":
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial.name, config={NUMBER: trial.number}))
    return scheduler


def rungs(space: SpaceConfig) -> list[int]:
    """Epochs after which trials are compared, before the last: none where nothing is stopped early.

    A rung is a validation: with one every 5 epochs, a grace of 2 and a reduction of 3 they are 10, 30, 90.
    """
    training = space.config({}).training
    if not space.asha or space.against is not None or space.method == "pbt":
        return []
    found, epoch = [], space.grace * training.validate_every
    while epoch < training.epochs:
        found.append(epoch)
        epoch *= space.reduction
    return found


class Halving(ASHAScheduler):
    """Asynchronous successive halving that knows the validations that a trial had before this driver.

    Args:
        curve: Of a trial, by its number.
        given: See `ASHAScheduler`.

    Source: Li et al. 2020, A system for massively parallel hyperparameter tuning.
    """

    def __init__(self, curve: Callable[[int], tuple[CurvePoint, ...]], **given: Any) -> None:  # noqa: ANN401 - Ray's
        super().__init__(**given)
        self._curve, self._name = curve, given["metric"]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401 - Ray's
        """Take a trial in, with its past."""
        super().on_trial_add(tune_controller, trial)
        for point in self._curve(trial.config[NUMBER]):
            if self._name in point.metrics:
                result = {EPOCH: point.epoch, self._name: point.metrics[self._name]}
                super().on_trial_result(tune_controller, trial, result)


class Population(PopulationBasedTraining):
    """Population-based training: the worst quarter goes on from the best quarter's weights, with other rates.

    All members wait for each other before a change, so that who is the worst does not depend on who came first; after
    the last epoch nobody changes.

    Args:
        epochs: The last one.
        given: See `PopulationBasedTraining`.

    Source: Jaderberg et al. 2017, Population based training of neural networks.
    """

    def __init__(self, epochs: int, **given: Any) -> None:  # noqa: ANN401 - Ray's
        super().__init__(**given)
        self._epochs = epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401 - Ray's
        """Decide what a member does after a validation."""
        if result.get(EPOCH, self._epochs) >= self._epochs:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


def population(space: SpaceConfig, *, interval: int, epochs: int) -> Population:
    """The scheduler of a population that may change every so many epochs."""
    random.seed(space.seed)  # Ray draws from the global generators
    np.random.seed(space.seed)
    rng = np.random.default_rng(space.seed)

    def within(config: dict[str, Any]) -> dict[str, Any]:
        """Bring what was perturbed back into the space."""
        for key, dimension in space.search.items():
            if dimension.kind != "choice":
                low, high = dimension.ends
                config[key] = min(max(config[key], low), high)
        return config

    return Population(
        epochs,
        synch=True,
        time_attr=EPOCH,
        metric=space.metric,
        mode=space.mode,
        perturbation_interval=interval,
        hyperparam_mutations={key: _mutation(dimension, rng) for key, dimension in space.search.items()},
        custom_explore_fn=within,
        require_attrs=False,
    )


def _mutation(dimension: Dimension, rng: np.random.Generator) -> list[Any] | Callable[[], Any]:
    """What Ray draws anew from, or moves along."""
    if dimension.kind == "choice":
        return dimension.all()
    return lambda: dimension.draw(rng)
