"""Mixing weights per point: the prior p(c | x, z) and the posterior q(c | x, y, z).

The first layer is split into a part that sees the point (once for all functions on the same points) and a part that
sees the latent (once for all points).

Differs: logits are unbounded. The public code ends in tanh, so that no component can take more than
    e / (e + (K-1)/e) of a point: 0.787 at K = 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vamoh.pointconv import mlp


class Gating(nn.Module):
    """(point features, z) -> K logits.

    Args:
        num_features: Width of what is known of a point.
        latent: Z.
        hidden: Hidden widths.
        components: K.
        bounded: End in tanh, as the public code does.
    """

    def __init__(
        self, num_features: int, latent: int, hidden: Sequence[int], components: int, *, bounded: bool = False
    ) -> None:
        super().__init__()
        self.of_point = nn.Linear(num_features, hidden[0])
        self.of_latent = nn.Linear(latent, hidden[0], bias=False)
        self.rest = nn.Sequential(nn.LeakyReLU(0.1), mlp([*hidden, components], 0.1))
        self.bounded = bounded

    def forward(self, features: Tensor, latent: Tensor) -> Tensor:
        """[B or 1, N, F], [B, Z] -> logits [B, N, K]."""
        logits = self.rest(self.of_point(features) + self.of_latent(latent)[:, None])
        return logits.tanh() if self.bounded else logits
