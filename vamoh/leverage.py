"""How far a state lies from those that a model learned from, and how much wider its members have to be there.

    h(x, t) = r(x, t)^T [M(x) + e G]^-1 r(x, t) / Q,       variance multiplied by b + a h(x, t)

r are the Q read-outs of the context whose kernels are the same everywhere, M(x) their second moments at a place over
the training times, G the mean of M over the region and e a prior's weight. The kernel of a place is a regression on
what it reads of the context, fitted on few weathers: its error grows with the leverage h of the state, whatever the
residuals on those weathers are. a and b are fitted on held-out times. h is a continuous function of place and context,
so that members stay functions.

Source: the variance of a prediction in Bayesian linear regression, Bishop (2006), eq. 3.59, tempered by a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PRIOR_SAMPLES = 8.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """The law of h.

    Attributes:
        precision: [n, Q (Q + 1) / 2], upper triangles of the inverse at n places, off the diagonal twice.
        every: The n places are every so many-th point of the training lattice.
        constant, growth: b and a.
    """

    precision: Tensor
    every: int = 1
    constant: float = 1.0
    growth: float = 0.0

    def of(self, readouts: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """h [T, N] of read-outs [T, N, Q] at N places between the n: corners' indices and weights [N, k]."""
        here = (self.precision[index] * weight[..., None].to(self.precision)).sum(dim=1)
        return (pairs(readouts) * here.to(readouts)).sum(dim=-1) / readouts.shape[-1]

    def stretch(self, leverage: Tensor) -> Tensor:
        """What deviations from the mean are multiplied by, sqrt(b + a h)."""
        return (self.constant + self.growth * leverage).sqrt()


def pairs(readouts: Tensor) -> Tensor:
    """Products of each with itself and those after it: [..., Q] -> [..., Q (Q + 1) / 2]."""
    first, second = torch.triu_indices(readouts.shape[-1], readouts.shape[-1])
    return readouts[..., first] * readouts[..., second]


def packed_precision(moments: Tensor, area: Tensor, samples: int) -> Tensor:
    """`Leverage.precision` of second moments.

    Args:
        moments: [n, Q (Q + 1) / 2], means of `pairs` over the training times, float64.
        area: [n], weights of the places, summing to one.
        samples: Training times.
    """
    size = int((8 * moments.shape[-1] + 1) ** 0.5 - 1) // 2
    first, second = torch.triu_indices(size, size)
    full = moments.new_zeros(len(moments), size, size)
    full[:, first, second] = moments
    full[:, second, first] = moments
    prior = (full * area[:, None, None]).sum(dim=0)
    floor = 1e-9 * prior.diagonal().mean().clamp_min(1e-30) * torch.eye(size, dtype=moments.dtype)
    inverse = torch.linalg.inv(full + PRIOR_SAMPLES / max(samples, 1) * prior + floor)
    return inverse[:, first, second] * torch.where(first == second, 1.0, 2.0).to(inverse)
