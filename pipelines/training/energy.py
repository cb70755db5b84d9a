"""The energy distance between functions that a model draws from its prior and functions that it has not seen.

    2 E|X - Y| - E|X - X'| - E|Y - Y'|,   |X - Y|^2 = the mean over the area (and channels) of (x - y)^2

Zero if and only if both are of one distribution; over all pairs of two finite sets, zero where they are equal.

Source: Szekely and Rizzo, "Energy statistics: a class of statistics based on distances", J. Stat. Plan. Inf., 2013.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.data.store import Store
from pipelines.data.stream import Index
from pipelines.data.whole import query
from pipelines.training.plan import Plan
from pipelines.training.validation import VALIDATION_BATCH, read_samples
from vamoh.systems import Model

FUNCTIONS = 64  # of each of the two, at most


@torch.no_grad()
def sample_energy(model: Model, plan: Plan, store: Store, held: Index) -> float:
    """The distance between as many samples as there are functions held out, and these, in the store's units."""
    held = held[np.linspace(0, len(held) - 1, min(FUNCTIONS, len(held))).round().astype(int)]
    asked = query(plan.geometry)
    device = next(model.parameters()).device
    truth, seen = [], []
    for part in read_samples(store, held):
        batch = plan.whole.all_of(part.fields, plan.geometry)
        assert batch.values is not None
        truth.append(batch.values)
        seen.append(batch.mask.expand(len(batch.values), -1))
    noise = torch.randn(len(held), plan.spec.latent, generator=torch.Generator().manual_seed(plan.config.seed))
    made = [model.sample(some.to(device), asked.to(device)).mean.cpu() for some in noise.split(VALIDATION_BATCH)]
    area = torch.from_numpy(plan.geometry.area)
    return plan.scaling.scale * energy_distance(torch.cat(made), torch.cat(truth), area, torch.cat(seen))


def energy_distance(made: Tensor, truth: Tensor, area: Tensor, seen: Tensor | None = None) -> float:
    """The distance between two sets of functions.

    Args:
        made: [n, N, C].
        truth: [m, N, C].
        area: [N], what each point counts for.
        seen: [m, N] bool, where the truth was observed; everywhere by default. A pair is compared where both were.
    """
    known = torch.ones(truth.shape[:2], dtype=torch.bool) if seen is None else seen
    everywhere = torch.ones(made.shape[:2], dtype=torch.bool)
    across = _distances(made, everywhere, truth, known, area).mean()
    among = (_distances(each, where, each, where, area).mean() for each, where in ((made, everywhere), (truth, known)))
    return float(2 * across - sum(among))


def _distances(first: Tensor, seen: Tensor, second: Tensor, known: Tensor, area: Tensor) -> Tensor:
    """The root mean square differences of all pairs [n, m], in double precision for what nearly cancels."""
    left, right = seen.double() * area, known.double()
    weight = (left @ right.T).clamp_min(1e-300) * first.shape[2]
    one, other = (torch.where(mask[..., None], each.double(), 0.0) for each, mask in ((first, seen), (second, known)))
    squares = one.square().sum(dim=2) * area @ right.T + left @ other.square().sum(dim=2).T
    products = (one * area[:, None]).flatten(1) @ other.flatten(1).T
    return ((squares - 2 * products).clamp_min(0) / weight).sqrt()
