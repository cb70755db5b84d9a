"""Laws of the planar flow and of the prior that it makes."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from vamoh.flows import FLOOR, PlanarFlow, Prior


def strong_flow(latent: int, depth: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> PlanarFlow:
    """A flow that bends: long shifts, offset kinks."""
    flow = PlanarFlow(latent, depth, generator=generator).to(dtype)
    with torch.no_grad():
        flow.shift.add_(0.3 * torch.randn(depth, latent, generator=generator, dtype=dtype))
        flow.bias.add_(0.5 * torch.randn(depth, generator=generator, dtype=dtype))
    return flow


def bent_prior(latent: int, depth: int, generator: torch.Generator) -> Prior:
    """A prior with a shifted, scaled Gaussian below a flow that bends."""
    prior = Prior(latent, depth, generator=generator).double()
    with torch.no_grad():
        prior.mean.copy_(torch.linspace(-0.5, 0.5, latent))
        prior.log_scale.copy_(torch.linspace(0.2, -0.3, latent))
    prior.flow = strong_flow(latent, depth, generator)
    return prior


def test_eighty_layers_are_inverted_to_rounding(generator: torch.Generator) -> None:
    flow = strong_flow(5, 80, generator)
    noise = 3 * torch.randn(7, 3, 5, generator=generator, dtype=torch.float64)
    latent, log_det = flow(noise)
    assert (latent - noise).abs().max() > 1  # it does something
    back, log_det_back = flow.inverse(latent)
    torch.testing.assert_close(back, noise, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)


def test_the_log_determinant_of_eighty_layers_is_autograds(generator: torch.Generator) -> None:
    flow = strong_flow(5, 80, generator)
    noise = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    latent, log_det = flow(noise)
    forward = torch.stack([torch.autograd.functional.jacobian(lambda e: flow(e)[0], each) for each in noise])
    inverse = torch.stack([torch.autograd.functional.jacobian(lambda z: flow.inverse(z)[0], each) for each in latent])
    torch.testing.assert_close(log_det, torch.linalg.slogdet(forward).logabsdet, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flow.inverse(latent)[1], torch.linalg.slogdet(inverse).logabsdet, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [-1e4, -300.0, -20.0, -1.0, 0.0, 20.0, 1e4])
def test_a_layer_stays_invertible_however_the_optimiser_pushes_it(
    strength: float, dtype: torch.dtype, generator: torch.Generator
) -> None:
    flow = PlanarFlow(4, 3, generator=generator).to(dtype)
    with torch.no_grad():
        flow.shift.add_(strength * flow.direction)  # u . w as far beyond -1 as one likes
    noise = torch.randn(50, 4, generator=generator, dtype=dtype)
    latent, log_det = flow(noise)
    back, log_det_back = flow.inverse(latent)
    assert torch.isfinite(log_det).all() and (log_det >= 3 * math.log(FLOOR) - 1e-3).all()
    # every layer may magnify rounding by 1 / FLOOR; a strength of 1e4 stretches, and costs nothing coming back
    slack = 50 * torch.finfo(dtype).eps * (latent.abs().max() + 1) / (FLOOR**3 if strength < -10 else FLOOR)
    assert (back - noise).abs().max() <= slack
    if dtype == torch.float64:
        torch.testing.assert_close(log_det_back, -log_det, rtol=1e-6, atol=1e-6)


def test_adversarial_shifts_have_finite_gradients(generator: torch.Generator) -> None:
    prior = Prior(4, 5, generator=generator)
    assert prior.flow is not None
    with torch.no_grad():
        prior.flow.shift.add_(-1e3 * prior.flow.direction)
    (prior.log_prob(torch.randn(7, 4, generator=generator)).sum() + prior.transform(torch.randn(7, 4)).sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())


def test_a_zero_shift_leaves_a_layer_the_identity(generator: torch.Generator) -> None:
    flow = PlanarFlow(4, 3, generator=generator).double()
    with torch.no_grad():
        flow.shift.zero_()
    noise = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    latent, log_det = flow(noise)
    torch.testing.assert_close(latent, noise, rtol=0, atol=1e-6)  # log(e - 1) is kept in double precision
    torch.testing.assert_close(log_det, torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_density_of_a_flow_integrates_to_one_in_two_dimensions(generator: torch.Generator) -> None:
    prior = bent_prior(2, 6, generator)
    axis = torch.linspace(-14, 14, 1401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = prior.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)


def test_draws_follow_the_density(generator: torch.Generator) -> None:
    prior = bent_prior(2, 6, generator)
    noise = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    latent = prior.transform(noise)
    by_change_of_variables = Normal(0.0, 1.0).log_prob(noise).sum(dim=-1)
    jacobian = torch.stack([torch.autograd.functional.jacobian(prior.transform, each) for each in noise.view(-1, 2)])
    expected = by_change_of_variables - torch.linalg.slogdet(jacobian).logabsdet.view(3, 7)
    torch.testing.assert_close(prior.log_prob(latent), expected)


def test_zero_depth_is_the_gaussian_and_has_no_parameter_that_waits_for_a_gradient(generator: torch.Generator) -> None:
    prior = Prior(3, 0, generator=generator).double()
    with torch.no_grad():
        prior.mean.copy_(torch.tensor([0.1, -2.0, 3.0]))
        prior.log_scale.copy_(torch.tensor([0.5, 0.0, -1.0]))
    latent = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    expected = Normal(prior.mean, prior.log_scale.exp()).log_prob(latent).sum(dim=-1)
    torch.testing.assert_close(prior.log_prob(latent), expected)
    prior.log_prob(latent).sum().backward()
    assert all(parameter.numel() and parameter.grad is not None for parameter in prior.parameters())


def test_a_context_moves_and_scales_the_gaussian_below_the_flow(generator: torch.Generator) -> None:
    prior = bent_prior(3, 4, generator)
    shift, log_scale = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    moved = bent_prior(3, 4, generator)
    moved.flow = prior.flow
    latent = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for row in range(2):
        with torch.no_grad():
            moved.mean.copy_(prior.mean + shift[row])
            moved.log_scale.copy_(prior.log_scale + log_scale[row])
        torch.testing.assert_close(prior.log_prob(latent, (shift, log_scale))[row], moved.log_prob(latent[row]))
        torch.testing.assert_close(prior.transform(latent, (shift, log_scale))[row], moved.transform(latent[row]))


def plain_inverse(flow: PlanarFlow, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Layer after layer by the textbook, with the shift that the flow uses."""
    shifts, _ = flow._invertible_shift()
    log_det = torch.zeros(latent.shape[:-1], dtype=latent.dtype)
    for layer in reversed(range(len(flow.bias))):
        u, w, b = shifts[layer], flow.direction[layer], flow.bias[layer]
        after = latent @ w + b
        slope = torch.where(after > 0, torch.ones_like(after), torch.full_like(after, 0.1))
        log_det = log_det - torch.log(1 + slope * (u @ w))
        latent = latent - u * (slope * after / (1 + slope * (u @ w)))[..., None]
    return latent, log_det


def test_the_inverse_equals_the_textbooks_layer_by_layer(generator: torch.Generator) -> None:
    flow = strong_flow(5, 30, generator)
    latent, _ = flow(torch.randn(7, 5, generator=generator, dtype=torch.float64))
    for ours, theirs in zip(flow.inverse(latent), plain_inverse(flow, latent), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_autocast_leaves_the_prior_in_single_precision(generator: torch.Generator) -> None:
    prior = Prior(8, 10, generator=generator)
    latent = torch.randn(7, 8, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob, draw = prior.log_prob(latent), prior.transform(latent)
    torch.testing.assert_close(log_prob, prior.log_prob(latent), rtol=0, atol=0)
    torch.testing.assert_close(draw, prior.transform(latent), rtol=0, atol=0)


def correlated_prior(depth: int, generator: torch.Generator) -> tuple[Prior, Tensor, Tensor]:
    """A prior with a Gaussian of covariances below a flow that bends, their mean and their covariance."""
    prior = Prior(3, depth, correlated=True, generator=generator).double()
    if depth:
        prior.flow = strong_flow(3, depth, generator)
    mixed = torch.tensor([[1.0, 0.0, 0.0], [-0.8, 0.3, 0.0], [0.5, 0.9, 2.0]], dtype=torch.float64)
    mean, covariance = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), mixed @ mixed.T
    prior.fit(mean, covariance)
    return prior, mean, covariance


def test_covariances_that_are_fitted_give_the_gaussian_of_many_variables(generator: torch.Generator) -> None:
    prior, mean, covariance = correlated_prior(0, generator)
    latent = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(latent), MultivariateNormal(mean, covariance).log_prob(latent))
    drawn = prior.transform(torch.randn(40_000, 3, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0.05, atol=0.02)


def test_draws_follow_the_density_of_correlated_latents_below_a_flow(generator: torch.Generator) -> None:
    prior, *_ = correlated_prior(4, generator)
    noise = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(prior.transform, each) for each in noise])
    expected = Normal(0.0, 1.0).log_prob(noise).sum(dim=-1) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(prior.transform(noise)), expected)


def test_a_prior_that_may_be_correlated_begins_as_the_one_that_may_not(generator: torch.Generator) -> None:
    both = [
        Prior(4, 2, correlated=correlated, generator=torch.Generator().manual_seed(1)) for correlated in (True, False)
    ]
    noise = torch.randn(6, 4, generator=generator)
    assert torch.equal(*(prior.transform(noise) for prior in both))
    torch.testing.assert_close(*(prior.log_prob(noise) for prior in both))
    assert "root" not in both[1].state_dict()  # a checkpoint of before has none
    with pytest.raises(ValueError, match="has no covariances"):
        both[1].fit(torch.zeros(4), torch.eye(4))
