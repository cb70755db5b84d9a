"""A model that learns: what a step changes, and the step itself, together with all other workers."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.training.checkpoint import Checkpoint, load_checkpoint, load_training
from pipelines.training.plan import Plan
from pipelines.training.step import (
    Drawn,
    differentiate,
    make_optimizer,
    refuse_unless_finite,
    set_rates,
    take_step,
    together,
    update_average,
)
from pipelines.training.systems import system_of


class Learner:
    """The model, its moving average, its optimiser and its objective.

    Args:
        plan: The run.
        num_samples: Functions that there are to learn from.
        steps: Of the whole run.
        device: Where.
        world_size: Workers.
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
        world_size: int = 1,
        start: Path | None = None,
    ) -> None:
        self.config, self.steps, self.device, self._world_size = plan.config.training, steps, device, world_size
        system = system_of(plan.spec)
        self.model = plan.new_model().to(device)
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
        if world_size > 1:
            from torch.nn.parallel import DistributedDataParallel

            stages = self.config.stages
            self._objective = DistributedDataParallel(
                self._objective,
                find_unused_parameters=stages.prior > 0 or stages.gate > 0,  # what is not learned yet has no gradient
                forward_sync_buffers=False,  # they are constants
                gradient_as_bucket_view=True,
            )

    def rate(self, step: int) -> float:
        """Set the learning rates of a step; returns the first."""
        return set_rates(self.optimizer, self.config, step, self.steps)

    def step(self, drawn: Drawn, *, rows: int, epoch: int, step: int, **asked: float) -> dict[str, float]:
        """Take a step with all workers.

        Args:
            drawn: This worker's rows.
            rows: Of the global batch, those included that turn out to weigh nothing.
            epoch, step: From 0.
            asked: Numbers to add up over the workers on this occasion.

        Returns:
            The loss, its terms, the weight of all `rows` and what is `asked`, sums over the workers.

        Raises:
            FloatingPointError: If the loss or its gradient is not finite, in all workers alike; nothing is changed.
        """
        self.rate(step)
        sums = differentiate(
            self._objective,
            drawn.to(self.device),
            at_a_time=self.config.micro_batch,
            epoch=epoch,
            step=step,
            scale=self._world_size / rows,
        )
        asking: dict[str, Tensor] = {name: torch.tensor(value, device=self.device) for name, value in asked.items()}
        agreed = together(sums | asking)
        refuse_unless_finite(agreed["loss"], "loss")
        if agreed["rows"]:
            take_step(self.model, self.optimizer, self.config.clip, scale=rows / agreed["rows"])
        update_average(self.average, self.model, self.config.average, step)
        return agreed
