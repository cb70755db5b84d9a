"""One training step; no Ray, no files.

A step is a function of (seed, step): the points, the coarsening and the noise are drawn for the global batch and each
worker takes its share, so that any number of workers computes the same gradient. The loss of a step is

    sum_i w_i l_i / sum_i w_i        over the rows i of the global batch, w_i = 0 for those that only fill up

of which each worker has some rows; the gradients that they differentiate add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import TrainingConfig
from pipelines.data.batches import Framing
from pipelines.data.domain import Chance, Geometry
from pipelines.data.stream import Samples
from pipelines.data.whole import WholeFraming
from vamoh import FunctionBatch, VAMoH
from vamoh.systems import Model

Terms = dict[str, Tensor]
Groups = list[dict[str, Any]]  # of parameters, as torch's optimisers take them


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A worker's part of a step.

    Attributes:
        batch: b functions.
        num_total: Points of the whole functions.
        at, rescale: Points of `batch` that are scored, and what each counts for (`Framed`).
        shown: What the encoder sees (`Framed`).
        places: Where the points that are scored are asked for (`Framed`).
        noise: [num, b, Z].
        weight: [b], 1 or 0; None where all count.
    """

    batch: FunctionBatch
    num_total: int
    noise: Tensor
    at: Tensor | None = None
    rescale: Tensor | None = None
    shown: Tensor | None = None
    places: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return self.noise.shape[1]

    @property
    def scored(self) -> FunctionBatch:
        """The functions at the points that are scored, where these are asked for."""
        scored = self.batch if self.at is None else self.batch.at(self.at)
        return scored if self.places is None else replace(scored, coords=self.places)

    def rows(self, first: int, last: int) -> Drawn:
        """The functions from `first` up to `last`."""
        own = slice(first, last)
        return replace(
            self,
            batch=self.batch.rows(first, last),
            noise=self.noise[:, own],
            at=self.at if self.at is None or self.at.ndim == 1 else self.at[own],
            rescale=None if self.rescale is None else self.rescale[own],
            shown=None if self.shown is None else self.shown[own],
            places=None if self.places is None else self.places[own],
            weight=None if self.weight is None else self.weight[own],
        )

    def to(self, device: torch.device) -> Drawn:
        """The same on another device; from pinned memory the copy goes on while the caller does."""
        return self._each(self.batch.to(device, non_blocking=True), lambda each: each.to(device, non_blocking=True))

    def pinned(self) -> Drawn:
        """The same in memory from which a GPU copies by itself."""
        return self._each(self.batch.pinned(), Tensor.pin_memory)

    def _each(self, batch: FunctionBatch, change: Callable[[Tensor], Tensor]) -> Drawn:
        names = ("noise", "at", "rescale", "shown", "places", "weight")
        changed: dict[str, Any] = {
            name: change(getattr(self, name)) for name in names if getattr(self, name) is not None
        }
        return replace(self, batch=batch, **changed)


class Objective(nn.Module):
    """The loss as a module's forward, which is what may be compiled.

    Args:
        model: What is trained.
        config: Weights of the loss's parts.
        num_samples: Functions that there are to learn from: priors weigh less the more there are.
    """

    def __init__(self, model: VAMoH, config: TrainingConfig, num_samples: int) -> None:
        super().__init__()
        self.model, self.config, self.num_samples = model, config, num_samples

    def forward(self, drawn: Drawn, epoch: int, step: int) -> tuple[Tensor, Terms]:
        """The loss, nats a point, and its terms: weighted sums over the functions; the term `rows` is their weight."""
        config = self.config
        learn_prior, learn_gate = config.stages.learned(epoch, step)
        with torch.autocast(drawn.noise.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            terms = self.model.elbo(
                drawn.batch,
                at=drawn.at,
                rescale=drawn.rescale,
                shown=drawn.shown,
                places=drawn.places,
                noise=drawn.noise,
                num_total=drawn.num_total,
                predictive=config.predictive > 0,
                learn_prior=learn_prior,
                learn_gate=learn_gate,
            )
        bound = terms.reconstruction - terms.kl_c - config.beta * terms.kl_z
        if terms.predictive is not None:
            bound = (1 - config.predictive) * bound + config.predictive * terms.predictive
        losses = (terms.local_penalty / self.num_samples - bound) / drawn.num_total
        parts = {
            "loss": losses,
            "elbo": terms.elbo,
            "reconstruction": terms.reconstruction,
            "kl_z": terms.kl_z,
            "kl_c": terms.kl_c,
            "local_penalty": terms.local_penalty,
        }
        if terms.predictive is not None:
            parts["predictive"] = terms.predictive
        return weighted(drawn, losses, parts)


def weighted(drawn: Drawn, losses: Tensor, parts: Terms) -> tuple[Tensor, Terms]:
    """What an objective gives of a loss [b] and its terms [b]: sums over the functions, and their weight as `rows`."""
    weight = torch.ones_like(losses) if drawn.weight is None else drawn.weight.to(losses.dtype)
    sums = {name: (part.detach() * weight).sum() for name, part in parts.items()}
    return (losses * weight).sum(), sums | {"rows": weight.sum()}


def draw(
    samples: Samples,
    framing: Framing | WholeFraming,
    geometry: Geometry,
    *,
    seed: int,
    step: int,
    latent: int,
    num: int,
) -> Drawn:
    """A worker's part of a step; what is drawn for a sample is its own, whichever worker has it."""
    framed = framing.training(samples.fields, samples.times, geometry, Chance.of(seed, step, samples.position))
    own = [np.random.default_rng((seed, step, int(place))).standard_normal((num, latent)) for place in samples.position]
    weight = None if samples.weight is None else torch.from_numpy(samples.weight)
    noise = torch.from_numpy(np.stack(own, axis=1).astype(np.float32))
    return Drawn(**framed._asdict(), noise=noise, weight=weight)


def vamoh_groups(model: VAMoH, config: TrainingConfig) -> Groups:
    """A rate and a decay for feature grids, for the local read-out's networks, and for the rest."""
    grids: list[nn.Parameter] = []
    local: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (grids if ".tables." in name else local if name.startswith("local.") else rest).append(parameter)
    return [
        {"params": rest, "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": local, "lr": config.local_rate, "weight_decay": 0.0},
        {"params": grids, "lr": config.grid_rate, "weight_decay": config.grid_decay},
    ]


def make_optimizer(groups: Groups) -> torch.optim.AdamW:
    """AdamW with a rate, a decay and, where it says so, averages of its own for every group."""
    groups = [group | {"initial_lr": group["lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def set_rates(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int, steps: int) -> float:
    """Set the learning rates for a step, a function of the step alone; returns the first group's."""
    share = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        share *= 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
    return float(optimizer.param_groups[0]["lr"])


def differentiate(
    objective: nn.Module, drawn: Drawn, *, at_a_time: int, epoch: int, step: int, scale: float | None = None
) -> Terms:
    """Add the gradients of a step's loss, so many functions at a time (0 for all).

    Args:
        objective: The loss, on one worker or on many.
        drawn: This worker's rows.
        at_a_time: Functions.
        epoch, step: From 0.
        scale: What the sum over this worker's rows is multiplied by, 1 / rows of the global batch; None where these
            rows are all.

    Returns:
        The loss and its terms, sums over this worker's rows.
    """
    size, scale = at_a_time or len(drawn), 1 / len(drawn) if scale is None else scale
    sums: Terms = {}
    for first in range(0, len(drawn), size):
        part = drawn.rows(first, min(first + size, len(drawn)))
        loss, terms = objective(part, epoch, step)
        (loss * scale).backward()
        sums = {name: sums.get(name, 0.0) + term for name, term in terms.items()}
    return sums


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, clip: float, *, scale: float = 1.0) -> None:
    """Scale and clip the gradients, update and forget them; refuses one that is not finite before anything is changed.

    Raises:
        FloatingPointError: If the gradient is not finite.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    refuse_unless_finite(float(norm), "gradient")
    if norm > clip or scale != 1:
        torch._foreach_mul_(gradients, scale * (clip / norm if norm > clip else 1.0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # before the next forward pass needs the memory


def refuse_unless_finite(value: float, what: str) -> None:
    """Stop before harm is done.

    Raises:
        FloatingPointError: If the value is not finite.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {what} is not finite: lower the learning rates, or look for faulty values in the store"
        )


@torch.no_grad()
def update_average(average: Model, model: Model, decay: float, step: int) -> None:
    """Move the averaged weights towards the model's; the decay is shorter at first, so that the start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
