"""Laws of the bound: it is a bound, it is tight where it should be, and its parts are what they say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.elbo import exact_posterior, gaussian_log_prob, mixture_terms

BUILD = Callable[..., FunctionBatch]
SPEC = Callable[..., ModelSpec]
WAKE = Callable[[VAMoH], VAMoH]


def normalised(*shape: int, generator: torch.Generator) -> Tensor:
    """Random log weights, float64."""
    return torch.log_softmax(2 * torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.fixture
def levels(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Log p(y | c), a mask of unequal sizes and a rescale, for B=2, N=7, K=3."""
    log_prob = 5 * torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 2:5] = False
    return log_prob, mask, torch.tensor([[1.0], [3.5]], dtype=torch.float64)


def test_no_posterior_of_the_components_exceeds_the_evidence(
    levels: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> None:
    log_prob, mask, rescale = levels
    log_prior = normalised(2, 7, 3, generator=generator)
    evidence = (torch.logsumexp(log_prob + log_prior, dim=-1) * mask * rescale).sum(dim=-1)
    for _ in range(50):
        guess = normalised(2, 7, 3, generator=generator)
        reconstruction, kl_c = mixture_terms(log_prob, log_prior, guess, mask, rescale)
        assert (kl_c >= 0).all() and (reconstruction - kl_c < evidence).all()
    exact = mixture_terms(log_prob, log_prior, exact_posterior(log_prob, log_prior), mask, rescale)
    torch.testing.assert_close(exact[0] - exact[1], evidence)


def test_what_stands_at_unobserved_points_adds_nothing_and_has_no_gradient(
    levels: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> None:
    log_prob, mask, rescale = levels
    log_prior, guess = normalised(2, 2, 7, 3, generator=generator)
    clean = mixture_terms(log_prob, log_prior, guess, mask, rescale)
    dirty = torch.where(mask[..., None], log_prob, 1e30).requires_grad_()
    terms = mixture_terms(dirty, log_prior, guess, mask, rescale)
    torch.testing.assert_close(terms, clean)
    terms[0].sum().backward()
    assert dirty.grad is not None and (dirty.grad[~mask] == 0).all()


def test_the_gaussians_log_density_is_torchs(generator: torch.Generator) -> None:
    value, mean, log_scale = torch.randn(3, 2, 7, 4, generator=generator, dtype=torch.float64)
    expected = Normal(mean, log_scale.exp()).log_prob(value).sum(dim=-1)
    torch.testing.assert_close(gaussian_log_prob(value, mean, log_scale), expected)


@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_given_the_latent_the_bound_is_below_the_mixtures_likelihood_and_meets_it_at_the_exact_posterior(
    kind: str, functions: BUILD, classic: SPEC, downscaling: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    build, batch = (classic, functions()) if kind == "classic" else (downscaling, functions(2, context=True))
    for posterior in ("network", "exact"):
        support = batch.coords[0]
        model = awake(VAMoH(build(component_posterior=posterior), support=support).double())
        noise = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
        terms = model.elbo(batch, noise=noise)
        mean, log_scale = model.posterior(batch)
        assert batch.values is not None
        log_prob = model.decode(mean + log_scale.exp() * noise[0], batch).log_prob(batch.values)
        evidence = torch.where(batch.mask, log_prob, 0.0).sum(dim=-1)
        bound = terms.reconstruction - terms.kl_c
        if posterior == "exact":
            torch.testing.assert_close(bound, evidence)
        else:
            assert (bound < evidence).all()


@pytest.mark.parametrize("depth", [0, 3])
def test_the_bound_on_average_never_exceeds_the_log_evidence(
    depth: int, functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic(latent=1, flow_depth=depth, component_posterior="exact")).double())
    batch = functions()
    latent = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    draws = 4000
    with torch.no_grad():
        model.posterior_head.bias[1] = -1.5  # narrow: no draw meets the likelihood's far tails
        log_prior = model.prior.log_prob(latent)
        for row in range(2):
            assert batch.values is not None
            pick = slice(row, row + 1)
            one = FunctionBatch(coords=batch.coords, values=batch.values[pick], observed=batch.mask[pick])
            assert one.values is not None
            likelihood = model.decode(latent, one).log_prob(one.values.expand(len(latent), -1, -1))
            joint = (likelihood * one.mask).sum(dim=-1) + log_prior
            evidence = torch.logsumexp(joint, dim=0) + (latent[1, 0] - latent[0, 0]).log()
            many = FunctionBatch(
                coords=one.coords, values=one.values.expand(draws, -1, -1), observed=one.mask.expand(draws, -1)
            )
            elbo = model.elbo(many, generator=generator).elbo
            assert elbo.mean() - 4 * elbo.std() / draws**0.5 < evidence
            # what is missing is KL(q(z) || p(z | y))
            mean, log_scale = model.posterior(one)
            log_q = gaussian_log_prob(latent, mean, log_scale)
            gap = (log_q.exp() * (log_q - joint + evidence)).sum() * (latent[1, 0] - latent[0, 0])
            assert elbo.mean().item() == pytest.approx((evidence - gap).item(), abs=5 * elbo.std().item() / draws**0.5)


# --- the KL of the latent -------------------------------------------------------------------------------------------


def test_without_a_flow_the_kl_estimate_agrees_with_the_closed_form(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic(flow_depth=0)).double())
    batch, samples = functions(), 20_000
    mean, log_scale = model.posterior(batch)
    closed = kl_divergence(Normal(mean, log_scale.exp()), Normal(model.prior.mean, model.prior.log_scale.exp()))
    with torch.no_grad():
        estimate = model.elbo(batch, generator=generator, kl_samples=samples).kl_z
    assert (closed.sum(dim=-1) > 0).all()
    torch.testing.assert_close(estimate, closed.sum(dim=-1), rtol=0, atol=0.05)


def test_the_gradient_of_the_kl_estimate_is_the_closed_forms(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic(flow_depth=0)).double())
    parameters = [model.posterior_head.weight, model.posterior_head.bias, model.prior.mean, model.prior.log_scale]
    batch = functions()
    mean, log_scale = model.posterior(batch)
    closed = kl_divergence(Normal(mean, log_scale.exp()), Normal(model.prior.mean, model.prior.log_scale.exp()))
    estimate = model.elbo(batch, generator=generator, kl_samples=20_000).kl_z
    expected = torch.autograd.grad(closed.sum(), parameters)
    assert all((gradient.abs() > 0.05).any() for gradient in expected)
    for ours, theirs in zip(torch.autograd.grad(estimate.sum(), parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)


def test_a_flow_that_does_nothing_changes_no_kl(functions: BUILD, classic: SPEC, generator: torch.Generator) -> None:
    noise = torch.randn(5, 2, 4, generator=generator, dtype=torch.float64)
    batch, terms = functions(), []
    for depth in (0, 6):
        model = VAMoH(classic(flow_depth=depth)).double()
        if model.prior.flow is not None:
            with torch.no_grad():
                model.prior.flow.shift.zero_()
        terms.append(model.elbo(batch, noise=noise).kl_z)
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-6, atol=1e-6)


def test_with_a_flow_the_kl_estimate_agrees_with_a_hundred_thousand_samples_and_has_the_right_gradient(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic(latent=2, flow_depth=4)).double())
    batch = functions()
    assert model.prior.flow is not None
    with torch.no_grad():
        model.prior.flow.shift.mul_(8)
        estimate = model.elbo(batch, generator=generator, kl_samples=5_000).kl_z
        mean, log_scale = model.posterior(batch)
        noise = torch.randn(100_000, 2, 2, generator=generator, dtype=torch.float64)
        latent = mean + log_scale.exp() * noise
        own = Normal(mean, log_scale.exp()).log_prob(latent).sum(dim=-1)
        below, log_det = textbook_inverse(model, latent)
        normal = Normal(model.prior.mean, model.prior.log_scale.exp()).log_prob(below).sum(dim=-1)
        each = own - normal - log_det
    torch.testing.assert_close(estimate, each.mean(dim=0), rtol=0, atol=5 * each.std().item() / 5_000**0.5)


def textbook_inverse(model: VAMoH, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Undo the prior's flow layer by layer, by bisection on the scalar that each layer moves."""
    flow = model.prior.flow
    assert flow is not None
    shifts, log_det = flow._invertible_shift()[0], torch.zeros(latent.shape[:-1], dtype=latent.dtype)
    for u, w, b in reversed(list(zip(shifts, flow.direction, flow.bias, strict=True))):
        target, gain = latent @ w + b, u @ w
        low, high = torch.full_like(target, -1e4), torch.full_like(target, 1e4)
        for _ in range(80):
            middle = (low + high) / 2
            above = middle + gain * nn.functional.leaky_relu(middle, 0.1) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        latent = latent - u * nn.functional.leaky_relu(low, 0.1)[..., None]
        log_det = log_det - torch.log(1 + gain * (0.1 + 0.9 * (low > 0)))
    return latent, log_det


def test_the_kl_teaches_the_encoder(functions: BUILD, classic: SPEC) -> None:
    model = VAMoH(classic())
    batch = functions()
    assert batch.values is not None
    everywhere = FunctionBatch(coords=batch.coords.float(), values=batch.values.float())
    model.elbo(everywhere, generator=torch.Generator().manual_seed(1)).kl_z.sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.encoder.layers.parameters())


# --- a plain variational autoencoder is a special case --------------------------------------------------------------


def test_one_component_and_no_flow_is_a_plain_vae_term_by_term(
    functions: BUILD, classic: SPEC, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic(components=1, flow_depth=0)).double())
    batch, noise = functions(), torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    terms = model.elbo(batch, noise=noise)
    mean, log_scale = model.posterior_head(model.encoder(batch.coords, batch.values, batch.mask)).chunk(2, dim=-1)
    for b in range(2):
        posterior = Normal(mean[b], log_scale[b].exp())
        latent = mean[b] + log_scale[b].exp() * noise[0, b]
        hidden = latent
        hyper = zip(model.hypernetworks.weights, model.hypernetworks.biases, strict=True)
        for layer, (weight, bias) in enumerate(hyper):
            hidden = (hidden if layer == 0 else nn.functional.leaky_relu(hidden, 0.1)) @ weight[0] + bias[0, 0]
        reconstruction = torch.zeros((), dtype=torch.float64)
        for n in range(7):
            if not batch.mask[b, n]:
                continue
            phase = 2 * torch.pi * model.fourier.frequencies @ batch.coords[0, n]
            values, start = torch.cat([phase.cos(), phase.sin()]), 0
            for layer, (width_in, width_out) in enumerate(model.generators.layers):
                middle, end = start + width_in * width_out, start + width_in * width_out + width_out
                values = values if layer == 0 else nn.functional.leaky_relu(values, 0.1)
                values = values @ hidden[start:middle].view(width_in, width_out) + hidden[middle:end]
                start = end
            assert batch.values is not None
            reconstruction += Normal(values[:3], values[3:].exp()).log_prob(batch.values[b, n]).sum()
        prior = Normal(model.prior.mean, model.prior.log_scale.exp())
        kl = (posterior.log_prob(latent) - prior.log_prob(latent)).sum()
        torch.testing.assert_close(terms.reconstruction[b], reconstruction)
        torch.testing.assert_close(terms.kl_z[b], kl)
        torch.testing.assert_close(terms.elbo[b], reconstruction - kl)
    torch.testing.assert_close(terms.kl_c, torch.zeros(2, dtype=torch.float64))


# --- every parameter learns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", ["network", "exact"])
@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_every_named_parameter_gets_a_gradient_and_none_is_dead(
    kind: str,
    posterior: str,
    functions: BUILD,
    classic: SPEC,
    downscaling: SPEC,
    awake: WAKE,
    generator: torch.Generator,
) -> None:
    build = classic if kind == "classic" else downscaling
    batch = functions(build().channels, context=kind == "downscaling", num_points=40, batch=3)
    model = awake(VAMoH(build(component_posterior=posterior), support=batch.coords[0]).double())
    terms = model.elbo(batch, generator=generator)
    terms.elbo.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.numel() > 0, name
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_from_the_start_every_parameter_is_reached_within_two_steps(
    kind: str, functions: BUILD, classic: SPEC, downscaling: SPEC, generator: torch.Generator
) -> None:
    build = classic if kind == "classic" else downscaling
    batch = functions(build().channels, context=kind == "downscaling", num_points=40, batch=3)
    model = VAMoH(build(), support=batch.coords[0]).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        (-model.elbo(batch, generator=generator).elbo.mean()).backward()
        optimiser.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_the_schedules_first_stage_leaves_prior_and_gate_alone(functions: BUILD, classic: SPEC, awake: WAKE) -> None:
    model, batch = awake(VAMoH(classic()).double()), functions()
    noise = torch.ones(2, 2, 4, dtype=torch.float64)
    terms = model.elbo(batch, noise=noise, learn_prior=False, learn_gate=False)
    mean, log_scale = model.posterior(batch)
    latent = mean + log_scale.exp()
    expected = Normal(mean, log_scale.exp()).log_prob(latent) - Normal(0.0, 1.0).log_prob(latent)
    torch.testing.assert_close(terms.kl_z, expected.sum(dim=-1))
    terms.elbo.sum().backward()
    assert all(p.grad is None for p in [*model.prior.parameters(), *model.gating.parameters()])
