"""Derivatives with respect to place are exact: they agree with finite differences, in float64."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.derivatives import tangent
from vamoh.likelihoods import LikelihoodName

SPEC = Callable[..., ModelSpec]
PLACES = Callable[[int], Tensor]
WAKE = Callable[[VAMoH], VAMoH]
STEP = 1e-6


def differences(mean_at: Callable[[Tensor], Tensor], coords: Tensor) -> Tensor:
    """Central differences of mean_at(coords) [B, N, C] along every axis: [B, N, C, D]."""
    moves = STEP * torch.eye(coords.shape[-1], dtype=coords.dtype)
    return torch.stack([(mean_at(coords + move) - mean_at(coords - move)) / (2 * STEP) for move in moves], dim=-1)


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli", "continuous_bernoulli", "discretised_logistic"])
@pytest.mark.parametrize("domain", ["sphere", "cube", "plane"])
def test_the_gradient_of_a_decoded_field_is_that_of_finite_differences(
    domain: str, likelihood: LikelihoodName, classic: SPEC, places: PLACES, awake: WAKE, generator: torch.Generator
) -> None:
    spec = classic(likelihood, domain=domain)
    model = awake(VAMoH(spec).double())
    coords = places(6)[None, :, : spec.num_axes]
    latent = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    mixture, gradient = model.decode(latent, FunctionBatch(coords=coords), gradient=True)
    assert gradient.shape == (2, 6, 3, spec.num_axes) and not gradient.requires_grad
    torch.testing.assert_close(mixture.mean, model.decode(latent, FunctionBatch(coords=coords)).mean)
    expected = differences(lambda x: model.decode(latent, FunctionBatch(coords=x)).mean, coords)
    if domain == "sphere":
        expected = tangent(expected, coords)
        torch.testing.assert_close((gradient * coords[:, :, None]).sum(dim=-1), torch.zeros(2, 6, 3).double())
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    assert gradient.abs().max() > 1e-3


def test_each_functions_own_points_have_their_own_gradients(
    classic: SPEC, places: PLACES, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic()).double())
    latent = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    coords = torch.stack([places(5), places(5)])
    _, gradient = model.decode(latent, FunctionBatch(coords=coords), gradient=True)
    for b in range(2):
        _, alone = model.decode(latent[b : b + 1], FunctionBatch(coords=coords[b : b + 1]), gradient=True)
        torch.testing.assert_close(gradient[b], alone[0])


def test_the_gradient_on_the_sphere_is_the_slope_along_a_great_circle(
    classic: SPEC, places: PLACES, awake: WAKE, generator: torch.Generator
) -> None:
    model = awake(VAMoH(classic()).double())
    latent, (start, other) = torch.randn(1, 4, generator=generator, dtype=torch.float64), places(2)
    along = other - (other @ start) * start
    along = along / along.norm()

    def mean_at(angle: float) -> Tensor:
        turn = torch.tensor(angle, dtype=torch.float64)
        place = turn.cos() * start + turn.sin() * along
        return model.decode(latent, FunctionBatch(coords=place[None, None])).mean[0, 0]

    _, gradient = model.decode(latent, FunctionBatch(coords=start[None, None]), gradient=True)
    slope = (mean_at(STEP) - mean_at(-STEP)) / (2 * STEP)
    torch.testing.assert_close(gradient[0, 0] @ along, slope, rtol=1e-5, atol=1e-8)


@pytest.fixture
def asked(places: PLACES, generator: torch.Generator) -> Callable[[Tensor], FunctionBatch]:
    """A field with a context whose base and covariates are smooth functions of place."""
    coarse = FunctionBatch(
        coords=places(30)[None], values=torch.randn(2, 30, 2, generator=generator, dtype=torch.float64)
    )
    waves = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)

    def ask(coords: Tensor) -> FunctionBatch:
        return FunctionBatch(
            coords=coords,
            covariates=torch.sin(coords[..., :2]).expand(2, -1, -1),
            base=torch.sin(coords @ waves),
            context=coarse,
        )

    return ask


def test_with_a_context_the_readouts_and_the_bases_slopes_are_counted(
    downscaling: SPEC,
    asked: Callable[[Tensor], FunctionBatch],
    places: PLACES,
    awake: WAKE,
    generator: torch.Generator,
) -> None:
    coords = places(5)[None]
    model = awake(VAMoH(downscaling(), support=coords[0]).double())
    latent = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    _, gradient = model.decode(latent, asked(coords.clone().requires_grad_()), gradient=True)
    expected = tangent(differences(lambda x: model.decode(latent, asked(x)).mean, coords), coords)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_would_leave_out_the_base_is_refused(
    downscaling: SPEC, asked: Callable[[Tensor], FunctionBatch], places: PLACES
) -> None:
    coords = places(5)[None]
    model = VAMoH(downscaling(), support=coords[0]).double()
    query = asked(coords)
    assert query.base is not None
    for each in (query, replace(query, coords=coords.clone().requires_grad_())):
        with pytest.raises(ValueError, match="a `base` computed from them"):
            model.decode(torch.zeros(2, 4).double(), each, gradient=True)
