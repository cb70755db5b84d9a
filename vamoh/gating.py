"""Mixing weights per point: the prior p(c | x, z) and the posterior q(c | x, y, z).

The first layer is split into a part that sees the point (once for all functions on the same points) and a part that
sees the latent (once for all points); the posterior's has a third part, of the values.

Differs: logits are unbounded. The public code ends in tanh, so that no component can take more than
    e / (e + (K-1)/e) of a point: 0.787 at K = 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vamoh.features import Features
from vamoh.perceptrons import Layer, perceptrons
from vamoh.pointconv import mlp


class Gating(nn.Module):
    """(point features, z) -> K logits, and (point features, y, z) -> K logits.

    Args:
        num_features: Width of what is known of a point.
        latent: Z.
        hidden: Hidden widths.
        components: K.
        num_values: C for a gate that sees values, 0 for one that does not.
        bounded: End in tanh, as the public code does.
    """

    def __init__(
        self,
        num_features: int,
        latent: int,
        hidden: Sequence[int],
        components: int,
        *,
        num_values: int = 0,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.of_point = nn.Linear(num_features, hidden[0])
        self.of_latent = nn.Linear(latent, hidden[0], bias=False)
        self.of_value = nn.Linear(num_values, hidden[0], bias=False) if num_values else None
        self.rest = nn.Sequential(nn.LeakyReLU(0.1, inplace=True), mlp([*hidden, components], 0.1))
        self.bounded = bounded

    def forward(self, features: Features, latent: Tensor, values: Tensor | None = None) -> Tensor:
        """What is known of N points, [B, Z] (, [B, N, C]) -> logits [B, N, K]."""
        batch = len(latent) if values is None else max(len(latent), len(values))
        weight = self.of_point.weight
        if self.of_value is not None:
            assert values is not None
            weights = [part for part in features.columns(weight) if part is not None]
            parts = [features.shared, values] if features.own is None else [features.shared, features.own, values]
            features, weight = Features.of(parts), torch.cat([*weights, self.of_value.weight], dim=1)
        first = Layer(weight[None], (self.of_point.bias + self.of_latent(latent)).expand(batch, -1))
        layers = [each for each in self.rest.modules() if isinstance(each, nn.Linear)]
        rest = [Layer(*(part.expand(batch, *part.shape) for part in (each.weight, each.bias))) for each in layers]
        logits = perceptrons(features, first, rest).transpose(1, 2)
        return logits.tanh() if self.bounded else logits
