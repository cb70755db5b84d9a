"""How far a state lies from those that a model learned from, and how much wider its members have to be there.

    h(x, t) = r(x, t)^T [M(x) + e G]^-1 r(x, t) / Q,       variance s^2 multiplied by (b + a h)^p (s^2 / v)^(k - 1)

r are the Q read-outs of the context whose kernels are the same everywhere, M(x) their second moments at a place over
the training times, G the mean of M over the region and e a prior's weight. The kernel of a place is a regression on
what it reads of the context, fitted on few weathers: its error grows with the leverage h of the state, whatever the
residuals on those weathers are. For a regression in units of its noise that growth is linear; kernels that are shrunk,
and shared by neighbours, err by less in the strangest states: p < 1. Learned from few fields, the loudest places are
held for too loud: k < 1, and v is a typical variance. a, b, p and k are fitted on held-out times. h is a continuous
function of place and context, so that members stay functions.

Source: the variance of a prediction in Bayesian linear regression, Bishop (2006), eq. 3.59, tempered by a and p.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vamoh.likelihoods import Mixture

PRIOR_SAMPLES = 8.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """How much wider members are than a model says.

    Attributes:
        constant, growth: b and a.
        exponent, typical: k and v, in the model's units.
        power: p.
    """

    constant: float = 1.0
    growth: float = 0.0
    exponent: float = 1.0
    typical: float = 1.0
    power: float = 1.0

    def stretch(self, leverage: Tensor, mixture: Mixture) -> Tensor:
        """What deviations from the mean are multiplied by, [B, N], where the leverage [B or 1, N] is known."""
        return self.factor(leverage, mixture.variance[..., 0])

    def factor(self, leverage: Tensor, variance: Tensor) -> Tensor:
        """As `stretch`, of a variance of any shape that the leverage can be expanded to."""
        base = (self.constant + self.growth * leverage) ** (self.power / 2)
        if self.exponent == 1:
            return base
        return base * (variance / self.typical) ** ((self.exponent - 1) / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage(Stretch):
    """The law of h, and of what follows from it.

    Attributes:
        precision: [n, Q (Q + 1) / 2], upper triangles of the inverse at n places, off the diagonal twice; in double
            precision, for read-outs are nearly parallel, and most of what is added up cancels.
        every: The n places are every so many-th point of the training lattice.
    """

    precision: Tensor
    every: int = 1

    def of(self, readouts: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """h [T, N] of read-outs [T, N, Q] at N places between the n: corners' indices and weights [N, k]."""
        weight = weight.to(self._exact)
        here = nn.functional.embedding_bag(index, self._exact, per_sample_weights=weight, mode="sum").T.contiguous()
        seen = readouts.permute(2, 0, 1).double().contiguous()  # [Q, T, N]: every product runs over the places
        size, number, total = len(seen), 0, torch.zeros_like(seen[0])
        for row in range(size):  # of the upper triangle, as `pairs` orders it
            part = seen[row] * here[number]
            for later in range(row + 1, size):
                part = part.addcmul_(seen[later], here[number + later - row])
            total = total.addcmul_(seen[row], part)
            number += size - row
        return (total / size).clamp_min(0).to(readouts)

    @cached_property
    def _exact(self) -> Tensor:
        return self.precision.double()


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
