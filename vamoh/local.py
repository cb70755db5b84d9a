"""What a place reads from the coarse field around it, and what was learned about the place itself.

    readout_i(x) = sum_j w_ij(x) (C_j - base(x)),
    w_ij(x) = decay(dist_j) sum_r phi_ir(x) WeightNet_r(offset_j),

a PointConv over the J nearest context points whose kernel depends on where it is, through feature grids phi: a coast or
a slope has its own. Differences from the base, which follows the context, make it blind to a shift in temperature. The
decay is the root of an inverse penalty that grows with distance, so that an L2 penalty on sum_r phi_ir WeightNet_r
is a ridge that trusts near points more. Kernels end smoothly at the J-th neighbour: a read-out is continuous in x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vamoh import onednn
from vamoh.batch import FunctionBatch
from vamoh.encodings import FeatureGrids
from vamoh.neighbours import Neighbours, nearest
from vamoh.pointconv import mlp
from vamoh.precision import at_least_float32
from vamoh.spec import LocalSpec, ModelSpec

IN_CACHE = 2**18  # numbers of a layer of the kernels' network, or of the neighbours' values, at a time
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
        kernels = kernels.view(len(coords), self.channels, 1, -1)
        scored = query.values is not None
        widest = near.index.shape[1] * max(*self.spec.kernel_widths, self.spec.kernels, context.values[:, 0].numel())
        # where nothing is differentiated the passes are fewer, and a call of oneDNN costs more than torch's
        size = max(1, (IN_CACHE if torch.is_grad_enabled() else 4 * IN_CACHE) // widest)
        of_places = (kernels, *self._told(near), near.index, base.transpose(0, 1))
        blocks = zip(*(each.split(size) for each in of_places), strict=True)
        found = [self._read(context, *block, scored=scored) for block in blocks]
        read, squares = torch.cat([each for each, _ in found]), torch.stack([each for _, each in found]).sum()
        read = _Together.apply(read).permute(3, 2, 1, 0).contiguous()  # [B, 1 + Q, C, N]: the points last in memory
        penalty = squares / len(coords) * self.spec.penalty
        if scored:
            penalty = penalty + self._penalty(learned.split(parts, dim=-1)[1])
        return LocalTerms(
            readout=read[:, 0].transpose(1, 2),
            offset=offset.view(1, len(coords), self.components, self.outputs),
            shared=read[:, 1:].flatten(1, 2).transpose(1, 2),
            location=location[None],
            penalty=penalty,
        )

    def _read(
        self,
        context: FunctionBatch,
        kernels: Tensor,
        told: Tensor,
        decay: Tensor,
        index: Tensor,
        base: Tensor,
        *,
        scored: bool,
    ) -> tuple[Tensor, Tensor]:
        """The read-outs of a block of places, and, where values are scored, the squares of the places' own kernels.

        Args:
            context: What is read.
            kernels: [n, C, 1, R], the places' own weights of the basis.
            told, decay: [n, J, D + 1] and [n, J], see `_told`.
            index: [n, J], the neighbours.
            base: [n, B, C].
            scored: Whether the squares are asked for.

        Returns:
            [n, C, 1 + Q, B], and a scalar: the sum of squares before the decay.
        """
        difference, basis = _differences(context, index, base), self._basis(told)[:, None]
        everywhere = self.shared.unflatten(0, (-1, self.channels)).transpose(0, 1)  # [C, Q, R]
        weights, (neighbours, functions) = decay[:, None], difference.shape[2:]
        several, width = 1 + everywhere.shape[1], kernels.shape[-1]
        if several * neighbours * (width + functions) < width * functions * (neighbours + several):
            every = torch.cat([kernels, everywhere.expand(len(kernels), -1, -1, -1)], dim=2)
            each = every @ basis.transpose(-1, -2)  # [n, C, 1 + Q, J]
            read, own = (each * weights[:, None]) @ difference, each[:, :, : int(scored)]
        else:  # a few functions: what they have at the neighbours is moved to the place first
            moved = (difference * weights[..., None]).transpose(-1, -2) @ basis  # [n, C, B, R]
            first = torch.linalg.vecdot(moved, kernels)[:, :, None]
            read = torch.cat([first, torch.einsum("ncbr,cqr->ncqb", moved, everywhere)], dim=2)
            own = kernels[:, :, : int(scored)] @ basis.transpose(-1, -2)
        return read, (at_least_float32(own) ** 2).sum()

    def _penalty(self, offset: Tensor) -> Tensor:
        """Squares of what the place adds to each component's log scale."""
        scales = at_least_float32(offset).unflatten(-1, (self.components, self.outputs))[..., self.channels :]
        return self.spec.scale_penalty * (scales**2).sum(dim=(1, 2)).mean()

    def _told(self, near: Neighbours) -> tuple[Tensor, Tensor]:
        """What the kernels' network is told of each neighbour [N, J, D + 1], and the decay [N, J] of what it says."""
        cell = near.distance[:, :4].mean(dim=-1, keepdim=True).clamp_min(1e-9) / CELL  # [N, 1]
        distance = near.distance / cell
        coarseness = torch.log(cell / self.spec.spacing)[:, None].expand(-1, near.index.shape[1], -1)
        edge = ((1 - distance / distance[:, -1:].clamp_min(1e-9)) / 0.15).clamp(0, 1)
        decay = torch.exp(-distance / (2 * self.spec.reach)) / (distance + 0.3)
        return torch.cat([near.offset / cell[..., None], coarseness], dim=-1), decay * edge * edge * (3 - 2 * edge)

    def _basis(self, told: Tensor) -> Tensor:
        """What kernels are made of [n, J, R]."""
        net = self.weight_net if torch.is_grad_enabled() else self._undifferentiated
        basis: Tensor = net(told.flatten(0, 1))
        return basis.mul_(self.spec.kernels**-0.5).unflatten(0, told.shape[:2])

    def _undifferentiated(self, told: Tensor) -> Tensor:
        """As `weight_net`, where no gradient is asked for."""
        hidden, layers = told, [each for each in self.weight_net if isinstance(each, nn.Linear)]
        for layer in layers[:-1]:
            hidden = onednn.linear(hidden, layer.weight, layer.bias, slope=0.1)
        return onednn.linear(hidden, layers[-1].weight, layers[-1].bias)


def _differences(context: FunctionBatch, index: Tensor, base: Tensor) -> Tensor:
    """What neighbours [n, J] have more than a place's base [n, B, C]: [n, C, J, B], zero where they are not seen."""
    assert context.values is not None
    table, seen = context.values.transpose(0, 1), context.mask  # [M, B or 1, C]
    near = nn.functional.embedding(index, table.flatten(1)).unflatten(-1, table.shape[1:])
    difference = near - base[:, None]
    if seen.device.type != "cpu" or not bool(seen.all()):  # a GPU would have to be waited for
        difference = torch.where(seen.T[index][..., None], difference, 0.0)
    return difference.movedim(-1, 1)


class _Together(torch.autograd.Function):
    """The same numbers, whose gradient lies together in memory: torch multiplies small matrices one by one else."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        return given.view_as(given)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gradient.contiguous()
