"""What the generators and the gate see of a point: mostly the same for all functions, and a little of each function.

What all functions share is kept once. A batch's copies of it, and of its gradient, would be larger than any cache: they
were a tenth of a training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Features(NamedTuple):
    """F numbers at each of N points.

    Attributes:
        shared: [1, N, F - O], the same for all functions.
        own: [B, N, O], of each function; None where there are none.
        start: Where a function's own ones begin among all F.
    """

    shared: Tensor
    own: Tensor | None = None
    start: int = 0

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> Features:
        """Put parts [B or 1, N, F_i] side by side; what lies between two that are functions' own counts as such."""
        each = [place for place, part in enumerate(parts) if len(part) > 1]
        if not each:
            return cls(_joined(parts))
        first, last = each[0], each[-1] + 1
        rows = max(len(part) for part in parts)
        several = [part.transpose(1, 2).expand(rows, -1, -1) for part in parts[first:last]]
        own = torch.cat(several, dim=1).transpose(1, 2)  # its points last in memory
        rest = [*parts[:first], *parts[last:]]
        shared = _joined(rest) if rest else own.new_empty(1, own.shape[1], 0)
        return cls(shared, own, sum(part.shape[-1] for part in parts[:first]))

    @property
    def num_points(self) -> int:
        """N."""
        return self.shared.shape[1]

    def columns(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of a weight [.., F], what meets the shared features, and what meets the functions' own."""
        if self.own is None:
            return weight, None
        end = self.start + self.own.shape[-1]
        return torch.cat([weight[..., : self.start], weight[..., end:]], dim=-1), weight[..., self.start : end]

    def at(self, points: slice) -> Features:
        """Some of the points."""
        return self._replace(shared=self.shared[:, points], own=None if self.own is None else self.own[:, points])

    def rows(self, first: int, last: int) -> Features:
        """The functions from `first` up to `last`; one alone has nothing that it does not share."""
        if last - first == 1:
            return Features(self.seen(first)[None])
        return self._replace(own=None if self.own is None else self.own[first:last])

    def seen(self, row: int, points: slice = slice(None)) -> Tensor:
        """All features of one function [n, F]."""
        shared = self.shared[0, points]
        if self.own is None:
            return shared
        return torch.cat([shared[:, : self.start], self.own[row, points], shared[:, self.start :]], dim=-1)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)
