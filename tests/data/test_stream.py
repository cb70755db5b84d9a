"""A stream gives every sample once, in an order that only seed and epoch decide, whoever reads it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.data.stream import FieldStream, Prefetched, Samples, _BlockReader, epoch_order

CHUNK = 5


@pytest.fixture(scope="module")
def store(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The 24 real fields at 12 degrees, read in blocks of five so that there are several."""
    made = ingest(era5_sample, tmp_path_factory.mktemp("stream") / "store", every=12)
    return replace(made, dataset=made.dataset.chunk({"time": CHUNK}))


def stream(store: Store, **changes: object) -> FieldStream:
    known = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 19, 20, 21, 22, 23])
    given = {"store": store, "samples": known, "batch_size": 6, "seed": 3, "buffer": 2, "prefetch": 2}
    return FieldStream(**{**given, **changes})  # type: ignore[arg-type]


def positions(batches: Iterator[Samples]) -> list[list[int]]:
    return [batch.position.tolist() for batch in batches]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch" and thread.is_alive()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 300), unique=True, min_size=1).map(sorted),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 2**40),
    st.integers(0, 10**6),
)
def test_an_epoch_visits_every_sample_once_and_depends_on_its_seed_and_number_alone(
    samples, chunk, buffer, seed, epoch
) -> None:
    given = np.array(samples)
    order = epoch_order(given, chunk, buffer=buffer, seed=seed, epoch=epoch)
    assert sorted(order) == samples
    np.testing.assert_array_equal(order, epoch_order(given, chunk, buffer=buffer, seed=seed, epoch=epoch))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(np.arange(64), 8, buffer=2, seed=s, epoch=e)) for s in range(3) for e in range(5)}
    assert len(orders) == 15


def test_no_more_than_a_buffer_of_chunks_is_visited_at_a_time() -> None:
    order = epoch_order(np.arange(96), 8, buffer=3, seed=0, epoch=0)
    assert all(len(set(window // 8)) == 3 for window in np.split(order, 4))


@pytest.mark.parametrize("workers", [2, 3])
def test_the_shares_of_workers_partition_the_batches_of_one(store, workers) -> None:
    whole = positions(stream(store).epoch(4))
    shares = [positions(stream(store, rank=rank, world_size=workers).epoch(4)) for rank in range(workers)]
    assert {len(share) for share in shares} == {len(whole)}
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert {len(part) for part in parts} == {len(batch) // workers}
        assert [parts[i % workers][i // workers] for i in range(len(batch))] == batch


def test_a_batch_holds_the_fields_and_dates_of_its_positions(store) -> None:
    field = store.field.compute()
    seen = []
    for batch in stream(store).epoch(1):
        np.testing.assert_array_equal(batch.fields, field.values[batch.position])
        np.testing.assert_array_equal(batch.times, field["time"].values[batch.position])
        seen += batch.position.tolist()
    assert len(seen) == len(set(seen)) == stream(store).batches_per_epoch * 6


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_starting_at_a_batch_gives_the_rest(store, start) -> None:
    assert positions(stream(store).epoch(2, start=start)) == positions(stream(store).epoch(2))[start:]


def test_what_is_left_over_changes_with_the_epoch(store) -> None:
    batches = stream(store, batch_size=7)
    left = [set(batches.samples) - {p for batch in positions(batches.epoch(e)) for p in batch} for e in range(4)]
    assert {len(rest) for rest in left} == {6}
    assert len(set(map(frozenset, left))) > 1


@pytest.mark.parametrize("buffer", [1, 2, 3])
def test_memory_is_bounded_by_blocks_and_each_is_read_once(store, buffer, monkeypatch) -> None:
    held, read = [], []
    fetch = _BlockReader._block

    def watched(reader: _BlockReader, number: int) -> object:
        if number not in reader.blocks:
            read.append(number)
        block = fetch(reader, number)
        held.append(len(reader.blocks))
        return block

    monkeypatch.setattr(_BlockReader, "_block", watched)
    list(stream(store, batch_size=4, buffer=buffer).epoch(0))
    assert max(held) == buffer
    assert sorted(read) == sorted(set(read))


def test_an_error_in_the_reading_thread_surfaces_in_the_consumer_and_again() -> None:
    def source() -> Iterator[Samples]:
        yield Samples(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1, np.int64))
        raise OSError("chunk t2m/c/3/0/0 is truncated")

    batches = Prefetched(source(), depth=2)
    next(batches)
    for _ in range(2):
        with pytest.raises(OSError, match="chunk t2m/c/3/0/0 is truncated"):
            next(batches)


def test_the_end_stays_the_end(store) -> None:
    batches = stream(store).epoch(0)
    list(batches)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(batches)
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_ends_a_thread_that_waits_on_a_full_queue(store, taken) -> None:
    batches = stream(store, prefetch=1).epoch(0)
    for _ in range(taken):
        next(batches)
    deadline = time.monotonic() + 5
    while not batches._queue.full() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)  # the thread holds the next batch by now
    batches.close()
    assert not threads()
    with pytest.raises(StopIteration):  # rather than waiting for ever
        next(batches)
    batches.close()


def test_waiting_is_counted() -> None:
    def source() -> Iterator[Samples]:
        for _ in range(2):
            time.sleep(0.1)
            yield Samples(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1, np.int64))

    batches = Prefetched(source(), depth=1)
    list(batches)
    assert 0.15 < batches.waited_s < 5
