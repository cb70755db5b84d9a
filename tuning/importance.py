"""How much each searched key matters: fANOVA of a random forest that was fitted to the trials.

A key's importance is the share of the forest's variance over the space that its value alone explains. The forest is
fitted to the ranks of the trials, not to their scores, so that one diverged trial does not decide everything.

Source: Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter importance", ICML 2014.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuning.axes import ABSENT, Axis, axes_of
from tuning.record import SweepRecord, TrialRecord
from tuning.scores import score_at, scored

LEAST_TRIALS = 6


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What the forest says.

    Attributes:
        shares: By key, the greatest first; they sum to one. Empty where nothing can be said.
        note: What was compared, or why nothing was.
    """

    shares: dict[str, float]
    note: str


def importance(record: SweepRecord) -> Importance:
    """Estimate what matters.

    Trials that ran to their end are compared by their best value; where some were stopped early all are compared as
    they were at the last epoch that every one of them reached, because the survivors alone are not a fair sample.
    """
    trials = [trial for trial in record.trials if trial.state in ("FINISHED", "PRUNED")]
    what = "by their best value"
    if any(trial.state == "PRUNED" for trial in trials):
        reached = [{point.epoch for point in trial.curve} for trial in trials]
        shared = set.intersection(*reached) if reached else set()
        if not shared:
            return Importance(shares={}, note="The trials have no epoch in common at which they can be compared.")
        epoch = max(shared)
        known: list[tuple[TrialRecord, float | None]] = [(t, score_at(t, record.metric, epoch)) for t in trials]
        what = f"at epoch {epoch}, which all of them reached"
    else:
        known = [(each.trial, each.score) for each in scored(record, trials)]
    pairs = [(trial, value) for trial, value in known if value is not None]
    axes = [axis for axis in axes_of(record) if len({axis.position(trial.values) for trial, _ in pairs}) > 1]
    if len(pairs) < LEAST_TRIALS or not axes or len({value for _, value in pairs}) == 1:
        note = f"With {len(pairs)} comparable {'trial' if len(pairs) == 1 else 'trials'} nothing can be said."
        return Importance(shares={}, note=note)
    shares = _fanova(axes, [trial for trial, _ in pairs], np.array([value for _, value in pairs]))
    return Importance(shares=shares, note=f"fANOVA over {len(pairs)} trials, ranked {what}.")


def _fanova(axes: Sequence[Axis], trials: Sequence[TrialRecord], values: np.ndarray) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    def ordered(axis: Axis) -> bool:
        return axis.dimension.kind != "choice" or all(isinstance(value, int | float) for value in axis.dimension.ends)

    def names(axis: Axis) -> list[str]:
        return sorted({f"{axis.position(trial.values):.6f}" for trial in trials})

    distributions: dict[str, BaseDistribution] = {
        axis.key: FloatDistribution(ABSENT if axis.conditional else 0.0, 1.0)
        if ordered(axis)
        else CategoricalDistribution(names(axis))
        for axis in axes
    }
    ranks = np.searchsorted(np.sort(values), values) / len(values)  # of equal values the same
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for trial, rank in zip(trials, ranks, strict=True):
            places = {axis.key: axis.position(trial.values) for axis in axes}
            params = {axis.key: places[axis.key] if ordered(axis) else f"{places[axis.key]:.6f}" for axis in axes}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(rank)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = FanovaImportanceEvaluator(seed=0).evaluate(study)
    finally:
        optuna.logging.set_verbosity(before)
    total = sum(found.values())
    if not total > 0:
        return {}
    return {key: share / total for key, share in sorted(found.items(), key=lambda item: -item[1])}
