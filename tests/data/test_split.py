"""Training, validation and test samples are apart: disjoint, contiguous, with the gap that was asked for."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.split import Split, split_samples

DEFAULTS: dict[str, object] = {"test": 0.25, "train": None, "validation": 0.12, "blocks": 3, "gap_hours": 24.0}


def hours(count: int, step: int = 1) -> np.ndarray:
    return np.datetime64("2019-03-01", "ns") + np.arange(count) * np.timedelta64(step, "h")


def split(times: np.ndarray, **changes: object) -> Split:
    return split_samples(times, **{**DEFAULTS, **changes})  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 120),
    st.floats(0, 0.99),
    st.floats(0, 0.99),
    st.integers(1, 7),
    st.floats(0, 50),
    st.sampled_from([1, 7, 24]),
)
def test_parts_are_disjoint_and_sorted_and_the_test_part_is_the_end(count, test, validation, blocks, gap, step) -> None:
    times = hours(count, step)
    try:
        parts = split(times, test=test, validation=validation, blocks=blocks, gap_hours=gap)
    except ValueError as error:
        assert "no sample is left to train on" in str(error)
        return
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert len(set(together)) == len(together)
    assert all((np.diff(part) > 0).all() for part in (parts.train, parts.validation, parts.test))
    assert len(parts.train)
    np.testing.assert_array_equal(parts.test, np.arange(count - len(parts.test), count))
    assert len(parts.test) == round(test * count)
    if len(parts.test):
        known = np.concatenate([parts.train, parts.validation])
        assert times[parts.test[0]] - times[known.max()] >= np.timedelta64(int(gap * 3600), "s")


def test_validation_is_blocks_spread_over_the_training_days() -> None:
    parts = split(hours(744), blocks=3)
    breaks = np.flatnonzero(np.diff(parts.validation) > 1)
    assert len(breaks) == 2
    assert len(parts.validation) == pytest.approx(0.12 * (len(parts.train) + len(parts.validation)), abs=3)
    middles = [block.mean() for block in np.split(parts.validation, breaks + 1)]
    np.testing.assert_allclose(middles, (np.arange(3) + 0.5) * (len(parts.train) + len(parts.validation)) / 3, atol=2)


def test_spans_name_days_that_are_included() -> None:
    times = hours(744)
    parts = split(times, train="2019-03-01:2019-03-22", test="2019-03-24:2019-03-31", gap_hours=0)
    assert str(times[parts.test[0]])[:13] == "2019-03-24T00"
    assert str(times[parts.test[-1]])[:13] == "2019-03-31T23"
    assert len(parts.train) + len(parts.validation) == 22 * 24
    assert len(parts.test) == 8 * 24


def test_a_test_span_in_the_middle_keeps_its_distance_on_both_sides() -> None:
    parts = split(hours(240), test="2019-03-04:2019-03-05", gap_hours=24, validation=0)
    np.testing.assert_array_equal(parts.train, np.r_[0:49, 143:240])


def test_a_training_span_that_overlaps_the_test_span_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap.*split.train or split.test"):
        split(hours(240), train="2019-03-01:2019-03-05", test="2019-03-05:2019-03-06")


def test_a_test_span_outside_the_store_is_refused_with_what_the_store_covers() -> None:
    with pytest.raises(ValueError, match="2020-01 holds no sample: the store covers 2019-03-01T00:00 to 2019-03-10"):
        split(hours(240), test="2020-01")


def test_a_gap_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample is left to train on"):
        split(hours(24), gap_hours=48)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_other_calendars_split_alike(calendar) -> None:
    times = xr.date_range("2001-02-20", periods=40, freq="D", calendar=calendar, use_cftime=True).values
    parts = split(times, test="2001-03-20:", gap_hours=72, validation=0)
    known = times[parts.train]
    assert (times[parts.test[0]].month, times[parts.test[0]].day) == (3, 20)
    assert (times[parts.test[0]] - known[known < times[parts.test[0]]][-1]).days == 3


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_tiny_store_keeps_something_to_train_on(count) -> None:
    parts = split(hours(count, 24), gap_hours=0)
    assert len(parts.train) >= 1
    assert len(parts.train) + len(parts.validation) + len(parts.test) == count


def test_a_part_is_found_by_name_or_refused() -> None:
    parts = split(hours(744))
    np.testing.assert_array_equal(parts.named("validation"), parts.validation)
    with pytest.raises(ValueError, match="got 'tset'"):
        parts.named("tset")
    with pytest.raises(ValueError, match="the test split is empty"):
        split(hours(24), test=0.0).named("test")
