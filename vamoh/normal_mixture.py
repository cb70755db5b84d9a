"""Where a mixture of normals reaches a level, by Newton's method on log F inside a bracket.

The level is given by its normal score, and a score above zero is solved in the mirror image, so that levels, like F,
lie in the lower half, where floating point resolves them to the last digit: in F itself the upper tail does not, and an
ensemble's warmest members would carry its rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_STEPS = 100


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
    flip = torch.where(score > 0, -1.0, 1.0).to(score)

    def flat(values: Tensor) -> Tensor:  # [B, K, N, 1 or C] -> [K, P]
        return values.expand(mean.shape).transpose(0, 1).reshape(components, -1)

    weights, mean, scale, score = flat(weights), flat(mean * flip[:, None]), flat(scale), -score.abs().reshape(-1)
    level = _normal_cdf(score)
    own = mean + scale * score  # the components' own quantiles enclose the mixture's
    low, high, value = own.amin(dim=0), own.amax(dim=0), (weights * own).sum(dim=0)
    precision = torch.finfo(value.dtype).eps
    last_step = 0.5 * math.sqrt(precision)  # in standard deviations: the error after it is of the order of its square
    narrow = last_step * scale.amin(dim=0)
    inverse = 1 / scale
    share, height = 0.5 * weights, weights * inverse / math.sqrt(2 * math.pi)
    result, unsettled = value, None  # all of them
    for _ in range(MAX_STEPS):
        scaled = (value - mean).mul_(inverse)
        below = torch.erfc(scaled * -math.sqrt(0.5)).mul_(share).sum(dim=0)
        density = scaled.square_().mul_(-0.5).exp_().mul_(height).sum(dim=0)
        short = below < level
        low, high = torch.where(short, value, low), torch.where(short, high, value)
        newton = (level / below).log_().mul_(below).div_(density).add_(value)
        inside = (newton >= low) & (newton <= high)  # not a number where the density vanishes
        following = torch.where(inside, newton, 0.5 * (low + high))
        tolerance = torch.maximum(narrow, value.abs().mul_(4 * precision))
        going_on = (following - value).abs_() > tolerance
        value = following
        if unsettled is None:
            result = value
        else:
            result[unsettled] = value
        left = int(going_on.sum())
        if left == 0:
            break
        if left < 0.3 * len(value):  # the few that are left do not hold up the many that are done
            chosen = going_on.nonzero()[:, 0]
            unsettled = chosen if unsettled is None else unsettled[chosen]
            low, high, value, level, narrow = (each[chosen] for each in (low, high, value, level, narrow))
            share, height, mean, inverse = (each[:, chosen] for each in (share, height, mean, inverse))
    return result.reshape(shape) * flip


def _normal_cdf(value: Tensor) -> Tensor:
    return 0.5 * torch.erfc(value * -math.sqrt(0.5))
