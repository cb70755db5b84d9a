"""Small networks at many points, many of them at once: a tile of functions and points at a time.

A tile's hidden layers stay in a core's own cache, from the first product to the last bend, and their gradients likewise
on the way back. A graph of torch's computes layer after layer, each for more than a cache holds, and waits for memory,
which all cores share.

Points are the last axis of everything in between: the networks are small, and a product with many points side by side
fills a processor's registers whatever their width is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vamoh.features import Features
from vamoh.precision import full_precision

SLOPE = 0.1
POINTS, NUMBERS = 1024, 2**19  # of a tile on a CPU: points, more of few functions; what these have in a layer
ELSEWHERE = 2**27  # numbers, of all points if they have room

_unbend = torch.ops.aten.leaky_relu_backward.grad_input


class Layer(NamedTuple):
    """A layer of n networks.

    Attributes:
        weight: [n, out, in].
        bias: [n, out].
    """

    weight: Tensor
    bias: Tensor


def perceptrons(features: Features, first: Layer, rest: Sequence[Layer]) -> Tensor:
    """Evaluate the networks of B functions at N points, with LeakyReLU 0.1 between layers; differentiable once.

    Args:
        features: What is seen at each point.
        first: Of all networks of a function side by side: weight [B or 1, J, F], bias [B, J].
        rest: Of B K networks, which share J evenly.

    Returns:
        [B, K out, N].
    """
    shared, own = features.columns(first.weight)
    given = [features.shared[0], shared, first.bias, *(part for layer in rest for part in layer)]
    if own is not None and features.own is not None:
        given += [features.own.transpose(1, 2), own.expand(len(first.bias), -1, -1)]
    device = first.bias.device.type
    if torch.is_autocast_enabled(device):
        given = [each.to(torch.get_autocast_dtype(device)) for each in given]
    with full_precision(first.bias):
        if torch.is_grad_enabled():
            found: Tensor = _Tiled.apply(len(rest), *given)
            return found
        return _Networks(len(rest), *given).evaluate()


class _Networks:
    """What `perceptrons` was given, and how it is cut into tiles.

    Args:
        depth: Layers after the first.
        given: What all functions see [N, S] and its weight [B or 1, J, S]; the bias [B, J]; weight and bias of each
            other layer; and, where functions see something of their own, that [B, O, N] and its weight [B, J, O].
    """

    def __init__(self, depth: int, *given: Tensor) -> None:
        self.seen, self.weight, self.bias, *rest = given
        self.rest = [Layer(*rest[number : number + 2]) for number in range(0, 2 * depth, 2)]
        self.own = rest[2 * depth :]
        (functions, width), points, device = self.bias.shape, len(self.seen), self.bias.device.type
        self.several = len(self.rest[0].bias) // functions if self.rest else 1  # K
        self.outputs = self.rest[-1].bias.shape[1] if self.rest else width
        widest = max(width, *(self.several * layer.bias.shape[1] for layer in self.rest), 1)
        allowed = max(1, (NUMBERS if device == "cpu" else ELSEWHERE) // widest)
        most = min(allowed, max(POINTS, allowed // max(1, functions))) if device == "cpu" else allowed
        across = _evenly(points, most)
        down = _evenly(functions, allowed // across)
        self.tiles = [
            (slice(first, min(first + down, functions)), slice(start, min(start + across, points)))
            for first in range(0, functions, down)
            for start in range(0, points, across)
        ]

    def of(self, functions: slice) -> tuple[slice, slice]:
        """Which of the first layer's weights for what all see are those of some functions, and which networks."""
        all_share = len(self.weight) < len(self.bias)
        networks = slice(functions.start * self.several, functions.stop * self.several)
        return slice(None) if all_share else functions, networks

    def evaluate(self, kept: list[Tensor] | None = None) -> Tensor:
        """What `perceptrons` gives; what follows each bend is added to `kept`, tile by tile."""
        points = len(self.seen)
        result = self.seen.new_empty(len(self.bias), self.several * self.outputs, points)
        for some, here in self.tiles:
            rows, networks = self.of(some)
            weight, bias = self.weight[rows], self.bias[some, :, None]
            hidden = torch.mm(weight.flatten(0, 1), self.seen[here].T).view(*weight.shape[:2], -1)
            hidden = hidden.add_(bias) if len(weight) == len(bias) else hidden + bias
            if self.own:
                hidden.baddbmm_(self.own[1][some], self.own[0][some, :, here])
            for layer in self.rest:
                hidden = nn.functional.leaky_relu_(hidden, SLOPE).view(-1, layer.weight.shape[2], hidden.shape[2])
                if kept is not None:
                    kept.append(hidden)
                hidden = torch.baddbmm(layer.bias[networks, :, None], layer.weight[networks], hidden)
            result[some, :, here] = hidden.view(len(bias), -1, hidden.shape[2])
        return result

    def differentiate(
        self, gradient: Tensor, kept: Sequence[Tensor], *, of_seen: bool, of_own: bool
    ) -> list[Tensor | None]:
        """The gradients of all that was given, in its order.

        Args:
            gradient: Of what `evaluate` gave.
            kept: Its.
            of_seen, of_own: Whether the gradient of what is seen is asked for too: by all functions, by each.
        """
        seen = _zeros(self.seen.T) if of_seen else None
        own = _zeros(self.own[0]) if of_own else None
        weight, bias, own_weight = _zeros(self.weight), _zeros(self.bias), [_zeros(each) for each in self.own[1:]]
        rest, back_to = [Layer(*map(_zeros, layer)) for layer in self.rest], reversed(kept)
        for some, here in reversed(self.tiles):
            rows, networks = self.of(some)
            back = gradient[some, :, here]
            back = back.reshape(-1, self.outputs, back.shape[2])
            for layer, found in zip(reversed(self.rest), reversed(rest), strict=True):
                hidden = next(back_to)
                found.weight[networks].baddbmm_(back, hidden.transpose(1, 2))
                found.bias[networks] += back.sum(dim=2)
                back = layer.weight[networks].transpose(1, 2) @ back
                _unbend(back, hidden, SLOPE, True, grad_input=back)
            back = back.view(-1, bias.shape[1], back.shape[2])
            bias[some] += back.sum(dim=2)
            if self.own:
                own_weight[0][some].baddbmm_(back, self.own[0][some, :, here].transpose(1, 2))
            if own is not None:
                own[some, :, here] = self.own[1][some].transpose(1, 2) @ back
            back = back.flatten(0, 1) if len(weight) == len(bias) else back.sum(dim=0)
            weight[rows].flatten(0, 1).addmm_(back, self.seen[here])
            if seen is not None:
                seen[:, here].addmm_(self.weight[rows].flatten(0, 1).T, back)
        found_rest = [part for layer in rest for part in layer]
        return [None if seen is None else seen.T, weight, bias, *found_rest, *([own, *own_weight] if self.own else [])]


class _Tiled(torch.autograd.Function):
    """`_Networks` as a step of torch's graph."""

    @staticmethod
    def forward(ctx: Any, depth: int, *given: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        kept: list[Tensor] = []
        result = _Networks(depth, *given).evaluate(kept)
        ctx.depth, ctx.count = depth, len(given)
        ctx.save_for_backward(*given, *kept)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        given, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        asked = ctx.needs_input_grad[1:]
        of_own = len(given) > 3 + 2 * ctx.depth and asked[3 + 2 * ctx.depth]
        found = _Networks(ctx.depth, *given).differentiate(gradient, kept, of_seen=asked[0], of_own=of_own)
        return None, *found


def _evenly(count: int, most: int) -> int:
    """How many at a time, at most, so that all parts are about as large."""
    return -(-count // -(-count // max(1, most)))


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros_like(like, memory_format=torch.contiguous_format)
