"""Where a mixture of normals reaches a level, by Halley's method on log F.

A few steps are taken for all places at once, kept only between the components' own quantiles; the places where these
do not settle it go on inside brackets that narrow.

The level is given by its normal score, and a score above zero is solved in the mirror image, so that levels, like F,
lie in the lower half, where floating point resolves them to the last digit: in F itself the upper tail does not, and an
ensemble's warmest members would carry its rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

OPEN_STEPS, MAX_STEPS = 2, 100
FEW, STRAIGHT = 0.3, 0.02


def quantile_at_score(weights: Tensor, mean: Tensor, scale: Tensor, score: Tensor) -> Tensor:
    """The y with sum_k w_k Phi((y - mean_k) / scale_k) = Phi(score).

    Args:
        weights: [B, K, N, 1], summing to one over K.
        mean, scale: [B, K, N, C].
        score: [B, N, C], finite.

    Returns:
        [B, N, C].
    """
    shape, components = score.shape, mean.shape[1]
    flip = torch.copysign(torch.ones_like(score), -score)

    def flat(values: Tensor) -> Tensor:  # [B, K, N, 1 or C] -> [K, P]
        return values.expand(mean.shape).transpose(0, 1).reshape(components, -1)

    weights, mean, scale, score = flat(weights), flat(mean * flip[:, None]), flat(scale), -score.abs().reshape(-1)
    own = torch.addcmul(mean, scale, score)  # the components' own quantiles enclose the mixture's
    low, high = own.amin(dim=0), own.amax(dim=0)
    sought = _Sought.of(weights, mean, scale, _normal_cdf(score))
    value = own.mul_(weights).sum(dim=0)
    for _ in range(OPEN_STEPS):  # nearly everywhere these suffice
        before, (tried, _, bent) = value, sought.step(value)
        value = torch.minimum(torch.maximum(tried, low), high)
    chosen = sought.unsettled(tried, before, bent).nonzero()[:, 0]  # what an end of the bracket stops has not settled
    if len(chosen):
        low, high, rest = low[chosen], high[chosen], value[chosen]
        rest = torch.where(rest.isnan(), 0.5 * (low + high), rest)
        value[chosen] = _within(sought.at(chosen), low, high, rest)
    return value.reshape(shape) * flip


def _within(sought: _Sought, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """The roots [P], each inside its own bracket, which every step narrows."""
    result, unsettled = value, None  # all of them
    for _ in range(MAX_STEPS):
        tried, below, bent = sought.step(value)
        short = below < sought.level
        low, high = torch.where(short, value, low), torch.where(short, high, value)
        inside = (tried >= low) & (tried <= high)  # not a number where the density vanishes
        following = torch.where(inside, tried, 0.5 * (low + high))
        going_on = sought.unsettled(following, value, bent)
        value = following
        if unsettled is None:
            result = value
        else:
            result[unsettled] = value
        left = int(going_on.sum())
        if left == 0:
            break
        if left < FEW * len(value):  # the few that are left do not hold up the many that are done
            chosen = going_on.nonzero()[:, 0]
            unsettled = chosen if unsettled is None else unsettled[chosen]
            low, high, value, sought = low[chosen], high[chosen], value[chosen], sought.at(chosen)
    return result


class _Sought(NamedTuple):
    """Mixtures at P places and the levels that are sought in their lower halves.

    Attributes:
        level, narrow: [P], the level, and the change after which a step is the last.
        inverse, shifted: [K, P], -1 / (sqrt(2) scale), and minus that times the mean.
        share, height: [K, P], half the weights, and the weighted densities' greatest values.
    """

    level: Tensor
    narrow: Tensor
    inverse: Tensor
    shifted: Tensor
    share: Tensor
    height: Tensor

    @classmethod
    def of(cls, weights: Tensor, mean: Tensor, scale: Tensor, level: Tensor) -> _Sought:
        """Of [K, P] weights, means and scales."""
        inverse = -math.sqrt(0.5) / scale
        # in standard deviations: the error after such a step, if it was hardly bent, is of the order of its cube
        last_step = 0.5 * torch.finfo(mean.dtype).eps ** (1 / 3)
        height = (weights * inverse).mul_(-1 / math.sqrt(math.pi))
        return cls(level, last_step * scale.amin(dim=0), inverse, -mean * inverse, 0.5 * weights, height)

    def step(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where Halley's method on log F goes from `value` [P], F there, and how far its step is not Newton's.

        With g = log F - log(level) it goes to value + n / (1 + n g'' / 2 g'), n = -g / g' Newton's step; there
        g'' / g' = f' / f - f / F, and of normals f' is a sum like f.
        """
        scaled = torch.addcmul(self.shifted, value, self.inverse)
        below = torch.erfc(scaled).mul_(self.share).sum(dim=0)
        densities = (scaled * scaled).neg_().exp_().mul_(self.height)
        density = densities.sum(dim=0)
        slope = scaled.mul_(self.inverse).mul_(densities).sum(dim=0)  # -f' / 2
        newton = (self.level / below).log_().mul_(below).div_(density)
        bend = slope.div_(density).add_(density / below, alpha=0.5).mul_(newton)
        # far from the root no more is believed of the bend than that it halves or doubles Newton's step
        return newton.div_((1 - bend).clamp_(0.5, 2.0)).add_(value), below, bend

    def unsettled(self, value: Tensor, before: Tensor, bent: Tensor) -> Tensor:
        """Where a step was so long or so bent, or no number, that another one is needed."""
        step = (value - before).abs_()
        settled = (step <= self.narrow).logical_and_(bent.abs_() <= STRAIGHT)
        rounding = 4 * torch.finfo(value.dtype).eps
        return settled.logical_or_(step <= value.abs().mul_(rounding)).logical_not_()

    def at(self, chosen: Tensor) -> _Sought:
        """Some of the places."""
        return _Sought(*(part[..., chosen] for part in self))


def _normal_cdf(value: Tensor) -> Tensor:
    return 0.5 * torch.erfc(value * -math.sqrt(0.5))
