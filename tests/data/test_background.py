"""What fields have in common makes whole fields of any set of points."""

import pickle

import numpy as np
import pytest

from pipelines.data.background import NEIGHBOURS, REACH, SHIFT, Background, spaced_fields
from pipelines.data.coarsening import drawn_places
from pipelines.data.sphere import Lattice

LATTICE = Lattice(latitude=np.arange(58.0, 49.9, -0.5), longitude=np.arange(-10.0, 2.1, 0.5))
TIMES = np.datetime64("2019-03-01", "ns") + np.arange(90) * np.timedelta64(3, "h")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def fields(rng) -> np.ndarray:
    """Six rough patterns that come and go, around 280 K: (90, 17, 25)."""
    patterns = rng.normal(size=(6, *LATTICE.shape)) * np.array([3, 2, 2, 1, 1, 1])[:, None, None]
    return 280 + 5 * rng.normal(size=LATTICE.shape) + np.einsum("tk,kyx->tyx", rng.normal(size=(90, 6)), patterns)


@pytest.fixture
def background(fields) -> Background:
    return Background.of(fields[:80], TIMES[:80], LATTICE)


def some_points(rng: np.random.Generator, count: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    at = rng.choice(len(LATTICE.coords), count, replace=False)
    return at, (LATTICE.points[0][at], LATTICE.points[1][at])


def test_fields_that_were_not_seen_follow_from_a_few_points_of_them(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    truth = fields[80:].reshape(10, -1)
    found = background.analyse(truth[:, at], places).fields.reshape(10, -1)
    anomaly = truth - fields[:80].reshape(80, -1).mean(axis=0)
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.1 * np.sqrt(np.mean(anomaly**2))  # nothing smooth is known of it


def test_gains_solve_the_system_of_the_docstring(background, fields, rng) -> None:
    at, places = some_points(rng, 60)
    truth = fields[85].reshape(-1)
    analysis = background.analyse(truth[None, at], places)
    samples = fields[:80].reshape(80, -1).astype(np.float32).astype(float)
    mean = samples.mean(axis=0)
    covariance = np.cov(samples.T)
    shift = SHIFT * ((samples - mean) ** 2).mean()
    for place in (0, 130, 424):
        distance = np.linalg.norm(LATTICE.coords[at] - LATTICE.coords[place], axis=1)
        near = np.argsort(distance)[:NEIGHBOURS]
        apart = distance[near].max() * np.sqrt(np.pi / NEIGHBOURS)
        error = background.noise**2 * np.exp(distance[near] / apart / REACH)
        held = at[near]
        system = covariance[np.ix_(held, held)] + shift + np.diag(error)
        gains = np.linalg.solve(system, covariance[held, place] + shift)
        expected = mean[place] + gains @ (truth[held] - mean[held])
        left = covariance[place, place] + shift - gains @ (covariance[held, place] + shift)
        assert analysis.fields.ravel()[place] == pytest.approx(expected, abs=2e-3)
        assert analysis.spread.ravel()[place] == pytest.approx(np.sqrt(left), abs=2e-2)


def test_a_shift_of_what_was_observed_shifts_the_field(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    values = fields[85].reshape(1, -1)[:, at]
    one, other = (background.analyse(values + shift, places).fields for shift in (0.0, 7.0))
    np.testing.assert_allclose(other - one, 7.0, atol=0.05)


def test_a_gap_is_a_point_that_is_not_there_and_the_order_of_points_says_nothing(background, fields, rng) -> None:
    at, places = some_points(rng, 50)
    values = fields[83:86].reshape(3, -1)[:, at]
    gappy = values.copy()
    gappy[1, 10:] = np.nan
    found = background.analyse(gappy, places)
    alone = background.analyse(values[1:2, :10], (places[0][:10], places[1][:10]))
    np.testing.assert_allclose(found.fields[1], alone.fields[0], atol=1e-9)
    turned = background.analyse(gappy[:, ::-1], (places[0][::-1], places[1][::-1]))
    np.testing.assert_allclose(found.fields, turned.fields, atol=2e-3)
    assert found.spread[1].mean() > 1.5 * found.spread[0].mean()  # fewer points, more left to know


def test_of_a_field_of_which_nothing_is_known_nothing_is_said(background) -> None:
    places = (np.array([51.0, 52.0]), np.array([0.0, 1.0]))
    found = background.analyse(np.array([[280.0, 281.0], [np.nan, np.nan]]), places)
    assert np.isfinite(found.fields[0]).all()
    assert np.isnan(found.fields[1]).all()


def test_a_field_in_training_is_not_explained_by_its_own_part_of_the_time(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    parts = background.part_of(TIMES[:80])
    np.testing.assert_array_equal(parts, background.part)
    changed = fields[:80].copy()
    changed[parts == 2] += rng.normal(size=changed[parts == 2].shape)
    other = Background.of(changed, TIMES[:80], LATTICE)
    values, without = fields[40:60].reshape(20, -1)[:, at], parts[40:60]
    assert set(without) == {2}
    one, two = (each.analyse(values, places, without=without).fields for each in (background, other))
    np.testing.assert_array_equal(one, two)
    assert np.abs(background.analyse(values, places).fields - one).max() > 0.01


def test_the_error_of_an_observation_is_chosen_by_what_explains_the_other_parts_best(fields, rng) -> None:
    noisy = fields + 0.8 * rng.normal(size=fields.shape)
    sets = [some_points(rng, 60)[1] for _ in range(3)]
    chosen = [Background.of(each[:80], TIMES[:80], LATTICE).tuned(sets, rng, 1.0) for each in (fields, noisy)]
    assert chosen[0][0].noise < chosen[1][0].noise
    assert chosen[0][1] < 0.5 < chosen[1][1]


def test_sets_are_as_dense_as_asked_and_no_point_is_drawn_twice(rng) -> None:
    counts = []
    for _ in range(200):
        at = drawn_places(LATTICE, (2, 5), rng)
        assert len(np.unique(at)) == len(at) >= 4
        counts.append(len(at))
    assert min(counts) < 20
    assert max(counts) == 9 * 13  # every second row and column


def test_what_is_kept_is_bounded_and_is_not_sent_to_workers(background, fields, rng) -> None:
    assert len(spaced_fields(10_000, 1617)) == 256
    assert len(spaced_fields(10_000, 1_038_240)) == 8
    at, places = some_points(rng, 40)
    first = background.analyse(fields[85].reshape(1, -1)[:, at], places).fields
    sent = pickle.dumps(background)
    assert len(sent) < background.fields.nbytes + LATTICE.coords.nbytes + 20_000
    again = pickle.loads(sent)  # noqa: S301 - our own
    np.testing.assert_array_equal(again.analyse(fields[85].reshape(1, -1)[:, at], places).fields, first)


def test_too_few_fields_are_refused(fields) -> None:
    with pytest.raises(ValueError, match="at least 4 training samples, got 3"):
        Background.of(fields[:3], TIMES[:3], LATTICE)
