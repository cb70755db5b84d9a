"""Many files, one array: read in parallel through Dask, a block at a time, so that a stopped run goes on where it was.

Every finished block is a file in a folder beside the store that is being made (`STORE.partial`). Files that cannot be
read are named with the reason, and left out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import dask
import dask.array
import numpy as np
from dask.callbacks import Callback
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from pipelines.data.atomic import written_beside
from pipelines.data.writing import Progress

Item = TypeVar("Item")

_FEW_BLOCKS = 4  # not worth the start of processes


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What was read.

    Attributes:
        values: [kept, ...], Dask, a chunk for each block; on disk in the folder.
        kept: [kept] positions of the items that were read, ascending.
        faults: The others, in order.
        folder: To be removed when the values have been written elsewhere.
    """

    values: dask.array.Array
    kept: NDArray[np.int64]
    faults: tuple[Fault, ...]
    folder: Path

    def clear(self) -> None:
        """Remove what was kept for a later run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def staged(
    items: Sequence[Item],
    names: Sequence[str],
    read: Callable[[Item], NDArray[Any]],
    folder: Path,
    *,
    identity: str,
    block: int = 64,
    processes: bool = False,
    progress: Progress | None = None,
) -> Staged:
    """Read items, or take those that an earlier run with the same items and identity has read.

    Args:
        items: What to read, given to `read` in threads or processes.
        names: What they are called.
        read: Gives an array of one shape and type for all; ValueError or OSError say why it cannot.
        folder: For the finished blocks; what another identity left there is removed.
        identity: Everything else that the result depends on (sizes, versions, dates of files).
        block: Items of a block.
        processes: Read in processes, not threads, where there is enough of it: for what holds Python's lock.
        progress: Called with (items read, items in all).

    Raises:
        ValueError: If not one of the items can be read.
        OSError: If the folder cannot be written.
    """
    digest = hashlib.sha256(json.dumps([identity, list(names), block]).encode()).hexdigest()
    _prepare(folder, digest)
    spans = [(first, min(first + block, len(items))) for first in range(0, len(items), block)]
    files = [folder / f"{number:06d}.npy" for number in range(len(spans))]
    waiting = [number for number, file in enumerate(files) if not file.is_file()]
    done = sum(last - first for number, (first, last) in enumerate(spans) if files[number].is_file())
    tasks = [
        dask.delayed(_read_block)(read, items[slice(*spans[number])], names[slice(*spans[number])], files[number])
        for number in waiting
    ]
    # A pool of its own: leaving it waits for what is being written, also when one task ends the others.
    pool_of = _processes if processes and len(waiting) > _FEW_BLOCKS and CPU_COUNT > 1 else ThreadPoolExecutor
    with pool_of(CPU_COUNT) as pool, _Counted(done, len(items), progress):
        scheduler = "threads" if isinstance(pool, ThreadPoolExecutor) else "processes"
        dask.compute(*tasks, scheduler=scheduler, pool=pool, optimize_graph=False)
    kept, faults, parts = [], [], []
    for file, (first, _) in zip(files, spans, strict=True):
        bad = {int(place): reason for place, reason in json.loads(file.with_suffix(".json").read_text()).items()}
        faults += [Fault(name=names[first + place], reason=reason) for place, reason in bad.items()]
        values = np.load(file, mmap_mode="r", allow_pickle=False)
        if len(values):
            kept += [place for place in range(first, first + len(values) + len(bad)) if place - first not in bad]
            parts.append(dask.array.from_array(values, chunks=values.shape, name=f"staged-{digest[:16]}-{first}"))
    if not parts:
        shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(f"none of {len(items)} files can be read; the first is {faults[0].name}: {faults[0].reason}")
    return Staged(
        values=dask.array.concatenate(parts), kept=np.array(kept, np.int64), faults=tuple(faults), folder=folder
    )


def _processes(count: int) -> Executor:
    """Spawned, so that they inherit no thread's lock."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def _prepare(folder: Path, digest: str) -> None:
    """Make the folder; empty it if what lies there was made of something else."""
    note = folder / "made-of.txt"
    if folder.is_dir() and not (note.is_file() and note.read_text() == digest):
        if any(folder.iterdir()) and not note.is_file():
            raise FileExistsError(f"{str(folder)!r} is in the way and was not made by this program: move it away")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not note.is_file():
        with written_beside(note) as beside:
            beside.write_text(digest)


def _read_block(read: Callable[[Item], NDArray[Any]], items: Sequence[Item], names: Sequence[str], file: Path) -> int:
    """Read some items into a file; how many there were."""
    values, faults = [], {}
    for place, item in enumerate(items):
        try:
            values.append(read(item))
        except (ValueError, OSError) as error:
            faults[place] = " ".join(str(error).split())[:300] or type(error).__name__
    with written_beside(file.with_suffix(".json"), overwrite=True) as beside:
        beside.write_text(json.dumps(faults))
    with written_beside(file) as beside, open(beside, "wb") as stream:
        np.save(stream, np.stack(values) if values else np.zeros(0, np.uint8), allow_pickle=False)
    return len(names)


class _Counted(Callback):
    """Tells of each finished block, from the thread that waits for them."""

    def __init__(self, done: int, total: int, progress: Progress | None) -> None:
        super().__init__(posttask=self._finished)
        self._done, self._total, self._progress = done, total, progress

    def _finished(self, key: object, result: object, *_: object) -> None:
        if self._progress is not None and isinstance(result, int):
            self._done += result
            self._progress(self._done, self._total)
