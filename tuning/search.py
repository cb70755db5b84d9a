"""Which combination is tried next: what Ray Tune asks, answered from the space and from what the record holds.

Nothing else is kept. A sweep that goes on tells Optuna of all trials so far and hands out the unfinished ones first,
under their numbers; a combination drawn at random is a function of the sweep's seed and of its number alone.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, Literal, Protocol

import numpy as np
from ray.tune.search import Searcher

from tuning.ledger import Ledger
from tuning.record import TrialRecord
from tuning.space import SpaceConfig, Values
from tuning.trial import NUMBER

LOST_TOO_OFTEN = "its process or node was lost too often"


class Source(Protocol):
    """Where combinations come from."""

    def draw(self, number: int) -> Values:
        """The combination of this number."""

    def tell(self, number: int, trials: tuple[TrialRecord, ...]) -> None:
        """How all trials of a combination, one for each seed, ended."""

    def past(self, number: int, values: Values) -> None:
        """That this combination was drawn before."""


class Listed:
    """A grid."""

    def __init__(self, space: SpaceConfig) -> None:
        self._grid = space.grid()

    def draw(self, number: int) -> Values:
        """The combination of this number."""
        return self._grid[number]

    def tell(self, number: int, trials: tuple[TrialRecord, ...]) -> None:
        """Learn nothing."""

    def past(self, number: int, values: Values) -> None:
        """Know it anyway."""


class Drawn:
    """Combinations at random, which do not depend on the trials before them."""

    def __init__(self, space: SpaceConfig) -> None:
        self._space = space

    def draw(self, number: int) -> Values:
        """The combination of this number."""
        return self._space.draw(np.random.default_rng((self._space.seed, number)))

    def tell(self, number: int, trials: tuple[TrialRecord, ...]) -> None:
        """Learn nothing."""

    def past(self, number: int, values: Values) -> None:
        """Know it anyway."""


class Learned:
    """Optuna's tree-structured Parzen estimator, of one objective or of two."""

    def __init__(self, space: SpaceConfig, past: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Concurrent trials repel each other; a search that goes on does not begin its draws again.
            sampler = optuna.samplers.TPESampler(
                seed=space.seed + 100003 * past, constant_liar=True, n_startup_trials=max(4, min(10, space.trials // 3))
            )
        directions: list[Literal["minimize", "maximize"]] = ["minimize" if space.mode == "min" else "maximize"]
        directions += ["minimize"] if space.against else []
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._asked: dict[int, Any] = {}
        self._states = optuna.trial.TrialState

    def draw(self, number: int) -> Values:
        """The combination of this number, learned from those that have ended."""
        self._asked[number] = self._study.ask()
        return self._space.suggest(self._asked[number])

    def past(self, number: int, values: Values) -> None:
        """Ask for what was drawn before."""
        search = self._space.search
        fixed = {k: json.dumps(v) if search[k].kind == "choice" else v for k, v in values.items()}
        self._study.enqueue_trial(fixed)
        self._asked[number] = self._study.ask()
        self._space.suggest(self._asked[number])

    def tell(self, number: int, trials: tuple[TrialRecord, ...]) -> None:
        """Tell the mean of those that finished; where none did, how far the first got that was stopped early."""
        asked = self._asked.pop(number)
        ended = [(t.best, t.seconds_per_sample) for t in trials if t.state == "FINISHED" and t.best is not None]
        if ended:
            scores = [sum(score for score, _ in ended) / len(ended)]
            if self._space.against:
                scores.append(sum(cost or 0.0 for _, cost in ended) / len(ended))
            self._study.tell(asked, scores)
            return
        stopped = [trial for trial in trials if trial.state == "PRUNED" and trial.curve]
        if not stopped or self._space.against:
            self._study.tell(asked, state=self._states.FAIL)
            return
        for point in stopped[0].curve:
            asked.report(point.metrics[self._space.metric], point.epoch)
        self._study.tell(asked, state=self._states.PRUNED)


def source_of(space: SpaceConfig, past: int) -> Source:
    """The source of a sweep's combinations, when so many were drawn before."""
    if space.method == "grid":
        return Listed(space)
    return Learned(space, past) if space.method == "tpe" else Drawn(space)


class Search(Searcher):
    """What Ray Tune asks for trials.

    Args:
        space: The sweep's.
        ledger: Of its trials.
    """

    def __init__(self, space: SpaceConfig, ledger: Ledger) -> None:
        super().__init__(metric=space.metric, mode=space.mode)
        self._space, self._ledger = space, ledger
        trials = ledger.record.trials
        self._base = space.config({}).seed
        self._points = -(-len(trials) // space.seeds)
        self._source = source_of(space, self._points)
        self._waiting = [trial.number for trial in trials if trial.state == "RUNNING"]
        self._numbers: dict[str, int] = {}
        self._told: set[int] = set()
        for point in range(self._points):
            self._source.past(point, trials[point * space.seeds].values)
            self._tell(point)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: what Ray Tune keeps of a search is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the record holds it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""

    @property
    def left(self) -> int:
        """Trials that are not over, or have not been drawn."""
        return len(self._waiting) + max(0, self._space.total - len(self._ledger.record.trials))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Answer the next trial: an unfinished one, or a new one."""
        if self._ledger.stopping:
            return None
        trials = self._ledger.record.trials
        if self._waiting:
            trial = trials[self._waiting.pop(0)]
        elif len(trials) < self._space.total:
            point, offset = divmod(len(trials), self._space.seeds)
            values = trials[point * self._space.seeds].values if offset else self._draw(point)
            config = self._space.config(values, [f"seed={self._base + offset}"])
            trial = self._ledger.add(values, config.seed, config)
        else:
            return Searcher.FINISHED  # type: ignore[return-value]
        self._numbers[trial_id] = trial.number
        return {NUMBER: trial.number, **trial.values}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a trial that is over."""
        number = self._numbers[trial_id]
        self._ledger.end(number, lost=LOST_TOO_OFTEN if error else "")
        self._tell(number // self._space.seeds)

    def _draw(self, point: int) -> Values:
        own = self._space.own() if point == 0 else None
        if own is None:
            return self._source.draw(point)
        self._source.past(point, own)
        return own

    def _tell(self, point: int) -> None:
        seeds = self._space.seeds
        trials = self._ledger.record.trials[point * seeds : (point + 1) * seeds]
        if point not in self._told and len(trials) == seeds and all(trial.state != "RUNNING" for trial in trials):
            self._told.add(point)
            self._source.tell(point, trials)
