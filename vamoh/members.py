"""Members of an ensemble where a model is only asked: what `VAMoH.mixture` says, in the fewest passes over memory.

Points are the last axis everywhere and components the first, so that nothing is moved between a product and what
follows it. The first layers of all generators are one product, the gate's layers, which all members share, another one
each. Nothing can be differentiated here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vamoh import onednn
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
        first, self._last, self._gate = self._layers.pop(0), self._layers.pop(), _Gate.of(gating, latent)
        self._first = torch.cat([first.weight.flatten(0, 1), first.bias.flatten()[:, None]], dim=1)

    @torch.no_grad()
    def fill(self, mixtures: NormalMixtures, features: Tensor, added: Tensor) -> None:
        """Say what holds at some places.

        Args:
            mixtures: [K, M, N] each, which are written.
            features: [N, F], what the generators and the gate see.
            added: [K, N, 2], what the places add to the generators' outputs.
        """
        seen = nn.functional.pad(features, (0, 1), value=1.0)
        hidden = onednn.linear(self._first, seen, slope=SLOPE).unflatten(0, (self.components * self.members, -1))
        for weight, bias in self._layers:
            hidden = nn.functional.leaky_relu_(torch.baddbmm(bias, weight, hidden), SLOPE)
        hidden = torch.baddbmm(self._last.bias, self._last.weight, hidden)
        mean, log_scale = hidden.view(self.components, self.members, 2, -1).unbind(2)
        mean_here, log_scale_here = added[:, None].unbind(-1)
        torch.add(mean, mean_here, out=mixtures.mean)
        doubles = torch.add(log_scale, log_scale_here, out=mixtures.scale).mul_(LOG2_E)
        doubles.clamp_(-LARGEST_LOG_SCALE * LOG2_E, LARGEST_LOG_SCALE * LOG2_E).exp2_()
        self._gate.fill(mixtures.weights, seen)


class _Layer(NamedTuple):
    """Weight [.., out, in] and bias [.., out, 1]."""

    weight: Tensor
    bias: Tensor


def _with_one(layer: nn.Linear) -> Tensor:
    """Weight and bias side by side, for inputs that end in a one, and outputs that do so: [out + 1, in + 1]."""
    both = nn.functional.pad(torch.cat([layer.weight, layer.bias[:, None]], dim=1), (0, 0, 0, 1))
    both[-1, -1] = 1
    return both


class _Gate(NamedTuple):
    """What of a gate depends on the members, and what follows it.

    Attributes:
        of_point, shift: [G + 1, F + 1] and [G + 1, M], the first layer and what the latents add to it.
        layers: What follows, as `of_point` see `_with_one`.
        bounded: See `Gating`.
    """

    of_point: Tensor
    shift: Tensor
    layers: tuple[Tensor, ...]
    bounded: bool

    @classmethod
    def of(cls, gating: Gating, latent: Tensor) -> _Gate:
        rest = gating.rest[1]
        assert isinstance(rest, nn.Sequential)
        layers = [_with_one(each) for each in rest if isinstance(each, nn.Linear)]
        layers[-1] = layers[-1][:-1]
        if len(layers[-1]) == 2 and not gating.bounded:  # the softmax of two is the sigmoid of their difference
            layers[-1] = layers[-1] - layers[-1].flip(0)
        shift = nn.functional.pad(gating.of_latent(latent).T, (0, 0, 0, 1))
        return cls(_with_one(gating.of_point), shift, tuple(layers), gating.bounded)

    def fill(self, weights: Tensor, seen: Tensor) -> None:
        """Weights [K, M, N] of the components, from what is seen [N, F + 1], which ends in a one."""
        hidden = onednn.linear(self.of_point, seen)
        moved = (self.shift[:, :, None] + hidden[:, None]).flatten(1)  # members and points side by side
        moved = nn.functional.leaky_relu_(moved, SLOPE)
        for layer in self.layers[:-1]:
            moved = onednn.linear(layer, moved.T, slope=SLOPE)
        logits = onednn.linear(self.layers[-1], moved.T).view(weights.shape)
        if self.bounded:
            logits.tanh_()
        elif len(logits) == 2:
            torch.sigmoid(logits, out=weights)
            return
        torch.softmax(logits, dim=0, out=weights)
