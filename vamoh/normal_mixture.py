"""Where a mixture of normals reaches a level, by Halley's method on log F.

A level u is reached above every component's own quantile at 1 - (1 - u) / w_k and below those at u / w_k: where
components lie apart these say in which of them, and how deep. From between them a few steps are taken for all places at
once; the places where these do not settle it go on inside brackets that narrow.

The level is given by its normal score, and a score above zero is solved in the mirror image, so that levels, like F,
lie in the lower half, where floating point resolves them to the last digit: in F itself the upper tail does not, and an
ensemble's warmest members would carry its rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

OPEN_STEPS, MAX_STEPS = 2, 100
FEW, STRAIGHT = 0.3, 0.02
LARGEST_SCORE = 4.753424  # of the levels 1e-6 and 1 - 1e-6
BEYOND = -3.6  # erfinv of all but 4e-7
LOG2_E = math.log2(math.e)


class NormalMixtures(NamedTuple):
    """Mixtures of normals at many places, components first, so that a component's numbers lie side by side.

    Attributes:
        weights, mean, scale: [K, ...] of one shape; weights sum to one over K.
    """

    weights: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, *shape: int) -> NormalMixtures:
        """To be filled."""
        return cls(*(torch.empty(shape) for _ in range(3)))

    @property
    def expectation(self) -> Tensor:
        """E[y] [...]."""
        return _total(self.weights * self.mean)

    @property
    def variance(self) -> Tensor:
        """Var[y] [...]."""
        between = (self.mean - self.expectation).square_()
        return _total(between.addcmul_(self.scale, self.scale).mul_(self.weights))

    def at_score(self, score: Tensor) -> Tensor:
        """The y with F(y) = Phi(score), [...]; exact in both tails.

        Args:
            score: [...], kept within `LARGEST_SCORE`.
        """
        score = score.to(self.mean.dtype).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        if len(self.weights) == 1:
            return torch.addcmul(self.mean[0], self.scale[0], score)
        flip = torch.copysign(torch.ones((), dtype=score.dtype, device=score.device), -score)
        weights, mean, scale = (each.flatten(1) for each in (self.weights, self.mean * flip, self.scale))
        return _lower_quantile(weights, mean, scale, score.abs().flatten()).view(score.shape).mul_(flip)


def _lower_quantile(weights: Tensor, mean: Tensor, scale: Tensor, depth: Tensor) -> Tensor:
    """The y [P] with sum_k w_k Phi((y - mean_k) / scale_k) = Phi(-depth), of [K, P] and a depth [P] of zero or more."""
    sought = _Sought.of(weights, mean, scale, torch.erfc(depth * math.sqrt(0.5)))
    own = torch.addcmul(mean, scale, depth, value=-1)  # the components' own quantiles enclose the mixture's
    low, high = _least(own), _greatest(own)
    value = sought.start(mean, own)
    for _ in range(OPEN_STEPS):  # nearly everywhere these suffice
        before, (value, _, damped) = value, sought.step(value)
        value = torch.minimum(torch.maximum(value, low, out=value), high, out=value)
    chosen = sought.far(value, before, damped).nonzero()[:, 0]
    if len(chosen):
        low, high, rest = low[chosen], high[chosen], value[chosen]
        rest = torch.where(rest.isnan(), 0.5 * (low + high), rest)
        value[chosen] = _within(sought.at(chosen), low, high, rest)
    return value


def _within(sought: _Sought, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """The roots [P], each inside its own bracket, which every step narrows."""
    result, unsettled = value, None  # all of them
    for _ in range(MAX_STEPS):
        tried, below, damped = sought.step(value)
        short = below < sought.level
        low, high = torch.where(short, value, low), torch.where(short, high, value)
        inside = (tried >= low) & (tried <= high)  # not a number where the density vanishes
        following = torch.where(inside, tried, 0.5 * (low + high))
        going_on = sought.unsettled(following, value, damped)
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
        level, narrow: [P], twice the level, and the change after which a step is the last.
        inverse, shifted: [K, P], -1 / (sqrt(2) scale), and minus that times the mean.
        weights: [K, P].
        height: [K, P], weights times `inverse`: minus sqrt(pi) times the weighted densities' greatest values.
    """

    level: Tensor
    narrow: Tensor
    inverse: Tensor
    shifted: Tensor
    weights: Tensor
    height: Tensor

    @classmethod
    def of(cls, weights: Tensor, mean: Tensor, scale: Tensor, level: Tensor) -> _Sought:
        """Of [K, P] weights, means and scales, and twice the level."""
        inverse = scale.reciprocal().mul_(-math.sqrt(0.5))
        # in standard deviations: the error after such a step, if it was hardly bent, is of the order of its cube
        narrow = _least(scale).mul(0.5 * torch.finfo(mean.dtype).eps ** (1 / 3))
        return cls(level, narrow, inverse, (mean * inverse).neg_(), weights, weights * inverse)

    def start(self, mean: Tensor, own: Tensor) -> Tensor:
        """The step from the components' own quantiles [K, P], kept where the weights say that the level is reached."""
        value = _total(self.height * own).div_(_total(self.height))
        both = [self.weights, mean, self.inverse]
        lower = upper = both
        if len(own) == 2:  # of two, the lower one gives the bound from above, and the upper one that from below
            swapped = (own[0] > own[1]).to(own)
            lower, upper = ([torch.lerp(part[i], part[1 - i], swapped)[None] for part in both] for i in (0, 1))
        most = 1 - torch.finfo(own.dtype).eps
        reached = torch.stack([self.level / lower[0], (2 - self.level) / upper[0]])
        inner = reached.neg_().add_(1).clamp_min_(-most).erfinv_()
        # there is no bound where a component does not reach so far by itself
        inner = nn.functional.threshold(inner, BEYOND, -1e30, inplace=True)
        above = torch.addcdiv(lower[1], inner[0], lower[2])
        below = torch.addcdiv(upper[1], inner[1], upper[2], value=-1)
        value = torch.minimum(value, _least(above), out=value)
        return torch.maximum(value, _greatest(below), out=value)

    def step(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where Halley's method on log F goes from `value` [P], twice F there, and how much longer its step is held.

        With g = log F - log(level) it goes to value + n / (1 + n g'' / 2 g'), n = -g / g' Newton's step; there
        g'' / g' = f' / f - f / F, and of normals f' is a sum like f. The last is 1 + n g'' / 2 g'.
        """
        scaled = torch.addcmul(self.shifted, value, self.inverse)
        below = _total(torch.erfc(scaled).mul_(self.weights))
        densities = (scaled * scaled).mul_(-LOG2_E).exp2_().mul_(self.height)
        density = _total(densities)  # -sqrt(pi) f
        slope = _total(scaled.mul_(self.inverse).mul_(densities))  # sqrt(pi) f' / 2
        share = density / below  # -sqrt(pi) f / 2 F
        newton = (self.level / below).log_().div_(share).mul_(-0.5 * math.sqrt(math.pi))
        bend = slope.div_(density).sub_(share, alpha=1 / math.sqrt(math.pi))
        # far from the root no more is believed of the bend than that it halves or doubles Newton's step
        damped = torch.addcmul(bend.new_ones(()), bend, newton, value=-1).clamp_(0.5, 2.0)
        return newton.div_(damped).add_(value), below, damped

    def far(self, value: Tensor, before: Tensor, damped: Tensor) -> Tensor:
        """As `unsettled`, in fewer passes, of more places than are."""
        step = (value - before).abs_().div_(self.narrow)
        return (torch.maximum(step, (damped - 1).abs_().div_(STRAIGHT), out=step) <= 1).logical_not_()

    def unsettled(self, value: Tensor, before: Tensor, damped: Tensor) -> Tensor:
        """Where a step was so long or so bent, or no number, that another one is needed."""
        step = (value - before).abs_()
        settled = (step <= self.narrow).logical_and_((damped - 1).abs_() <= STRAIGHT)
        rounding = 4 * torch.finfo(value.dtype).eps
        return settled.logical_or_(step <= value.abs().mul_(rounding)).logical_not_()

    def at(self, chosen: Tensor) -> _Sought:
        """Some of the places."""
        return _Sought(*(part[..., chosen] for part in self))


def _by_pairs(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """[K, P] -> [P]: for a few components faster than a reduction."""
    return lambda values: functools.reduce(join, values.unbind()) if len(values) > 1 else values[0].clone()


_total, _least, _greatest = _by_pairs(torch.add), _by_pairs(torch.minimum), _by_pairs(torch.maximum)
