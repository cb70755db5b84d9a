"""K generated networks evaluated at N points: only at the points that are asked for, on any grid or on none.

Source: paper, Section 3: f(x; theta_k), an MLP on Fourier features with LeakyReLU 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vamoh.features import Features
from vamoh.perceptrons import Layer, perceptrons


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
        components, batch, _ = parameters.shape
        flat, start, layers = parameters.transpose(0, 1).flatten(0, 1), 0, list[Layer]()
        for width_in, width_out in self.layers:
            end = start + width_in * width_out
            weight = flat[:, start:end].unflatten(1, (width_in, width_out)).transpose(1, 2)
            start = end + width_out
            layers.append(Layer(weight, flat[:, end:start]))
        first = Layer(*(part.unflatten(0, (batch, components)).flatten(1, 2) for part in layers[0]))
        outputs = perceptrons(features, first, layers[1:])
        return outputs.unflatten(1, (components, -1)).transpose(2, 3)
