"""A sweep as it was: its space, its trials and their curves, in one JSON file that needs nothing else to be read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.data.atomic import written_beside

State = Literal["RUNNING", "FINISHED", "PRUNED", "FAILED"]
Mode = Literal["min", "max"]
FILE, LOCK = "sweep.json", "sweep.lock"


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A validation of a trial.

    Attributes:
        epoch: From 1.
        seconds: Since the trial began, over all of its attempts.
        metrics: Its values, those of the epoch's training among them.
    """

    epoch: int
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial: a point of the space with a seed.

    Attributes:
        number: From 0, in the order in which they were drawn.
        name: Of its folder, within the sweep's.
        values: Of the searched keys, where they apply.
        seed: Of the training run.
        state: Where it is; PRUNED was stopped early by the scheduler, FAILED has an `error`.
        error: One line; empty for none.
        seconds: It took, over all of its attempts.
        curve: Its validations, in order.
        best: The best value of the sweep's metric on the curve.
        run_id: MLflow's.
        seconds_per_sample: Of training, the least of its epochs.
    """

    number: int
    name: str
    values: dict[str, Any]
    seed: int
    state: State
    error: str = ""
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = ()
    best: float | None = None
    run_id: str = ""
    seconds_per_sample: float | None = None

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> TrialRecord:
        """Read what `dataclasses.asdict` made."""
        return cls(**{**tree, "curve": tuple(CurvePoint(**point) for point in tree["curve"])})


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep.

    Attributes:
        name: Of the sweep and of its folder.
        space: The SpaceConfig, as a mapping.
        metric, mode: What is searched for, and whether the least or the greatest of it.
        store: Path or URL.
        fingerprint: Of the store's content.
        started: ISO 8601, UTC.
        seconds: It took, over all of its resumptions.
        trials: By their numbers.
        versions: Of the libraries.
        config: What is searched around: the Config that every trial shares, as a mapping.
        run_id: MLflow's, of the parent run.
    """

    name: str
    space: dict[str, Any]
    metric: str
    mode: Mode
    store: str
    fingerprint: str
    started: str
    seconds: float
    trials: tuple[TrialRecord, ...]
    versions: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""

    @classmethod
    def from_json(cls, path: Path) -> SweepRecord:
        """Read the record of a sweep.

        Raises:
            FileNotFoundError: If there is none.
        """
        tree = json.loads(path.read_text())
        return cls(**{**tree, "trials": tuple(map(TrialRecord.from_dict, tree["trials"]))})

    def to_json(self, path: Path) -> None:
        """Write it; what is not a finite number has no place in JSON, and is null there."""
        with written_beside(path, overwrite=True) as beside:
            beside.write_text(json.dumps(_finite(asdict(self)), indent=1))

    def points(self) -> list[tuple[TrialRecord, ...]]:
        """The trials by their values: one group for each point of the space, its seeds within."""
        groups: dict[str, list[TrialRecord]] = {}
        for trial in self.trials:
            groups.setdefault(json.dumps(trial.values, sort_keys=True), []).append(trial)
        return [tuple(group) for group in groups.values()]

    @property
    def best(self) -> TrialRecord | None:
        """The best finished trial of the point whose trials are best on average; None where none has finished.

        A point of which a seed failed, was stopped early or still runs comes after all that are whole: the luck of its
        other seeds says less.
        """
        sign = 1.0 if self.mode == "min" else -1.0
        ranked: list[tuple[bool, float, float, int, TrialRecord]] = []
        for group in self.points():
            scored = [(sign * t.best, t.number, t) for t in group if t.state == "FINISHED" and t.best is not None]
            if scored:
                mean = sum(value for value, _, _ in scored) / len(scored)
                ranked.append((len(scored) < len(group), mean, *min(scored, key=lambda each: each[:2])))
        return min(ranked, key=lambda each: each[:4])[4] if ranked else None


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
