"""Members of an ensemble where a model is only asked: what `VAMoH.mixture` says, in the fewest passes over memory.

Points are the last axis everywhere and components the first, so that nothing is moved between a product and what
follows it. The first layers of all generators and of the gate are one product, the gate's other layers, which all
members share, another one each. Nothing can be differentiated here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vamoh.gating import Gating
from vamoh.generators import GeneratorShape
from vamoh.normal_mixture import LOG2_E, NormalMixtures

SLOPE, LARGEST_LOG_SCALE = 0.1, 12.0  # of the generators and gates; of the family of normals


class Members:
    """M drawn functions of one context, of one channel: what of them does not depend on the place is done once.

    Args:
        generators: Their shape, with a mean and a log scale as outputs.
        networks: [K, M, P], what the hypernetworks make of the latents.
        gating: The gate.
        latent: [M, Z].
    """

    def __init__(self, generators: GeneratorShape, networks: Tensor, gating: Gating, latent: Tensor) -> None:
        assert generators.widths[-1] == 2
        self.components, self.members = networks.shape[:2]
        flat, start, self._layers = networks.flatten(0, 1), 0, list[_Layer]()
        for width_in, width_out in generators.layers:
            end = start + width_in * width_out
            weight = flat[:, start:end].unflatten(1, (width_in, width_out)).transpose(1, 2).contiguous()
            start = end + width_out
            self._layers.append(_Layer(weight, flat[:, end:start, None].contiguous()))
        self._gate = _Gate.of(gating, latent)
        first, self._width = self._layers.pop(0), generators.widths[1]
        parts = (first.weight.flatten(0, 1), gating.of_point.weight), (first.bias.flatten(), gating.of_point.bias)
        self._weight, self._bias = torch.cat(parts[0]), torch.cat(parts[1])[:, None]

    @torch.no_grad()
    def fill(self, mixtures: NormalMixtures, features: Tensor, added: Tensor) -> None:
        """Say what holds at some places.

        Args:
            mixtures: [K, M, N] each, which are written.
            features: [N, F], what the generators and the gate see.
            added: [K, N, 2], what the places add to the generators' outputs.
        """
        both = torch.addmm(self._bias, self._weight, features.T)
        ours, gates = both.split([len(both) - self._gate.width, self._gate.width])
        hidden = ours.view(self.components * self.members, self._width, -1)
        for weight, bias in self._layers:
            hidden = torch.baddbmm(bias, weight, nn.functional.leaky_relu_(hidden, SLOPE))
        mean, log_scale = hidden.view(self.components, self.members, 2, -1).unbind(2)
        mean_here, log_scale_here = added[:, None].unbind(-1)
        torch.add(mean, mean_here, out=mixtures.mean)
        doubles = torch.add(log_scale, log_scale_here, out=mixtures.scale).mul_(LOG2_E)
        doubles.clamp_(-LARGEST_LOG_SCALE * LOG2_E, LARGEST_LOG_SCALE * LOG2_E).exp2_()
        self._gate.fill(mixtures.weights, gates)


class _Layer(NamedTuple):
    """Weight [.., out, in] and bias [.., out, 1]."""

    weight: Tensor
    bias: Tensor


class _Gate(NamedTuple):
    """What of a gate depends on the members, and what follows it.

    Attributes:
        shift: [G, M], what the latents add to the first layer.
        layers: What follows.
        bounded: See `Gating`.
        width: G.
    """

    shift: Tensor
    layers: tuple[_Layer, ...]
    bounded: bool
    width: int

    @classmethod
    def of(cls, gating: Gating, latent: Tensor) -> _Gate:
        rest = gating.rest[1]
        assert isinstance(rest, nn.Sequential)
        linear = [each for each in rest if isinstance(each, nn.Linear)]
        layers = [_Layer(each.weight, each.bias[:, None]) for each in linear]
        weight, bias = layers[-1]
        if len(bias) == 2 and not gating.bounded:  # the softmax of two is the sigmoid of their difference
            layers[-1] = _Layer(weight - weight.flip(0), bias - bias.flip(0))
        return cls(gating.of_latent(latent).T.contiguous(), tuple(layers), gating.bounded, len(gating.of_point.weight))

    def fill(self, weights: Tensor, hidden: Tensor) -> None:
        """Weights [K, M, N] of the components, from the first layer's part of the place [G, N]."""
        moved = (self.shift[:, :, None] + hidden[:, None]).flatten(1)  # members and points side by side
        for weight, bias in self.layers:
            moved = torch.addmm(bias, weight, nn.functional.leaky_relu_(moved, SLOPE))
        logits = moved.view(weights.shape)
        if self.bounded:
            logits.tanh_()
        elif len(logits) == 2:
            torch.sigmoid(logits, out=weights)
            return
        torch.softmax(logits, dim=0, out=weights)
