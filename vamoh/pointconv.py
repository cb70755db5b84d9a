"""PointConv: convolution on sets of points, to encode a function and to read a coarse field out at any place.

A layer moves features from N points to M places: every place gathers its J nearest points, a small network (WeightNet)
turns each offset into a kernel, and the kernel-weighted features go through a linear map. Nothing depends on a grid.

Source: Wu et al., "PointConv", CVPR 2019; paper, Section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vamoh.encodings import FourierFeatures
from vamoh.neighbours import Neighbours, canonical_order, farthest_points, nearest


def mlp(widths: Sequence[int], slope: float, *, last: bool = False) -> nn.Sequential:
    """Linear layers of these widths with LeakyReLU between them, and after the last one where `last`."""
    layers: list[nn.Module] = []
    for step, (width_in, width_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers.append(nn.Linear(width_in, width_out))
        if last or step < len(widths) - 2:
            layers.append(nn.LeakyReLU(slope))
    return nn.Sequential(*layers)


class PointConv(nn.Module):
    """One set layer: features at N points -> features at M centres.

        out(c) = Linear( mean over seen neighbours j of  WeightNet((x_j - c) / radius) (x) features_j )

    Args:
        num_axes: D.
        width_in, width_out: Features per point.
        kernel_widths: WeightNet's layers; the last one is the number of kernels.

    Differs: WeightNet has LeakyReLU between its layers (the public one is linear); unobserved neighbours are left out
        of each function's own mean instead of being dropped for the whole batch; offsets are measured in units of the
        plan's mean radius, so that kernels do not depend on how dense the points happen to be.
    """

    def __init__(self, num_axes: int, width_in: int, width_out: int, kernel_widths: Sequence[int]) -> None:
        super().__init__()
        self.weight_net = mlp([num_axes, *kernel_widths], 0.2)
        self.linear = nn.Linear(kernel_widths[-1] * width_in, width_out)

    def forward(self, features: Tensor, mask: Tensor, plan: Neighbours) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            features: [B, N, F].
            mask: [B or 1, N] bool.
            plan: The J nearest of the N points for each of the M centres.

        Returns:
            features [B, M, width_out], zero-kernel where nothing was seen, and the centres' mask [B or 1, M].
        """
        num_centres, num_near = plan.index.shape
        batch, _, width = features.shape
        kernel = self.weight_net(plan.offset / plan.distance.mean().clamp_min(1e-12))  # [M, J, R]
        seen = mask[:, plan.index]  # [B or 1, M, J]
        count = seen.sum(dim=-1, keepdim=True)
        share = seen / count.clamp_min(1)  # [B or 1, M, J]
        near = features[:, plan.index] * share[..., None]  # [B, M, J, F]
        near = near.permute(1, 2, 0, 3).reshape(num_centres, num_near, batch * width)
        moved = torch.bmm(kernel.transpose(1, 2), near)  # [M, R, B F]
        moved = moved.view(num_centres, -1, batch, width).permute(2, 0, 1, 3).reshape(batch, num_centres, -1)
        return self.linear(moved), count[..., 0] > 0


class SetEncoder(nn.Module):
    """Points -> one vector for each function: PointConv layers on ever fewer centres, then a masked mean.

    Args:
        num_axes: D.
        num_values: Features per point beside the Fourier features.
        fourier: Shared with the generators.
        centres, channels, neighbours: Of each layer.
        kernel_widths: WeightNet's layers.

    Source: paper, Section 4.1 and appendix (table of architectures).
    """

    def __init__(
        self,
        num_axes: int,
        num_values: int,
        fourier: FourierFeatures,
        *,
        centres: Sequence[int],
        channels: Sequence[int],
        neighbours: Sequence[int],
        kernel_widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.centres, self.neighbours = tuple(centres), tuple(neighbours)
        self._shared = (fourier,)  # in a tuple, because the model that owns it registers it
        widths = [num_values + fourier.num_features, *channels]
        self.layers = nn.ModuleList(
            PointConv(num_axes, width_in, width_out, kernel_widths)
            for width_in, width_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, coords: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Encode.

        Args:
            coords: [B or 1, N, D].
            values: [B, N, num_values].
            mask: [B or 1, N] bool.

        Returns:
            [B, channels[-1]]; the same whatever the order of the points and whatever stands at unobserved ones. A
            function of which nothing was seen gives zeros.
        """
        if coords.shape[0] == 1:
            return self._encode(coords[0], values, mask)
        rows = mask.expand(len(values), -1)
        return torch.cat([self._encode(c, v[None], m[None]) for c, v, m in zip(coords, values, rows, strict=True)])

    def _encode(self, coords: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        order = canonical_order(coords)
        coords, values, mask = coords[order], values[:, order], mask[:, order]
        fourier = self._shared[0](coords).expand(len(values), -1, -1)
        # selected, not multiplied: what stands at unobserved points may be NaN
        features = torch.where(mask[..., None], torch.cat([values, fourier], dim=-1), 0.0)
        for layer, count, near in zip(self.layers, self.centres, self.neighbours, strict=True):
            centres = coords[farthest_points(coords, count)]
            features, mask = layer(features, mask, nearest(centres, coords, near))
            features, coords = self.activation(features), centres
        weight = mask[..., None] / mask.sum(dim=-1)[:, None, None].clamp_min(1)
        return (features * weight).sum(dim=1)
