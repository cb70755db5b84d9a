"""Laws of the random field that makes a member one function."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh.random_field import IN_CACHE, RandomField, normal_cdf

PLACES = Callable[[int], Tensor]
FIELD = RandomField(lengths=(0.3, 1.5), weights=(0.4, 0.6), time_scale=6.0)
TIMES = torch.tensor([0.0, 1.0, 7.0, 300.0], dtype=torch.float64)


def test_a_member_is_a_function_of_place_and_time_not_of_what_else_is_asked(places: PLACES) -> None:
    coords = places(7)
    whole = FIELD.sample(coords, TIMES, [(3, 1), (4, 1)])
    assert whole.shape == (2, 4, 7)
    part = FIELD.sample(coords[[5, 2]], TIMES[[3]], [(4, 1)])
    torch.testing.assert_close(part[0, 0], whole[1, 3, [5, 2]])
    single = FIELD.sample(coords.float(), TIMES, [(3, 1), (4, 1)])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), whole, rtol=0, atol=1e-4)


def test_many_places_are_as_if_each_were_asked_alone(places: PLACES) -> None:
    coords, fields = places(2 * IN_CACHE + 3), FIELD.drawn(TIMES, [(3, 1), (4, 1)], 3)
    whole = fields.at(coords)
    assert whole.shape == (2, 4, 2 * IN_CACHE + 3)
    alone = torch.cat([fields.at(coords[place : place + 1]) for place in range(0, len(coords), 100)], dim=-1)
    torch.testing.assert_close(alone, whole[..., ::100])


def test_single_precision_is_enough_for_waves_of_a_few_kilometres(places: PLACES) -> None:
    coords = places(500).float()
    fields = replace(FIELD, lengths=(0.001, 0.01)).drawn(TIMES, [(3, 1)], 3)
    torch.testing.assert_close(fields.at(coords).double(), fields.at(coords.double()), rtol=0, atol=3e-5)


def test_opposite_signs_mirror_a_member_and_seeds_tell_members_apart(places: PLACES) -> None:
    one, mirrored, other = FIELD.sample(places(7), TIMES, [(3, 1), (3, -1), (4, 1)])
    assert torch.equal(one, -mirrored) and not torch.allclose(one, other)


def test_members_that_mirror_each_other_share_what_is_drawn(places: PLACES) -> None:
    coords, seeds = places(7), [(3, 1), (3, -1), (4, -1), (3, 1), (4, 1)]
    fields = FIELD.drawn(TIMES, seeds, 3)
    assert fields.amplitudes.shape[:2] == (4, 2)
    whole = fields.at(coords)
    for number, seed in enumerate(seeds):
        torch.testing.assert_close(whole[number], FIELD.sample(coords, TIMES, [seed])[0])


def test_variance_is_one_and_covariance_falls_with_distance_and_time_as_it_says(places: PLACES) -> None:
    seeds = [(seed, 1) for seed in range(3_000)]
    start = torch.nn.functional.normalize(places(1), dim=-1)[0]
    away = torch.linalg.cross(start, places(1)[0])
    away = away / away.norm()
    angles = torch.tensor([0.0, 0.2, 0.6, 1.5], dtype=torch.float64)
    coords = angles.cos()[:, None] * start + angles.sin()[:, None] * away
    times = torch.tensor([0.0, 3.0, 9.0], dtype=torch.float64)
    values = FIELD.sample(coords, times, seeds)  # [M, T, N]
    covariance = (values[:, :1, :1] * values).mean(dim=0)  # with the first place and time
    chord = (coords - coords[0]).norm(dim=-1)
    space = sum(w * torch.exp(-(chord**2) / (2 * ell**2)) for w, ell in zip(FIELD.weights, FIELD.lengths, strict=True))
    expected = torch.exp(-(times**2) / (2 * FIELD.time_scale**2))[:, None] * space
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.15)  # frequencies and members are samples
    assert values.var(dim=0).sub(1).abs().max() < 0.12


def test_spread_scales_the_field(places: PLACES) -> None:
    coords = places(7)
    wide = replace(FIELD, spread=1.5).sample(coords, TIMES, [(3, 1)])
    torch.testing.assert_close(wide, 1.5 * FIELD.sample(coords, TIMES, [(3, 1)]))


def test_it_has_no_seam_and_no_pole() -> None:
    angle = torch.deg2rad(torch.tensor([179.9999, -179.9999], dtype=torch.float64))
    seam = torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
    east, west = FIELD.sample(seam, TIMES, [(3, 1)])[0].T
    torch.testing.assert_close(east, west, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [-40.0, -3.0, 0.0, 1.3, 40.0])
def test_the_levels_are_the_normals_and_never_zero_or_one(value: float) -> None:
    level = normal_cdf(torch.tensor([value])).item()
    assert level == pytest.approx(0.5 * (1 + math.erf(value / math.sqrt(2))), abs=2e-6) and 0 < level < 1
