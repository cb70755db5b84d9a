"""Roots of increasing functions, many at once, each inside its own bracket.

Chandrupatla's method: inverse quadratic interpolation where the last three points allow it, else bisection. It needs no
derivative, never leaves the bracket, and crosses flat stretches as fast as bisection does.

Source: Chandrupatla, "A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without
    using derivatives", Advances in Engineering Software 28 (1997).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = 100


def bracketed_root(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The places where `function` crosses zero, to the last digits of the number format.

    Args:
        function: Element by element, at most zero at `low` and at least zero at `high`.
        low, high: The brackets, of one shape.
    """
    precision = torch.finfo(low.dtype).eps
    at_low, at_high = function(low), function(high)
    # an end that is a root already, or that rounding put on the wrong side of zero, is the answer
    low, at_low = torch.where(at_high <= 0, high, low), torch.where(at_high <= 0, at_high, at_low)
    latest, at_latest = torch.where(at_low >= 0, low, high), torch.where(at_low >= 0, at_low, at_high)
    other, at_other = low, at_low
    share = torch.full_like(low, 0.5)
    for _ in range(MAX_STEPS):
        tried = latest + share * (other - latest)
        at_tried = function(tried)
        same = (at_tried > 0) == (at_latest > 0)
        before, at_before = torch.where(same, latest, other), torch.where(same, at_latest, at_other)
        other, at_other = torch.where(same, other, latest), torch.where(same, at_other, at_latest)
        other, at_other = torch.where(at_tried == 0, tried, other), torch.where(at_tried == 0, at_tried, at_other)
        latest, at_latest = tried, at_tried
        best = torch.where(at_other.abs() < at_latest.abs(), other, latest)
        tolerance = precision * (best.abs() + 1e-3) / (other - latest).abs()
        if bool((tolerance > 0.5).all()):
            break
        place = (latest - other) / (before - other)
        level = (at_latest - at_other) / (at_before - at_other)
        smooth = (level**2 < place) & ((1 - level) ** 2 < 1 - place)
        near = at_latest / (at_other - at_latest) * at_before / (at_other - at_before)
        far = at_latest / (at_before - at_latest) * at_other / (at_before - at_other)
        quadratic = near + far * (before - latest) / (other - latest)
        share = torch.where(smooth & torch.isfinite(quadratic), quadratic, 0.5)
        share = torch.maximum(torch.minimum(share, 1 - tolerance), tolerance).clamp(0, 1)
    return best
