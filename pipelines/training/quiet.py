"""What of Ray a training has no use for, kept from taking the workers' processors.

Each process that Ray starts takes a hundredth of a core for as long as it lives, whatever it does: a thread of it wakes
up a hundred times a second to look for signals. What a run does not need is not started where Ray lets one say so, and
ended where it does not; and the workers' own threads of that kind are kept waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

REST_S = 2.0  # that Ray waits at most for what it asks a worker while it trains

# Of Ray Train's callbacks: what hands out Ray Data's sets, of which there are none; and what gives back the workers'
# places should the controller die, which a Ray that ends with the run does too.
_UNUSED = frozenset({"DatasetsCallback"})
_UNUSED_WHERE_OWN = frozenset({"PlacementGroupCleanerCallback"})

_trained = threading.Event()


class Trainer(TorchTrainer):
    """Ray's, without the processes that would stand idle beside the workers.

    Args:
        given: Of `TorchTrainer`.
        own: Whether this Ray ends with the run.
        told: Whether the workers tell of validations, all of them at once.
    """

    def __init__(self, *given: Any, own: bool, told: bool, **named: Any) -> None:  # noqa: ANN401 - Ray's own
        self._own, self._told = own, told
        super().__init__(*given, **named)

    # Both are of Ray Train V2 alone, and a type checker sees V1.

    def _create_default_callbacks(self) -> list[Any]:
        unused = _UNUSED | _UNUSED_WHERE_OWN if self._own else _UNUSED
        every: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        found = [each for each in every if type(each).__name__ not in unused]
        return found if self._told else [*found, _NoBarrier()]

    def _initialize_and_run_controller(self, **given: Any) -> Any:  # noqa: ANN401
        policy = given["scaling_policy"]
        if self._own and isinstance(policy, FixedScalingPolicy):
            given["scaling_policy"] = _AsManyAsThereAre(policy.scaling_config)
        return super()._initialize_and_run_controller(**given)  # type: ignore[misc]


class _AsManyAsThereAre(FixedScalingPolicy):
    """A fixed number of workers, in a Ray that does not grow: nobody has to be told what would be needed."""

    def _send_resource_request(self) -> None:
        """Send none."""

    _maybe_send_resource_request = _cancel_resource_request = _send_resource_request


class _NoBarrier(WorkerGroupCallback):
    """Ends the process at which workers meet to tell of something, which these never do."""

    def after_worker_group_start(self, worker_group: Any) -> None:  # noqa: ANN401
        """Called in Ray Train's controller."""
        ray.kill(worker_group._worker_group_state.sync_actor)


@contextmanager
def resting() -> Iterator[None]:
    """Keep a worker's main thread waiting while its other one trains; what Ray asks of it comes in between."""
    _trained.clear()
    _rest()
    try:
        yield
    finally:
        _trained.set()


def _rest() -> None:
    ray.get_runtime_context().current_actor.execute.remote(_wait)


def _wait() -> None:
    if not _trained.wait(REST_S):
        _rest()
