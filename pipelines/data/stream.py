"""Samples from a store to a training loop: Dask blocks, shuffled, sharded by rank, batched ahead by one thread.

The order of an epoch is a function of (seed, epoch) and of the store's chunks: chunks are permuted, then the samples of
every `buffer` chunks. So the global batches are the same for any number of workers, which take their shares of each,
and a stream that begins at batch b is the rest of one that began at the first.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask
import numpy as np
from numpy.typing import NDArray

from pipelines.data.store import Store

Index = NDArray[np.int64]


class Samples(NamedTuple):
    """A worker's share of a global batch.

    Attributes:
        fields: [b, *grid] float32 in the store's units.
        times: [b] dates.
        position: [b] positions in the store.
    """

    fields: NDArray[np.float32]
    times: NDArray[Any]
    position: Index


def epoch_order(samples: Index, chunk: int, *, buffer: int, seed: int, epoch: int) -> Index:
    """The order in which an epoch visits `samples`.

    Args:
        samples: [n] positions in the store, sorted.
        chunk: Samples of a chunk.
        buffer: Chunks that are shuffled together.
        seed, epoch: What the order is a function of.
    """
    rng = np.random.default_rng((seed, epoch))
    blocks = np.split(samples, np.flatnonzero(np.diff(samples // chunk)) + 1)
    permuted = [blocks[place] for place in rng.permutation(len(blocks))]
    windows = [np.concatenate(permuted[first : first + buffer]) for first in range(0, len(permuted), buffer)]
    return np.concatenate([rng.permutation(window) for window in windows])


@dataclass(frozen=True, kw_only=True)
class FieldStream:
    """Batches of a store's samples for one worker.

    Attributes:
        store: Opened in this process.
        samples: [n] positions to visit, sorted.
        batch_size: Of the global batch; a multiple of `world_size`.
        seed: Of the order.
        rank, world_size: Which share of each batch is this worker's.
        buffer: Chunks held in memory.
        prefetch: Batches made ahead.
    """

    store: Store
    samples: Index
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    buffer: int = 4
    prefetch: int = 4

    @property
    def batches_per_epoch(self) -> int:
        """Whole global batches of an epoch; which samples are left over changes with the epoch."""
        return len(self.samples) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Prefetched:
        """The batches of an epoch from batch `start` on."""
        return Prefetched(self._batches(epoch, start), self.prefetch)

    def _batches(self, epoch: int, start: int) -> Iterator[Samples]:
        field = self.store.field
        chunk = field.chunksizes[field.dims[0]][0]
        order = epoch_order(self.samples, chunk, buffer=self.buffer, seed=self.seed, epoch=epoch)
        read = _BlockReader(self.store, chunk, capacity=self.buffer)
        times = field[field.dims[0]].values
        for batch in range(start, self.batches_per_epoch):
            whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            mine = whole[self.rank :: self.world_size]
            yield Samples(read(mine), times[mine], mine)


class _BlockReader:
    """Samples by position, one Dask block at a time; the blocks last used stay in memory."""

    def __init__(self, store: Store, chunk: int, capacity: int) -> None:
        self.data, self.chunk, self.capacity = store.field.data, chunk, capacity
        self.blocks: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __call__(self, samples: Sequence[int] | Index) -> NDArray[np.float32]:
        return np.stack([self._block(place // self.chunk)[place % self.chunk] for place in samples])

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self.blocks:
            if len(self.blocks) == self.capacity:  # an epoch is done with one window before it needs the next
                self.blocks.popitem(last=False)
            with dask.config.set(scheduler="synchronous"):
                self.blocks[number] = self.data.blocks[number].compute()
        self.blocks.move_to_end(number)
        return self.blocks[number]


class Prefetched(Iterator[Samples]):
    """Items made ahead by one thread through a bounded queue; counts the seconds that its consumer waited.

    An error in the thread is raised where the item was to come. `close` ends the thread; so does the end.
    """

    def __init__(self, source: Iterator[Samples], depth: int) -> None:
        self.waited_s = 0.0
        self._queue: queue.Queue[Samples | BaseException | None] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Samples:
        began = time.perf_counter()
        item = self._queue.get()
        self.waited_s += time.perf_counter() - began
        if isinstance(item, tuple):
            return item
        self._queue.put(item)  # whoever asks again gets the same answer
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """End the thread and let go of what it made."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        while not self._queue.empty():
            self._queue.get()
        self._queue.put(None)

    def _fill(self, source: Iterator[Samples]) -> None:
        try:
            for item in source:
                self._queue.put(item)
                if self._stopped.is_set():
                    return
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
            self._queue.put(error)
