"""Pictures that lie in arrays: .npy and .npz files, and the HDF5 layout of Shapes3D. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipelines.data.picture_files import SPLITS
from pipelines.data.picture_set import BLOCK, Choose, PictureSet

# A member of an archive that unpacks to more than this, and to so many times its size, is refused.
LARGE_BYTES, BOMB_RATIO = 2**30, 200
_LABELS = ("label", "labels", "category", "categories", "y", "target", "targets")
# Shapes3D: what the columns of `labels` are, and the names of its shapes.
FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SHAPES = ("cube", "cylinder", "sphere", "capsule")


def from_arrays(path: Path, choose: Choose) -> PictureSet:
    """Open an .npy or .npz file.

    Of several arrays of pictures, a name of train, validation or test is the split, any other the category. One array
    `labels` beside one array of pictures is their category.

    Raises:
        ValueError: If it holds no pictures, or values whose range is not certain.
    """
    arrays = {"": open_npy(path)} if path.suffix.lower() == ".npy" else open_npz(path)
    parts = {name: values for name, values in arrays.items() if values.ndim >= 3}
    if not parts:
        shapes = ", ".join(f"{name or path.name} {values.shape}" for name, values in arrays.items())
        raise ValueError(f"{path.name} holds no pictures, only {shapes or 'nothing'}: expected an array (n, y, x[, 3])")
    stacked = {name: as_pictures(values, f"{path.name}[{name}]" if name else path.name)
               for name, values in parts.items()}  # fmt: skip
    sizes = {values.shape[1:] for values in stacked.values()}
    if len(sizes) > 1:
        raise ValueError(f"{path.name} holds pictures of several sizes, {sorted(sizes)}: one store holds one size")
    values = dask.array.concatenate(list(stacked.values()))
    chosen = choose(len(values))
    labels = {}
    if len(parts) > 1:
        names = np.concatenate([np.full(len(values), name, dtype=object) for name, values in stacked.items()])
        lower = [str(name).lower() for name in stacked]
        known = all(name in SPLITS for name in lower)
        labels["split" if known else "category"] = np.array(
            [SPLITS[str(name).lower()] if known else name for name in names], dtype=object
        )[chosen]
    else:
        said = next((arrays[name] for name in _LABELS if name in arrays and arrays[name].shape == (len(values),)), None)
        if said is not None:
            labels["category"] = np.asarray(said)[chosen].astype(str).astype(object)
    return PictureSet(values=_taken(values, chosen), names=chosen, labels=labels, origin=path.name)


def from_hdf5(path: Path, choose: Choose) -> PictureSet:
    """Open Shapes3D: `images` (n, y, x, 3) uint8, and `labels` (n, 6), the factors of each scene.

    Raises:
        ValueError: If it is no HDF5, or of another layout.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path.name} is not HDF5, or is damaged: {error}") from error
    images, factors = file.get("images"), file.get("labels")
    if not isinstance(images, h5py.Dataset) or images.ndim != 4:
        raise ValueError(f"{path.name} holds {sorted(file)}: expected `images` (n, y, x, 3) and `labels` (n, 6)")
    chosen = choose(len(images))
    # A chunk of the file is read once, whole.
    together = max(BLOCK, images.chunks[0]) if images.chunks else BLOCK
    values = dask.array.from_array(images, chunks=(together, *images.shape[1:]), lock=True)
    labels: dict[str, NDArray[Any]] = {}
    if isinstance(factors, h5py.Dataset) and factors.shape == (len(images), len(FACTORS)):
        told = factors[:][chosen]
        labels = {name: told[:, column] for column, name in enumerate(FACTORS) if name != "shape"}
        kinds = told[:, FACTORS.index("shape")]
        if np.isin(kinds, np.arange(len(SHAPES))).all():
            labels["category"] = np.array(SHAPES, dtype=object)[kinds.astype(int)]
    return PictureSet(
        values=_taken(as_pictures(values, f"{path.name}[images]"), chosen),
        names=chosen,
        labels=labels,
        origin=f"{path.name} (Shapes3D)",
    )


def as_pictures(values: Any, name: str) -> dask.array.Array:  # noqa: ANN401 - an array, NumPy, mapped or Dask
    """Bytes [n, y, x, 1 or 3] of an array whose axes and range are certain.

    Raises:
        ValueError: If they are not.
    """
    lazy = values if isinstance(values, dask.array.Array) else dask.array.from_array(
        values, chunks=(BLOCK, *values.shape[1:]), name=False
    )  # fmt: skip
    if lazy.ndim == 3:
        lazy = lazy[..., None]
    if lazy.ndim != 4 or not (lazy.shape[3] in (1, 3, 4) or lazy.shape[1] in (1, 3)):
        raise ValueError(f"{name} has the shape {values.shape}: expected (n, y, x), (n, y, x, 3) or (n, 3, y, x)")
    if lazy.shape[3] not in (1, 3, 4):
        lazy = lazy.transpose(0, 2, 3, 1)
    if lazy.shape[3] == 4:
        raise ValueError(f"{name} has four channels: leave out the transparency, or give pictures as files")
    if lazy.dtype == np.uint8:
        return lazy
    if lazy.dtype == np.bool_:
        return lazy.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(lazy.dtype, np.floating):
        low, high = (float(bound) for bound in dask.compute(lazy.min(), lazy.max()))
        if 0 <= low and high <= 1:
            return (lazy * 255).round().astype(np.uint8)
        raise ValueError(f"{name} holds numbers from {low:.4g} to {high:.4g}: expected 0 to 1, or bytes (uint8)")
    raise ValueError(f"{name} is {lazy.dtype}: expected bytes (uint8), or numbers within 0 to 1")


def _taken(values: dask.array.Array, chosen: NDArray[np.int64]) -> dask.array.Array:
    return values if len(chosen) == len(values) else values[chosen]


def open_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy file, mapped from disk.

    Raises:
        ValueError: If it is none.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name} is no array of numbers, or is damaged: {error}") from error


def open_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an archive, its size known before it is unpacked.

    Raises:
        ValueError: If it is damaged, holds what is no array of numbers, or unpacks to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _refuse_bomb(archive, member, path.name)
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is no .npz archive, or is damaged: {error}") from error
    except (ValueError, EOFError) as error:
        if path.name in str(error):
            raise
        raise ValueError(f"{path.name} holds what is no array of numbers, or is damaged: {error}") from error


def _refuse_bomb(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> None:
    """Refuse what unpacks to far more than it is, or says that it is more than it unpacks to."""
    size, packed = member.file_size, max(1, member.compress_size)
    if size > LARGE_BYTES and size > BOMB_RATIO * packed:
        raise ValueError(f"{name}[{member.filename}] unpacks from {packed:,} to {size:,} bytes: a decompression bomb?")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
    if not dtype.hasobject and int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize > size:
        raise ValueError(f"{name}[{member.filename}] says that it is {shape} of {dtype}, and has {size:,} bytes only")
