"""A folder of picture files: found in the order of their names, decoded in parallel, refused by name where damaged."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.data.picture_set import Choose, PictureSet, Pixels, pixels, squared
from pipelines.data.staged import staged
from pipelines.data.writing import Progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
          "validation": "validation", "test": "test"}  # fmt: skip
MAX_PIXELS = 100_000_000  # a decoded picture is at most some 400 MB in each thread
# What Pillow's decoders let out of damaged files, beside OSError and ValueError.
_DAMAGE = (SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError, OverflowError)


def from_folder(
    folder: Path, kept: Path, *, size: int, choose: Choose, grey: bool, progress: Progress | None
) -> PictureSet:
    """Read all pictures below a folder as size x size, in colour unless `grey`.

    Args:
        folder: With pictures, in any folders. Of their names, a first one of train, val, validation or test gives the
            split, and the last the category.
        kept: Folder for what is read, for a run that goes on.
        size: Side in pixels; the middle square of each picture.
        choose: Which are taken.
        grey: Keep the brightness only.
        progress: Called with (pictures read, pictures in all).

    Raises:
        ValueError: If there is no picture, or none can be read.
    """
    files = found(folder)
    if not files:
        raise ValueError(f"no picture lies in {str(folder)!r}: expected files that end in {', '.join(SUFFIXES)}")
    chosen = [files[place] for place in choose(len(files))]
    names = [file.relative_to(folder).as_posix() for file in chosen]
    dates = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, chosen)]
    with warnings.catch_warnings():
        # A picture that is too large is refused below; Pillow would warn of it in the middle of a progress bar.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        read = staged(
            chosen,
            names,
            partial(read_picture, size=size, grey=grey),
            kept,
            identity=f"pictures 1 {size} {grey} {dates}",
            progress=progress,
        )
    label = np.array(names, dtype=object)[read.kept]
    left_out = f", {len(read.faults)} unreadable" if read.faults else ""
    return PictureSet(
        values=read.values,
        names=label,
        labels=_labels([Path(name).parts[:-1] for name in label]),
        origin=f"{folder.name or folder} ({len(chosen)} pictures{left_out})",
        faults=read.faults,
        folder=read.folder,
    )


def found(folder: Path) -> list[Path]:
    """Every picture file below a folder, in the order of their paths; not hidden ones, nor what links lead to."""
    files = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(here, name) for name in names
                  if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]  # fmt: skip
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def read_picture(file: Path, *, size: int, grey: bool) -> Pixels:
    """Decode a picture: upright, over white where transparent, its first frame, its middle square.

    Returns:
        [size, size, 1 or 3].

    Raises:
        ValueError: If it is damaged, of a kind without a known range, or so large that it may be a decompression bomb.
        OSError: If the file cannot be opened.
    """
    try:
        with Image.open(file) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}: a decompression bomb?")
            opened.draft("L" if grey else "RGB", (2 * size, 2 * size))  # of a JPEG, only as much as is needed
            upright = ImageOps.exif_transpose(opened)
            return pixels(squared(_plain(upright, grey=grey), size))
    except Image.DecompressionBombError as error:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels: a decompression bomb?") from error
    except UnidentifiedImageError as error:
        raise ValueError("this is no picture, or it is damaged at its start") from error
    except _DAMAGE as error:
        raise ValueError(f"it is damaged: {error}") from error


def _plain(picture: Image.Image, *, grey: bool) -> Image.Image:
    """A picture of any kind in 8-bit colour, or grey."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are numbers without a known range (mode {picture.mode}): save it with 8 bits")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return picture.convert("L" if grey else "RGB")


def _labels(folders: list[tuple[str, ...]]) -> dict[str, NDArray[Any]]:
    """What the names of the folders above each picture say: the split, if all say one, and the category, if any do."""
    labels = {}
    splits = [SPLITS.get(parts[0].lower()) if parts else None for parts in folders]
    if all(splits):
        labels["split"] = np.array(splits, dtype=object)
        folders = [parts[1:] for parts in folders]
    if any(folders):
        labels["category"] = np.array([parts[-1] if parts else "" for parts in folders], dtype=object)
    return labels
