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

from vamoh import elementary

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
    def moments(self) -> tuple[Tensor, Tensor]:
        """E[y] and Var[y], [...] each."""
        expected = _total(self.weights * self.mean)
        between = (self.mean - expected).square_()
        return expected, _total(between.addcmul_(self.scale, self.scale).mul_(self.weights))

    def at_score(self, score: Tensor) -> Tensor:
        """The y with F(y) = Phi(score), [...]; exact in both tails.

        Args:
            score: [...], kept within `LARGEST_SCORE`.
        """
        score = score.to(self.mean.dtype).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        if len(self.weights) == 1:
            return torch.addcmul(self.mean[0], self.scale[0], score)
        flip = torch.copysign(torch.ones((), dtype=score.dtype, device=score.device), -score)
        weights, mean, scale, depth = self.weights, self.mean * flip, self.scale, score.abs()
        sought = _Sought.of(weights.flatten(1), mean.flatten(1), scale.flatten(1), depth.flatten())
        return _lower_quantile(sought).view(score.shape).mul_(flip)


def _lower_quantile(sought: _Sought) -> Tensor:
    """The roots [P]."""
    value = sought.start()
    for _ in range(OPEN_STEPS):  # nearly everywhere these suffice
        before, (value, _, damped) = value, sought.step(value)
        value = torch.minimum(torch.maximum(value, sought.low, out=value), sought.high, out=value)
    # as `unsettled`, in fewer passes, of more places than are
    step, bent = before.sub_(value).div_(sought.narrow), damped.sub_(1).div_(STRAIGHT)
    chosen = elementary.beyond(step.mul_(step).addcmul_(bent, bent), 1)
    if len(chosen):
        value[chosen] = _within(sought.at(chosen), value[chosen])
    return value


def _within(sought: _Sought, value: Tensor) -> Tensor:
    """The roots [P], each inside its own bracket, which every step narrows."""
    low, high = sought.low, sought.high
    value = torch.where(value.isnan(), 0.5 * (low + high), value)
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
        weights, mean, inverse: [K, P], of the components, and -1 / (sqrt(2) scale).
        height: [K, P], weights times `inverse`: minus sqrt(pi) times the weighted densities' greatest values.
        own: [K, P], the components' own quantiles, of which
        low, high: [P], the least and the greatest enclose the mixture's.
    """

    level: Tensor
    narrow: Tensor
    weights: Tensor
    mean: Tensor
    inverse: Tensor
    height: Tensor
    own: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, weights: Tensor, mean: Tensor, scale: Tensor, depth: Tensor) -> _Sought:
        """Of [K, P] weights, means and scales, and the level Phi(-depth)."""
        level, inverse = torch.erfc(depth * math.sqrt(0.5)), scale.reciprocal().mul_(-math.sqrt(0.5))
        # in standard deviations: the error after such a step, if it was hardly bent, is of the order of its cube
        narrow = _least(scale).mul(0.5 * torch.finfo(mean.dtype).eps ** (1 / 3))
        own = torch.addcmul(mean, scale, depth, value=-1)
        return cls(level, narrow, weights, mean, inverse, weights * inverse, own, _least(own), _greatest(own))

    def start(self) -> Tensor:
        """The step from the components' own quantiles, kept where a weight says that the level is reached [P]."""
        value = _dot(self.height, self.own).div_(_total(self.height))
        shallow, weight, mean, inverse = self._nearest()
        reached = torch.lerp(self.level, 2 - self.level, shallow).div_(weight)
        inner = reached.neg_().add_(1).clamp_min_(torch.finfo(value.dtype).eps - 1).erfinv_()
        # there is no bound where a component does not reach so far by itself
        apart = nn.functional.threshold(inner, BEYOND, -1e30, inplace=True).div_(inverse)
        return torch.lerp(torch.minimum(value, mean + apart), torch.maximum(value, mean - apart), shallow)

    def _nearest(self) -> tuple[Tensor, ...]:
        """One [P] where the lowest component does not reach the level by itself, and the component that bounds it.

        Where it does, the quantile is at most the one at which it does so; else, of two, it is at least the one above
        which the higher one has all that is above the level. Of more, there may be no bound.
        """
        parts = (self.weights, self.mean, self.inverse)
        if len(self.own) == 2:  # ones and zeros in numbers: choosing by truth values takes several times as long
            second = (self.own[0] - self.own[1]).gt_(0)
            shallow = torch.sub(self.level, torch.lerp(self.weights[0], self.weights[1], second), alpha=2).gt_(0)
            which = (second - shallow).abs_()
            return shallow, *(torch.lerp(part[0], part[1], which) for part in parts)
        lower, upper = self.own.argmin(dim=0), self.own.argmax(dim=0)
        shallow = torch.sub(self.level, self.weights.gather(0, lower[None])[0], alpha=2).gt_(0)
        which = torch.where(shallow > 0, upper, lower)[None]
        return shallow, *(part.gather(0, which)[0] for part in parts)

    def step(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where Halley's method on log F goes from `value` [P], twice F there, and how much longer its step is held.

        With g = log F - log(level) it goes to value + n / (1 + n g'' / 2 g'), n = -g / g' Newton's step; there
        g'' / g' = f' / f - f / F, and of normals f' is a sum like f. The last is 1 + n g'' / 2 g'.
        """
        scaled = (value - self.mean).mul_(self.inverse)
        below = _dot(torch.erfc(scaled), self.weights)
        densities = torch.addcmul(scaled.new_zeros(()), scaled, scaled, value=-LOG2_E).exp2_().mul_(self.height)
        density = _total(densities)  # -sqrt(pi) f
        slope = _dot(scaled.mul_(self.inverse), densities)  # sqrt(pi) f' / 2
        share = density / below  # -sqrt(pi) f / 2 F
        newton = self.level / below
        elementary.write("log", newton, newton).div_(share).mul_(-0.5 * math.sqrt(math.pi))
        bend = slope.div_(density).sub_(share, alpha=1 / math.sqrt(math.pi))
        # far from the root no more is believed of the bend than that it halves or doubles Newton's step
        damped = torch.addcmul(bend.new_ones(()), bend, newton, value=-1).clamp_(0.5, 2.0)
        return newton.div_(damped).add_(value), below, damped

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


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Products of [K, P] and [K, P], summed: [P]."""
    total = one[0] * other[0]
    for each, its in zip(one[1:], other[1:], strict=True):
        total.addcmul_(each, its)
    return total
