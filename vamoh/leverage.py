"""How far a state lies from those that a model learned from, and how much wider its members have to be there.

    h(x, t) = r(x, t)^T [M(x) + e G]^-1 r(x, t) / Q,       variance (b + a h)^p v (u / v)^k (s^2 / u)^q

r are the Q read-outs of the context whose kernels are the same everywhere, M(x) their second moments at a place over
the training times, G the mean of M over the region and e a prior's weight. The kernel of a place is a regression on
what it reads of the context, fitted on few weathers: its error grows with the leverage h of the state, whatever the
residuals on those weathers are. For a regression in units of its noise that growth is linear; kernels that are shrunk,
and shared by neighbours, err by less in the strangest states: p < 1.

s^2 is the variance that the model says, u(x) its mean over training times, v a typical one. Learned from few fields,
the loudest places are held for too loud: k < 1. What the model says of a place beyond what is usual there it has mostly
learned by heart, day by day, and on another day it is worth little: q is far below one. Where the context does not
always lie in the same places nothing is usual, and q = k. a, b, p and k are fitted on held-out times. h is a
continuous function of place and context, so that members stay functions.

Source: the variance of a prediction in Bayesian linear regression, Bishop (2006), eq. 3.59, tempered by a and p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        trust: q.
    """

    constant: float = 1.0
    growth: float = 0.0
    exponent: float = 1.0
    typical: float = 1.0
    power: float = 1.0
    trust: float = 1.0

    def widened(self, factor: float) -> Stretch:
        """The law of variances so many times as large."""
        by = factor ** (1 / self.power)
        return replace(self, constant=by * self.constant, growth=by * self.growth)

    def stretch(self, leverage: Tensor, mixture: Mixture, usual: Tensor | None) -> Tensor:
        """What deviations from the mean are multiplied by, [B, N].

        Args:
            leverage: [B or 1, N].
            mixture: What the model says.
            usual: u [N], None where nothing is.
        """
        return self.factor(leverage, mixture.variance[..., 0], usual)

    def factor(self, leverage: Tensor, variance: Tensor, usual: Tensor | None) -> Tensor:
        """As `stretch`, of a variance of any shape that the leverage can be expanded to."""
        base, exponent = (self.constant + self.growth * leverage) ** (self.power / 2), self.exponent
        if usual is not None:
            base, exponent = base * (usual / self.typical) ** ((self.exponent - self.trust) / 2), self.trust
        if exponent == 1:
            return base
        return base * ((exponent - 1) / 2 * (variance / self.typical).log2()).exp2()  # cheaper than a power


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage(Stretch):
    """The law of h, and of what follows from it.

    Attributes:
        precision: [n, Q (Q + 1) / 2], upper triangles of the inverse at n places, off the diagonal twice; in double
            precision, for read-outs are nearly parallel, and most of what is added up cancels.
        usual: [n], u at the n places; None where nothing is.
        every: The n places are every so many-th point of the training lattice.
    """

    precision: Tensor
    usual: Tensor | None = None
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

    def usual_at(self, index: Tensor, weight: Tensor) -> Tensor | None:
        """u [N] at places between the n, as `of`."""
        return None if self.usual is None else (self.usual[index] * weight.to(self.usual)).sum(dim=-1)

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
