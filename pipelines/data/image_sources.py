"""Where pictures come from: a folder of files, arrays, Shapes3D's HDF5, or PolyMNIST; all as one lazy array.

folder      train/cat/1.png: a first folder called train, validation or test is the split, the last the category
.npz .npy   arrays (n, y, x), (n, y, x, channel) or (n, channel, y, x) of bytes, or of numbers within [0, 1]
HDF5        images (n, 64, 64, 3) and labels (n, 6): Shapes3D
polymnist   digits on natural backgrounds (see there)
"""

from __future__ import annotations

import os
from functools import partial as partial_of
from pathlib import Path

from pipelines.data.image_arrays import from_arrays, from_hdf5
from pipelines.data.picture_files import from_folder
from pipelines.data.picture_set import PictureSet, drawn
from pipelines.data.polymnist import polymnist
from pipelines.data.writing import Progress

Source = str | os.PathLike[str]

FOLDER_SIZE = 64
_ARRAYS = (".npz", ".npy")
_HDF5 = (".h5", ".hdf5", ".hdf")


def pictures(
    source: Source,
    partial: Path,
    *,
    size: int | None,
    number: int | None,
    grey: bool,
    seed: int,
    progress: Progress | None,
) -> PictureSet:
    """Open a source; the arguments are those of `images.ingest`.

    Args:
        partial: Folder for what is read, until the caller clears it.

    Raises:
        FileNotFoundError, ValueError, OSError: As `images.ingest`.
    """
    text = os.fspath(source)
    path = Path(text)
    if text == "polymnist" and not path.exists():
        return polymnist(number=number, seed=seed).shaped(size, grey=grey)
    if not path.exists():
        raise FileNotFoundError(
            f"there are no pictures at {text!r}: give a folder, an .npz, .npy or HDF5 file, or `polymnist`"
        )
    choose = partial_of(drawn, number=number, seed=seed)
    if path.is_dir():
        return from_folder(path, partial, size=size or FOLDER_SIZE, choose=choose, grey=grey, progress=progress)
    suffix = path.suffix.lower()
    if suffix in _ARRAYS:
        return from_arrays(path, choose).shaped(size, grey=grey)
    if suffix in _HDF5:
        return from_hdf5(path, choose).shaped(size, grey=grey)
    raise ValueError(
        f"{text!r} is neither a folder of pictures nor an .npz, .npy or HDF5 file: unpack an archive first, and put a "
        "single picture into a folder"
    )
