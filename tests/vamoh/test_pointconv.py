"""Laws of the set layer and of the encoder made of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vamoh.encodings import FourierFeatures
from vamoh.neighbours import nearest
from vamoh.pointconv import PointConv, SetEncoder

PLACES = Callable[[int], Tensor]


@pytest.fixture
def encoder(generator: torch.Generator) -> SetEncoder:
    """Two layers, C=3, float64."""
    torch.manual_seed(11)
    fourier = FourierFeatures(3, 5, 1.0, generator=generator).double()
    return SetEncoder(3, 3, fourier, centres=(5, 3), channels=(6, 4), neighbours=(4, 3), kernel_widths=(5, 3)).double()


@pytest.fixture
def seen(places: PLACES, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates [1, 9, 3], values [2, 9, 3] and a mask [2, 9] of unequal sizes."""
    values = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :2] = mask[1, 3:8] = False
    return places(9)[None], values, mask


def test_a_layer_is_the_mean_over_seen_neighbours_of_kernel_times_features(
    places: PLACES, generator: torch.Generator
) -> None:
    torch.manual_seed(3)
    layer = PointConv(3, 2, 5, (4, 3)).double()
    points, features = places(7), torch.randn(2, 7, 2, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 7, [True, False, True, False, False, False, True]])
    plan = nearest(points[:3], points, 4)
    out, centre_seen = layer(features, mask, plan)
    radius = plan.distance.mean()
    for b in range(2):
        for m in range(3):
            near = [j for j in range(4) if mask[b, plan.index[m, j]]]
            terms = [
                torch.outer(layer.weight_net(plan.offset[m, j] / radius), features[b, plan.index[m, j]]) for j in near
            ]
            mean = sum(terms, torch.zeros(3, 2, dtype=torch.float64)) / max(len(near), 1)
            torch.testing.assert_close(out[b, m], layer.linear(mean.flatten()))
            assert centre_seen[b, m] == bool(near)


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
    encoder.centres, encoder.neighbours = (9, 3), (4, 9)  # every point is a centre, and every centre is gathered
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
    assert torch.equal(nothing[1], torch.zeros(4, dtype=torch.float64)) and (nothing[0] != 0).any()
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
    assert encoder(coords, values, mask).shape == (2, 4)
