"""K generated networks evaluated at N points: only at the points that are asked for, on any grid or on none.

Source: paper, Section 3: f(x; theta_k), an MLP on Fourier features with LeakyReLU 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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

    def __call__(self, parameters: Tensor, features: Tensor) -> Tensor:
        """Evaluate K B networks.

        Args:
            parameters: [K, B, P].
            features: [B or 1, N, F], what every component sees at each point.

        Returns:
            [B, K, N, outputs].
        """
        components, batch, _ = parameters.shape
        hidden = features.expand(components, batch, -1, -1).flatten(0, 1)  # [K B, N, F]
        flat, start = parameters.reshape(components * batch, -1), 0
        for layer, (width_in, width_out) in enumerate(self.layers):
            end = start + width_in * width_out
            weight = flat[:, start:end].view(-1, width_in, width_out)
            bias = flat[:, None, end : end + width_out]
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.layers) - 1:
                hidden = nn.functional.leaky_relu(hidden, 0.1)
            start = end + width_out
        return hidden.view(components, batch, -1, self.widths[-1]).transpose(0, 1)
