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

from vamoh.blocks import blocks
from vamoh.features import Features
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
        self.width, self.bounded = max(*hidden, components), bounded

    def forward(self, features: Features, latent: Tensor, values: Tensor | None = None) -> Tensor:
        """What is known of N points, [B, Z] (, [B, N, C]) -> logits [B, N, K]."""
        batch = len(latent) if values is None else max(len(latent), len(values))
        shared, own = features.columns(self.of_point.weight)
        given = [_points_last(shared, self.of_point.bias, features.shared), self.of_latent(latent)[..., None]]
        if own is not None and features.own is not None:
            given.append(_points_last(own, None, features.own))
        if self.of_value is not None:
            assert values is not None
            given.append(_points_last(self.of_value.weight, None, values))
        size, _ = blocks(batch, features.num_points, self.width, latent.device)
        parts = [[part] * batch if len(part) == 1 else part.split(size) for part in given]
        logits = torch.cat([self._rest(sum(several)) for several in zip(*parts, strict=False)]).transpose(1, 2)
        return logits.tanh() if self.bounded else logits

    def _rest(self, hidden: Tensor) -> Tensor:
        """What follows the first layer: [b, H, N] -> [b, K, N], points last as in the generators."""
        activation, layers = self.rest[0], self.rest[1]
        assert isinstance(layers, nn.Sequential)
        hidden = activation(hidden)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                hidden = _points_last(layer.weight, layer.bias, hidden.transpose(1, 2))
            else:
                hidden = layer(hidden)
        return hidden


def _points_last(weight: Tensor, bias: Tensor | None, points: Tensor) -> Tensor:
    """A linear layer's output with the points as its last axis: [b, N, in] -> [b, out, N]."""
    weight = weight.expand(len(points), -1, -1)
    if bias is None:
        return weight @ points.transpose(1, 2)
    return torch.baddbmm(bias[:, None], weight, points.transpose(1, 2))
