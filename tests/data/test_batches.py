"""Fields become batches that say nothing but what the fields say."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.data.background import Background
from pipelines.data.batches import Framing, Known, Scaling
from pipelines.data.climate import open_source
from pipelines.data.domain import Chance
from pipelines.data.means import block_means
from pipelines.data.sphere import Lattice, unit_vectors
from pipelines.data.whole import WholeFraming

SCALING = Scaling(offset=278.5, scale=3.7)


@pytest.fixture(scope="module")
def world(era5_sample: Path) -> xr.DataArray:
    """Four real fields of the globe at 4 degrees."""
    return open_source(era5_sample, every=4).isel(time=slice(0, 4)).compute()


@pytest.fixture
def chance() -> Chance:
    return Chance.of(5, 0, range(4))


def training(field: xr.DataArray, framing: Framing | WholeFraming, chance: Chance):  # noqa: ANN201
    return framing.training(field.values, field["time"].values, Lattice.of(field), chance)


def test_scaling_round_trips(world) -> None:
    back = SCALING.to_kelvin(SCALING.to_model(world.values))
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, world.values, atol=1e-4)


def test_float32_kelvin_are_the_nearest_to_the_exact_ones(world) -> None:
    scaling = Scaling(offset=278.512345678, scale=3.7)
    values = scaling.to_model(world.values)
    found = torch.empty_like(values)
    scaling.into_kelvin(values, found)
    # exact to a half of float32's step at 280 K, and what float32 leaves of the small number
    np.testing.assert_allclose(found.numpy().astype(float), scaling.to_kelvin(values), rtol=0, atol=1.6e-5)


@pytest.mark.parametrize("factors", [(4, 4), (2, 5)])
def test_a_context_is_the_field_at_its_points(world, factors, chance) -> None:
    lattice = Lattice.of(world)
    for _ in range(6):
        batch, total, *_ = training(world, Framing(scaling=SCALING, factors=factors), chance)
        assert total == world[0].size
        assert batch.context is not None and batch.context.values is not None
        near = np.linalg.norm(batch.context.coords.numpy()[0][:, None] - lattice.coords.astype(np.float32), axis=-1)
        assert near.min(axis=1).max() < 1e-6
        expected = SCALING.to_model(world.values.reshape(4, -1)[:, near.argmin(axis=1)])
        torch.testing.assert_close(batch.context.values[..., 0], expected)


def test_one_factor_means_the_lattice_from_its_first_point(world, chance) -> None:
    batch, *_ = training(world, Framing(scaling=SCALING, factors=(4, 4)), chance)
    lattice = Lattice.of(world).every(4)
    expected = world.values[:, ::4, ::4].reshape(4, -1)[:, lattice.context_index]
    assert batch.context is not None and batch.context.values is not None
    torch.testing.assert_close(batch.context.values[..., 0], SCALING.to_model(expected))


def test_a_context_of_means_is_the_means_over_blocks_at_their_centres(world, chance) -> None:
    batch, *_ = training(world, Framing(scaling=SCALING, factors=(2, 2), kind="means"), chance)
    means, where = block_means(world.values, Lattice.of(world), 2)
    held = where.context_index
    assert batch.context is not None and batch.context.values is not None
    torch.testing.assert_close(batch.context.values[..., 0], SCALING.to_model(means.reshape(4, -1)[:, held]))
    torch.testing.assert_close(batch.context.coords[0], torch.from_numpy(where.coords[held].astype(np.float32)))


def test_noise_is_added_to_what_is_known_and_to_nothing_else(world, chance) -> None:
    clean, noisy = (
        training(world, Framing(scaling=SCALING, factors=(4, 4), noise=noise), chance).batch for noise in (0.0, 2.0)
    )
    assert clean.context is not None and noisy.context is not None
    assert torch.equal(clean.values, noisy.values)
    added = (noisy.context.values - clean.context.values) * SCALING.scale
    assert added.std() == pytest.approx(2.0, rel=0.05)


def test_a_context_of_any_points_is_a_whole_field_and_says_how_far_off_it_may_be(world, chance) -> None:
    lattice = Lattice.of(world)
    background = Background.of(world.values, world["time"].values, lattice)
    framing = Framing(scaling=SCALING, factors=(2, 4), kind="scattered", background=background, points=300)
    batch, *_ = training(world, framing, chance)
    assert batch.context is not None and batch.context.mask.all()
    assert batch.covariates is not None and batch.covariates.shape == (4, 300, 5)
    assert (batch.covariates[..., 4] >= 0).all()
    known = framing.known(world.values[:, ::2, ::2], lattice.every(2))
    assert known.coarse.shape == world.shape
    asked = framing.query(lattice.points, world["time"].values, known)
    expected = SCALING.to_model(known.coarse.reshape(4, -1))
    torch.testing.assert_close(asked.base[..., 0], expected, atol=2e-3, rtol=0)


def analysing(field: xr.DataArray) -> Framing:
    """Every third point, of which whole fields are made."""
    background = Background.of(field.values, field["time"].values, Lattice.of(field))
    return Framing(scaling=SCALING, factors=(3, 3), background=background)


def test_what_is_analysed_are_the_points_of_the_lattice_and_a_field_is_not_explained_by_itself(world, chance) -> None:
    field, framing = world[:, 12:37, 10:44], analysing(world[:, 12:37, 10:44])
    batch, *_ = training(field, framing, chance)
    lattice = Lattice.of(field)
    held = np.arange(field[0].size).reshape(lattice.shape)[::3, ::3].ravel()
    assert batch.base is not None and batch.values is not None and batch.context is not None
    torch.testing.assert_close(batch.base[:, held], batch.values[:, held], atol=5e-3, rtol=0)
    coarse = SCALING.to_model(field.values[:, ::3, ::3].reshape(4, -1))
    torch.testing.assert_close(batch.context.values[..., 0], coarse, atol=5e-3, rtol=0)
    assert batch.covariates is not None and batch.covariates[0, held, 4].max() < 0.2 * batch.covariates[0, :, 4].max()
    known = framing.known(field.values[:, ::3, ::3], lattice.every(3))
    asked = framing.query(lattice.points, field["time"].values, known)
    wrong = [(each.base - batch.values).square().mean().item() for each in (asked, batch)]
    assert wrong[0] < 0.7 * wrong[1]  # in use, all that was learned explains it; here the field itself


def test_beyond_the_region_of_training_the_input_is_interpolated(world) -> None:
    whole, part = world[:, 2:40, 4:60], world[:, 5:30, 10:44]
    framing, times = analysing(part), world["time"].values
    lattice, inner = Lattice.of(whole), Lattice.of(part)
    rows, columns = np.isin(lattice.latitude, inner.latitude), np.isin(lattice.longitude, inner.longitude)
    inside = (rows[:, None] & columns).ravel()
    known = framing.known(whole.values[:, ::3, ::3], lattice.every(3))
    asked = framing.query(lattice.points, times, known)
    plain = Framing(scaling=SCALING, factors=(3, 3))
    other = plain.query(lattice.points, times, plain.known(whole.values[:, ::3, ::3], lattice.every(3)))
    assert torch.equal(asked.base[:, ~inside], other.base[:, ~inside])
    assert (asked.base[:, inside] - other.base[:, inside]).abs().mean() > 0.01
    assert (asked.covariates[:, ~inside, 4] == 1).all()
    seen = {tuple(place) for place in asked.context.coords[0].tolist()}
    outer = lattice.every(3)
    far = np.flatnonzero((outer.points[0] < inner.latitude[-1]) | (outer.points[1] > inner.longitude[-1]))
    far = np.intersect1d(far, outer.context_index)
    assert {tuple(place) for place in torch.from_numpy(outer.coords[far].astype(np.float32)).tolist()} <= seen


def test_of_a_region_that_it_was_not_trained_on_at_all_a_model_is_told_what_is_interpolated(world) -> None:
    framing, elsewhere = analysing(world[:, 5:30, 10:44]), world[:, 5:30, 60:85]
    lattice, times = Lattice.of(elsewhere), world["time"].values
    coarse = elsewhere.values[:, ::3, ::3]
    asked = framing.query(lattice.points, times, framing.known(coarse, lattice.every(3)))
    plain = Framing(scaling=SCALING, factors=(3, 3))
    other = plain.query(lattice.points, times, plain.known(coarse, lattice.every(3)))
    assert torch.equal(asked.base, other.base)
    assert torch.equal(asked.context.values, other.context.values)
    assert (asked.covariates[..., 4] == 1).all()


def test_the_base_is_the_value_itself_at_a_context_point(world, chance) -> None:
    batch, *_ = training(world, Framing(scaling=SCALING, factors=(3, 3)), chance)
    lattice = Lattice.of(world)
    held = np.arange(world[0].size).reshape(lattice.shape)[::3, ::3].ravel()
    assert batch.base is not None and batch.values is not None
    torch.testing.assert_close(batch.base[:, held], batch.values[:, held], atol=1e-4, rtol=0)


def test_with_a_context_points_are_drawn_in_proportion_to_the_area_that_they_stand_for(world) -> None:
    lattice, framing = Lattice.of(world), Framing(scaling=SCALING, factors=(4, 4), points=100)
    rows = {float(np.float32(np.sin(np.deg2rad(latitude)))): row for row, latitude in enumerate(lattice.latitude)}
    counts = np.zeros(len(lattice.latitude))
    for step in range(400):
        batch, *_ = training(world[:1], framing, Chance.of(0, step, [0]))
        for height in batch.coords[0, :, 2].tolist():
            counts[rows[height]] += 1
    share = lattice.area.reshape(lattice.shape).sum(axis=1)
    expected = share * counts.sum()
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 0.03 * expected).all()


def test_without_a_context_all_is_read_and_points_to_score_are_drawn_uniformly(world) -> None:
    framing, total = WholeFraming(scaling=SCALING, points=100), world[0].size
    counts = np.zeros(total)
    for step in range(400):
        batch, num_total, at, *_ = training(world[:1], framing, Chance.of(0, step, [0]))
        assert batch.num_points == num_total == total and at is not None and len(at.unique()) == 100
        counts[at.numpy()] += 1
    expected = 400 * 100 / total
    assert abs(counts.var() / (expected * (1 - 100 / total)) - 1) < 5 * np.sqrt(2 / total)  # as of binomial draws
    assert training(world[:1], WholeFraming(scaling=SCALING), Chance.of(0, 0, [0])).at is None


@pytest.mark.parametrize("points", [0, 77, 10**6])
def test_no_point_is_drawn_twice(world, points, chance) -> None:
    batch, total, *_ = training(world, Framing(scaling=SCALING, factors=(4, 4), points=points), chance)
    assert batch.num_points == (points if points == 77 else total)
    lattice = Lattice.of(world)
    poles = 2 * (lattice.shape[1] - 1) if points != 77 else 0
    assert len(np.unique(batch.coords[0].numpy(), axis=0)) >= batch.num_points - poles - (2 if points == 77 else 0)


def test_the_training_path_and_the_query_path_give_the_same_tensors(world, chance) -> None:
    framing, lattice = Framing(scaling=SCALING, factors=(4, 4)), Lattice.of(world)
    trained, *_ = training(world, framing, chance)
    coarse = world.values[:, ::4, ::4].astype(np.float64)  # as a user's file might hold them
    asked = framing.query(lattice.points, world["time"].values, Known(coarse, lattice.every(4)))
    for name in ("coords", "covariates", "base"):
        assert torch.equal(getattr(trained, name), getattr(asked, name)), name
    for name in ("coords", "values", "observed"):
        assert torch.equal(getattr(trained.context, name), getattr(asked.context, name)), name


def test_what_is_missing_becomes_unobserved_and_nothing_else_does(world, chance) -> None:
    field = world.copy(deep=True)
    field[0, 3:9, 5:30] = np.nan
    field[2, 0, 0] = np.nan
    batch, *_ = training(field, Framing(scaling=SCALING, factors=(4, 4)), chance)
    missing = np.isnan(field.values.reshape(4, -1))
    np.testing.assert_array_equal(~batch.mask.numpy(), missing)
    assert batch.context is not None
    known = Lattice.of(field).every(4).context_index
    np.testing.assert_array_equal(
        ~batch.context.mask.numpy(), np.isnan(field.values[:, ::4, ::4].reshape(4, -1)[:, known])
    )
    assert batch.base is not None and torch.isfinite(batch.base).all()


def test_a_field_of_which_nothing_is_known_teaches_nothing_and_breaks_nothing(world, chance) -> None:
    field = world.copy(deep=True)
    field[1] = np.nan
    field[3, ::4, ::4] = np.nan  # something to explain, and no context to explain it from
    batch, *_ = training(field, Framing(scaling=SCALING, factors=(4, 4)), chance)
    assert not batch.mask[1].any()
    assert not batch.mask[3].any()
    assert batch.base is not None and torch.isfinite(batch.base).all()


def test_bounded_values_stay_within_their_bounds(world, chance) -> None:
    low, high = float(world.min()) + 5, float(world.max()) - 5
    framing = WholeFraming(scaling=Scaling(offset=low, scale=high - low), bounded=True)
    batch, *_ = training(world, framing, chance)
    assert batch.values is not None
    assert (batch.values.min(), batch.values.max()) == (0, 1)
    assert batch.mask.all()


def test_the_places_asked_for_may_be_anywhere_in_either_convention(world) -> None:
    framing, lattice = Framing(scaling=SCALING, factors=(1, 1)), Lattice.of(world)
    given = Known(world.values, lattice)
    latitude, longitude = np.array([51.5, -33.9, 90.0]), np.array([-0.1, 151.2, 77.0])
    one = framing.query((latitude, longitude), world["time"].values, given)
    other = framing.query((latitude, np.mod(longitude, 360)), world["time"].values, given)
    assert torch.equal(one.coords, other.coords)
    torch.testing.assert_close(one.base, other.base, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.covariates, other.covariates, atol=1e-6, rtol=0)
    np.testing.assert_allclose(one.coords[0], unit_vectors(latitude, longitude), atol=1e-7)
