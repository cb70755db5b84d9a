"""PointConv: convolution on sets of points, to encode a function and to read a coarse field out at any place.

A layer moves features from N points to M places: every place gathers its J nearest points, a small network (WeightNet)
turns each offset into a kernel, and the kernel-weighted features go through a linear map. Nothing depends on a grid.

Source: Wu et al., "PointConv", CVPR 2019; paper, Section 4.1.

Tensors inside are points-first ([N, B, F]): a point's rows for all functions lie together, so that gathering neighbours
copies long rows, and the kernels, which no function changes, multiply all functions in one product a centre.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vamoh.encodings import FourierFeatures
from vamoh.neighbours import Neighbours, canonical_order, farthest_points, nearest
from vamoh.precision import full_precision
from vamoh.spec import EncoderSpec


def mlp(widths: Sequence[int], slope: float, *, last: bool = False) -> nn.Sequential:
    """Linear layers of these widths with LeakyReLU between them, and after the last one where `last`."""
    layers: list[nn.Module] = []
    for step, (width_in, width_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers.append(nn.Linear(width_in, width_out))
        if last or step < len(widths) - 2:
            layers.append(nn.LeakyReLU(slope, inplace=True))
    return nn.Sequential(*layers)


class PointConv(nn.Module):
    """One set layer: features at N points -> features at M centres.

        out(c) = Linear( mean over seen neighbours j of  features_j (x) WeightNet((gamma(x_j) - gamma(c)) / spread) )

    with gamma the Fourier features, whose differences tell a kernel both the offset and the place.

    Args:
        num_features: Fourier features.
        width_in, width_out: Features per point.
        kernel_widths: WeightNet's layers; the last one is the number of kernels.
        linear: No nonlinearity between them, as in the public code.

    Differs: WeightNet has LeakyReLU between its layers (the public one is linear); unobserved neighbours are left out
        of each function's own mean instead of being dropped for the whole batch; differences are measured in units of
        what the plan's mean distance makes of them, so that kernels do not depend on how dense the points happen to
        be; neighbours are near in space, not in Fourier features.
    """

    def __init__(
        self, num_features: int, width_in: int, width_out: int, kernel_widths: Sequence[int], *, linear: bool = False
    ) -> None:
        super().__init__()
        self.weight_net = mlp([num_features, *kernel_widths], 1.0 if linear else 0.2)
        self.linear = nn.Linear(width_in * kernel_widths[-1], width_out)

    def forward(
        self, features: Tensor, seen: Tensor, plan: Neighbours, where: tuple[Tensor, Tensor], spread: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            features: [N, B, F].
            seen: [N, B or 1] bool.
            plan: The J nearest of the N points for each of the M centres.
            where: Fourier features of the points [N, G]; and of the centres [M, G], or which points they are [M].
            spread: Scalar, what differences of Fourier features are divided by.

        Returns:
            features [M, B, width_out], zero-kernel where nothing was seen, and the centres' mask [M, B or 1].
        """
        near, count = gather(features, seen, plan)
        moved = torch.bmm(near.transpose(1, 2), self.kernels(plan, where, spread))  # [M, B F, R]
        moved = moved.view(len(moved), *features.shape[1:], -1).flatten(2)  # [M, B, F R]
        moved = nn.functional.linear(moved, self.linear.weight)
        share = (1 / count.clamp_min(1))[..., None].to(moved)
        return torch.addcmul(self.linear.bias.to(moved), moved, share), count > 0

    def kernels(self, plan: Neighbours, where: tuple[Tensor, Tensor], spread: Tensor) -> Tensor:
        """WeightNet at every neighbour [M, J, R]; its first layer, being linear, is applied to places, not to pairs."""
        first, rest = self.weight_net[0], self.weight_net[1:]
        assert isinstance(first, nn.Linear)
        with full_precision(spread):  # a small difference of large numbers
            points, centres = where
            of_points = nn.functional.linear(points, first.weight)
            of_centres = nn.functional.linear(centres, first.weight) if centres.ndim == 2 else of_points[centres]
            near = nn.functional.embedding(plan.index, of_points)
            kernel: Tensor = rest((near - of_centres[:, None]) / spread + first.bias)
        return kernel


def gather(features: Tensor, seen: Tensor, plan: Neighbours) -> tuple[Tensor, Tensor]:
    """[N, B, F], [N, B or 1] -> neighbours' features [M, J, B F], zero where unseen; how many are seen [M, B or 1]."""
    rows = (features * seen[..., None]).flatten(1)
    return nn.functional.embedding(plan.index, rows), seen[plan.index].sum(dim=1)


class SetEncoder(nn.Module):
    """Points -> one vector for each function: PointConv layers on ever fewer centres.

    Args:
        spec: Centres, channels, neighbours and kernels of each layer.
        num_values: Features per point.
        fourier: Shared with the generators.
        places: [M, D], the last layer's centres where they are fixed; None where they are sampled.
        linear: See PointConv.

    Source: paper, Section 4.1 and appendix (table of architectures).

    Differs: the public encoder lays its last centres' features side by side, which means something only for the one
        set of points it was built for. Here the last centres are fixed places of the domain (`spec.places`), or what
        they carry is averaged; either way any set of points will do. The order of the points has no influence.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        num_values: int,
        fourier: FourierFeatures,
        places: Tensor | None = None,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self._shared = (fourier,)  # in a tuple, because the model that owns it registers it
        widths = [num_values, *spec.channels]
        self.layers = nn.ModuleList(
            PointConv(fourier.num_features, width_in, width_out, spec.kernel_widths, linear=linear)
            for width_in, width_out in zip(widths[:-1], widths[1:], strict=True)
        )
        if spec.balanced:
            for layer in self.layers.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, a=0.2)
        self.activation = nn.LeakyReLU(0.2, inplace=True)
        self.register_buffer("places", places, persistent=False)

    places: Tensor | None

    @property
    def num_outputs(self) -> int:
        """Width of what comes out."""
        return self.spec.channels[-1] * (1 if self.places is None else len(self.places))

    def forward(self, coords: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Encode.

        Args:
            coords: [B or 1, N, D].
            values: [B, N, num_values].
            mask: [B or 1, N] bool.

        Returns:
            [B, num_outputs]; the same whatever the order of the points and whatever stands at unobserved ones. A
            function of which nothing was seen gives zeros.
        """
        if coords.shape[0] == 1:
            return self._encode(coords[0], values, mask)
        rows = mask.expand(len(values), -1)
        return torch.cat([self._encode(c, v[None], m[None]) for c, v, m in zip(coords, values, rows, strict=True)])

    def _encode(self, coords: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        order, fourier = canonical_order(coords), self._shared[0]
        coords, seen = coords[order], mask.T[order]
        # selected, not multiplied: what stands at unobserved points may be NaN
        features = torch.where(seen[..., None], values.transpose(0, 1)[order], 0.0)
        located = fourier(coords)
        for level, (layer, near) in enumerate(zip(self.layers, self.spec.neighbours, strict=True)):
            if level == len(self.layers) - 1 and self.places is not None:
                centres = self.places.to(coords)
                which = at_centres = fourier(centres)
            else:
                which = farthest_points(coords, self.spec.centres[level])
                centres, at_centres = coords[which], located[which]
            plan = nearest(centres, coords, near)
            spread = fourier.spread((plan.distance**2).mean())
            features, seen = layer(features, seen, plan, (located, which), spread)
            features, coords, located = self.activation(features), centres, at_centres
            if level < len(self.spec.pooled) and self.spec.pooled[level]:
                chosen = farthest_points(coords, self.spec.pooled[level])
                features, seen = average(features, seen, nearest(coords[chosen], coords, near))
                coords, located = coords[chosen], located[chosen]
        if self.places is not None:
            return (features * seen[..., None]).transpose(0, 1).flatten(1)
        weight = seen / seen.sum(dim=0).clamp_min(1)
        return (features * weight[..., None]).sum(dim=0)


def average(features: Tensor, seen: Tensor, plan: Neighbours) -> tuple[Tensor, Tensor]:
    """The mean over the seen neighbours of each centre: [N, B, F], [N, B or 1] -> [M, B, F], [M, B or 1]."""
    near, count = gather(features, seen, plan)
    mean = near.sum(dim=1).view(-1, *features.shape[1:]) / count.clamp_min(1)[..., None].to(near)
    return mean, count > 0
