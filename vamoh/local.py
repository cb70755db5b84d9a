"""What a place reads from the coarse field around it, and what was learned about the place itself.

    readout_i(x) = sum_j w_ij(x) (C_j - base(x)),
    w_ij(x) = decay(dist_j) sum_r phi_ir(x) WeightNet_r(offset_j),

a PointConv over the J nearest context points whose kernel depends on where it is, through feature grids phi: a coast or
a slope has its own. Differences from the base, which follows the context, make it blind to a shift in temperature. The
decay is the root of an inverse penalty that grows with distance, so that an L2 penalty on sum_r phi_ir WeightNet_r
is a ridge that trusts near points more. Kernels end smoothly at the J-th neighbour: a read-out is continuous in x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vamoh import onednn
from vamoh.batch import FunctionBatch
from vamoh.encodings import FeatureGrids
from vamoh.neighbours import Neighbours, nearest
from vamoh.pointconv import mlp
from vamoh.precision import at_least_float32
from vamoh.spec import LocalSpec, ModelSpec

IN_CACHE = 2**18  # numbers of a layer of the kernels' network at a time
CELL = 0.76  # mean distance to the four nearest points of a square lattice, in cells


class LocalTerms(NamedTuple):
    """What the place contributes.

    Attributes:
        readout: [B, N, C], added to every component's mean.
        offset: [1, N, K, outputs], added to the generators' outputs.
        shared: [B, N, Q C], read-outs for the generators and the gate, whose kernels are the same everywhere.
        location: [1, N, G], for the same, of the place alone.
        penalty: Scalar, minus the log prior of a point's kernel and scales up to a constant, in samples' worth; zero
            where there are no values to be scored.
    """

    readout: Tensor
    offset: Tensor
    shared: Tensor
    location: Tensor
    penalty: Tensor


class LocalReadout(nn.Module):
    """Context and place -> LocalTerms.

    The components share one read-out, which has a kernel of its own at every place; the Q read-outs that the generators
    see have kernels that are the same everywhere.

    Args:
        spec: The model's.
        outputs: Outputs of a generator.
        grids: Feature grids of `LocalReadout.width(spec, outputs)` features.
        generator: Draws the kernels that are the same everywhere.
    """

    def __init__(self, spec: ModelSpec, outputs: int, grids: FeatureGrids, *, generator: torch.Generator) -> None:
        super().__init__()
        assert spec.local is not None
        self.spec: LocalSpec = spec.local
        self.components, self.channels, self.outputs = spec.components, spec.channels, outputs
        self.weight_net = mlp([spec.num_axes + 1, *self.spec.kernel_widths, self.spec.kernels], 0.1)
        self.shared = nn.Parameter(
            torch.randn(self.spec.features * self.channels, self.spec.kernels, generator=generator) * 0.1
        )
        self.everywhere = nn.Parameter(torch.zeros(self.width(spec, outputs)))
        self.grids = grids
        if outputs > spec.channels and spec.components > 1:  # components start apart, or they would stay equal
            with torch.no_grad():
                offset = self.everywhere[self.channels * self.spec.kernels :][: spec.components * outputs]
                start = torch.linspace(-0.5, 0.5, spec.components)[:, None]
                offset.view(spec.components, outputs)[:, spec.channels :] += start

    @staticmethod
    def width(spec: ModelSpec, outputs: int) -> int:
        """Features that the grids must have."""
        assert spec.local is not None
        return spec.channels * spec.local.kernels + spec.components * outputs + spec.local.location_features

    def forward(self, query: FunctionBatch) -> LocalTerms:
        """Read the context of `query` at its points."""
        context, base = query.context, query.base
        assert context is not None and base is not None and context.values is not None
        if query.coords.shape[0] > 1 or context.coords.shape[0] > 1:
            raise ValueError("a context is read at one set of points for the whole batch: coords must be [1, N, D]")
        coords = query.coords[0]
        near = nearest(coords, context.coords[0], self.spec.neighbours)
        if coords.requires_grad:
            near = near.differentiable(coords, context.coords[0])
        parts = [self.channels * self.spec.kernels, self.components * self.outputs, self.spec.location_features]
        learned = self.grids(coords)  # what this place has of its own
        kernels, offset, location = (learned + self.everywhere).split(parts, dim=-1)
        basis, decay = self._basis(near)  # [N, J, R], [N, J]
        kernels = kernels.view(len(coords), self.channels, -1)
        table = context.values.transpose(0, 1)  # [M, B or 1, C]
        difference = nn.functional.embedding(near.index, table.flatten(1)).unflatten(-1, table.shape[1:])
        difference = difference - base.transpose(0, 1)[:, None]  # [N, J, B, C]
        seen = context.mask
        if seen.device.type != "cpu" or not bool(seen.all()):  # a GPU would have to be waited for
            difference = torch.where(seen.T[near.index][..., None], difference, 0.0)
        # the sum over neighbours first: it is the same for all read-outs, and they are more than a few functions
        moved = (difference * decay[..., None, None]).flatten(2).transpose(1, 2) @ basis
        moved = moved.unflatten(1, difference.shape[2:])  # [N, B, C, R]
        shared = torch.einsum("nbcr,qcr->bnqc", moved, self.shared.unflatten(0, (-1, self.channels))).flatten(2)
        penalty = moved.new_zeros(())
        if query.values is not None:  # else nothing is scored
            penalty = self._penalty(kernels @ basis.transpose(1, 2), learned.split(parts, dim=-1)[1])
        return LocalTerms(
            readout=torch.linalg.vecdot(moved, kernels[:, None]).transpose(0, 1),
            offset=offset.view(1, len(coords), self.components, self.outputs),
            shared=shared,
            location=location[None],
            penalty=penalty,
        )

    def _penalty(self, raw: Tensor, offset: Tensor) -> Tensor:
        """Squares of the kernel before its decay, and of what the place adds to each component's log scale."""
        scales = at_least_float32(offset).unflatten(-1, (self.components, self.outputs))[..., self.channels :]
        kernels = (at_least_float32(raw) ** 2).sum(dim=(1, 2)).mean()
        return self.spec.penalty * kernels + self.spec.scale_penalty * (scales**2).sum(dim=(1, 2)).mean()

    def _basis(self, near: Neighbours) -> tuple[Tensor, Tensor]:
        """What kernels are made of [N, J, R], and the decay [N, J] that they are multiplied with."""
        cell = near.distance[:, :4].mean(dim=-1, keepdim=True).clamp_min(1e-9) / CELL  # [N, 1]
        distance = near.distance / cell
        coarseness = torch.log(cell / self.spec.spacing)[:, None].expand(-1, near.index.shape[1], -1)
        told = torch.cat([near.offset / cell[..., None], coarseness], dim=-1)
        learning = torch.is_grad_enabled()  # else the passes are fewer, and a call of oneDNN costs more than torch's
        net, numbers = (self.weight_net, IN_CACHE) if learning else (self._undifferentiated, 4 * IN_CACHE)
        at_a_time = max(1, numbers // (told.shape[1] * max(*self.spec.kernel_widths, self.spec.kernels)))
        basis = torch.cat([net(part) for part in told.split(at_a_time)]).div_(self.spec.kernels**0.5)
        edge = ((1 - distance / distance[:, -1:].clamp_min(1e-9)) / 0.15).clamp(0, 1)
        decay = torch.exp(-distance / (2 * self.spec.reach)) / (distance + 0.3)
        return basis, decay * edge * edge * (3 - 2 * edge)

    def _undifferentiated(self, told: Tensor) -> Tensor:
        """As `weight_net`, where no gradient is asked for."""
        hidden, layers = told.flatten(0, 1), [each for each in self.weight_net if isinstance(each, nn.Linear)]
        for layer in layers[:-1]:
            hidden = onednn.linear(hidden, layer.weight, layer.bias, slope=0.1)
        return onednn.linear(hidden, layers[-1].weight, layers[-1].bias).unflatten(0, told.shape[:2])
