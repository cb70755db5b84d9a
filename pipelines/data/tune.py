"""Which chunks, how many threads and how deep a queue stream a store fastest, measured where it lies.

A part of the store is written in each plan beside it, and streamed in turns, so that what else the machine does meets
all of them; then the threads and the queue are varied for the best plan. The files are warm in the system's cache.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.chunks import ChunkPlan, candidate_plans
from pipelines.data.remote import is_url
from pipelines.data.store import Store, open_store, record_streaming, write_store
from pipelines.data.stream import FieldStream

Progress = Callable[[int, int], None]

MEASURED_BYTES = 128 * 2**20
TURNS = 5
BATCH_SIZE = 32
DEPTHS = (1, 2, 4, 8)
# What a measurement must gain for a store to be written again, and for another thread.
_WORTH_WRITING, _WORTH_A_THREAD = 1.1, 1.05
# A training step takes so many times what making its batch takes; less, and no queue would help.
_STEP = 1.25


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A setting and how it streamed.

    Attributes:
        plan: of the chunks; None for the store's own where only that can be measured (a URL).
        threads: that read ahead.
        prefetch: batches made ahead.
        mb_per_s: decoded megabytes a second.
        wait: the share of its time that a training waits whose steps take 1.25 times as long as the batches; None
            where it was not measured.
    """

    plan: ChunkPlan | None
    threads: int
    prefetch: int
    mb_per_s: float
    wait: float | None = None

    @property
    def chunks(self) -> str:
        """The plan in words."""
        if self.plan is None:
            return "as they are"
        return f"{self.plan.chunk}" if self.plan.shard is None else f"{self.plan.chunk} in shards of {self.plan.shard}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was measured.

    Attributes:
        store: Its path.
        current: The store's own plan.
        measured: Every setting.
        best: Of these.
    """

    store: str
    current: ChunkPlan
    measured: tuple[Measurement, ...]
    best: Measurement

    @property
    def rewrites(self) -> bool:
        """Whether the best plan is another than the store's."""
        return self.best.plan is not None and not _alike(self.best.plan, self.current)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain JSON types."""
        return {**asdict(self), "rewrites": self.rewrites}


def tune(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Tuning:
    """Measure how a store streams best on this machine.

    Args:
        path: a local folder, or a URL, whose chunks are measured as they are.
        progress: called with (measurements done, measurements in all).

    Raises:
        FileNotFoundError: if there is no store.
        ValueError: if it is none.
        OSError: if there is no room beside it for a part of it, five times.
    """
    store = open_store(path)
    field = store.field
    sample_bytes = max(1, field.nbytes // field.shape[0])
    current = ChunkPlan(chunk=store.stored.chunk, shard=store.stored.shard, slab=store.stored.chunk)
    plans = [] if is_url(store.path) else candidate_plans(field.shape[0], sample_bytes)
    if plans and not any(_alike(plan, current) for plan in plans):
        plans.append(replace(plans[0], chunk=current.chunk, shard=current.shard, slab=current.shard or current.chunk))
    threads = [count for count in (1, 2, 4) if count <= (os.cpu_count() or 1)]
    steps = TURNS * (max(1, len(plans)) + len(threads)) + 3 * len(DEPTHS)
    done = itertools.count(1)

    def told(measure: Callable[[], float]) -> float:
        value = measure()
        if progress is not None:
            progress(next(done), steps)
        return value

    count = min(field.shape[0], max(4 * BATCH_SIZE, MEASURED_BYTES // sample_bytes))
    with _parts(store, plans, count) as parts:
        rates = _in_turns([partial(told, partial(_rate, part, 1)) for part in parts])
        named: list[ChunkPlan | None] = [*plans] if plans else [None]
        measured = [
            Measurement(plan=plan, threads=1, prefetch=DEPTHS[1], mb_per_s=rate)
            for plan, rate in zip(named, rates, strict=True)
        ]
        chosen = _best_plan(measured, current)
        part = parts[measured.index(chosen)]
        rates = _in_turns([partial(told, partial(_rate, part, number)) for number in threads])
        by_threads = [
            replace(chosen, threads=number, mb_per_s=rate) for number, rate in zip(threads, rates, strict=True)
        ]
        for one in by_threads:
            chosen = one if one.threads == 1 or one.mb_per_s > _WORTH_A_THREAD * chosen.mb_per_s else chosen
        waits = [statistics.median(told(partial(_wait, part, chosen, depth)) for _ in range(3)) for depth in DEPTHS]
        by_depth = [replace(chosen, prefetch=depth, wait=wait) for depth, wait in zip(DEPTHS, waits, strict=True)]
    best = next(one for one, wait in zip(by_depth, waits, strict=True) if wait <= min(waits) + 0.01)
    return Tuning(store=store.path, current=current, measured=(*measured, *by_threads[1:], *by_depth), best=best)


def apply(tuning: Tuning, *, progress: Progress | None = None) -> Store:
    """Write the store again in the best plan, where it is another, and record the threads and the queue in it.

    Raises:
        ValueError: if the store is at a URL.
        OSError: if there is no room for a second store while it is written; the first is then as it was.
    """
    if is_url(tuning.store):
        raise ValueError(f"settings are recorded in a local store, not in {tuning.store!r}: tune it where it was made")
    settings = {"threads": tuning.best.threads, "prefetch": tuning.best.prefetch}
    if not tuning.rewrites:
        record_streaming(tuning.store, settings)
        return open_store(tuning.store)
    store = open_store(tuning.store)
    return write_store(
        store.field.assign_attrs(units=store.units),
        store.path,
        source=store.source,
        license=store.license,
        domain=store.domain,
        overwrite=True,
        plan=tuning.best.plan,
        streaming=settings,
        progress=progress,
    )


def _alike(one: ChunkPlan, other: ChunkPlan) -> bool:
    return (one.chunk, one.shard) == (other.chunk, other.shard)


def _best_plan(measured: list[Measurement], current: ChunkPlan) -> Measurement:
    """The fastest; the store's own unless that is worth writing it again."""
    fastest = max(measured, key=lambda one: one.mb_per_s)
    own = [one for one in measured if one.plan is not None and _alike(one.plan, current)]
    return own[0] if own and fastest.mb_per_s < _WORTH_WRITING * own[0].mb_per_s else fastest


@contextmanager
def _parts(store: Store, plans: list[ChunkPlan], count: int) -> Iterator[list[Store]]:
    """The first samples in every plan, on the store's own disk; the store itself where there are no plans."""
    if not plans:
        field = store.dataset.isel({store.field.dims[0]: slice(count)})
        yield [replace(store, dataset=field)]
        return
    part = store.field[:count].assign_attrs(units=store.units).load()
    above = Path(store.path).absolute().parent
    with tempfile.TemporaryDirectory(dir=above, prefix=f"{Path(store.path).name}.tune-") as folder:
        yield [
            write_store(part, Path(folder) / str(number), source="", license="", domain=store.domain, plan=plan)
            for number, plan in enumerate(plans)
        ]


def _in_turns(measures: list[Callable[[], float]]) -> list[float]:
    """Medians of several measurements, taken in turns."""
    turns = [[measure() for measure in measures] for _ in range(TURNS)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def _stream(store: Store, threads: int, prefetch: int) -> FieldStream:
    samples = np.arange(store.field.shape[0])
    return FieldStream(
        store=store, samples=samples, batch_size=BATCH_SIZE, seed=0, threads=threads, prefetch=prefetch, last="keep"
    )


def _rate(store: Store, threads: int) -> float:
    begun = time.perf_counter()
    read = sum(batch.fields.nbytes for batch in _stream(store, threads, DEPTHS[1]).epoch(0))
    return read / 1e6 / (time.perf_counter() - begun)


def _wait(store: Store, setting: Measurement, depth: int) -> float:
    """The share of its time that a consumer waits that is a little slower than the stream; its first batch apart."""
    batch_s = BATCH_SIZE * store.field.nbytes / store.field.shape[0] / 1e6 / setting.mb_per_s
    batches = _stream(store, setting.threads, depth).epoch(0)
    next(batches)
    begun, before = time.perf_counter(), batches.waited_s
    for _ in batches:
        time.sleep(_STEP * batch_s)
    return (batches.waited_s - before) / max(time.perf_counter() - begun, 1e-9)
