"""K hypernetworks: a latent becomes the weights of K generators, in one batched product a layer.

Source: paper, Section 3 (hypergenerators); widths in its appendix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Hypernetworks(nn.Module):
    """z -> theta_k = h_k(z), k = 1..K.

    Args:
        latent: Z.
        hidden: Widths between z and the parameters.
        initial: [K, P], what the generators' parameters are at the start; the last layer's bias.
        generator: Draws initial parameters.

    Differs: the last layer starts as a small perturbation of well-scaled generators (Chang et al., "Principled weight
        initialization for hypernetworks", ICLR 2020), not as a random matrix.
    """

    def __init__(self, latent: int, hidden: Sequence[int], initial: Tensor, *, generator: torch.Generator) -> None:
        super().__init__()
        components, parameters = initial.shape
        widths = [latent, *hidden, parameters]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width_in, width_out in zip(widths[:-1], widths[1:], strict=True):
            weight = torch.randn(components, width_in, width_out, generator=generator) * math.sqrt(2 / width_in)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(components, 1, width_out)))
        with torch.no_grad():
            self.weights[-1].mul_(0.1 * initial.std() if parameters > 1 else 0.1)
            self.biases[-1].copy_(initial[:, None])

    def forward(self, latent: Tensor) -> Tensor:
        """[B, Z] -> [K, B, P]."""
        hidden = latent.expand(len(self.weights[0]), -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.weights) - 1:
                hidden = nn.functional.leaky_relu(hidden, 0.1)
        return hidden
