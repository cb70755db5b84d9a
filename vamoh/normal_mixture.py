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

    weights, scale, mean = flat(weights), flat(scale), flat(mean * flip[:, None])
    score = -score.abs().reshape(-1)
    level = _normal_cdf(score)
    own = mean + scale * score  # the components' own quantiles enclose the mixture's
    low, high, value = own.amin(dim=0), own.amax(dim=0), (weights * own).sum(dim=0)
    precision = torch.finfo(value.dtype).eps
    last_step = 0.5 * math.sqrt(precision)  # in standard deviations: the error after it is of the order of its square
    result, unsettled = value.clone(), torch.arange(len(value), device=value.device)
    for _ in range(MAX_STEPS):
        scaled = (value - mean) / scale
        below = (weights * _normal_cdf(scaled)).sum(dim=0)
        density = (weights / scale * torch.exp(-0.5 * scaled**2)).sum(dim=0) / math.sqrt(2 * math.pi)
        low, high = torch.where(below < level, value, low), torch.where(below < level, high, value)
        newton = value + below / density * torch.log(level / below)
        inside = (newton >= low) & (newton <= high)  # not a number where the density vanishes
        following = torch.where(inside, newton, 0.5 * (low + high))
        tolerance = torch.maximum(last_step * scale.amin(dim=0), 4 * precision * value.abs())
        going_on = (following - value).abs() > tolerance
        value = following
        result[unsettled] = value
        left = int(going_on.sum())
        if left == 0:
            break
        if left < 0.7 * len(value):  # the few that are left do not hold up the many that are done
            unsettled, low, high, value, level = (each[going_on] for each in (unsettled, low, high, value, level))
            weights, mean, scale = (each[:, going_on] for each in (weights, mean, scale))
    return result.reshape(shape) * flip


def _normal_cdf(value: Tensor) -> Tensor:
    return 0.5 * torch.erfc(value * -math.sqrt(0.5))
