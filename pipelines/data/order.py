"""The order in which an epoch visits samples, and which of them are whose: functions of (seed, epoch), no reading.

Blocks (the samples that are read together) are permuted; every `buffer` of them in that order are a window, and a
window is visited before the next one begins. Within a window each block's samples are permuted and then dealt like
cards, so that every global batch takes equally many from each of the window's blocks (one more or less where they are
uneven): a stratified shuffle. The rows of a global batch are sorted by the place of their block in its window.

So the rows are the same for any number of workers, and a worker's share, which is a run of consecutive rows, comes from
as few blocks as there can be: of a window of four, two workers read two blocks each, four workers one each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """An epoch's samples, batch after batch, in the order of each batch's rows.

    Attributes:
        index: [n] into the samples that were given.
        window: [n] in which window each is visited; the windows of a batch are neighbours.
    """

    index: Index
    window: Index


def epoch_order(block: Index, *, buffer: int, batch_size: int, seed: int, epoch: int) -> EpochOrder:
    """Order an epoch.

    Args:
        block: [n] number of each sample's block, ascending.
        buffer: Blocks that are shuffled together.
        batch_size: Of the global batch.
        seed, epoch: What the order is a function of.
    """
    rng = np.random.default_rng((seed, epoch))
    parts = np.split(np.arange(len(block)), np.flatnonzero(np.diff(block)) + 1)
    parts = [rng.permutation(parts[number]) for number in rng.permutation(len(parts))]
    windows = [parts[first : first + buffer] for first in range(0, len(parts), buffer)]
    place = np.concatenate([np.full(len(part), number) for window in windows for number, part in enumerate(window)])
    dealt = np.concatenate([first + _dealt(window) for first, window in zip(_starts(windows), windows, strict=True)])
    index, place = np.concatenate(parts)[dealt], place[dealt]
    window = np.repeat(np.arange(len(windows)), [sum(map(len, parts)) for parts in windows])
    rows = np.lexsort((place, np.arange(len(block)) // batch_size))
    return EpochOrder(index=index[rows], window=window[rows])


def _starts(windows: list[list[Index]]) -> Index:
    """Where each window begins."""
    return np.cumsum([0, *(sum(map(len, window)) for window in windows)])[:-1]


def _dealt(window: list[Index]) -> Index:
    """The order that takes from all of a window's parts in proportion, evenly from its beginning to its end."""
    share = [(np.arange(len(part)) + (number + 0.5) / len(window)) / len(part) for number, part in enumerate(window)]
    return np.argsort(np.concatenate(share), kind="stable")


def share_of(num_rows: int, rank: int, world_size: int) -> tuple[Index, NDArray[np.float32]]:
    """A worker's rows of a global batch, equally many for every worker.

    Args:
        num_rows: Of the global batch.
        rank, world_size: Which share.

    Returns:
        [b] rows and their weights: 1, or 0 for those that only fill up (they repeat the batch's last row).

    >>> share_of(5, 1, 2)
    (array([3, 4, 4]), array([1., 1., 0.], dtype=float32))
    """
    count = -(-num_rows // world_size)
    rows = np.arange(rank * count, (rank + 1) * count)
    return np.minimum(rows, num_rows - 1), (rows < num_rows).astype(np.float32)
