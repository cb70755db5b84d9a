"""A stream gives every sample once, in an order that only seed and epoch decide, whoever reads it."""

import json
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.blocks import BlockReader
from pipelines.data.climate import ingest
from pipelines.data.prefetch import Prefetched
from pipelines.data.store import Store
from pipelines.data.stream import FieldStream, Samples

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


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("batch_size", [6, 7])
def test_the_shares_of_workers_partition_the_batches_of_one(store, workers, batch_size) -> None:
    given = {"batch_size": batch_size, "last": "keep"}
    whole = list(stream(store, **given).epoch(4))
    shares = [list(stream(store, rank=rank, world_size=workers, **given).epoch(4)) for rank in range(workers)]
    assert {len(share) for share in shares} == {len(whole)} == {-(-20 // batch_size)}
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert len({len(part.position) for part in parts}) == 1
        real = [part.weight == 1 for part in parts]
        together = np.concatenate([part.position[kept] for part, kept in zip(parts, real, strict=True)])
        assert together.tolist() == batch.position.tolist()
        assert all(np.isin(part.weight, (0, 1)).all() and np.isfinite(part.fields).all() for part in parts)


def test_a_batch_holds_the_fields_and_dates_of_its_positions(store) -> None:
    field = store.field.compute()
    seen = []
    for batch in stream(store).epoch(1):
        np.testing.assert_array_equal(batch.fields, field.values[batch.position])
        np.testing.assert_array_equal(batch.times, field["time"].values[batch.position])
        seen += batch.position.tolist()
    assert len(seen) == len(set(seen)) == stream(store).batches_per_epoch * 6


def test_an_epoch_ends_with_what_is_left_over_or_without_it(store) -> None:
    kept, dropped = ([len(batch.position) for batch in stream(store, last=last).epoch(0)] for last in ("keep", "drop"))
    assert (kept, dropped) == ([6, 6, 6, 2], [6, 6, 6])
    visited = [place for batch in stream(store, last="keep").epoch(0) for place in batch.position.tolist()]
    assert sorted(visited) == stream(store).samples.tolist()


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_starting_at_a_batch_gives_the_rest(store, start) -> None:
    assert positions(stream(store).epoch(2, start=start)) == positions(stream(store).epoch(2))[start:]


def test_what_is_left_over_changes_with_the_epoch(store) -> None:
    batches = stream(store, batch_size=7)
    left = [set(batches.samples) - {p for batch in positions(batches.epoch(e)) for p in batch} for e in range(4)]
    assert {len(rest) for rest in left} == {6}
    assert len(set(map(frozenset, left))) > 1


@pytest.mark.parametrize("buffer", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_bounded_by_blocks_and_each_is_read_once(store, buffer, threads, monkeypatch) -> None:
    """Those of a window, and as many read ahead as there are threads."""
    held, read, blocks = [], [], []
    fetch = BlockReader._read

    def watched(reader: BlockReader, number: int) -> object:
        read.append(number)
        block = fetch(reader, number)
        blocks.append(weakref.ref(block))
        return block

    def noted(step: int, samples: Samples) -> Samples:
        held.append(sum(block() is not None for block in blocks))
        return samples

    monkeypatch.setattr(BlockReader, "_read", watched)
    list(stream(store, batch_size=4, buffer=buffer, threads=threads).epoch(0, prepare=noted))
    assert max(held) <= buffer + threads
    assert sorted(read) == sorted(set(read)) == list(range(5))


def test_a_worker_reads_the_blocks_of_its_own_samples_alone(store, monkeypatch) -> None:
    read: list[int] = []
    fetch = BlockReader._read
    monkeypatch.setattr(BlockReader, "_read", lambda reader, number: read.append(number) or fetch(reader, number))
    given = {"samples": np.arange(20), "batch_size": 4, "buffer": 2, "world_size": 2}
    for rank in range(2):
        list(stream(store, rank=rank, **given).epoch(0))
    assert sorted(read) == [0, 1, 2, 3]


def test_batches_are_finished_in_the_reading_thread(store) -> None:
    def prepare(step: int, samples: Samples) -> tuple[int, str, list[int]]:
        return step, threading.current_thread().name, samples.position.tolist()

    given = list(stream(store).epoch(3, start=1, prepare=prepare))
    assert given == [(n, "prefetch", p) for n, p in enumerate(positions(stream(store).epoch(3)))][1:]


def test_whatever_graph_lies_over_the_store_is_streamed_lazily(store) -> None:
    """Selection, unit conversion, coarsening and normalisation, as Dask graphs over what is stored."""
    celsius = store.dataset - 273.15
    region = celsius.sel(time=slice(store.field["time"][3], None), latitude=slice(60, -60))
    coarse = region.coarsen(latitude=2, longitude=2, boundary="trim").mean()
    normalised = (coarse - 10) / 20
    over = replace(store, dataset=normalised)
    expected = normalised[store.variable].values
    seen = 0
    for batch in stream(over, samples=np.arange(21), buffer=3, last="keep").epoch(2):
        np.testing.assert_array_equal(batch.fields, expected[batch.position])
        seen += len(batch.position)
    assert seen == 21


@pytest.mark.parametrize("then", [1, 2, 3])
def test_a_stream_resumes_at_exactly_the_next_batch_with_any_number_of_workers(store, then) -> None:
    def whole(parts: list[list[Samples]]) -> list[list[int]]:
        return [
            [p for part in batch for p, w in zip(part.position.tolist(), part.weight, strict=True) if w]
            for batch in zip(*parts, strict=True)
        ]

    first = [stream(store, rank=rank, world_size=2, last="keep") for rank in range(2)]
    states = []
    for one in first:
        batches = one.epoch(5)
        next(batches), next(batches)
        states.append(json.loads(json.dumps(one.state_dict())))
        batches.close()
    assert states[0] == states[1] and (states[0]["epoch"], states[0]["batch"]) == (5, 2)
    resumed = [stream(store, rank=r, world_size=then, last="keep", prefetch=1, threads=2) for r in range(then)]
    parts = []
    for one in resumed:
        one.load_state_dict(states[0])
        epoch, start = one.at
        parts.append(list(one.epoch(epoch, start=start)))
    assert whole(parts) == positions(stream(store, last="keep").epoch(5))[2:]
    assert resumed[0].state_dict() | {"epoch": 6, "batch": 0} == resumed[0].state_dict()


def test_a_state_of_another_order_is_refused_with_the_difference(store) -> None:
    state = stream(store).state_dict()
    with pytest.raises(ValueError, match=r"differs from the one to go on with: seed 3 -> 4, buffer 2 -> 3$"):
        stream(store, seed=4, buffer=3).load_state_dict(state)
    with pytest.raises(ValueError, match=r"samples 20 \(\w+\) -> 19 \(\w+\)$"):
        stream(store, samples=stream(store).samples[:-1]).load_state_dict(state)


def test_an_error_in_the_reading_thread_surfaces_in_the_consumer_and_again() -> None:
    def source() -> Iterator[Samples]:
        yield Samples(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1, np.int64))
        raise OSError("chunk t2m/c/3/0/0 is truncated")

    batches = Prefetched(source(), 2, lambda batch: batch)
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

    batches = Prefetched(source(), 1, lambda batch: batch)
    list(batches)
    assert 0.15 < batches.waited_s < 5
