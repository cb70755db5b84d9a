"""What a model knows of places before it knows of a function there: computed once for all latents."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vamoh.features import Features
from vamoh.local import LocalTerms


class Placed(NamedTuple):
    """What the points of a query contribute whatever the latent is (`VAMoH.place`).

    Attributes:
        features: What the generators and the gate see.
        added: [B or 1, K, N, outputs], added to what the generators give; None for the classic model.
        local: What was read of the context; None for the classic model.
    """

    features: Features
    added: Tensor | None
    local: LocalTerms | None

    def at(self, points: slice) -> Placed:
        """Some of the points; of what was read of the context no more is kept than they need."""
        added = None if self.added is None else self.added[:, :, points]
        return Placed(self.features.at(points), added, None)

    def rows(self, first: int, last: int) -> Placed:
        """The functions from `first` up to `last`; what all of them share stays as it is."""
        added = self.added if self.added is None or len(self.added) == 1 else self.added[first:last]
        return Placed(self.features.rows(first, last), added, None)
