"""Ray Tune's run of a sweep's trials: as many at a time as fit, until all are over or the user ends it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.search import BasicVariantGenerator

from tuning.ledger import Ledger
from tuning.record import SweepRecord
from tuning.room import Room
from tuning.schedule import scheduler_of
from tuning.search import LOST_TOO_OFTEN, Search
from tuning.space import SpaceConfig
from tuning.trial import NUMBER, Job, number_of, run_trial, trial_name

# Processes and nodes that a trial may lose; what it raises is counted in the trial itself.
LOST = 4
# Read by Ray Tune: no files of its own beside ours, signals are ours, and a trial that was stopped has time to end.
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "10",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial whose loss is not finite at once reports nothing
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(
    space: SpaceConfig,
    ledger: Ledger,
    job: Job,
    room: Room,
    at_a_time: int,
    show: Callable[[SweepRecord], None] | None,
) -> None:
    """Run all trials that are not over, in the Ray that there is.

    Args:
        space, ledger, job: The sweep.
        room: What a trial is given.
        at_a_time: Trials that fit.
        show: Called now and then.

    Raises:
        KeyboardInterrupt: If the user ended it.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    search = Search(space, ledger)
    if not search.left:
        return
    with _stoppable(ledger):
        shutil.rmtree(ledger.folder / "ray", ignore_errors=True)

        def trial(config: dict[str, Any]) -> None:
            # A member of a population that goes on from another is given all of the other's config.
            run_trial(job, {**config, NUMBER: number_of(tune.get_context().get_trial_name())})

        left = search.left
        asked = _members(search) if space.method == "pbt" else (search, {})
        tuner = tune.Tuner(
            tune.with_resources(trial, room.resources),
            param_space=asked[1],
            tune_config=tune.TuneConfig(
                search_alg=asked[0],
                scheduler=scheduler_of(space, ledger.record),
                num_samples=left,
                max_concurrent_trials=at_a_time if room.workers or room.concurrent else None,
                reuse_actors=not room.workers,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(ledger.folder),
                failure_config=tune.FailureConfig(max_failures=LOST),
                callbacks=[Keeper(ledger, show)],
                stop=_Stopper(ledger),
                verbose=0,
            ),
        )
        tuner.fit()
    if ledger.stopping:
        trials = ledger.record.trials
        over = sum(each.state != "RUNNING" for each in trials)
        raise KeyboardInterrupt(
            f"{over} of {space.total} trials are over, saved in {ledger.folder}: --resume goes on from there"
        )


class Keeper(tune.Callback):
    """Enters in the record what Ray Tune tells of its trials."""

    def __init__(self, ledger: Ledger, show: Callable[[SweepRecord], None] | None) -> None:
        self._ledger, self._show = ledger, show

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,  # noqa: ANN401 - Ray's
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401 - Ray's
    ) -> None:
        """Read what the trial has left."""
        self._change(trial)
        self._ledger.look(number_of(str(trial)))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401 - Ray's
        """Know a population's new values."""
        self._change(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """Enter its end, where the search was not told of it."""
        self._ledger.end(number_of(str(trial)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """Enter that it was lost."""
        self._ledger.end(number_of(str(trial)), lost=LOST_TOO_OFTEN)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ANN401 - Ray's
        """Write and show the record, now and then."""
        self._ledger.breathe(self._show)

    def _change(self, trial: Any) -> None:  # noqa: ANN401 - Ray's
        values = {key: value for key, value in trial.config.items() if key != NUMBER}
        self._ledger.change(number_of(str(trial)), values=values)


def _members(search: Search) -> tuple[BasicVariantGenerator, dict[str, Any]]:
    """A population's members, all at once: its scheduler goes with no other search."""
    points = [search.suggest(f"member-{number}") or {} for number in range(search.left)]
    return BasicVariantGenerator(points_to_evaluate=points), {key: tune.choice([None]) for key in points[0]}


class _Stopper(tune.Stopper):
    """Ends all trials where the user ends the sweep."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ledger.stopping


def _name(trial: Any) -> str:  # noqa: ANN401 - Ray's
    return trial_name(trial.config[NUMBER])


@contextmanager
def _stoppable(ledger: Ledger) -> Iterator[None]:
    """On Ctrl-C or SIGTERM have the trials end; the second one interrupts. Ray's own handlers are taken back after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if ledger.stopping:
            raise KeyboardInterrupt
        ledger.stopping = True

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
