"""SIREN with shift modulations: the network that Functa fits to every function.

    h_0 = x,   h_l = sin(w0 (W_l h_{l-1} + b_l + s_l)),   l = 1..L-1,   f(x) = W_L h_{L-1} + b_L + 1/2

The weights are shared by all functions; a function is its shifts s.

Source: Sitzmann et al., "Implicit neural representations with periodic activation functions", NeurIPS 2020; Dupont et
    al., "From data to functa", ICML 2022, Section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

OFFSET = 0.5  # values lie in [0, 1]: what is learned is centred


class Siren(nn.Module):
    """The network.

    Args:
        num_axes: D.
        width: Of every hidden layer.
        depth: Linear layers, the first and the last one counted; at least 2.
        channels: C.
        w0: Frequency of the sines.
        generator: Draws the weights: uniform within 1 / D in the first layer, within sqrt(6 / width) / w0 after it.
    """

    def __init__(
        self, num_axes: int, width: int, depth: int, channels: int, w0: float, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.w0 = w0
        widths = [num_axes, *[width] * (depth - 1), channels]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (width_in, width_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            limit = math.sqrt(6 / width_in) / w0 if layer else 1 / width_in
            uniform = 2 * torch.rand(width_out, width_in, generator=generator) - 1
            self.weights.append(nn.Parameter(limit * uniform))
            self.biases.append(nn.Parameter(torch.zeros(width_out)))

    @property
    def num_modulated(self) -> int:
        """Layers that a function shifts: all but the last."""
        return len(self.weights) - 1

    def forward(self, coords: Tensor, shifts: Tensor) -> Tensor:
        """[B or 1, N, D], shifts [B, layers, width] -> [B, N, C]."""
        hidden = coords.expand(len(shifts), -1, -1)
        *layers, (last, last_bias) = zip(self.weights, self.biases, strict=True)
        for layer, (weight, bias) in enumerate(layers):
            # w0 multiplies the small factors: the large ones are read and written once
            shifted = (self.w0 * (bias + shifts[:, layer]))[:, None]
            scaled = (self.w0 * weight).T.expand(len(shifts), -1, -1)
            hidden = torch.baddbmm(shifted, hidden, scaled).sin()
        return nn.functional.linear(hidden, last, last_bias + OFFSET)
