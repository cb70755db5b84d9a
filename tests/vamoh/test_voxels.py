"""Voxels as the paper has them: a random part of a grid is encoded by its own neighbours, and all of a whole one."""

import torch

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.neighbours import canonical_order, nearest
from vamoh.spec import EncoderSpec


def grid(size: int) -> torch.Tensor:
    """Centres of voxels [size^3, 3] in the cube."""
    axis = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)


def model() -> VAMoH:
    """A small one with the chairs' first layers."""
    encoder = EncoderSpec(
        centres=(4096, 64, 8), channels=(4, 8, 8), neighbours=(8, 64, 27), kernel_widths=(8, 8), places=True
    )
    return VAMoH(
        ModelSpec(
            domain="cube",
            likelihood="bernoulli",
            latent=4,
            components=2,
            flow_depth=2,
            fourier_frequencies=8,
            encoder=encoder,
            hypernetwork=(8,),
            generator=(8,),
            gating=(8,),
        )
    )


def test_every_random_subset_of_a_grid_gets_its_own_neighbourhoods() -> None:
    coords, generator = grid(32), torch.Generator().manual_seed(3)
    radii = []
    for _ in range(3):
        subset = coords[torch.randperm(len(coords), generator=generator)[:4096]]
        subset = subset[canonical_order(subset)]
        radii.append(nearest(subset, subset, 8).distance[:, 1:].mean().item())
    assert max(radii) < 0.2 and max(radii) - min(radii) < 0.01  # random pairs are 1.36 apart


def test_encoding_a_whole_grid_reads_every_slice_of_it() -> None:
    coords = grid(32)
    values = (coords.norm(dim=-1, keepdim=True) < 0.7).float()[None].requires_grad_()
    mean, _ = model().posterior(FunctionBatch(coords=coords[None], values=values))
    (reach,) = torch.autograd.grad(mean.square().sum(), values)
    for axis in range(3):
        seen = reach.view(32, 32, 32).abs().amax(dim=[other for other in range(3) if other != axis])
        assert (seen > 0).all()
