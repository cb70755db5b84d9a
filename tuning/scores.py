"""What a sweep's trials scored: the numbers behind the report's charts and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tuning.record import SweepRecord, TrialRecord


class Scored(NamedTuple):
    """A trial and its score, a finite number."""

    trial: TrialRecord
    score: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of the space, over its seeds.

    Attributes:
        values: Of the searched keys.
        trials: Its own, those without a score included.
        finished: How many of them finished with a score.
        mean: Of these scores.
        spread: Their standard deviation; None with fewer than two.
    """

    values: dict[str, Any]
    trials: tuple[TrialRecord, ...]
    finished: int
    mean: float
    spread: float | None


def scored(record: SweepRecord, trials: Iterable[TrialRecord] | None = None) -> list[Scored]:
    """The trials that have a score, whatever became of them."""
    chosen = record.trials if trials is None else trials
    found = [(trial, finite(trial.best)) for trial in chosen]
    return [Scored(trial, score) for trial, score in found if score is not None]


def settled(record: SweepRecord, trials: Iterable[TrialRecord] | None = None) -> list[Scored]:
    """Those that finished with a score; where none did, those that were stopped early."""
    known = scored(record, trials)
    finished = [each for each in known if each.trial.state == "FINISHED"]
    return finished or [each for each in known if each.trial.state == "PRUNED"]


def best_first(record: SweepRecord, known: Iterable[Scored]) -> list[Scored]:
    """From the best to the worst."""
    return sorted(known, key=lambda each: each.score if record.mode == "min" else -each.score)


def score_at(trial: TrialRecord, metric: str, epoch: int) -> float | None:
    """A trial's value at an epoch; None where it has none, or none that is finite."""
    for point in trial.curve:
        if point.epoch == epoch:
            return finite(point.metrics.get(metric))
    return None


def finite(value: float | None) -> float | None:
    """The value, or None where there is none or it is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def better(record: SweepRecord, one: float, other: float) -> bool:
    """Whether one score is better than another."""
    return one < other if record.mode == "min" else one > other


def ranked_points(record: SweepRecord) -> list[Point]:
    """The points that have a finished trial: those whose seeds all finished first, the best of them foremost."""
    points = []
    for group in record.points():
        known = [each.score for each in scored(record, group) if each.trial.state == "FINISHED"]
        if known:
            points.append(
                Point(
                    values=group[0].values,
                    trials=group,
                    finished=len(known),
                    mean=sum(known) / len(known),
                    spread=standard_deviation(known),
                )
            )
    sign = 1.0 if record.mode == "min" else -1.0
    return sorted(points, key=lambda point: (point.finished < len(point.trials), sign * point.mean))


def standard_deviation(values: Sequence[float]) -> float | None:
    """Of a sample; None with fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def seed_noise(record: SweepRecord) -> float | None:
    """The standard deviation between seeds of one point, pooled over all points; None where none has two."""
    pooled = [(point.spread**2, point.finished - 1) for point in ranked_points(record) if point.spread is not None]
    degrees = sum(degree for _, degree in pooled)
    return math.sqrt(sum(square * degree for square, degree in pooled) / degrees) if degrees else None


def front(record: SweepRecord) -> list[Scored]:
    """The finished trials of which no other is both better and quicker a sample, the quickest first."""
    sign = 1.0 if record.mode == "min" else -1.0
    timed = [
        (each.trial.seconds_per_sample, sign * each.score, each)
        for each in scored(record)
        if each.trial.state == "FINISHED" and each.trial.seconds_per_sample is not None
    ]
    kept: list[Scored] = []
    for _, _, each in sorted(timed, key=lambda entry: entry[:2]):
        if not kept or better(record, each.score, kept[-1].score):
            kept.append(each)
    return kept


def rungs(record: SweepRecord) -> list[int]:
    """Epochs after which the scheduler compared trials: a grace, and its multiples by the reduction."""
    space, training = record.space, record.config.get("training", {})
    if not space.get("asha") or space.get("against") or space.get("method") == "pbt" or not training:
        return []
    found, epoch = [], space["grace"] * training["validate_every"]
    while epoch < training["epochs"]:
        found.append(epoch)
        epoch *= space["reduction"]
    return found
