"""What fields have in common makes whole fields of any set of points."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from pipelines.data.background import SHIFT, Background, spaced_fields
from pipelines.data.coarsening import drawn_places, observed
from pipelines.data.covariances import NEIGHBOURS, REACH, Everywhere, Observations
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


def some_points(rng: np.random.Generator, count: int) -> tuple[np.ndarray, Observations]:
    at = rng.choice(len(LATTICE.coords), count, replace=False)
    return at, Observations(LATTICE.points[0][at], LATTICE.points[1][at])


def test_fields_that_were_not_seen_follow_from_a_few_points_of_them(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    truth = fields[80:].reshape(10, -1)
    found = background.analyse(truth[:, at], places).fields.reshape(10, -1)
    anomaly = truth - fields[:80].reshape(80, -1).mean(axis=0)
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.1 * np.sqrt(np.mean(anomaly**2))  # nothing smooth is known of it


@pytest.mark.parametrize(("share", "measured"), [(0.0, 0.0), (0.3, 0.5), (1.0, 0.0)])
def test_gains_solve_the_system_of_the_docstring(background, fields, rng, share, measured) -> None:
    at, places = some_points(rng, 60)
    truth = fields[85].reshape(-1)
    background = replace(background, share=share, noise=0.2, everywhere=Everywhere(0.05, 1.3))
    analysis = background.analyse(truth[None, at], places, noise=measured)
    samples = fields[:80].reshape(80, -1).astype(np.float32).astype(float)
    mean = samples.mean(axis=0)
    apart = np.linalg.norm(LATTICE.coords[:, None] - LATTICE.coords, axis=-1)
    deviation = samples.std(axis=0, ddof=1)
    alike = np.exp(-((apart / 0.05) ** 1.3)) * deviation[:, None] * deviation
    covariance = (1 - share) * np.cov(samples.T) + share * alike
    shift = SHIFT * ((samples - mean) ** 2).mean()
    for place in (0, 130, 424):
        distance = apart[at, place]
        near = np.argsort(distance)[:NEIGHBOURS]
        cell = distance[near].max() * np.sqrt(np.pi / NEIGHBOURS)
        error = 0.2**2 * (np.expm1(distance[near] / cell / REACH) + 1e-4) + measured**2
        held = at[near]
        system = covariance[np.ix_(held, held)] + shift + np.diag(error)
        gains = np.linalg.solve(system, covariance[held, place] + shift)
        expected = mean[place] + gains @ (truth[held] - mean[held])
        left = covariance[place, place] + shift - gains @ (covariance[held, place] + shift)
        assert analysis.fields.ravel()[place] == pytest.approx(expected, abs=2e-3)
        assert analysis.spread.ravel()[place] == pytest.approx(np.sqrt(left), abs=2e-2)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_was_observed_is_found_again(background, fields, rng, share) -> None:
    at, places = some_points(rng, 60)
    truth = fields[80:].reshape(10, -1)
    found = replace(background, share=share, noise=0.3).analyse(truth[:, at], places)
    np.testing.assert_allclose(found.fields.reshape(10, -1)[:, at], truth[:, at], atol=5e-3)
    assert found.spread.reshape(10, -1)[:, at].max() < 0.1 * np.median(found.spread)


def test_of_few_fields_that_are_alike_everywhere_more_is_known_by_what_holds_everywhere(rng) -> None:
    apart = np.linalg.norm(LATTICE.coords[:, None] - LATTICE.coords, axis=-1)
    root = np.linalg.cholesky(np.exp(-((apart / 0.06) ** 1.5)) + 1e-9 * np.eye(len(apart)))
    fields = (280 + 3 * rng.normal(size=(300, len(apart))) @ root.T).reshape(300, *LATTICE.shape)
    known, places = observed(fields, LATTICE, (4, 4), rng, "points")
    found = {}
    for few in (12, 240):
        times = np.datetime64("2019-03-01", "ns") + np.arange(few) * np.timedelta64(3, "h")
        chosen, missed = Background.of(fields[:few], times, LATTICE).tuned([places], rng, 1.0)
        error = chosen.analyse(known[250:], places).fields - fields[250:]
        sampled = replace(chosen, share=0.0).analyse(known[250:], places).fields - fields[250:]
        found[few] = chosen, np.sqrt((error**2).mean()), np.sqrt((sampled**2).mean())
        assert missed == pytest.approx(found[few][1], rel=0.2)
    assert found[12][0].share > 0.5
    assert found[12][1] < 0.9 * found[12][2]
    # the correlation is that of the fields
    distance = np.array([0.02, 0.05, 0.1])
    np.testing.assert_allclose(found[240][0].everywhere(distance), np.exp(-((distance / 0.06) ** 1.5)), atol=0.08)


def test_means_over_cells_are_explained_as_such(rng) -> None:
    apart = np.linalg.norm(LATTICE.coords[:, None] - LATTICE.coords, axis=-1)
    root = np.linalg.cholesky(np.exp(-((apart / 0.03) ** 1.5)) + 1e-9 * np.eye(len(apart)))
    fields = (280 + 3 * rng.normal(size=(300, len(apart))) @ root.T).reshape(300, *LATTICE.shape)
    times = np.datetime64("2019-03-01", "ns") + np.arange(240) * np.timedelta64(3, "h")
    known, cells = observed(fields, LATTICE, (4, 4), rng, "means")
    background = Background.of(fields[:240], times, LATTICE)
    np.testing.assert_allclose(cells.seen(fields.reshape(300, -1), LATTICE), known, atol=0.05)
    error = {}
    for name, places in (("cells", cells), ("points", cells._replace(cell=None))):
        chosen, _ = background.tuned([places], rng, 1.0)
        error[name] = np.sqrt(np.mean((chosen.analyse(known[240:], places).fields - fields[240:]) ** 2))
    assert error["cells"] < 0.97 * error["points"]


def test_how_strange_a_state_is_is_a_quadratic_form_of_what_was_observed(background, fields, rng) -> None:
    at, places = some_points(rng, 60)
    values = fields[80:].reshape(10, -1)[:, at]
    background = replace(background, share=0.3, noise=0.2, everywhere=Everywhere(0.05, 1.3))
    found = background.analyse(values, places, strange_every=1).strange.reshape(10, -1)
    samples = fields[:80].reshape(80, -1).astype(np.float32).astype(float)
    apart = np.linalg.norm(LATTICE.coords[:, None] - LATTICE.coords, axis=-1)
    deviation = samples.std(axis=0, ddof=1)
    alike = np.exp(-((apart / 0.05) ** 1.3)) * deviation[:, None] * deviation
    covariance = 0.7 * np.cov(samples.T) + 0.3 * alike + SHIFT * samples.var(axis=0).mean()
    for place in (0, 130, 424):
        near = np.argsort(apart[at, place])[:NEIGHBOURS]
        cell = apart[at, place][near].max() * np.sqrt(np.pi / NEIGHBOURS)
        error = 0.2**2 * (np.expm1(apart[at, place][near] / cell / REACH) + 1e-4)
        off = values[:, near] - samples.mean(axis=0)[at[near]]
        system = covariance[np.ix_(at[near], at[near])] + np.diag(error)
        expected = np.einsum("ti,ij,tj->t", off, np.linalg.inv(system), off) / NEIGHBOURS
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-3)
    twice = background.analyse(2 * values - samples.mean(axis=0)[at], places, strange_every=1).strange.reshape(10, -1)
    np.testing.assert_allclose(twice, 4 * found, rtol=1e-3)


def test_between_places_a_state_is_about_as_strange_as_at_them(background, fields, rng) -> None:
    known, places = observed(fields[80:], LATTICE, (4, 4), rng, "points")
    whole, part = (background.analyse(known, places, strange_every=every).strange for every in (1, 3))
    np.testing.assert_allclose(part[:, ::3, ::3], whole[:, ::3, ::3], rtol=1e-9)
    assert np.abs(np.log(part / whole)).mean() < 0.1


def test_times_far_from_those_of_training_belong_to_no_part_of_it(background) -> None:
    hours = np.timedelta64(1, "h") * np.array([-24 * 30, -3, 0, 3 * 79, 3 * 79 + 3, 24 * 60])
    np.testing.assert_array_equal(background.part_of(TIMES[0] + hours), [-1, 0, 0, 7, 7, -1])


def test_a_background_is_read_as_it_was_written(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    written = replace(background, share=0.4, noise=0.2, everywhere=Everywhere(0.07, 1.4))
    read = Background.from_json(written.to_json(), written.fields, LATTICE)
    one, two = (each.analyse(fields[85].reshape(1, -1)[:, at], places).fields for each in (written, read))
    np.testing.assert_array_equal(one, two)


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
    alone = background.analyse(values[1:2, :10], places.of(np.arange(10)))
    np.testing.assert_allclose(found.fields[1], alone.fields[0], atol=1e-9)
    turned = background.analyse(gappy[:, ::-1], places.of(np.arange(50)[::-1]))
    np.testing.assert_allclose(found.fields, turned.fields, atol=2e-3)
    assert found.spread[1].mean() > 1.5 * found.spread[0].mean()  # fewer points, more left to know


def test_of_a_field_of_which_nothing_is_known_nothing_is_said(background) -> None:
    places = Observations(np.array([51.0, 52.0]), np.array([0.0, 1.0]))
    found = background.analyse(np.array([[280.0, 281.0], [np.nan, np.nan]]), places)
    assert np.isfinite(found.fields[0]).all()
    assert np.isnan(found.fields[1]).all()


def test_a_field_in_training_is_not_explained_by_its_own_part_of_the_time(background, fields, rng) -> None:
    at, places = some_points(rng, 40)
    parts = background.part_of(TIMES[:80])
    np.testing.assert_array_equal(parts, background.part)
    changed = fields[:80].copy()
    changed[parts == 4] += rng.normal(size=changed[parts == 4].shape)
    other = Background.of(changed, TIMES[:80], LATTICE)
    values, without = fields[40:50].reshape(10, -1)[:, at], parts[40:50]
    assert set(without) == {4}
    one, two = (each.analyse(values, places, without=without).fields for each in (background, other))
    np.testing.assert_array_equal(one, two)
    assert np.abs(background.analyse(values, places).fields - one).max() > 0.01


def test_the_error_of_an_observation_is_chosen_by_what_explains_the_other_parts_best(fields, rng) -> None:
    noisy = fields + 0.8 * rng.normal(size=fields.shape)
    sets = [some_points(rng, 60)[1] for _ in range(3)]
    chosen = [Background.of(each[:80], TIMES[:80], LATTICE).tuned(sets, rng, 1.0) for each in (fields, noisy)]
    assert chosen[0][0].noise < chosen[1][0].noise
    assert chosen[0][0].share <= chosen[1][0].share
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
