"""Samples from a store to a training loop: Dask blocks, shuffled, sharded by rank, batched ahead by one thread.

The order of an epoch is a function of (seed, epoch) and of the store's blocks (`order`), so the global batches are the
same for any number of workers, which take their shares of each, and a stream that begins at batch b is the rest of one
that began at the first. In memory are the blocks of one window, of which there are at most `buffer`, and the batches
that wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from pipelines.data.blocks import BlockReader
from pipelines.data.memory import keep_freed_memory
from pipelines.data.order import Index, epoch_order, share_of
from pipelines.data.prefetch import Prefetched
from pipelines.data.store import Store

Finished = TypeVar("Finished")

_PREFETCH, _THREADS = 2, 1


class Samples(NamedTuple):
    """A worker's share of a global batch, as many rows as any other worker's.

    Attributes:
        fields: [b, *grid] float32 in the store's units.
        times: [b] dates.
        position: [b] positions in the store.
        weight: [b] float32, from a stream: 1, or 0 for a row that only fills up, or whose chunk is damaged and skipped.
    """

    fields: NDArray[np.float32]
    times: NDArray[Any]
    position: Index
    weight: NDArray[np.float32] | None = None


class _Made(NamedTuple):
    """A finished batch on its way to the consumer."""

    epoch: int
    number: int
    skipped: int
    batch: Any


@dataclass(kw_only=True)
class FieldStream:
    """Batches of a store's samples for one worker.

    Attributes:
        store: Opened in this process.
        samples: [n] positions to visit, sorted.
        batch_size: Of the global batch.
        seed: Of the order.
        rank, world_size: Which share of each batch is this worker's.
        buffer: Blocks held in memory and shuffled together.
        prefetch: Batches made ahead; None for what `vamoh data tune` found for the store, else 2.
        threads: Blocks read ahead, each by one; None for what `vamoh data tune` found for the store, else 1.
        last: Whether an epoch ends with a smaller batch of what is left over, or without it.
        skip_corrupt: Go on without the samples of damaged chunks: they keep their rows, with weight 0.
        skipped: Samples of the current epoch that this worker was given with weight 0 because of that.
        damaged: What was found of damaged chunks, a sentence by the chunk's key.
        at: Epoch and batch that come next, as far as batches were taken.
    """

    store: Store
    samples: Index
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    buffer: int = 4
    prefetch: int | None = None
    threads: int | None = None
    last: Literal["keep", "drop"] = "drop"
    skip_corrupt: bool = False
    skipped: int = field(default=0, init=False)
    damaged: dict[str, str] = field(default_factory=dict, init=False)
    at: tuple[int, int] = field(default=(0, 0), init=False)

    @property
    def batches_per_epoch(self) -> int:
        """Global batches of an epoch; which samples are in the last one, or left over, changes with the epoch."""
        count = len(self.samples)
        return count // self.batch_size if self.last == "drop" else -(-count // self.batch_size)

    @overload
    def epoch(self, epoch: int, *, start: int = 0) -> Prefetched[Any, Samples]: ...

    @overload
    def epoch(
        self, epoch: int, *, start: int = 0, prepare: Callable[[int, Samples], Finished]
    ) -> Prefetched[Any, Finished]: ...

    def epoch(
        self, epoch: int, *, start: int = 0, prepare: Callable[[int, Samples], Any] | None = None
    ) -> Prefetched[Any, Any]:
        """The batches of an epoch from batch `start` on.

        Args:
            epoch: Its number.
            start: Its first batch.
            prepare: Called in the reading thread with a batch's number in the epoch and its samples; what it returns
                is given instead of them.
        """
        keep_freed_memory()
        self.at, self.skipped = (epoch, start), 0
        depth = self.prefetch or self.store.streaming.get("prefetch", _PREFETCH)
        return Prefetched(self._batches(epoch, start, prepare), depth, self._hand_over)

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next, and all that the order depends on; the same on every worker, plain JSON values."""
        epoch, batch = self.at
        if batch >= self.batches_per_epoch:
            epoch, batch = epoch + 1, 0
        return {"epoch": epoch, "batch": batch, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another stream was: `epoch(*at)` goes on with exactly the next batch.

        The number of workers, the threads and the prefetch depth may be others.

        Raises:
            ValueError: If the order would be another one.
        """
        mine = self._order()
        changed = [f"{key} {state.get(key)} -> {mine[key]}" for key in mine if state.get(key) != mine[key]]
        if changed:
            raise ValueError(f"the order of samples differs from the one to go on with: {', '.join(changed)}")
        self.at = (int(state["epoch"]), int(state["batch"]))

    def _order(self) -> dict[str, Any]:
        """What the order is a function of."""
        blocks = np.asarray(self.store.field.data.chunks[0], dtype="<i8").tobytes()
        visited = hashlib.sha256(np.asarray(self.samples, dtype="<i8").tobytes()).hexdigest()[:12]
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "buffer": self.buffer,
            "last": self.last,
            "samples": f"{len(self.samples)} ({visited})",
            "blocks": f"{self.store.field.data.numblocks[0]} ({hashlib.sha256(blocks).hexdigest()[:12]})",
        }

    def _hand_over(self, made: _Made) -> Any:  # noqa: ANN401 - whatever `prepare` returns
        self.at = (made.epoch, made.number + 1)
        self.skipped += made.skipped
        return made.batch

    def _batches(self, epoch: int, start: int, prepare: Callable[[int, Samples], Any] | None) -> Iterator[_Made]:
        threads = self.threads or self.store.streaming.get("threads", _THREADS)
        read = BlockReader(self.store, threads=threads, skip_corrupt=self.skip_corrupt, damaged=self.damaged)
        times = self.store.field[self.store.field.dims[0]].values
        order = epoch_order(
            read.block_of(self.samples), buffer=self.buffer, batch_size=self.batch_size, seed=self.seed, epoch=epoch
        )
        firsts = [number * self.batch_size for number in range(start, self.batches_per_epoch)]
        shares = [
            share_of(min(self.batch_size, len(self.samples) - first), self.rank, self.world_size) for first in firsts
        ]
        places = [first + rows for first, (rows, _) in zip(firsts, shares, strict=True)]
        parts = [(self.samples[order.index[place]], order.window[place]) for place in places]
        try:
            for number, (fields, good) in enumerate(read(parts), start):
                (_, weight), (position, _) = shares[number - start], parts[number - start]
                skipped = int((weight[~good] > 0).sum())
                samples = Samples(fields, times[position], position, weight * good)
                yield _Made(epoch, number, skipped, samples if prepare is None else prepare(number, samples))
        finally:
            read.close()
