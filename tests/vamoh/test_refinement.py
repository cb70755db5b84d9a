"""A posterior that is improved for one function: the bound rises, and what was not seen has no part in it."""

import math
from dataclasses import replace

import pytest
import torch

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.elbo import gaussian_log_prob
from vamoh.likelihoods import Mixture
from vamoh.model import Posterior
from vamoh.refinement import MIDDLE, refined
from vamoh.spec import EncoderSpec

N = 40


def model() -> VAMoH:
    encoder = EncoderSpec(centres=(8,), channels=(4,), neighbours=(4,), kernel_widths=(4,), places=True)
    return VAMoH(
        ModelSpec(domain="cube", likelihood="bernoulli", latent=3, components=2, flow_depth=2, fourier_frequencies=6,
                  encoder=encoder, hypernetwork=(8,), generator=(8,), gating=(4,), component_posterior="exact"),
        seed=3,
    )  # fmt: skip


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def functions() -> FunctionBatch:
    generator = seeded()
    coords = torch.rand(1, N, 3, generator=generator) * 2 - 1
    values = torch.stack([(coords[0, :, :1] > 0).float(), (coords[0, :, 1:2] > 0.3).float()])
    return FunctionBatch(coords=coords, values=values)


def bound(network: VAMoH, batch: FunctionBatch, posterior: Posterior, weight: torch.Tensor) -> torch.Tensor:
    """The bound of each function by very many latents."""
    assert batch.values is not None
    noise = torch.randn(4000, *posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    total = torch.zeros(2)
    for chunk in noise.split(200):
        latents = (posterior.mean + posterior.log_scale.exp() * chunk).flatten(0, 1)
        values = batch.values.repeat(len(chunk), 1, 1)
        likelihood = network.decode(latents, FunctionBatch(coords=batch.coords)).log_prob(values)
        own = gaussian_log_prob(latents.view_as(chunk), posterior.mean, posterior.log_scale)
        kl = own - network.prior.log_prob(latents, None).view(len(chunk), 2)
        total += ((likelihood.view(len(chunk), 2, N) * weight).sum(dim=-1) - kl).sum(dim=0)
    return total / len(noise)


@torch.no_grad()
def test_the_bound_of_every_function_rises() -> None:
    network, batch = model(), functions()
    begun, weight = network.posterior(batch), torch.ones(2, N)
    index = torch.arange(N).expand(2, -1)
    found = refined(network, batch, begun, lambda: (index, weight), steps=80, generator=seeded())
    assert (bound(network, batch, found, weight) > bound(network, batch, begun, weight)).all()
    assert all(parameter.grad is None for parameter in network.parameters())


@torch.no_grad()
def test_points_that_count_nothing_have_no_part_in_it() -> None:
    network, batch = model(), functions()
    assert batch.values is not None
    index, weight = torch.arange(N).expand(2, -1), (torch.arange(N) < 10).float().expand(2, -1)
    other = FunctionBatch(
        coords=batch.coords, values=torch.where(weight[..., None] > 0, batch.values, 1 - batch.values)
    )
    begun = network.posterior(batch)
    one, two = (
        refined(network, each, begun, lambda: (index, weight), steps=5, generator=seeded()) for each in (batch, other)
    )
    assert torch.equal(one.mean, two.mean) and torch.equal(one.log_scale, two.log_scale)


@torch.no_grad()
def test_without_steps_it_is_what_the_encoder_says() -> None:
    network, batch = model(), functions()
    begun = network.posterior(batch)
    assert refined(network, batch, begun, lambda: (torch.zeros(2, 1).long(), torch.ones(2, 1)), steps=0) is begun


@torch.no_grad()
def test_where_nothing_was_seen_the_posterior_goes_to_the_prior() -> None:
    network = model()
    batch = functions()
    start = Posterior(torch.full((2, 3), 2.0), torch.full((2, 3), -1.0))
    index, weight = torch.arange(N).expand(2, -1), torch.zeros(2, N)
    found = refined(network, batch, start, lambda: (index, weight), steps=300, generator=seeded())
    assert (bound(network, batch, found, weight) > -0.25).all()  # minus the divergence from the prior
    assert math.isfinite(float(found.mean.sum()))


def test_places_within_cells_are_asked_for_where_values_are_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch, asked, decode = model(), functions(), [], VAMoH.decode

    def spied(self: VAMoH, latent: torch.Tensor, query: FunctionBatch) -> Mixture:
        asked.append(query.coords)
        return decode(self, latent, query)

    monkeypatch.setattr(VAMoH, "decode", spied)
    index, weight, cell = torch.arange(5).expand(2, -1), torch.ones(2, 5), torch.tensor([0.2, 0.4, 0.1])
    for sides in (cell, None):
        asked.clear()
        refined(network, batch, network.posterior(batch), lambda: (index, weight), steps=40, cell=sides)
        reach = (torch.stack(asked) - batch.coords[:, :5]).abs().flatten(0, 2).amax(dim=0)
        if sides is None:
            assert (reach == 0).all()
        else:
            assert (reach <= cell * MIDDLE / 2 + 1e-6).all() and (reach > 0.8 * cell * MIDDLE / 2).all()


@torch.no_grad()
@pytest.mark.parametrize(("width", "longest"), [(0.01, 0.007), (2.0, 0.1)])
def test_a_step_is_short_beside_what_the_encoder_leaves_open_and_never_long(width: float, longest: float) -> None:
    network, batch = model(), functions()
    begun = network.posterior(batch)._replace(log_scale=torch.full((2, 3), math.log(width)))
    index, weight = torch.arange(N).expand(2, -1), torch.ones(2, N)
    found = refined(network, batch, begun, lambda: (index, weight), steps=1, generator=seeded())
    moved = (found.mean - begun.mean).abs()
    assert (moved <= longest * 1.01).all() and (moved > longest * 0.5).any()


@torch.no_grad()
def test_continuous_values_are_climbed_to_and_what_was_not_seen_has_no_part_in_it() -> None:
    spec = replace(model().spec, likelihood="normal")
    network, functions_, weight = VAMoH(spec, seed=3), functions(), (torch.arange(N) < 30).float().expand(2, -1)
    assert functions_.values is not None
    begun, index = network.posterior(functions_), torch.arange(N).expand(2, -1)
    found = refined(network, functions_, begun, lambda: (index, weight), steps=60, generator=seeded())
    gained = bound(network, functions_, found, weight) - bound(network, functions_, begun, weight)
    assert (gained > 0.3).all()
    other = replace(functions_, values=torch.where(weight[..., None] > 0, functions_.values, 9.0))
    again = refined(network, other, begun, lambda: (index, weight), steps=60, generator=seeded())
    assert torch.equal(found.mean, again.mean) and torch.equal(found.log_scale, again.log_scale)
