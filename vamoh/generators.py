"""K generated networks evaluated at N points: only at the points that are asked for, on any grid or on none.

Points are the last axis of everything in between: the networks are small, and a product with many points side by side
fills a processor's registers whatever their width is.

Source: paper, Section 3: f(x; theta_k), an MLP on Fourier features with LeakyReLU 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vamoh.blocks import blocks
from vamoh.features import Features


@dataclass(frozen=True)
class GeneratorShape:
    """The layers of one generator; its parameters are one flat vector.

    Attributes:
        widths: Features in, hidden widths, outputs.
    """

    widths: tuple[int, ...]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(in, out) of every layer."""
        return list(zip(self.widths[:-1], self.widths[1:], strict=True))

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(width_in * width_out + width_out for width_in, width_out in self.layers)

    def initial(self, components: int, *, generator: torch.Generator) -> Tensor:
        """[K, P]: He-scaled weights with small outputs and zero biases, K independent draws."""
        parts = []
        for layer, (width_in, width_out) in enumerate(self.layers):
            gain = math.sqrt(2 / width_in) * (0.1 if layer == len(self.layers) - 1 else 1.0)
            parts.append(torch.randn(components, width_in * width_out, generator=generator) * gain)
            parts.append(torch.zeros(components, width_out))
        return torch.cat(parts, dim=1)

    def __call__(self, parameters: Tensor, features: Features) -> Tensor:
        """Evaluate K B networks.

        Args:
            parameters: [K, B, P].
            features: What every component sees at each of N points.

        Returns:
            [B, K, N, outputs].
        """
        functions, points = blocks(
            parameters.shape[1], features.num_points, parameters.shape[0] * max(self.widths[1:]), parameters.device
        )
        rows = features.functions(functions)
        parts = []
        for number, theta in enumerate(parameters.split(functions, dim=1)):
            seen = rows[min(number, len(rows) - 1)].points(points)
            parts.append(_joined([self._evaluate(theta, part) for part in seen], dim=3))
        return _joined(parts, dim=0).transpose(2, 3)

    def _evaluate(self, parameters: Tensor, features: Features) -> Tensor:
        """[B, K, outputs, N] of a block."""
        components, batch, _ = parameters.shape
        flat = parameters.transpose(0, 1).reshape(batch * components, -1)
        hidden, start = self._first(flat, features, batch, components)
        for width_in, width_out in self.layers[1:]:
            # in place: a product's gradient needs its factors, not itself; and before the view, not on it
            hidden = nn.functional.leaky_relu(hidden, 0.1, inplace=True).view(batch * components, width_in, -1)
            weight, bias, start = _layer(flat, start, width_in, width_out)
            hidden = torch.baddbmm(bias, weight, hidden)
        return hidden.view(batch, components, self.widths[-1], -1)

    def _first(self, flat: Tensor, features: Features, batch: int, components: int) -> tuple[Tensor, int]:
        """The first layer: one product of all networks with what they share, and one each with their own.

        Returns:
            [1, B K H, N] or [B, K H, N], and where its parameters end.
        """
        width_in, width_out = self.layers[0]
        weight, moved, start = _layer(flat, 0, width_in, width_out)
        shared, own = features.columns(weight)
        if shared.shape[-1]:
            stacked, bias = (part.reshape(1, -1, part.shape[-1]) for part in (shared, moved))
            moved = torch.baddbmm(bias, stacked, features.shared.transpose(1, 2))  # [1, B K H, N]
        if own is not None and features.own is not None:
            stacked, bias = (part.reshape(batch, components * width_out, -1) for part in (own, moved))
            moved = torch.baddbmm(bias, stacked, features.own.transpose(1, 2))  # [B, K H, N]
        return moved, start


def _layer(flat: Tensor, start: int, width_in: int, width_out: int) -> tuple[Tensor, Tensor, int]:
    """Weight [.., out, in] and bias [.., out, 1] that begin at `start` of flat parameters, and where they end."""
    end = start + width_in * width_out
    weight = flat[:, start:end].unflatten(1, (width_in, width_out)).transpose(1, 2)
    return weight, flat[:, end : end + width_out, None], end + width_out


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)
