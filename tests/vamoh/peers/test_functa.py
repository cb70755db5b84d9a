"""Laws of Functa: the network, the steps that fit it, the gradient through them, and the prior over modulations."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch
from vamoh import blocks as in_memory
from vamoh.peers import Functa, FunctaSpec

FUNCTIONS = Callable[..., FunctionBatch]
TINY = FunctaSpec(latent=5, width=7, depth=4, channels=3)


def functa(**changes: object) -> Functa:
    """A tiny one, float64."""
    return Functa(replace(TINY, **changes), seed=3).double()  # type: ignore[arg-type]


@pytest.fixture
def shifted(generator: torch.Generator) -> Functa:
    """One off its starting point, where every part does something."""
    model = functa()
    with torch.no_grad():
        for bias in (*model.siren.biases, model.shift_bias):
            bias.add_(0.02 * torch.randn(bias.shape, generator=generator, dtype=torch.float64))
    return model


def naive(model: Functa, coords: Tensor, shifts: Tensor) -> Tensor:
    """One function, [N, D] and [layers, width] -> [N, C], as the paper writes it."""
    hidden, last = coords, model.siren.num_modulated
    for layer in range(last):
        weight, bias = model.siren.weights[layer], model.siren.biases[layer]
        hidden = torch.sin(30 * (hidden @ weight.T + bias + shifts[layer]))
    return hidden @ model.siren.weights[last].T + model.siren.biases[last] + 0.5


@pytest.mark.parametrize(("domain", "axes", "channels"), [("sphere", 3, 1), ("cube", 3, 1), ("plane", 2, 3)])
def test_the_papers_size_has_its_parameters(domain: str, axes: int, channels: int) -> None:
    model = Functa(FunctaSpec(domain=domain, channels=channels))  # type: ignore[arg-type]
    siren = axes * 512 + 512 + 13 * (512 * 512 + 512) + 512 * channels + channels
    assert sum(p.numel() for p in model.siren.parameters()) == siren
    assert model.shift_weight.shape == (14 * 512, 128) and model.shift_bias.shape == (14 * 512,)
    assert model.rates.shape == (128,) and 0.005 <= model.rates.min() and model.rates.max() <= 0.1
    assert model.siren.weights[0].abs().max() <= 1 / axes
    for weight in model.siren.weights[1:]:
        limit = math.sqrt(6 / 512) / 30
        assert 0.98 * limit < weight.abs().max() <= limit


def test_shifts_of_zero_give_the_base_network_and_others_are_added_in_every_layer(
    shifted: Functa, functions: FUNCTIONS, generator: torch.Generator
) -> None:
    coords = functions().coords
    shifts = 0.1 * torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    shifts[0] = 0
    values = shifted.siren(coords, shifts)
    for row in range(2):
        torch.testing.assert_close(values[row], naive(shifted, coords[0], shifts[row]), rtol=1e-12, atol=1e-12)


def test_modulations_of_zero_give_the_base_network_at_the_start(functions: FUNCTIONS) -> None:
    model, query = functa(), FunctionBatch(coords=functions().coords)
    base = naive(model, query.coords[0], torch.zeros(3, 7, dtype=torch.float64))
    made = model.values(torch.zeros(1, 5, dtype=torch.float64), query)
    torch.testing.assert_close(made[0], base, rtol=1e-12, atol=1e-12)


def test_a_box_is_read_between_zero_and_one(generator: torch.Generator) -> None:
    model = functa(domain="plane")
    coords = 2 * torch.rand(1, 7, 2, generator=generator, dtype=torch.float64) - 1
    latent = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    expected = naive(model, (coords[0] + 1) / 2, model.shifts(latent)[0])
    torch.testing.assert_close(model.values(latent, FunctionBatch(coords=coords))[0], expected)


def test_every_inner_step_lowers_the_loss(shifted: Functa, functions: FUNCTIONS) -> None:
    batch = functions(num_points=40)
    losses = [shifted.error(shifted.infer(batch, steps=steps), batch) for steps in range(11)]
    assert all((after < before).all() for before, after in zip(losses[:-1], losses[1:], strict=True))


def test_a_step_is_gradient_descent_at_the_learned_rates(shifted: Functa, functions: FUNCTIONS) -> None:
    batch = functions()
    with torch.no_grad():
        shifted.rates[0], shifted.rates[1] = -0.3, 1.7  # beyond their limits
    rates = torch.cat([torch.tensor([0.0, 1.0]), shifted.rates[2:]])
    step, eps = shifted.infer(batch, steps=1), 1e-6
    for axis in range(5):
        ahead = torch.zeros(2, 5, dtype=torch.float64)
        ahead[:, axis] = eps
        slope = (shifted.error(ahead, batch) - shifted.error(-ahead, batch)) / (2 * eps)
        torch.testing.assert_close(step[:, axis], -rates[axis] * slope, rtol=1e-6, atol=1e-9)


def test_the_meta_gradient_equals_finite_differences(
    shifted: Functa, functions: FUNCTIONS, generator: torch.Generator
) -> None:
    batch = functions()
    learned = [p for name, p in shifted.named_parameters() if not name.startswith("prior")]
    slopes = torch.autograd.grad(shifted.meta_loss(batch).sum(), learned)
    assert all(slope.abs().max() > 0 for slope in slopes)
    for parameter, slope in zip(learned, slopes, strict=True):
        way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends, eps = [], 1e-6
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * eps * way)
            ends.append(shifted.meta_loss(batch).sum().item())
            with torch.no_grad():
                parameter.sub_(sign * eps * way)
        assert (slope * way).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-6)


def test_inference_a_block_at_a_time_is_what_training_goes_through(
    shifted: Functa, functions: FUNCTIONS, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = functions(num_points=23, batch=5)
    whole = shifted.infer(batch)
    torch.testing.assert_close(shifted.error(whole, batch), shifted.meta_loss(batch), rtol=1e-12, atol=0)
    decoded = shifted.values(whole, batch)
    for numbers in (7 * 4, 7 * 60):  # four points of a function, and two functions
        monkeypatch.setitem(in_memory.NUMBERS, "cpu", numbers)
        torch.testing.assert_close(shifted.infer(batch), whole, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(shifted.values(whole, batch), decoded, rtol=1e-12, atol=1e-12)


def test_what_was_not_observed_has_no_influence(shifted: Functa, functions: FUNCTIONS) -> None:
    batch = functions(num_points=11)
    assert batch.values is not None and batch.observed is not None
    other = torch.where(batch.observed[..., None], batch.values, math.nan)
    torch.testing.assert_close(shifted.infer(replace(batch, values=other)), shifted.infer(batch), rtol=0, atol=0)
    for row in range(2):
        left = FunctionBatch(
            coords=batch.coords[:, batch.observed[row]], values=batch.values[row, batch.observed[row]][None]
        )
        torch.testing.assert_close(shifted.infer(left)[0], shifted.infer(batch)[row], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(shifted.meta_loss(left)[0], shifted.meta_loss(batch)[row], rtol=1e-10, atol=0)


def test_a_function_of_which_nothing_was_observed_has_no_modulations(shifted: Functa, functions: FUNCTIONS) -> None:
    batch = functions()
    assert batch.observed is not None
    observed = batch.observed.clone()
    observed[1] = False
    latent = shifted.infer(replace(batch, observed=observed))
    assert (latent[1] == 0).all() and (latent[0] != 0).all()
    assert shifted.meta_loss(replace(batch, observed=observed))[1] == 0


def test_functions_at_places_of_their_own_are_fitted_each_by_itself(shifted: Functa, functions: FUNCTIONS) -> None:
    first, second = functions(num_points=9, batch=1), functions(num_points=9, batch=1)
    assert first.values is not None and second.values is not None
    both = FunctionBatch(
        coords=torch.cat([first.coords, second.coords]), values=torch.cat([first.values, second.values])
    )
    alone = [shifted.infer(FunctionBatch(coords=b.coords, values=b.values)) for b in (first, second)]
    torch.testing.assert_close(shifted.infer(both), torch.cat(alone), rtol=1e-10, atol=1e-12)


def test_meta_learning_makes_three_steps_enough(generator: torch.Generator) -> None:
    model = Functa(FunctaSpec(latent=8, width=24, depth=4, domain="plane"), seed=1)
    axis = torch.linspace(-1, 1, 10)
    coords = torch.cartesian_prod(axis, axis)[None]

    def drawn(count: int) -> FunctionBatch:
        turn = 2 * math.pi * torch.rand(count, 1, generator=generator)
        wave = (coords @ torch.tensor([2.0, 1.0]) + turn).sin()
        return FunctionBatch(coords=coords, values=(0.5 + 0.4 * wave)[..., None])

    held_out = drawn(16)
    assert held_out.values is not None
    variance = held_out.values.var(dim=0).mean()
    before = model.error(model.infer(held_out), held_out).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.meta_loss(drawn(16)).mean().backward()
        optimizer.step()
    after = model.error(model.infer(held_out), held_out).mean()
    assert before > 0.5 * variance and after < 0.1 * variance
    assert model.error(model.infer(held_out, steps=10), held_out).mean() < after
    half = replace(held_out, observed=(coords[..., 0] < 0))
    completed = model.values(model.infer(half, steps=10), held_out)
    assert (completed - held_out.values).square().mean() < 0.25 * variance


def test_a_gaussian_prior_is_that_of_the_data_sets_modulations(
    shifted: Functa, functions: FUNCTIONS, generator: torch.Generator
) -> None:
    latents = 2 + 0.3 * torch.randn(50, 5, generator=generator, dtype=torch.float64)
    shifted.standardise(latents)
    mean, scale = latents.mean(dim=0), latents.std(dim=0, correction=0)
    expected = torch.distributions.Normal(mean, scale).log_prob(latents).sum(dim=-1)
    torch.testing.assert_close(shifted.prior_log_prob(latents), expected)
    noise, query = torch.randn(2, 5, generator=generator, dtype=torch.float64), FunctionBatch(coords=functions().coords)
    torch.testing.assert_close(shifted.sample(noise, query).mean, shifted.values(mean + scale * noise, query))


def test_a_flow_prior_integrates_to_one() -> None:
    model = functa(latent=1, flow_depth=3)
    model.standardise(torch.tensor([[0.3], [0.7], [0.4]], dtype=torch.float64))
    places = torch.linspace(-4, 5, 20001, dtype=torch.float64)
    density = model.prior_log_prob(places[:, None]).exp()
    assert torch.trapezoid(density, places).item() == pytest.approx(1, abs=1e-4)


def test_what_functa_cannot_use_is_refused(functions: FUNCTIONS) -> None:
    model = functa(channels=2)
    given = functions(2, context=True)
    with pytest.raises(ValueError, match="no context and no covariates"):
        model.infer(given)
    with pytest.raises(ValueError, match="coordinates only"):
        model.infer(FunctionBatch(coords=given.coords))
    with pytest.raises(ValueError, match="depth must be at least 2"):
        replace(TINY, depth=1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        replace(TINY, steps=0)
