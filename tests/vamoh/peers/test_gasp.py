"""Laws of GASP: what it generates, what its discriminator sees, and the penalty that keeps the game stable."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipelines.config import load_config
from vamoh import FunctionBatch
from vamoh.peers import GASP, GaspSpec
from vamoh.spec import EncoderSpec

FUNCTIONS = Callable[..., FunctionBatch]
TINY = GaspSpec(
    latent=4,
    fourier_frequencies=5,
    hypernetwork=(6, 7),
    generator=(5, 4),
    discriminator=EncoderSpec(
        centres=(6, 4, 1), channels=(5, 4, 1), neighbours=(4, 3, 4), kernel_widths=(4, 3), pooled=(5, 0, 0)
    ),
    channels=3,
)


@pytest.fixture
def gasp() -> GASP:
    """A tiny one, float64."""
    return GASP(TINY, seed=3).double()


@pytest.fixture
def noise(generator: torch.Generator) -> Tensor:
    """[B=2, Z=4]."""
    return torch.randn(2, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["era5", "chairs", "celebahq"])  # the other images are as these
def test_the_papers_sizes_have_its_parameters(name: str) -> None:
    spec = load_config(f"gasp-{name}").model
    assert isinstance(spec, GaspSpec)
    model = GASP(spec)
    seen = 3 if name == "chairs" else 256
    weights = seen * 128 + 128 + 2 * (128 * 128 + 128) + 128 * spec.channels + spec.channels
    assert model.generators.num_parameters == weights
    hypernetwork = 64 * 256 + 256 + 256 * 512 + 512 + 512 * weights + weights
    assert hypernetwork == {"era5": 34_031_361, "chairs": 17_418_369, "celebahq": 34_163_715}[name]
    assert sum(p.numel() for p in model.hypernetworks.parameters()) == hypernetwork
    widths = [spec.channels, *spec.discriminator.channels]
    for layer, (width_in, width_out) in zip(
        model.discriminator.layers, zip(widths[:-1], widths[1:], strict=True), strict=True
    ):
        assert layer.linear.weight.shape == (width_out, 16 * width_in)
        assert [step.out_features for step in layer.weight_net if hasattr(step, "out_features")] == [16] * 4


@pytest.mark.parametrize("encoded", [True, False])
def test_a_function_is_the_network_whose_weights_were_generated(
    functions: FUNCTIONS, noise: Tensor, encoded: bool
) -> None:
    model = GASP(replace(TINY, encoded=encoded, bounds=(-2.0, 4.0)), seed=3).double()
    query = FunctionBatch(coords=functions().coords)
    values = model.values(noise, query)
    frequencies = 2 * math.pi * query.coords[0] @ model.fourier.frequencies.T
    for row in range(2):
        flat = model.hypernetworks(noise)[0, row]
        hidden = torch.cat([frequencies.cos(), frequencies.sin()], dim=-1) if encoded else query.coords[0]
        for layer, (width_in, width_out) in enumerate(model.generators.layers):
            weight, bias, flat = flat.split([width_in * width_out, width_out, len(flat) - (width_in + 1) * width_out])
            hidden = hidden @ weight.view(width_in, width_out) + bias
            hidden = hidden.tanh() if layer == 2 else torch.nn.functional.leaky_relu(hidden, 0.1)
        torch.testing.assert_close(values[row], 1 + 3 * hidden, rtol=1e-10, atol=1e-10)
    assert (values > -2).all() and (values < 4).all()


def test_r1_equals_a_finite_difference_gradient_penalty(gasp: GASP, functions: FUNCTIONS) -> None:
    batch, eps = functions(), 1e-6
    assert batch.values is not None
    expected = torch.zeros(2, dtype=torch.float64)
    for point in range(7):
        for channel in range(3):
            ahead = torch.zeros_like(batch.values)
            ahead[:, point, channel] = eps / 2  # values in [0, 1] are judged in [-1, 1]
            rise = gasp.score(batch, batch.values + ahead).sigmoid() - gasp.score(batch, batch.values - ahead).sigmoid()
            expected += (rise / (2 * eps)).detach() ** 2
    penalty = gasp.penalty(batch)
    assert (penalty > 0).all()
    torch.testing.assert_close(penalty, expected, rtol=1e-5, atol=0)


def test_the_discriminators_gradient_goes_through_r1(
    gasp: GASP, functions: FUNCTIONS, noise: Tensor, generator: torch.Generator
) -> None:
    batch = functions()
    learned = list(gasp.discriminator.parameters())
    slopes = torch.autograd.grad(gasp.discriminator_loss(batch, noise).total.sum(), learned)
    for parameter, slope in zip(learned, slopes, strict=True):
        way, eps, ends = torch.randn(parameter.shape, generator=generator, dtype=torch.float64), 1e-7, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * eps * way)
            ends.append(gasp.discriminator_loss(batch, noise).total.sum().item())
            with torch.no_grad():
                parameter.sub_(sign * eps * way)
        assert (slope * way).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-5, abs=1e-7)


def test_the_losses_are_those_of_the_game(gasp: GASP, functions: FUNCTIONS, noise: Tensor) -> None:
    batch = functions()
    assert batch.values is not None
    terms = gasp.discriminator_loss(batch, noise)
    real = gasp.score(batch, batch.values).sigmoid()
    fake = gasp.score(batch, gasp.values(noise, FunctionBatch(coords=batch.coords))).sigmoid()
    torch.testing.assert_close(terms.real, -real.log())
    torch.testing.assert_close(terms.fake, -(1 - fake).log())
    torch.testing.assert_close(terms.total, terms.real + terms.fake + 5 * gasp.penalty(batch))
    torch.testing.assert_close(gasp.generator_loss(batch, noise), -fake.log())


def test_each_player_learns_what_is_its_own(gasp: GASP, functions: FUNCTIONS, noise: Tensor) -> None:
    batch = functions()
    gasp.discriminator_loss(batch, noise).total.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in gasp.discriminator.parameters())
    assert all(p.grad is None for p in gasp.hypernetworks.parameters())
    own = [p.grad.clone() for p in gasp.discriminator.parameters() if p.grad is not None]
    gasp.generator_loss(batch, noise).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in gasp.hypernetworks.parameters())
    assert all(torch.equal(p.grad, kept) for p, kept in zip(gasp.discriminator.parameters(), own, strict=True))  # type: ignore[arg-type]


def test_what_was_not_observed_has_no_influence(gasp: GASP, functions: FUNCTIONS, noise: Tensor) -> None:
    batch = functions()
    assert batch.values is not None and batch.observed is not None
    for value in (7.0, math.nan):
        other = replace(batch, values=torch.where(batch.observed[..., None], batch.values, value))
        before, after = gasp.discriminator_loss(batch, noise), gasp.discriminator_loss(other, noise)
        torch.testing.assert_close(after.total, before.total, rtol=0, atol=0)
    made = batch.values.clone().requires_grad_()
    (reach,) = torch.autograd.grad(gasp.score(batch, made).sum(), made)
    assert (reach[~batch.observed] == 0).all() and (reach[batch.observed] != 0).any()


def test_a_score_knows_neither_the_order_of_points_nor_the_functions_beside(
    gasp: GASP, functions: FUNCTIONS, generator: torch.Generator
) -> None:
    batch = functions()
    assert batch.values is not None
    score, penalty = gasp.score(batch, batch.values), gasp.penalty(batch)
    mixed = batch.at(torch.randperm(7, generator=generator))
    assert mixed.values is not None
    torch.testing.assert_close(gasp.score(mixed, mixed.values), score, rtol=1e-12, atol=1e-12)
    for row in range(2):
        alone = batch.rows(row, row + 1)
        torch.testing.assert_close(gasp.penalty(alone)[0], penalty[row], rtol=1e-10, atol=0)


def test_a_score_is_the_last_layers_output_and_is_not_rectified(gasp: GASP, functions: FUNCTIONS) -> None:
    batch = functions()
    assert batch.values is not None
    score, last = gasp.score(batch, batch.values), gasp.discriminator.layers[-1].linear
    for rise in (-3.0, 3.0):
        with torch.no_grad():
            last.bias.add_(rise)
        torch.testing.assert_close(gasp.score(batch, batch.values), score + rise, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            last.bias.sub_(rise)


def test_a_new_discriminator_tells_full_from_empty_through_all_of_its_layers() -> None:
    deep = EncoderSpec(
        centres=(64, 32, 16, 8, 1), channels=(8, 16, 16, 16, 1), neighbours=(9,) * 5, kernel_widths=(8, 8)
    )
    batch = FunctionBatch(coords=torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    spec, gaps = replace(TINY, domain="cube", discriminator=deep, channels=1), []
    for seed in range(8):
        empty, full = (GASP(spec, seed=seed).score(batch, torch.full((1, 200, 1), value)) for value in (0.0, 1.0))
        gaps.append((full - empty).abs().item())
    assert sum(gaps) / len(gaps) > 0.02  # with torch's own first weights a hundred thousandth


def test_the_game_moves_samples_to_the_data(generator: torch.Generator) -> None:
    game = replace(TINY.discriminator, centres=(16, 9, 1), channels=(16, 16, 1), kernel_widths=(8, 8))
    spec = GaspSpec(
        latent=16, fourier_frequencies=32, hypernetwork=(32, 64), generator=(32, 32), discriminator=game, domain="plane"
    )
    model = GASP(spec, seed=2)
    axis = torch.linspace(-1, 1, 6)
    coords = torch.cartesian_prod(axis, axis)[None]
    of_data = torch.optim.Adam(model.discriminator.parameters(), lr=4e-3, betas=(0.5, 0.999))
    of_made = torch.optim.Adam(model.hypernetworks.parameters(), lr=1e-3, betas=(0.5, 0.999))

    def distance() -> float:
        noise = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
        values = model.values(noise, FunctionBatch(coords=coords))
        return abs(values.mean().item() - 0.8)

    begun = distance()
    for _ in range(120):
        values = 0.8 + 0.05 * torch.randn(16, 1, 1, generator=generator).expand(-1, 36, -1)
        batch = FunctionBatch(coords=coords, values=values)
        for optimizer, player in ((of_data, 0), (of_made, 1)):
            noise = torch.randn(16, 16, generator=generator)
            optimizer.zero_grad()
            loss = model.generator_loss(batch, noise) if player else model.discriminator_loss(batch, noise).total
            loss.mean().backward()
            optimizer.step()
    assert begun > 0.2 and distance() < 0.3 * begun


def test_gasp_says_that_it_cannot_infer(gasp: GASP, functions: FUNCTIONS, noise: Tensor) -> None:
    batch = functions()
    for ask in (gasp.posterior, gasp.complete):
        with pytest.raises(ValueError, match="GASP has no encoder: it samples functions, and cannot infer"):
            ask(batch, batch, noise)


def test_what_gasp_cannot_use_is_refused(functions: FUNCTIONS) -> None:
    model, given = GASP(replace(TINY, channels=2)).double(), functions(2, context=True)
    with pytest.raises(ValueError, match="no context and no covariates"):
        model.sample(torch.zeros(2, 4, dtype=torch.float64), given)
    with pytest.raises(ValueError, match="coordinates only"):
        model.penalty(FunctionBatch(coords=given.coords))
    with pytest.raises(ValueError, match="one sampled centre with one channel, the score, got 1 with 4"):
        replace(TINY, discriminator=replace(TINY.discriminator, channels=(5, 4, 4)))
    with pytest.raises(ValueError, match="a lower and a higher value"):
        replace(TINY, bounds=(1.0, 0.0))
