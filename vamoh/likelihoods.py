"""What a generator's outputs mean: families of distributions, and the mixture of K of them at every point.

A family turns outputs into a torch Distribution; everything else (bound, sampling, downscaling) only asks that
distribution for log_prob, mean, cdf and icdf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal, constraints

from vamoh.elbo import log_shares
from vamoh.normal_mixture import NormalMixtures
from vamoh.precision import at_least_float32
from vamoh.random_field import normal_cdf
from vamoh.roots import bracketed_root

LikelihoodName = Literal["normal", "bernoulli", "continuous_bernoulli", "discretised_logistic"]
BOUNDED: tuple[LikelihoodName, ...] = ("bernoulli", "continuous_bernoulli", "discretised_logistic")  # on [0, 1]
LEVELS = 256


class Binary(Bernoulli):
    """Bernoulli with the distribution function that torch leaves out."""

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value)."""
        return torch.where(value < 0, 0.0, torch.where(value < 1, 1 - self.probs, 1.0))

    def icdf(self, value: Tensor) -> Tensor:
        """The smallest y with P(Y <= y) >= value."""
        return (value > 1 - self.probs).to(self.probs.dtype)


class ContinuousBernoulli(Distribution):
    """p(y) = exp(l y) l / (e^l - 1) on [0, 1], exact at any logit l, however saturated.

    Args:
        logits: l, any real; 0 is the uniform distribution.

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli", NeurIPS 2019. Differs: torch's class clamps the
        probability in its normaliser but not in its exponent, so that its density integrates to less than one beyond
        a logit of 16, and loses four digits near 0.
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    @property
    def _nonzero(self) -> Tensor:
        """What can be divided by; at 1e-12 the distribution is uniform to the last digit."""
        return torch.where(self.logits.abs() < 1e-12, 1e-12, self.logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats: l (y - 1/2) - log(sinh(l/2) / (l/2))."""
        half = self.logits / 2
        series = half.abs() < 0.25
        square = torch.where(series, half, 0.0) ** 2
        small = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square * (1 / 37800 - square / 467775))))
        size = torch.where(series, torch.ones_like(half), half.abs())
        large = size + torch.log1p(-torch.exp(-2 * size)) - torch.log(2 * size)
        return self.logits * (value - 0.5) - torch.where(series, small, large)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value)."""
        logits, inside = self._nonzero, value.clamp(0, 1)
        # (e^{l y} - 1) / (e^l - 1), for a positive l with both divided by e^l
        scale = torch.exp(logits.clamp_min(0) * (inside - 1))
        return scale * torch.expm1(-logits.abs() * inside) / torch.expm1(-logits.abs())

    def icdf(self, value: Tensor) -> Tensor:
        """The y with P(Y <= y) = value."""
        size = self._nonzero.abs()
        falling = -torch.log1p(value * torch.expm1(-size)) / size
        rising = 1 + torch.log1p((1 - value) * torch.expm1(-size)) / size
        return torch.where(self._nonzero < 0, falling, rising).clamp(0, 1)

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e^-l) - 1 / l."""
        series = self.logits.abs() < 0.5
        x = torch.where(series, self.logits, 0.0)
        square = x**2
        terms = 1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160)))
        large = torch.where(series, torch.ones_like(x), self.logits)
        return 0.5 + torch.where(series, x * terms, 0.5 / torch.tanh(large / 2) - 1 / large)


class DiscretisedLogistic(Distribution):
    """A logistic variable on [0, 1] rounded to 256 levels; the edge bins take the tails.

    Args:
        loc: Place of the logistic, any real.
        log_scale: Logarithm of its scale.

    Source: Salimans et al., "PixelCNN++", ICLR 2017. Differs: half a bin is 1/510 of [0, 1], edge bins reach to
        infinity, and the scale is learned.
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=False)

    def _edges(self, value: Tensor) -> tuple[Tensor, Tensor]:
        level = (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1)
        scale = torch.exp(-self.log_scale)
        upper = ((level + 0.5) / (LEVELS - 1) - self.loc) * scale
        lower = ((level - 0.5) / (LEVELS - 1) - self.loc) * scale
        return torch.where(level == 0, -math.inf, lower), torch.where(level == LEVELS - 1, math.inf, upper)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(Y = the level nearest to value), in nats, stable however narrow or far the logistic is."""
        lower, upper = self._edges(value)
        # sigmoid(b) - sigmoid(a) = (1 - e^{a-b}) sigmoid(b) sigmoid(-a)
        width = torch.log(-torch.expm1(-torch.exp(-self.log_scale) / (LEVELS - 1)))
        inside = nn.functional.logsigmoid(upper) + nn.functional.logsigmoid(-lower)
        return inside + torch.where(torch.isinf(lower - upper), torch.zeros_like(width), width)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value) of the logistic before it is rounded."""
        return torch.sigmoid((value - self.loc) * torch.exp(-self.log_scale))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of the logistic before it is rounded."""
        return self.loc + torch.exp(self.log_scale) * torch.logit(value)

    @property
    def mean(self) -> Tensor:
        """The mean of the logistic clipped to [0, 1], by its closed form."""
        scale = torch.exp(self.log_scale)
        return scale * (nn.functional.softplus(self.loc / scale) - nn.functional.softplus((self.loc - 1) / scale))


class Family(nn.Module):
    """Generator outputs -> distribution of a value.

    Args:
        name: Which family. "normal" takes mean and log standard deviation from the outputs (2 C of them), the others
            take C outputs; the discretised logistic has one learned scale a channel.
        channels: C.
    """

    def __init__(self, name: LikelihoodName, channels: int) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        if name == "discretised_logistic":
            self.log_scale = nn.Parameter(torch.full((channels,), -2.0))

    @property
    def num_outputs(self) -> int:
        """Outputs that a generator must have."""
        return 2 * self.channels if self.name == "normal" else self.channels

    def forward(self, outputs: Tensor) -> Distribution:
        """[..., num_outputs] -> a distribution of batch shape [..., C], in float32 or wider."""
        outputs = at_least_float32(outputs)
        match self.name:
            case "normal":
                mean, log_scale = outputs.chunk(2, dim=-1)
                return Normal(mean, torch.exp(log_scale.clamp(-12, 12)), validate_args=False)
            case "bernoulli":
                return Binary(logits=outputs, validate_args=False)
            case "continuous_bernoulli":
                return ContinuousBernoulli(outputs)
            case "discretised_logistic":
                return DiscretisedLogistic(torch.sigmoid(outputs), self.log_scale.clamp(-12, 12))


@dataclass(frozen=True)
class Mixture:
    """p(y | x, z) = sum_k pi_k(x, z) p(y | f(x; theta_k)) at every point.

    Attributes:
        logits: [B, N, K], unnormalised.
        components: A distribution of batch shape [B, K, N, C]; channels are independent given the component.
    """

    logits: Tensor
    components: Distribution

    @property
    def log_weights(self) -> Tensor:
        """log pi [B, N, K]."""
        return log_shares(self.logits)

    def component_log_prob(self, values: Tensor) -> Tensor:
        """log p(y | c = k), channels summed: values [B, N, C] -> [B, N, K]."""
        return self.components.log_prob(values[:, None]).sum(dim=-1).transpose(1, 2)

    def log_prob(self, values: Tensor) -> Tensor:
        """log p(y | x, z): [B, N, C] -> [B, N]."""
        return torch.logsumexp(self.log_weights + self.component_log_prob(values), dim=-1)

    @cached_property
    def weights(self) -> Tensor:
        """pi [B, K, N, 1], as the components are ordered."""
        return torch.softmax(self.logits.transpose(1, 2), dim=1)[..., None]

    @property
    def mean(self) -> Tensor:
        """E[y] [B, N, C]."""
        return (self.weights * self.components.mean).sum(dim=1)

    @property
    def variance(self) -> Tensor:
        """Var[y] [B, N, C], of components that know their own."""
        between = (self.components.mean - self.mean[:, None]) ** 2
        return (self.weights * (self.components.variance + between)).sum(dim=1)

    def cdf(self, values: Tensor) -> Tensor:
        """P(Y <= y) for each channel by itself: [B, N, C] -> [B, N, C]."""
        return (self.weights * self.components.cdf(values[:, None])).sum(dim=1)

    def quantile(self, level: Tensor) -> Tensor:
        """The y with P(Y <= y) = level, for each channel by itself.

        The components' own quantiles enclose the mixture's. A mixture of Bernoullis gives the smallest such y.

        Args:
            level: [B, N, C] within (0, 1).

        Returns:
            [B, N, C]; increasing and continuous in the level, so that a smooth field of levels gives a smooth field.
        """
        weights = self.weights
        if isinstance(self.components, Binary):
            return (level > 1 - self.mean).to(weights.dtype)
        last = torch.finfo(weights.dtype).eps / 2  # 1 - last is the number before one
        level = level.to(weights.dtype).clamp(last, 1 - last)
        own = self.components.icdf(level[:, None].expand(self.components.batch_shape))
        if self.logits.shape[-1] == 1:
            return own[:, 0]
        return bracketed_root(
            lambda value: (weights * self.components.cdf(value[:, None])).sum(dim=1) - level,
            own.amin(dim=1),
            own.amax(dim=1),
        )

    def at_score(self, score: Tensor) -> Tensor:
        """The quantile at the level Phi(score), score [B, N, C] -> [B, N, C]; exact in both tails of normals."""
        if not isinstance(self.components, Normal):
            return self.quantile(normal_cdf(score))
        weights = self.weights.expand(self.components.batch_shape)
        parts = (weights, self.components.mean, self.components.stddev)
        return NormalMixtures(*(each.transpose(0, 1) for each in parts)).at_score(score)
