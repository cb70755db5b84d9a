"""Voxels in files and in memory: binvox, .npz/.npy and .pt tensors, read within limits, and brought to a resolution.

A header is believed only as far as the bytes behind it go: sizes are compared with the file before memory is taken.

Source: P. Min, "binvox" (the format: runs of a value, x slowest, then z, then y fastest); Dupont, Teh and Doucet,
    "Generative Models as Distributions of Functions" (AISTATS 2022), for shapes as .pt tensors of 32^3.
"""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[np.bool_]

LARGEST = 1024  # cells along an axis; 1024^3 is a gigabyte
LARGEST_ARRAY = 16 * 2**30  # bytes of an archive of shapes in memory
KEPT_SHARE = 0.25  # of a coarse cell that is solid: thin legs stay, plates keep their thickness


def read_binvox(data: bytes) -> Voxels:
    """Read binvox: solid cells, [x, y, z].

    Raises:
        ValueError: If it is no binvox, of absurd dimensions, or shorter or longer than it says.
    """
    head, found, _ = data[:4096].partition(b"\ndata\n")
    if not head.startswith(b"#binvox") or not found:
        raise ValueError("it is no binvox: expected '#binvox 1' and a line 'data' within its first 4096 bytes")
    dims = [line.split()[1:] for line in head.split(b"\n") if line.startswith(b"dim ")]
    try:
        (shape,) = [tuple(int(size) for size in sizes) for sizes in dims]
    except ValueError as error:
        raise ValueError("its binvox header has no line 'dim' of three whole numbers") from error
    _check_shape(shape)
    runs = np.frombuffer(data, np.uint8, offset=len(head) + len(found))
    if len(runs) % 2 or int(runs[1::2].sum(dtype=np.int64)) != math.prod(shape):
        raise ValueError(f"its runs do not add up to the {' x '.join(map(str, shape))} voxels of its header")
    cells = np.repeat(runs[::2] != 0, runs[1::2])
    x, y, z = shape[0], shape[2], shape[1]
    return np.ascontiguousarray(cells.reshape(x, z, y).transpose(0, 2, 1))


def write_binvox(solid: Voxels, path: str | os.PathLike[str]) -> None:
    """Write solid cells [x, y, z] as binvox, whose unit cube is [-1, 1]^3 here."""
    x, y, z = solid.shape
    if not x == y == z:
        raise ValueError(f"binvox holds cubes, got {x} x {y} x {z} voxels: write .npz instead")
    cells = np.ascontiguousarray(solid.transpose(0, 2, 1)).reshape(-1)
    begins = np.concatenate([[0], np.flatnonzero(cells[1:] != cells[:-1]) + 1])
    lengths = np.diff(np.append(begins, len(cells)))
    parts = (lengths + 254) // 255
    value = np.repeat(cells[begins], parts).astype(np.uint8)
    count = np.full(len(value), 255, np.uint8)
    count[np.cumsum(parts) - 1] = lengths - 255 * (parts - 1)
    head = f"#binvox 1\ndim {x} {z} {y}\ntranslate -1 -1 -1\nscale 2\ndata\n"
    Path(path).write_bytes(head.encode() + np.stack([value, count], axis=1).tobytes())


def read_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays of shapes (n, x, y, z) in an .npz or .npy; an .npy has the name "".

    Raises:
        ValueError: If it is neither, damaged, larger than it may be, or holds anything but such arrays.
    """
    name, size = os.fspath(path), os.path.getsize(path)
    if Path(path).suffix == ".npy":
        with open(path, "rb") as file:
            return {"": _read_npy(file, size, name)}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = check_archive(archive, name, size)
            arrays = {}
            for entry in entries:
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(".npy")] = _read_npy(file, entry.file_size, name)
            return arrays
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{name!r} is damaged or no .npz archive: {error}") from error


def check_archive(
    archive: zipfile.ZipFile, name: str, size: int, largest: int = LARGEST_ARRAY
) -> list[zipfile.ZipInfo]:
    """The files in an archive, if it may be read.

    Args:
        archive: Opened; nothing of it is ever unpacked to disk.
        name: Of the archive, for messages.
        size: Of the archive, bytes.
        largest: Bytes that it may hold in all.

    Raises:
        ValueError: If it holds more than it may, its entries overlap, or a name leads outside.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if entry.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise ValueError(f"{name!r} holds {entry.filename!r}, a name that leads outside of it: refused")
    held = sum(entry.file_size for entry in entries)
    if held > largest:
        raise ValueError(f"{name!r} holds {held / 2**30:.3g} GiB where {largest / 2**30:.3g} are allowed: refused")
    if sum(entry.compress_size for entry in entries) > size:
        raise ValueError(f"{name!r} has entries that overlap, as zip bombs do: refused")
    return entries


def read_tensor(data: bytes) -> Voxels:
    """Read one shape from a .pt file [x, y, z] or [1, x, y, z]; nothing of it is ever executed.

    Raises:
        ValueError: If it holds anything but a tensor of voxels.
    """
    import torch

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_archive(archive, "the tensor", len(data), 8 * LARGEST**3)
    except zipfile.BadZipFile as error:
        raise ValueError("it is no .pt file as torch has written them since 1.6 (a zip archive)") from error
    try:
        with io.BytesIO(data) as file:
            tensor = torch.load(file, map_location="cpu", weights_only=True)
    except (torch.serialization.pickle.UnpicklingError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise ValueError(f"it cannot be read as a tensor: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"expected a tensor of voxels, got {type(tensor).__name__}")
    while tensor.ndim > 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    _check_shape(tuple(tensor.shape))
    return solid_cells(tensor.numpy())


def solid_cells(values: NDArray[Any]) -> Voxels:
    """Which cells of any array are solid: true, or above one half (of one, or of 255 for pictures of 8 bits).

    Raises:
        ValueError: If the values are no occupancies.
    """
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"expected occupancies, got values of type {values.dtype}")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and (high <= 1 or (values.dtype == np.uint8))):
        raise ValueError(f"expected occupancies within 0 and 1 (or 0 and 255, uint8), got {low} to {high}")
    return values > (0.5 if high <= 1 else 127)


def at_resolution(solid: Voxels, resolution: int) -> Voxels:
    """The same solid [x, y, z] in a cube of `resolution` cells along each edge.

    A finer cell is what its centre lies in; a coarser one is solid if a quarter of it is, so that thin legs stay.
    A box that is no cube is centred in one with empty cells around it.
    """
    if solid.shape == (resolution,) * 3:
        return solid
    longest = max(solid.shape)
    if min(solid.shape) < longest:
        gaps = [longest - size for size in solid.shape]
        solid = np.pad(solid, [(gap // 2, gap - gap // 2) for gap in gaps])
    if longest <= resolution:
        place = ((np.arange(resolution) + 0.5) * longest / resolution).astype(int)
        return solid[np.ix_(place, place, place)]
    shares = _overlaps(longest, resolution)
    filled = solid.astype(np.float32)
    for axis in range(3):
        filled = np.moveaxis(np.tensordot(shares, filled, axes=(1, axis)), 0, axis)
    return filled >= KEPT_SHARE - 1e-5


def _overlaps(fine: int, coarse: int) -> NDArray[np.float32]:
    """The share of each of `coarse` equal cells that each of `fine` cells covers, [coarse, fine]."""
    edges, cuts = np.arange(fine + 1) * coarse / fine, np.arange(coarse + 1)
    high = np.minimum(edges[None, 1:], cuts[1:, None])
    return np.maximum(high - np.maximum(edges[None, :-1], cuts[:-1, None]), 0).astype(np.float32)


def _read_npy(file: BinaryIO | Any, size: int, name: str) -> NDArray[Any]:  # noqa: ANN401 - zipfile's reader too
    """Read an array of shapes (n, x, y, z), or one (x, y, z), of a file of `size` bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise ValueError(f"{name!r} holds what is no array: {' '.join(str(error).split())[:120]}") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"{name!r} holds values of type {dtype}, which are no occupancies")
    if len(shape) not in (3, 4):
        raise ValueError(f"{name!r} holds an array of shape {shape}: expected (n, x, y, z)")
    _check_shape(shape[-3:])
    count = math.prod(shape)
    if count * dtype.itemsize > min(size, LARGEST_ARRAY):
        raise ValueError(f"{name!r} says that it holds {shape} values of {dtype} and is {size} bytes long: refused")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{name!r} ends before its {shape} values do")
    values = np.frombuffer(data, dtype).reshape(shape[::-1] if fortran else shape)
    return (values.T if fortran else values).reshape(-1, *shape[-3:])


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or not all(1 <= size <= LARGEST for size in shape):
        raise ValueError(f"it has the dimensions {shape}: expected three, each from 1 to {LARGEST}")
