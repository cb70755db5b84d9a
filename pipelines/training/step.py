"""One training step and one evaluation step; no Ray, no files.

A step is a function of (seed, step): the points, the coarsening and the noise are drawn for the global batch and each
worker takes its share, so that any number of workers computes the same gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.config import TrainingConfig
from pipelines.data.batches import Framing
from pipelines.data.sphere import Lattice
from pipelines.data.stream import Samples
from vamoh import FunctionBatch, VAMoH
from vamoh.likelihoods import Mixture

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Drawn:
    """A worker's part of a step.

    Attributes:
        batch: b functions.
        num_total: Points of the whole functions.
        at: [n], the points of `batch` that are scored; None for all.
        noise: [num, b, Z].
    """

    batch: FunctionBatch
    num_total: int
    at: Tensor | None
    noise: Tensor

    def __len__(self) -> int:
        return self.noise.shape[1]

    def rows(self, first: int, last: int) -> Drawn:
        """The functions from `first` up to `last`."""
        return replace(self, batch=self.batch.rows(first, last), noise=self.noise[:, first:last])

    def to(self, device: torch.device) -> Drawn:
        """The same on another device."""
        at = None if self.at is None else self.at.to(device, non_blocking=True)
        batch, noise = self.batch.to(device, non_blocking=True), self.noise.to(device, non_blocking=True)
        return Drawn(batch, self.num_total, at, noise)


class Objective(nn.Module):
    """The loss as a module's forward, which is what distributed data parallelism wraps.

    Args:
        model: What is trained.
        config: Weights of the loss's parts.
        num_samples: Functions that there are to learn from: priors weigh less the more there are.
    """

    def __init__(self, model: VAMoH, config: TrainingConfig, num_samples: int) -> None:
        super().__init__()
        self.model, self.config, self.num_samples = model, config, num_samples

    def forward(self, drawn: Drawn, epoch: int, step: int) -> tuple[Tensor, Terms]:
        """The loss, nats a point, and its terms as means over the batch."""
        config = self.config
        learn_prior, learn_gate = config.stages.learned(epoch, step)
        terms = self.model.elbo(
            drawn.batch,
            at=drawn.at,
            noise=drawn.noise,
            num_total=drawn.num_total,
            predictive=config.predictive > 0,
            learn_prior=learn_prior,
            learn_gate=learn_gate,
        )
        bound = terms.reconstruction - terms.kl_c - config.beta * terms.kl_z
        if terms.predictive is not None:
            bound = (1 - config.predictive) * bound + config.predictive * terms.predictive
        loss = (terms.local_penalty / self.num_samples - bound).mean() / drawn.num_total
        parts = {
            "elbo": terms.elbo,
            "reconstruction": terms.reconstruction,
            "kl_z": terms.kl_z,
            "kl_c": terms.kl_c,
            "local_penalty": terms.local_penalty,
        }
        if terms.predictive is not None:
            parts["predictive"] = terms.predictive
        return loss, {name: part.detach().mean() for name, part in parts.items()} | {"loss": loss.detach()}


def draw(samples: Samples, framing: Framing, lattice: Lattice, *, seed: int, step: int, latent: int, num: int) -> Drawn:
    """A worker's part of a step; a sample's noise is its own, whichever worker has it."""
    framed = framing.training(samples.fields, samples.times, lattice, np.random.default_rng((seed, step)))
    own = [np.random.default_rng((seed, step, int(place))).standard_normal((num, latent)) for place in samples.position]
    return Drawn(*framed, torch.from_numpy(np.stack(own, axis=1).astype(np.float32)))


def make_optimizer(model: VAMoH, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with a rate and a decay for feature grids, for the local read-out's networks, and for the rest."""
    grids: list[nn.Parameter] = []
    local: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (grids if ".tables." in name else local if name.startswith("local.") else rest).append(parameter)
    groups = [
        {"params": rest, "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": local, "lr": config.local_rate, "weight_decay": 0.0},
        {"params": grids, "lr": config.grid_rate, "weight_decay": config.grid_decay},
    ]
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


def differentiate(objective: nn.Module, drawn: Drawn, *, at_a_time: int, epoch: int, step: int) -> Terms:
    """Add the gradients of a step's loss, so many functions at a time (0 for all); returns it and its terms.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    size = at_a_time or len(drawn)
    sums: Terms = {}
    for first in range(0, len(drawn), size):
        part = drawn.rows(first, min(first + size, len(drawn)))
        last = first + size >= len(drawn)
        with nullcontext() if last or not isinstance(objective, DistributedDataParallel) else objective.no_sync():
            loss, terms = objective(part, epoch, step)
            _refuse_unless_finite(loss, "loss")
            share = len(part) / len(drawn)
            (loss * share).backward()
        sums = {name: sums.get(name, 0.0) + term * share for name, term in terms.items()}
    return sums


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
    """Clip the gradients, update and forget them; refuses a gradient that is not finite before anything is changed.

    Raises:
        FloatingPointError: If the gradient is not finite.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    _refuse_unless_finite(norm, "gradient")
    if norm > clip:
        torch._foreach_mul_(gradients, clip / norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # before the next forward pass needs the memory


def _refuse_unless_finite(value: Tensor, what: str) -> None:
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the {what} is not finite: lower the learning rates, or look for faulty values in the store"
        )


@torch.no_grad()
def update_average(average: VAMoH, model: VAMoH, decay: float, step: int) -> None:
    """Move the averaged weights towards the model's; the decay is shorter at first, so that the start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def ensemble_crps(members: Tensor, truth: Tensor) -> Tensor:
    """CRPS of an ensemble [M, ...] as a distribution of M equal steps; the same shape as `truth`."""
    count = len(members)
    ordered = members.sort(dim=0).values
    rank = torch.arange(count, dtype=members.dtype, device=members.device).view(-1, *[1] * truth.ndim)
    return (members - truth).abs().mean(dim=0) - (ordered * (2 * rank + 1 - count)).sum(dim=0) / count**2


@torch.no_grad()
def predict(model: VAMoH, batch: FunctionBatch, noise: Tensor) -> Mixture:
    """What the model says of the fields of `batch`: given their context, or (classic) given themselves."""
    if batch.context is not None:
        return model.sample(noise, batch)
    return model.complete(batch, batch, noise)


@torch.no_grad()
def validate(
    model: VAMoH,
    samples: Iterable[Samples],
    framing: Framing,
    lattice: Lattice,
    *,
    members: int,
    seed: int,
) -> Tensor:
    """Sums over validation fields, to be added over workers.

    Returns:
        [4] float64: squared error, CRPS (both in kelvin), log score (nats in model units), and the weight of each;
        area weighted. The ensemble is the distribution's quantiles at (i + 1/2) / M for one latent a field. Draws
        are a function of the seed and of a part's first position, so that it does not matter which worker has which.
    """
    framing = replace(framing, points=0)
    device = next(model.parameters()).device
    area = torch.from_numpy(lattice.area).float().to(device)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for part in samples:
        number = int(part.position[0])
        rng = np.random.default_rng((seed, number))
        batch = framing.training(part.fields, part.times, lattice, rng).batch.to(device)
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator).to(device)
        mixture = predict(model, batch, noise)
        levels = (torch.arange(members) + 0.5) / members
        ensemble = torch.stack([mixture.quantile(torch.full_like(batch.values, float(level))) for level in levels])
        weight = area * batch.mask
        error = (mixture.mean - batch.values)[..., 0] ** 2 * framing.scaling.scale**2
        crps = ensemble_crps(ensemble, batch.values)[..., 0] * framing.scaling.scale
        sums += torch.stack(
            [(part * weight).sum() for part in (error, crps, mixture.log_prob(batch.values))]
            + [weight.expand(len(error), -1).sum()]
        ).double()
    return sums


def validation_metrics(sums: Tensor) -> dict[str, float]:
    """RMSE and CRPS in kelvin and the mean log score from the sums of `validate`."""
    error, crps, score, weight = sums.tolist()
    weight = max(weight, 1e-12)
    return {
        "validation_rmse": math.sqrt(error / weight),
        "validation_crps": crps / weight,
        "validation_log_score": score / weight,
    }
