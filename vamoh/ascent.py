"""Limited-memory quasi-Newton ascent of B separate functions of Z variables at once, each with its own line search.

    d = H g,   H from the last pairs  s = x' - x,  y = g - g'  (two-loop recursion),   x' = x + t d,  t halved until

the value has risen enough; no value ever falls.

Source: Nocedal and Wright, "Numerical Optimization", 2006, algorithms 7.4 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HISTORY = 12
RISE = 1e-4  # of what the slope promises, at least
HALVINGS = 6
CURVED = 1e-8  # a pair is kept where s . y is more than this, beside |s| |y|

Objective = Callable[[Tensor], Tensor]  # [B, Z] -> [B]


def ascend(objective: Objective, start: Tensor, *, steps: int, longest: Tensor | float) -> Tensor:
    """Raise each of B functions.

    Args:
        objective: Gives the values [B]; each depends on its own row alone.
        start: [B, Z].
        steps: At most; a function whose value rises no more stays where it is.
        longest: Of a step along an axis, [B, Z] or one number.

    Returns:
        Where they are then, [B, Z].
    """
    place = start.detach()
    value, slope = _valued(objective, place)
    moves: list[Tensor] = []
    turns: list[Tensor] = []
    for _ in range(steps):
        direction = _newton(slope, moves, turns)
        uphill = (direction * slope).sum(dim=-1, keepdim=True) > 0
        direction = torch.where(uphill, direction, slope)
        direction = direction / (direction.abs() / longest).amax(dim=-1, keepdim=True).clamp_min(1.0)
        promised = (direction * slope).sum(dim=-1)
        length = torch.ones_like(value)
        for _ in range(HALVINGS + 1):
            tried = place + length[:, None] * direction
            found, steep = _valued(objective, tried)
            enough = found >= value + RISE * length * promised  # of what is not finite, never
            if enough.all():
                break
            length = torch.where(enough, length, length / 2)
        if not enough.any():
            break
        new = torch.where(enough[:, None], tried, place)
        steep = torch.where(enough[:, None], steep, slope)
        moves, turns = [*moves, new - place][-HISTORY:], [*turns, slope - steep][-HISTORY:]
        place, value, slope = new, torch.where(enough, found, value), steep
    return place


def _valued(objective: Objective, place: Tensor) -> tuple[Tensor, Tensor]:
    """Values [B] and their slopes [B, Z]."""
    with torch.enable_grad():
        asked = place.detach().requires_grad_()
        value = objective(asked)
        (slope,) = torch.autograd.grad(value.sum(), asked)
    return value.detach(), slope


def _newton(slope: Tensor, moves: list[Tensor], turns: list[Tensor]) -> Tensor:
    """H g [B, Z]; the slope itself where nothing is known of the curvature."""
    direction = slope.clone()
    taken: list[tuple[Tensor, Tensor]] = []
    scale = torch.ones_like(slope[:, :1])
    for move, turn in zip(reversed(moves), reversed(turns), strict=True):
        product = (move * turn).sum(dim=-1, keepdim=True)
        kept = product > CURVED * (move.norm(dim=-1, keepdim=True) * turn.norm(dim=-1, keepdim=True))
        inverse = torch.where(kept, 1 / product.clamp_min(1e-30), 0.0)
        if not taken:
            curvature = turn.square().sum(dim=-1, keepdim=True).clamp_min(1e-30)
            scale = torch.where(kept, product / curvature, scale)
        share = inverse * (move * direction).sum(dim=-1, keepdim=True)
        direction = direction - share * turn
        taken.append((share, inverse))
    direction = scale * direction
    for (share, inverse), move, turn in zip(reversed(taken), moves, turns, strict=True):
        direction = direction + move * (share - inverse * (turn * direction).sum(dim=-1, keepdim=True))
    return direction
