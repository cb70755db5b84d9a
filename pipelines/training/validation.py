"""One evaluation step: what a model says of held-out fields, and how well it says it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipelines.data.batches import Framing
from pipelines.data.domain import Chance, Geometry
from pipelines.data.store import Store
from pipelines.data.stream import Index, Samples
from pipelines.data.whole import WholeFraming
from vamoh import FunctionBatch, VAMoH
from vamoh.likelihoods import Mixture
from vamoh.systems import Model

VALIDATION_BATCH = 8


def read_samples(store: Store, index: Index, *, rank: int = 0, world_size: int = 1) -> Iterator[Samples]:
    """Samples by position, a few at a time, in order; of these parts, every `world_size`-th from `rank` on."""
    field = store.field
    for first in range(rank * VALIDATION_BATCH, len(index), world_size * VALIDATION_BATCH):
        part = index[first : first + VALIDATION_BATCH]
        chosen = field.isel({field.dims[0]: part})
        yield Samples(chosen.values, chosen[field.dims[0]].values, part)


def ensemble_crps(members: Tensor, truth: Tensor) -> Tensor:
    """CRPS of an ensemble [M, ...] as a distribution of M equal steps; the same shape as `truth`."""
    count = len(members)
    ordered = members.sort(dim=0).values
    rank = torch.arange(count, dtype=members.dtype, device=members.device).view(-1, *[1] * truth.ndim)
    return (members - truth).abs().mean(dim=0) - (ordered * (2 * rank + 1 - count)).sum(dim=0) / count**2


@torch.no_grad()
def predict(model: Model, batch: FunctionBatch, noise: Tensor) -> Mixture:
    """What the model says of the fields of `batch`: given their context, or (classic) given themselves."""
    if batch.context is not None:
        return model.sample(noise, batch)
    return model.complete(batch, batch, noise)


@torch.no_grad()
def validate(
    model: Model,
    samples: Iterable[Samples],
    framing: Framing | WholeFraming,
    geometry: Geometry,
    *,
    members: int,
    seed: int,
) -> Tensor:
    """Sums over validation fields, to be added over workers.

    Returns:
        [6] float64: squared error, CRPS (both in the store's units, means over channels), log score (nats in model
        units), and the weight of each, area weighted; then the bound (nats) of functions without context, and their
        number of points. The ensemble is the distribution's quantiles at (i + 1/2) / M for one latent a function.
        Draws are a function of the seed and of a part's first position, so that it does not matter which worker has
        which.
    """
    framing = framing.entire
    device = next(model.parameters()).device
    area = torch.from_numpy(geometry.area).float().to(device)
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    for part in samples:
        number = int(part.position[0])
        chance = Chance.of(seed, number, part.position)
        batch = framing.training(part.fields, part.times, geometry, chance).batch.to(device)
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator).to(device)
        mixture = predict(model, batch, noise)
        levels = (torch.arange(members) + 0.5) / members
        ensemble = torch.stack([mixture.quantile(torch.full_like(batch.values, float(level))) for level in levels])
        weight = area * batch.mask
        error = ((mixture.mean - batch.values) ** 2).mean(dim=-1) * framing.scaling.scale**2
        crps = ensemble_crps(ensemble, batch.values).mean(dim=-1) * framing.scaling.scale
        bound = weight.new_zeros(2)
        if batch.context is None and isinstance(model, VAMoH):
            terms = model.elbo(batch, noise=noise.expand(2, -1, -1))
            bound = torch.stack([terms.elbo.sum(), batch.mask.expand(len(error), -1).sum()])
        sums += torch.cat(
            [
                torch.stack([(part * weight).sum() for part in (error, crps, mixture.log_prob(batch.values))]),
                weight.expand(len(error), -1).sum()[None],
                bound,
            ]
        ).double()
    return sums


def validation_metrics(sums: Tensor) -> dict[str, float]:
    """RMSE and CRPS in the store's units, mean log score, and (classic) the bound in nats a point, of such sums."""
    error, crps, score, weight, bound, count = sums.tolist()
    weight = max(weight, 1e-12)
    elbo = {"validation_elbo": bound / count} if count else {}
    return elbo | {
        "validation_rmse": math.sqrt(error / weight),
        "validation_crps": crps / weight,
        "validation_log_score": score / weight,
    }
