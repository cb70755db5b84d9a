"""Scores that make intervals cover what they say, fitted on held-out fields: distributional conformal prediction.

Let u = Phi^-1(F(y)) be the score of the truth y in the predicted distribution F. With n held-out fields, F_i the share
of field i (by area) whose |u| is at most q, the radius of the central interval of probability c is

    q_c = min { q : sum_i F_i(q) / (n + 1) >= c },

and a member whose score would be Phi^-1((1 + c) / 2) is given q_c instead. If the n fields and the one that is asked
for are exchangeable, the truth at a place drawn by area lies in its interval with probability at least c, whatever the
model is. Nothing is promised where they are not: another season, another climate, one chosen place, one chosen hour.

Source: Lee, Barber and Willett, "Distribution-free inference with hierarchical data" (2023), for the groups;
Chernozhukov, Wuethrich and Zhu, "Distributional conformal prediction" (PNAS 2021), for the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SURE = 0.9
LEVELS = (0.05, *(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.98, 0.99)


@dataclass(frozen=True, kw_only=True)
class ConformalMap:
    """The map of scores: odd, continuous, never decreasing.

    Attributes:
        levels: Probabilities c of central intervals, ascending.
        radii: q_c of each.
        fields: n.
        first, last: Times of the first and the last of the n fields, ISO text.
    """

    levels: tuple[float, ...]
    radii: tuple[float, ...]
    fields: int
    first: str = ""
    last: str = ""

    @property
    def about(self) -> str:
        """What it was fitted on."""
        return f"fitted on {self.fields} held-out fields of {self.first} to {self.last}"

    def __call__(self, score: Tensor) -> Tensor:
        """Scores of members -> the scores that they are given; linear between the levels and beyond the last."""
        given = torch.tensor((0.0, *self.radii), dtype=torch.float64)
        nominal = torch.special.ndtri((1 + torch.tensor((0.0, *self.levels), dtype=torch.float64)) / 2)
        given, nominal = given.to(score), nominal.to(score)
        size = score.abs()
        upper = torch.searchsorted(nominal, size.contiguous()).clamp(1, len(nominal) - 1)
        slope = (given[upper] - given[upper - 1]) / (nominal[upper] - nominal[upper - 1])
        inside = given[upper - 1] + slope * (size - nominal[upper - 1])
        beyond = size * (given[-1] / nominal[-1])
        return torch.where(size > nominal[-1], beyond, inside).copysign(score)


def most_probable(fields: int) -> float:
    """The largest probability that an interval fitted on so many fields can be sure of."""
    return fields / (fields + 1)


def conformal_map(
    scores: Sequence[Tensor], area: Tensor, *, levels: Sequence[float] = LEVELS, first: str = "", last: str = ""
) -> ConformalMap:
    """Fit the map.

    Args:
        scores: u of each of n fields, [N], NaN where the truth is missing.
        area: [N], weights of the places.
        levels: Probabilities, ascending; those that n fields cannot be sure of are left out, and beyond `SURE` those
            for which being sure would take more than a fifth of what lies outside.
        first, last: See `ConformalMap`.

    Raises:
        ValueError: If no level is left.
    """
    radius, weight = [], []
    for field in scores:
        seen = torch.isfinite(field)
        share = torch.where(seen, area.double(), 0.0)
        if bool(seen.any()):
            radius.append(field[seen].abs().double())
            weight.append((share / share.sum())[seen])
    doubt = 1 - most_probable(len(radius))
    possible = tuple(level for level in levels if 1 - level >= (doubt if level <= SURE else 5 * doubt))
    if not possible:
        raise ValueError(f"{len(radius)} held-out fields are too few for any of the probabilities {tuple(levels)}")
    ordered, order = torch.cat(radius).sort()
    reached = torch.cat(weight)[order].cumsum(dim=0) / (len(radius) + 1)
    wanted = torch.tensor(possible, dtype=torch.float64) * (1 - 1e-12)  # the sum of the weights is rounded
    at = torch.searchsorted(reached, wanted).clamp_max(len(ordered) - 1)
    return ConformalMap(levels=possible, radii=tuple(ordered[at].tolist()), fields=len(radius), first=first, last=last)
