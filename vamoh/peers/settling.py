"""What no step of training learns of a Functa, and is fitted to training functions: its error, and its prior."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vamoh.batch import FunctionBatch
from vamoh.peers.functa import Functa
from vamoh.peers.predictive import SCALES, scale_log_prob

HELD = 10  # every so-many-th function says when a flow is at its best


@torch.no_grad()
def settle(model: Functa, batches: Iterable[FunctionBatch]) -> Tensor:
    """Fit the likelihood's scale, and the mean and scale of the modulations, which are a Gaussian prior.

    Args:
        model: Changed in place.
        batches: Of training functions.

    Returns:
        Their modulations [n, Z].
    """
    found, scores = [], torch.zeros(len(SCALES), model.spec.channels, dtype=torch.float64)
    for batch in batches:
        assert batch.values is not None
        found.append(model.infer(batch))
        made = model.values(found[-1], batch)
        scores += scale_log_prob(made, batch.values, batch.mask, model.spec.likelihood).double().cpu()
    latents = torch.cat(found)
    model.standardise(latents)
    model.value_scale.copy_(SCALES[scores.argmax(dim=0)])
    return latents


def fit_flow(model: Functa, latents: Tensor, *, steps: int = 600, rate: float = 5e-3) -> None:
    """Fit the flow of the prior, if it has one, to a data set's modulations [n, Z], by maximum likelihood.

    Every tenth of them is held out, and the flow that is best for these is kept.
    """
    prior = model.prior
    held = torch.arange(len(latents), device=latents.device) % HELD == HELD - 1
    if prior.flow is None or not held.any():
        return
    best, kept = math.inf, copy.deepcopy(prior.state_dict())
    optimizer = torch.optim.Adam(prior.requires_grad_().parameters(), lr=rate)
    for _ in range(steps):
        with torch.no_grad():
            missed = -float(model.prior_log_prob(latents[held]).mean())
        if missed < best:
            best, kept = missed, copy.deepcopy(prior.state_dict())
        loss = -model.prior_log_prob(latents[~held]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prior.load_state_dict(kept)
    prior.requires_grad_(False)
