"""A model that learns: what a step changes, and the step itself, together with all other workers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipelines.training.checkpoint import Checkpoint, load_checkpoint, load_training
from pipelines.training.exchange import Exchange, same_everywhere
from pipelines.training.plan import Plan
from pipelines.training.step import (
    Drawn,
    differentiate,
    make_optimizer,
    refuse_unless_finite,
    set_rates,
    take_step,
    update_average,
)
from pipelines.training.systems import system_of


class UnderWay(NamedTuple):
    """A step that has begun: the gradients on their way, the rows of its global batch, and its number."""

    exchange: Exchange
    rows: int
    step: int


class Learner:
    """The model, its moving average, its optimiser and its objective.

    Args:
        plan: The run.
        num_samples: Functions that there are to learn from.
        steps: Of the whole run.
        device: Where.
        start: A checkpoint to go on from.

    Attributes:
        began_at: What `start` says of itself.
    """

    def __init__(
        self,
        plan: Plan,
        num_samples: int,
        *,
        steps: int,
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        self.config, self.steps, self.device = plan.config.training, steps, device
        system = system_of(plan.spec)
        self.model = plan.new_model().to(device)
        same_everywhere(self.model)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = make_optimizer(system.groups(self.model, self.config))
        self.began_at: Checkpoint | None = None
        if start is not None:
            self.began_at, weights = load_checkpoint(start)
            load_training(start, self.model, self.optimizer)
            self.average.load_state_dict(weights.state_dict())
        self._objective: nn.Module = system.objective(self.model, self.config, num_samples)
        if self.config.compile:
            self._objective.compile(dynamic=False)  # a batch has one shape, or two where the last is smaller

    def rate(self, step: int) -> float:
        """Set the learning rates of a step; returns the first."""
        return set_rates(self.optimizer, self.config, step, self.steps)

    def begin(self, drawn: Drawn, *, rows: int, epoch: int, step: int, **asked: float) -> UnderWay:
        """Begin a step with all workers: differentiate, and send the gradients on their way.

        Args:
            drawn: This worker's rows.
            rows: Of the global batch, those included that turn out to weigh nothing.
            epoch, step: From 0.
            asked: Numbers to add up over the workers on this occasion.
        """
        self.rate(step)
        sums = differentiate(
            self._objective,
            drawn.to(self.device),
            at_a_time=self.config.micro_batch,
            epoch=epoch,
            step=step,
            scale=1 / rows,
        )
        asking: dict[str, Tensor] = {name: torch.tensor(value, device=self.device) for name, value in asked.items()}
        return UnderWay(Exchange(self.model, sums | asking), rows, step)

    def end(self, begun: UnderWay) -> dict[str, float]:
        """End a step, once all workers' gradients are there.

        Returns:
            The loss, its terms, the weight of all rows and what was asked, sums over the workers.

        Raises:
            FloatingPointError: If the loss or its gradient is not finite, in all workers alike; nothing is changed.
        """
        agreed = begun.exchange.wait()
        refuse_unless_finite(agreed["loss"], "loss")
        if agreed["rows"]:
            take_step(self.model, self.optimizer, self.config.clip, scale=begun.rows / agreed["rows"])
        update_average(self.average, self.model, self.config.average, begun.step)
        return agreed

    def step(self, drawn: Drawn, *, rows: int, epoch: int, step: int) -> dict[str, float]:
        """Take a step: `begin` and `end`."""
        return self.end(self.begin(drawn, rows=rows, epoch=epoch, step=step))
