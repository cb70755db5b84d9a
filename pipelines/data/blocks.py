"""Samples of a store by position: Dask blocks, each read once, ahead of when it is needed, and held for its window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from pipelines.data.order import Index
from pipelines.data.store import Store
from pipelines.data.stored import skipping


@dataclass(frozen=True)
class _Block:
    """Values [n, *grid] of a block's samples, and which of them are good (None: all)."""

    values: NDArray[Any]
    good: NDArray[np.bool_] | None = None


class BlockReader:
    """Reads samples by position. In memory are the blocks of one window and, of the next, as many as there are threads.

    Args:
        store: Where from; its data set may be any Dask graph over what is stored that has the samples along its first
            axis.
        threads: Read blocks, each the next one, while samples are taken from those that are there.
        skip_corrupt: Go on past damaged chunks; their samples are not `good`.
        damaged: Where to note what is found of them, a sentence by the chunk's key.
    """

    def __init__(
        self,
        store: Store,
        *,
        threads: int = 1,
        skip_corrupt: bool = False,
        damaged: dict[str, str] | None = None,
    ) -> None:
        self._store, self._skip = store, skip_corrupt or store.stored.skip_corrupt
        self._data = store.field.data.rechunk({axis: -1 for axis in range(1, store.field.ndim)})
        self._graph = self._data.__dask_graph__()
        self._ends = np.cumsum(self._data.chunks[0])
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._reading: deque[Future[_Block]] = deque()
        self._damaged = {} if damaged is None else damaged

    def block_of(self, samples: Index) -> Index:
        """The number of the block that holds each sample."""
        return np.searchsorted(self._ends, samples, side="right")

    def __call__(self, parts: Sequence[tuple[Index, Index]]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """Read samples, part after part.

        Args:
            parts: [b] positions, and [b] the window of each, ascending from part to part: a window's blocks are let go
                of when the next begins.

        Yields:
            Their values [b, *grid], and which of them are good [b]; a row that is not repeats one that is, or the
            store's mean where there is none.

        Raises:
            ChunkError: If a chunk cannot be read, or is damaged and is not to be skipped.
        """
        coming = (number for _, new in self._visits(parts) for number in new)
        held: dict[int, _Block] = {}
        visits = self._visits(parts)
        for samples, window in parts:
            values = np.empty((len(samples), *self._data.shape[1:]), self._data.dtype)
            good, block = np.ones(len(samples), dtype=bool), self.block_of(samples)
            runs = np.split(np.arange(len(samples)), np.flatnonzero(np.diff(block)) + 1)
            for now in np.unique(window):
                begins, new = next(visits)
                if begins:
                    held.clear()
                held.update((number, self._next(coming)) for number in new)
                for run in (run for run in runs if window[run[0]] == now):
                    taken = held[int(block[run[0]])]
                    places = samples[run] - self._first(block[run[0]])
                    # Without the mode, NumPy would copy twice.
                    np.take(taken.values, places, axis=0, out=values[run[0] : run[-1] + 1], mode="clip")
                    if taken.good is not None:
                        good[run] = taken.good[places]
            if not good.all():
                values[~good] = values[good][0] if good.any() else self._store.statistics.mean
            yield values, good

    def _visits(self, parts: Sequence[tuple[Index, Index]]) -> Iterator[tuple[bool, list[int]]]:
        """For every window of every part, whether it begins, and which of its blocks are needed for the first time."""
        current, seen = -1, set[int]()
        for samples, window in parts:
            block = self.block_of(samples)
            for now in np.unique(window):
                begins = bool(now != current)
                if begins:
                    current, seen = now, set()
                new = [int(number) for number in np.unique(block[window == now]) if number not in seen]
                seen.update(new)
                yield begins, new

    def _next(self, coming: Iterator[int]) -> _Block:
        """The next block; meanwhile the threads go on with those after it."""
        missing = 1 + self._threads - len(self._reading)
        self._reading.extend(self._pool.submit(self._read, number) for number in islice(coming, missing))
        return self._reading.popleft().result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _first(self, number: int) -> int:
        return int(self._ends[number]) - self._data.chunks[0][number]

    def _read(self, number: int) -> _Block:
        if not self._skip:
            return _Block(self._compute(number))
        with skipping() as found:
            values = self._compute(number)
        if not found:
            return _Block(values)
        stored = self._store.stored
        self._damaged |= {stored.key(chunk): sentence for chunk, sentence in found.items()}
        positions = self._stored_positions(number)
        # Where a sample is not one that is stored (a mean of some), any of the block's may be hurt.
        return _Block(values, (positions >= 0) & ~np.isin(positions // stored.chunk, list(found)))

    def _compute(self, number: int) -> NDArray[Any]:
        """One block, in this thread, without the copy that Dask makes of what `compute` returns."""
        if self._data.name == self._store.stored.graph:  # nothing lies over what is stored
            return self._store.stored[self._first(number) : int(self._ends[number])]
        key = (self._data.name, number, *[0] * (self._data.ndim - 1))
        return np.asarray(dask.get(dict(self._graph.cull({key})), key))

    def _stored_positions(self, number: int) -> Index:
        """Where a block's samples, which may be selected ones, are in what is stored."""
        field, part = self._store.field, slice(self._first(number), int(self._ends[number]))
        index = field.indexes.get(field.dims[0])
        if index is None or self._store.stored.index is None:
            return np.arange(part.start, part.stop)
        return np.asarray(self._store.stored.index.get_indexer(index[part]))
