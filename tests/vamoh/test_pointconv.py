"""Laws of the set layer and of the encoder made of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh.encodings import FourierFeatures, even_places
from vamoh.neighbours import nearest
from vamoh.pointconv import PointConv, SetEncoder, average
from vamoh.spec import EncoderSpec

PLACES = Callable[[int], Tensor]
BUILD = Callable[..., SetEncoder]
SPEC = EncoderSpec(centres=(5, 3), channels=(6, 4), neighbours=(4, 3), kernel_widths=(5, 3))


@pytest.fixture
def build(generator: torch.Generator) -> BUILD:
    """An encoder of C=3, float64, of two layers; keywords change its spec."""

    def make(**changes: object) -> SetEncoder:
        torch.manual_seed(11)
        spec = replace(SPEC, **changes)  # type: ignore[arg-type]
        fourier = FourierFeatures(3, 5, 1.0, generator=torch.Generator().manual_seed(2)).double()
        places = even_places("sphere", spec.centres[-1]) if spec.places else None
        return SetEncoder(spec, 3, fourier, places).double()

    return make


@pytest.fixture(params=["averaged", "places", "pooled"])
def encoder(request: pytest.FixtureRequest, build: BUILD) -> SetEncoder:
    """Every way to end, and to go on."""
    return build(**{"averaged": {}, "places": {"places": True}, "pooled": {"pooled": (4, 0)}}[request.param])


@pytest.fixture
def seen(places: PLACES, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates [1, 9, 3], values [2, 9, 3] and a mask [2, 9] of unequal sizes."""
    values = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :2] = mask[1, 3:8] = False
    return places(9)[None], values, mask


def test_a_layer_is_the_mean_over_seen_neighbours_of_features_times_kernel(
    places: PLACES, generator: torch.Generator
) -> None:
    torch.manual_seed(3)
    fourier = FourierFeatures(3, 4, 1.0, generator=generator).double()
    layer = PointConv(8, 2, 5, (4, 3)).double()
    points, features = places(7), torch.randn(7, 2, 2, generator=generator, dtype=torch.float64)
    seen = torch.tensor([[True] * 7, [True, False, True, False, False, False, True]]).T
    plan, spread = nearest(points[:3], points, 4), torch.tensor(0.7, dtype=torch.float64)
    out, centre_seen = layer(features, seen, plan, (fourier(points), fourier(points[:3])), spread)
    for b in range(2):
        for m in range(3):
            near = [int(j) for j in plan.index[m] if seen[j, b]]
            apart = [(fourier(points[j]) - fourier(points[m])) / spread for j in near]
            terms = [torch.outer(features[j, b], layer.weight_net(d)) for j, d in zip(near, apart, strict=True)]
            mean = sum(terms, torch.zeros(2, 3, dtype=torch.float64)) / max(len(near), 1)
            torch.testing.assert_close(out[m, b], layer.linear(mean.flatten()))
            assert centre_seen[m, b] == bool(near)


def test_pooling_is_the_mean_over_seen_neighbours(places: PLACES, generator: torch.Generator) -> None:
    points, features = places(7), torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    seen = torch.tensor([[True] * 7, [False, False, True, False, True, False, False]]).T
    plan = nearest(points[:3], points, 4)
    pooled, known = average(features, seen, plan)
    for m in range(3):
        for b in range(2):
            near = [int(j) for j in plan.index[m] if seen[j, b]]
            expected = features[near, b].mean(dim=0) if near else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(pooled[m, b], expected)
            assert known[m, b] == bool(near)


def test_differences_of_fourier_features_have_the_spread_that_they_are_measured_by(places: PLACES) -> None:
    fourier = FourierFeatures(3, 20_000, 2.0, generator=torch.Generator().manual_seed(4)).double()
    for distance in (1e-4, 0.05, 0.3, 2.0):
        one = places(1)
        other = one + distance * places(1)
        expected = (fourier(one) - fourier(other)).square().mean().sqrt()
        spread = fourier.spread(torch.tensor(distance**2, dtype=torch.float64))
        torch.testing.assert_close(spread, expected, rtol=0.02, atol=0)


def test_kernels_bend_unless_the_public_codes_linear_ones_are_asked_for(places: PLACES) -> None:
    points = places(9)
    plan, where = nearest(points[:1], points, 9), torch.randn(9, 6, generator=torch.Generator().manual_seed(1)).double()
    for linear in (False, True):
        torch.manual_seed(1)
        layer = PointConv(6, 2, 5, (8, 8, 3), linear=linear).double()
        one = torch.tensor(1.0, dtype=torch.float64)
        zero, half, whole = (
            layer.kernels(plan, (scale * where, torch.zeros(1, dtype=torch.int64)), one) for scale in (0.0, 0.5, 1.0)
        )
        assert torch.allclose(half, (zero + whole) / 2) == linear


def test_with_fixed_places_every_grid_of_a_function_is_summarised_at_the_same_places(build: BUILD) -> None:
    encoder = build(places=True, centres=(400, 6), neighbours=(9, 9))
    fourier = encoder._shared[0]
    with torch.no_grad():
        for layer in encoder.layers:  # a kernel of ones and a linear map that averages: what is left is local means
            for each in layer.weight_net:
                if hasattr(each, "weight"):
                    each.weight.zero_()
                    each.bias.fill_(1.0)
            layer.linear.weight.fill_(1 / layer.linear.weight.shape[1])
            layer.linear.bias.zero_()
    summaries = []
    for count in (3000, 2000):
        coords = even_places("sphere", count).double()
        summaries.append(encoder(coords[None], coords[None] + 2, torch.ones(1, count, dtype=torch.bool)))
    torch.testing.assert_close(summaries[0], summaries[1], rtol=0, atol=0.1)  # 400 centres lie 0.18 apart
    expected = even_places("sphere", 6).double().mean(dim=-1) + 2  # the mean of the three channels at each place
    torch.testing.assert_close(summaries[0].view(6, 4)[:, 0], expected, rtol=0, atol=0.1)
    assert fourier.num_features == 10 and encoder.num_outputs == 24


def test_a_balanced_encoder_tells_functions_apart_before_it_has_learned(generator: torch.Generator) -> None:
    layers = {"centres": (64, 32, 16, 8, 4), "channels": (8, 16, 16, 16, 8), "neighbours": (9,) * 5}
    coords, values = torch.rand(1, 200, 3, generator=generator) * 2 - 1, torch.randn(5, 1, 1, generator=generator)
    apart = []
    for balanced in (False, True):
        torch.manual_seed(0)
        spec = EncoderSpec(**layers, kernel_widths=(8, 8), balanced=balanced)
        encoder = SetEncoder(spec, 1, FourierFeatures(3, 8, 1.0, generator=torch.Generator().manual_seed(0)))
        encoded = encoder(coords, values.expand(-1, 200, -1), torch.ones(1, 200, dtype=torch.bool))
        apart.append(encoded.std(dim=0).mean().item())
    assert apart[0] < 1e-3 and apart[1] > 0.03  # of functions that are one apart


def test_the_encoder_ignores_the_order_of_points(encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]) -> None:
    coords, values, mask = seen
    for seed in range(5):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        shuffled = encoder(coords[:, order], values[:, order], mask[:, order])
        torch.testing.assert_close(shuffled, encoder(coords, values, mask), rtol=0, atol=0)


@pytest.mark.parametrize("rubbish", [1e30, torch.nan, torch.inf])
def test_the_encoder_ignores_whatever_stands_at_unobserved_points(
    rubbish: float, encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]
) -> None:
    coords, values, mask = seen
    dirty = torch.where(mask[..., None], values, rubbish).requires_grad_()
    encoded = encoder(coords, dirty, mask)
    assert torch.equal(encoded, encoder(coords, values, mask))
    encoded.sum().backward()
    assert dirty.grad is not None and torch.isfinite(dirty.grad).all()
    assert (dirty.grad[~mask] == 0).all() and (dirty.grad[mask] != 0).any()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_masks_of_unequal_sizes_equal_encoding_each_function_alone(
    encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]
) -> None:
    coords, values, mask = seen
    alone = torch.cat([encoder(coords, values[b : b + 1], mask[b : b + 1]) for b in range(2)])
    torch.testing.assert_close(encoder(coords, values, mask), alone)


def test_every_observed_value_matters(encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]) -> None:
    coords, values, mask = seen
    # every point is a centre, and every centre is gathered
    encoder.spec = replace(encoder.spec, centres=(9, 3), neighbours=(9, 9))
    values = values.requires_grad_()
    encoder(coords, values, mask).pow(2).sum().backward()
    assert values.grad is not None and (values.grad.abs().sum(dim=-1) > 0).equal(mask)


def test_coordinates_of_each_function_equal_encoding_one_by_one(
    encoder: SetEncoder, places: PLACES, seen: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, values, mask = seen
    coords = torch.stack([places(9), places(9)])
    alone = torch.cat([encoder(coords[b : b + 1], values[b : b + 1], mask[b : b + 1]) for b in range(2)])
    torch.testing.assert_close(encoder(coords, values, mask), alone)
    torch.testing.assert_close(encoder(coords[:1].expand(2, -1, -1), values, mask)[0], alone[0])


def test_one_mask_serves_all_functions(encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]) -> None:
    coords, values, mask = seen
    torch.testing.assert_close(encoder(coords, values, mask[1:]), encoder(coords, values, mask[1:].expand(2, -1)))


def test_a_function_of_which_nothing_was_seen_gives_zeros_and_a_point_gives_numbers(
    encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]
) -> None:
    coords, values, mask = seen
    values = values.clone().requires_grad_()
    nothing = encoder(coords, values, torch.stack([mask[0], torch.zeros(9, dtype=torch.bool)]))
    assert torch.equal(nothing[1], torch.zeros(encoder.num_outputs, dtype=torch.float64)) and (nothing[0] != 0).any()
    nothing.sum().backward()
    assert values.grad is not None and torch.isfinite(values.grad).all()
    point = encoder(coords[:, :1], values[:, :1], torch.ones(1, 1, dtype=torch.bool))
    assert torch.isfinite(point).all() and (point != 0).any()
    many_at_one_place = encoder(coords[:, :1].expand(1, 9, 3), values, mask)
    assert torch.isfinite(many_at_one_place).all()


def test_more_centres_than_points_are_the_points_themselves(
    encoder: SetEncoder, seen: tuple[Tensor, Tensor, Tensor]
) -> None:
    coords, values, mask = (each[:, :2] for each in seen)
    assert encoder(coords, values, mask).shape == (2, encoder.num_outputs)
