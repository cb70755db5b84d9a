"""The order of an epoch is a permutation that only seed and epoch decide, and shares partition it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.order import EpochOrder, epoch_order, share_of

BLOCKS = st.lists(st.integers(0, 12), min_size=1, max_size=200).map(sorted).map(np.array)


def order_of(block: np.ndarray, *, buffer: int = 3, batch_size: int = 8, seed: int = 0, epoch: int = 0) -> EpochOrder:
    return epoch_order(block, buffer=buffer, batch_size=batch_size, seed=seed, epoch=epoch)


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 10**6))
def test_an_epoch_visits_every_sample_once_and_depends_on_its_seed_and_number_alone(
    block, buffer, batch_size, seed, epoch
) -> None:
    made = [order_of(block, buffer=buffer, batch_size=batch_size, seed=seed, epoch=epoch) for _ in range(2)]
    assert sorted(made[0].index) == list(range(len(block)))
    np.testing.assert_array_equal(made[0].index, made[1].index)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    block = np.arange(64) // 8
    orders = {tuple(order_of(block, buffer=2, seed=seed, epoch=epoch).index) for seed in range(3) for epoch in range(5)}
    assert len(orders) == 15


def test_every_sample_of_a_block_comes_at_any_time_of_its_window() -> None:
    block = np.arange(64) // 16
    batches = [np.flatnonzero(order_of(block, buffer=4, epoch=e).index == 5)[0] // 8 for e in range(400)]
    assert np.bincount(batches, minlength=8).min() > 25, "of 50 expected in each of eight batches"


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.integers(1, 6), st.integers(1, 40))
def test_no_more_than_a_buffer_of_blocks_is_visited_at_a_time_and_none_twice(block, buffer, batch_size) -> None:
    order = order_of(block, buffer=buffer, batch_size=batch_size)
    windows = [set(block[order.index[order.window == window]]) for window in np.unique(order.window)]
    assert max(map(len, windows)) <= buffer
    assert sum(map(len, windows)) == len(set(block))
    batch = np.arange(len(block)) // batch_size
    for one in np.unique(batch)[1:]:
        assert order.window[batch == one].min() >= order.window[batch == one - 1].max()


def test_every_batch_takes_equally_many_from_each_block_of_its_window() -> None:
    block = np.arange(128) // 32
    order = order_of(block, buffer=4, batch_size=32)
    for batch in np.split(order.index, 4):
        assert np.bincount(block[batch]).tolist() == [8, 8, 8, 8]


@pytest.mark.parametrize(("workers", "most"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_a_worker_needs_as_few_blocks_of_a_window_as_there_can_be(workers, most) -> None:
    block = np.arange(256) // 32
    order = order_of(block, buffer=4, batch_size=48)  # batches lie across windows
    for rank in range(workers):
        needed: dict[int, set[int]] = {}
        for first in range(0, 240, 48):
            mine = first + share_of(48, rank, workers)[0]
            for row in mine:
                needed.setdefault(int(order.window[row]), set()).add(int(block[order.index[row]]))
        assert max(map(len, needed.values())) <= most


@given(st.integers(1, 50), st.integers(1, 8))
def test_shares_partition_a_batch_into_equally_many_rows(num_rows, workers) -> None:
    shares = [share_of(num_rows, rank, workers) for rank in range(workers)]
    assert len({len(rows) for rows, _ in shares}) == 1
    real = np.concatenate([rows[weight == 1] for rows, weight in shares])
    assert real.tolist() == list(range(num_rows))
    assert all((rows < num_rows).all() for rows, _ in shares)
