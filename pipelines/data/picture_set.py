"""Pictures of one size as one lazy array, with what is known of each; and how one picture is brought to a size."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.staged import Fault

Pixels = NDArray[np.uint8]
Choose = Callable[[int], NDArray[np.int64]]  # of so many, the positions that are taken, ascending
BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Pictures of one size.

    Attributes:
        values: [n, y, x, channel], Dask, channel 1 (grey) or 3 (red, green, blue).
        names: [n] texts or numbers.
        labels: What else is known along them, [n] each: `category`, `split`.
        origin: Where they come from.
        license: Under which they are given.
        faults: Pictures that could not be read.
        folder: Where the values lie until they are written to a store; None if they need no such place.
    """

    values: dask.array.Array
    names: NDArray[Any]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    origin: str
    license: str = "unknown"
    faults: tuple[Fault, ...] = ()
    folder: Path | None = None

    def shaped(self, size: int | None, *, grey: bool) -> PictureSet:
        """The same pictures, size x size (None: as they are), and grey if wanted."""
        count, height, width, channels = self.values.shape
        wanted = (size or height, size or width, 1 if grey else channels)
        if wanted == (height, width, channels):
            return self
        blocks = self.values.rechunk({0: BLOCK})
        chunks = (blocks.chunks[0], *((length,) for length in wanted))
        values = blocks.map_blocks(_shaped_block, size=size, grey=grey, chunks=chunks, dtype=np.uint8)
        assert values.shape == (count, *wanted)
        return replace(self, values=values)

    def clear(self) -> None:
        """Remove what was kept until the values are written."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def drawn(count: int, *, number: int | None, seed: int) -> NDArray[np.int64]:
    """The positions of `number` of `count` pictures, at random and ascending; of all where that many are wanted."""
    if number is None or number >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 0x1A6E]).choice(count, number, replace=False))


def squared(picture: Image.Image, size: int) -> Image.Image:
    """The middle square of a picture, size x size, without aliasing."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    # Cut first: with a box, resampling would read pixels beside it.
    middle = picture.crop((left, top, left + side, top + side))
    return middle if side == size else middle.resize((size, size), Image.Resampling.LANCZOS)


def pixels(picture: Image.Image) -> Pixels:
    """[y, x, channel]."""
    values = np.asarray(picture, dtype=np.uint8)
    return values[..., None] if values.ndim == 2 else values


def _shaped_block(block: Pixels, size: int | None, *, grey: bool) -> Pixels:
    made = []
    for one in block:
        picture = Image.fromarray(one[..., 0] if one.shape[2] == 1 else one)
        picture = picture.convert("L") if grey else picture
        made.append(pixels(picture if size is None else squared(picture, size)))
    return np.stack(made) if made else np.zeros((0, size or block.shape[1], size or block.shape[2],
                                                 1 if grey else block.shape[3]), np.uint8)  # fmt: skip
