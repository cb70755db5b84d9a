"""Exact derivatives of a decoded field with respect to place: temperature gradients, and the normals of a shape.

A point's value depends on its own coordinates alone, so that the gradient of the sum over points holds every point's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vamoh.batch import FunctionBatch


def differentiable(query: FunctionBatch, num_functions: int) -> FunctionBatch:
    """`query` with coordinates that can be differentiated with respect to.

    Raises:
        ValueError: If the field has a context and what was interpolated from it does not depend on the coordinates.
    """
    if query.context is not None:
        if query.base is None or not (query.coords.requires_grad and query.base.requires_grad):
            raise ValueError(
                "the gradient of a field with a context needs `coords` that require gradients and a `base` computed "
                "from them: without it the gradient of what was interpolated would be left out"
            )
        return query
    coords = query.coords.detach()
    rows = coords if len(coords) == num_functions else coords.expand(num_functions, -1, -1).clone()
    return replace(query, coords=rows.requires_grad_())


def mean_gradient(mean: Tensor, coords: Tensor) -> Tensor:
    """d mean / d coords [B, N, C, D], of mean [B, N, C] that was computed from coords [B or 1, N, D]."""
    batch, _, channels = mean.shape
    together = len(coords) == batch
    slopes = []
    for channel in range(channels):
        parts = [mean[..., channel]] if together else list(mean[..., channel])
        slopes.append(torch.cat([torch.autograd.grad(part.sum(), coords, retain_graph=True)[0] for part in parts]))
    return torch.stack(slopes, dim=2)


def tangent(gradient: Tensor, coords: Tensor) -> Tensor:
    """The part of gradients [B, N, C, 3] that lies in the sphere at unit vectors [B or 1, N, 3]: by radian."""
    normal = coords.detach()[:, :, None]
    return gradient - (gradient * normal).sum(dim=-1, keepdim=True) * normal
