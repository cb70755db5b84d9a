"""Laws of the whole model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vamoh import FunctionBatch, ModelSpec, VAMoH, blocks, remembered
from vamoh.features import Features
from vamoh.generators import GeneratorShape
from vamoh.likelihoods import LikelihoodName
from vamoh.spec import EncoderSpec

BUILD = Callable[..., FunctionBatch]
SPEC = Callable[..., ModelSpec]
PLACES = Callable[[int], Tensor]
WAKE = Callable[[VAMoH], VAMoH]
FAMILIES: tuple[LikelihoodName, ...] = ("normal", "bernoulli", "continuous_bernoulli", "discretised_logistic")


def single(batch: FunctionBatch) -> FunctionBatch:
    """The batch in float32."""
    names = ("coords", "values", "covariates", "base")
    tensors: dict[str, Any] = {
        name: None if getattr(batch, name) is None else getattr(batch, name).float() for name in names
    }
    context = None if batch.context is None else single(batch.context)
    return replace(batch, context=context, **tensors)


@pytest.fixture
def model(downscaling: SPEC, awake: WAKE, places: PLACES) -> VAMoH:
    """A downscaling model off its starting point, float32."""
    return awake(VAMoH(downscaling(), support=places(300).float()))


@pytest.fixture
def batch(functions: BUILD) -> FunctionBatch:
    """Two functions with a context, float32."""
    return single(functions(2, context=True, num_points=40))


def test_decoding_some_points_equals_those_points_of_decoding_all(model: VAMoH, batch: FunctionBatch) -> None:
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    whole = model.decode(latent, batch)
    index = torch.tensor([33, 2, 17, 5])
    part = model.decode(latent, batch.at(index))
    level = torch.full((2, 40, 2), 0.3)
    assert isinstance(whole.components, Normal) and isinstance(part.components, Normal)
    for ours, theirs in (
        (part.mean, whole.mean),
        (part.log_weights, whole.log_weights),
        (part.quantile(level[:, index]), whole.quantile(level)),
        (part.components.mean.transpose(1, 2), whole.components.mean.transpose(1, 2)),
    ):
        torch.testing.assert_close(ours, theirs[:, index], rtol=1e-5, atol=1e-5)


def test_points_decoded_a_few_at_a_time_are_those_decoded_at_once(
    model: VAMoH, batch: FunctionBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.decode(latent, batch)
        monkeypatch.setattr("vamoh.model.POINTS", 3)
        parts = model.decode(latent, batch)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-5, atol=1e-5)


def test_the_size_of_a_block_changes_neither_the_bound_nor_its_gradient(
    model: VAMoH, batch: FunctionBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for numbers in (2**20, 40):
        monkeypatch.setitem(blocks.NUMBERS, "cpu", numbers)
        bound = model.elbo(batch, noise=noise).elbo
        parameters = [p for p in model.parameters() if p.requires_grad]
        found.append((bound, torch.autograd.grad(bound.sum(), parameters, allow_unused=True)))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-4)
    for one, other in zip(found[1][1], found[0][1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_only_the_points_that_are_scored_are_generated(
    classic: SPEC, batch: FunctionBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = VAMoH(classic()), []
    evaluate = GeneratorShape.__call__

    def counted(self: GeneratorShape, parameters: Tensor, features: Features) -> Tensor:
        asked.append(features.num_points)
        return evaluate(self, parameters, features)

    monkeypatch.setattr(GeneratorShape, "__call__", counted)
    values = batch.values[..., :1].expand(-1, -1, 3) if batch.values is not None else None
    model.elbo(FunctionBatch(coords=batch.coords, values=values), at=torch.tensor([5, 1, 2]))
    assert asked == [3]


def test_values_are_asked_for_where_they_are_said_to_be_and_encoded_where_they_stand(
    classic: SPEC, batch: FunctionBatch
) -> None:
    spec = classic(component_posterior="exact")
    model, at, noise = VAMoH(spec), torch.tensor([5, 1, 2]), torch.zeros(2, 2, spec.latent)
    values = batch.values[..., :1].expand(-1, -1, 3) if batch.values is not None else None
    whole = FunctionBatch(coords=batch.coords, values=values)
    elsewhere = batch.coords.flip(1)[:, at].expand(2, -1, -1)
    here, same, moved = (
        model.elbo(whole, at=at, places=places, noise=noise) for places in (None, whole.coords[:, at], elsewhere)
    )
    torch.testing.assert_close(same.elbo, here.elbo)
    torch.testing.assert_close(moved.kl_z, here.kl_z)
    latent, asked = model.posterior(whole).mean, FunctionBatch(coords=elsewhere)
    expected = model.decode(latent, asked).log_prob(whole.at(at).values).sum(dim=1) * whole.num_points / 3
    torch.testing.assert_close(moved.reconstruction - moved.kl_c, expected)


def test_each_function_is_decoded_as_if_alone(model: VAMoH, batch: FunctionBatch) -> None:
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    together = model.sample(latent, batch).mean
    for row in range(2):
        pick = slice(row, row + 1)
        assert batch.covariates is not None and batch.base is not None and batch.context is not None
        assert batch.context.values is not None
        alone = FunctionBatch(
            coords=batch.coords,
            covariates=batch.covariates[pick],
            base=batch.base[pick],
            context=FunctionBatch(coords=batch.context.coords, values=batch.context.values[pick]),
        )
        torch.testing.assert_close(model.sample(latent[pick], alone).mean, together[pick], rtol=1e-5, atol=1e-5)


def test_one_question_is_answered_by_many_latents(model: VAMoH, batch: FunctionBatch) -> None:
    assert batch.covariates is not None and batch.base is not None and batch.context is not None
    assert batch.context.values is not None
    one = FunctionBatch(
        coords=batch.coords,
        covariates=batch.covariates[:1],
        base=batch.base[:1],
        context=FunctionBatch(coords=batch.context.coords, values=batch.context.values[:1]),
    )
    latent = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    many = model.decode(latent, one).mean
    for each, expected in zip(latent, many, strict=True):
        torch.testing.assert_close(model.decode(each[None], one).mean[0], expected, rtol=1e-5, atol=1e-5)


def test_members_are_samples(model: VAMoH, batch: FunctionBatch) -> None:
    noise = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    for drawn, member in zip(noise, model.members(noise, batch), strict=True):
        torch.testing.assert_close(member.mean, model.sample(drawn, batch).mean)


def test_what_is_known_of_places_may_be_cut_up_and_asked_by_function(model: VAMoH, batch: FunctionBatch) -> None:
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).to(batch.coords)
    whole, placed = model.decode(latent, batch), model.place(batch)
    for row in range(2):
        alone, networks = latent[row : row + 1], model.hypernetworks(latent[row : row + 1])
        some = model.mixture(alone, placed.at(slice(2, 5)).rows(row, row + 1), networks=networks)
        torch.testing.assert_close(some.mean, whole.mean[row : row + 1, 2:5])
        torch.testing.assert_close(some.variance, whole.variance[row : row + 1, 2:5])
        torch.testing.assert_close(some.logits, whole.logits[row : row + 1, 2:5])


def test_completing_without_noise_decodes_the_posteriors_mean(model: VAMoH, batch: FunctionBatch) -> None:
    expected = model.decode(model.posterior(batch).mean, batch).mean
    torch.testing.assert_close(model.complete(batch, batch, torch.zeros(2, 4)).mean, expected)


def test_seeds_reproduce_models_and_bounds(downscaling: SPEC, batch: FunctionBatch, places: PLACES) -> None:
    support = places(300).float()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = VAMoH(downscaling(), support=support, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's numbers are drawn
    torch.manual_seed(2)
    second, other = (VAMoH(downscaling(), support=support, seed=seed) for seed in (5, 6))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert not torch.equal(first.fourier.frequencies, other.fourier.frequencies)
    bounds = [each.elbo(batch, generator=torch.Generator().manual_seed(9)).elbo for each in (first, second, first)]
    assert torch.equal(bounds[0], bounds[1]) and torch.equal(bounds[0], bounds[2])


def test_a_state_dict_restores_a_model_through_given_vertices(model: VAMoH, batch: FunctionBatch) -> None:
    assert model.local is not None
    vertices = tuple(len(table) for table in model.local.grids.tables)
    restored = VAMoH(model.spec, vertices=vertices, seed=99)
    restored.load_state_dict(model.state_dict())
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(restored.sample(latent, batch).mean, model.sample(latent, batch).mean)
    generators = (torch.Generator().manual_seed(3) for _ in range(2))
    bounds = [each.elbo(batch, generator=g).elbo for each, g in zip((model, restored), generators, strict=True)]
    assert torch.equal(*bounds)


def test_nothing_is_kept_twice_in_a_state_dict(model: VAMoH) -> None:
    names = list(model.state_dict())
    assert [name for name in names if name.endswith("frequencies")] == ["fourier.frequencies"]


@pytest.mark.parametrize("kind", ["classic", "downscaling"])
def test_under_half_precision_autocast_the_bound_is_single_precision_and_close(
    kind: str, classic: SPEC, downscaling: SPEC, functions: BUILD, places: PLACES
) -> None:
    build = classic if kind == "classic" else downscaling
    batch = single(functions(build().channels, context=kind == "downscaling", num_points=40))
    model = VAMoH(build(), support=places(300).float())
    full = model.elbo(batch, generator=torch.Generator().manual_seed(1), predictive=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.elbo(batch, generator=torch.Generator().manual_seed(1), predictive=True)
    for name in ("reconstruction", "kl_z", "kl_c", "predictive", "local_penalty", "elbo"):
        term, expected = getattr(half, name), getattr(full, name)
        assert term.dtype == torch.float32 and term.shape == (2,), name
        torch.testing.assert_close(term, expected, rtol=0.05, atol=0.5, msg=name)
    half.elbo.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


# --- numbers at the edge --------------------------------------------------------------------------------------------


def edge_cases(channels: int) -> Iterator[tuple[str, FunctionBatch]]:
    """What data can be at their worst."""
    generator = torch.Generator().manual_seed(4)
    coords = torch.nn.functional.normalize(torch.randn(1, 20, 3, generator=generator), dim=-1)
    binary = torch.randint(0, 2, (2, 20, channels), generator=generator).float()
    unseen = torch.zeros(2, 20, dtype=torch.bool)
    half_seen = torch.cat([unseen[:1], ~unseen[1:]])
    yield "constant at zero", FunctionBatch(coords=coords, values=torch.zeros(2, 20, channels))
    yield "constant at one", FunctionBatch(coords=coords, values=torch.ones(2, 20, channels))
    yield "saturated", FunctionBatch(coords=coords, values=binary)
    yield "one point", FunctionBatch(coords=coords[:, :1], values=binary[:, :1])
    yield "one point of one function", FunctionBatch(coords=coords[:, :1], values=binary[:1, :1])
    yield "all in one place", FunctionBatch(coords=coords[:, :1].expand(1, 20, 3), values=binary)
    yield "one fully unobserved", FunctionBatch(coords=coords, values=binary * torch.nan, observed=unseen)
    yield (
        "one of two unobserved",
        FunctionBatch(coords=coords, values=torch.where(half_seen[..., None], binary, torch.nan), observed=half_seen),
    )


@pytest.mark.parametrize("case", [name for name, _ in edge_cases(3)])
@pytest.mark.parametrize("posterior", ["network", "exact"])
@pytest.mark.parametrize("likelihood", FAMILIES)
def test_no_data_give_nan_in_values_or_gradients(
    likelihood: LikelihoodName, posterior: str, case: str, classic: SPEC, awake: WAKE
) -> None:
    model = awake(VAMoH(classic(likelihood, component_posterior=posterior)))
    batch = dict(edge_cases(3))[case]
    terms = model.elbo(batch, generator=torch.Generator().manual_seed(1), num_total=50, predictive=True)
    assert terms.predictive is not None
    assert torch.isfinite(terms.elbo).all() and torch.isfinite(terms.predictive).all()
    (terms.elbo + terms.predictive).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    if case == "one fully unobserved":
        assert (terms.reconstruction == 0).all() and (terms.kl_c == 0).all()


@pytest.mark.parametrize("likelihood", FAMILIES)
def test_training_on_a_constant_field_stays_finite(likelihood: LikelihoodName, classic: SPEC) -> None:
    model = VAMoH(classic(likelihood))
    batch = dict(edge_cases(3))["constant at one"]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = -model.elbo(batch, generator=generator).elbo.mean()
        assert torch.isfinite(loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 200.0, error_if_nonfinite=True)
        optimiser.step()


# --- what a user can get wrong --------------------------------------------------------------------------------------


def test_a_model_is_not_asked_without_its_context_nor_with_one_it_cannot_read(
    model: VAMoH, batch: FunctionBatch, classic: SPEC
) -> None:
    bare = FunctionBatch(coords=batch.coords)
    with pytest.raises(ValueError, match="reads a context, and the batch has none"):
        model.decode(torch.zeros(2, 4), bare)
    with pytest.raises(ValueError, match="reads no context, and the batch has one"):
        VAMoH(classic(channels=2, covariates=2)).decode(torch.zeros(2, 4), batch)


def test_the_number_of_covariates_must_be_the_models(model: VAMoH, batch: FunctionBatch) -> None:
    with pytest.raises(ValueError, match="2 covariates at every point, got 0"):
        model.decode(torch.zeros(2, 4), replace(batch, covariates=None))


def test_a_posterior_needs_values(classic: SPEC, batch: FunctionBatch) -> None:
    with pytest.raises(ValueError, match="needs values"):
        VAMoH(classic()).posterior(FunctionBatch(coords=batch.coords))


def test_a_local_model_needs_to_know_where_it_will_learn(downscaling: SPEC) -> None:
    with pytest.raises(ValueError, match="needs `support`"):
        VAMoH(downscaling())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": 0}, "latent must be at least 1"),
        ({"flow_depth": -1}, "flow_depth must be 0"),
        ({"gating": ()}, "gating needs at least one"),
        ({"context_encoder": EncoderSpec()}, "come together"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, object], message: str, classic: SPEC) -> None:
    with pytest.raises(ValueError, match=message):
        classic(**changes)


def test_an_encoders_layers_must_be_as_many_in_every_list() -> None:
    with pytest.raises(ValueError, match="as many centres as channels and neighbours"):
        EncoderSpec(centres=(8,), channels=(4, 4), neighbours=(3,))


def test_plans_are_found_again_in_every_step(batch: FunctionBatch, model: VAMoH) -> None:
    remembered._made.clear()
    model.elbo(batch)
    made = len(remembered._made)
    model.elbo(batch)
    assert len(remembered._made) == made > 0
