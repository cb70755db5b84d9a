"""What a peer's one function says of a value: a mixture of one component, so that it is asked and scored as any other.

normal                 y ~ N(f, s^2)
discretised_logistic   y ~ logistic(f, s), rounded to 256 levels
bernoulli              y = 1 with probability sigmoid((f - 1/2) / s): a logistic threshold at one half
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vamoh.likelihoods import Binary, DiscretisedLogistic, Mixture

PeerLikelihood = Literal["normal", "bernoulli", "discretised_logistic"]
SCALES = torch.logspace(-3, 0.5, 169)  # candidates, 5 % apart, in units of values within [0, 1]


class Certain(Distribution):
    """A value itself, of a system that says nothing of how far off it may be; it has no density.

    Args:
        value: The value.
    """

    arg_constraints = {"value": constraints.real}
    support = constraints.real

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The value."""
        return self.value

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value): zero or one."""
        return (value >= self.value).to(self.value)

    def icdf(self, value: Tensor) -> Tensor:
        """The value, at every level."""
        return self.value.expand(torch.broadcast_shapes(value.shape, self.value.shape))


def certain(values: Tensor) -> Mixture:
    """Values [B, N, C] as a mixture over them."""
    return Mixture(values.new_zeros(*values.shape[:2], 1), Certain(values[:, None]))


def predictive(values: Tensor, likelihood: PeerLikelihood, scale: Tensor) -> Mixture:
    """The mixture of one component about a function.

    Args:
        values: f [B, N, C].
        likelihood: Its family.
        scale: s, [C] or one that broadcasts.
    """
    return Mixture(values.new_zeros(*values.shape[:2], 1), _component(values[:, None], likelihood, scale))


def scale_log_prob(values: Tensor, truth: Tensor, mask: Tensor, likelihood: PeerLikelihood) -> Tensor:
    """The log probability of truth under every one of `SCALES`, summed over what was observed: [scales, C].

    Args:
        values: f [B, N, C].
        truth: [B, N, C].
        mask: [B or 1, N], where it was observed.
        likelihood: The family.
    """
    seen = mask.expand(len(values), -1)
    known, given = truth.expand_as(values)[seen], values[seen]
    each = [_component(given, likelihood, scale).log_prob(known).sum(dim=0) for scale in SCALES.to(values)]
    return torch.stack(each)


def _component(values: Tensor, likelihood: PeerLikelihood, scale: Tensor) -> Distribution:
    match likelihood:
        case "normal":
            return Normal(values, scale.expand_as(values), validate_args=False)
        case "bernoulli":
            return Binary(logits=(values - 0.5) / scale, validate_args=False)
        case "discretised_logistic":
            return DiscretisedLogistic(values, scale.log())
