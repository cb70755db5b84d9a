"""What is to be completed, as users have it: a picture with transparent holes, or an array with NaN or a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.image_arrays import open_npy, open_npz
from pipelines.data.images import VARIABLE, as_field
from pipelines.data.picture_files import SUFFIXES, found

# True where a value was seen, and where it was not.
SEEN, UNSEEN = ("observed", "seen"), ("mask", "missing")


def read_pictures(source: str | xr.DataArray, *, channels: int) -> xr.DataArray:
    """Pictures of which a part was seen.

    Args:
        source: A picture or a folder of pictures of one size, missing where they are transparent; an .npz, .nc or .zarr
            with `rgb` (or one array) and perhaps `mask`, True where it is missing, or `observed`, True where it was
            seen; an .npy; or such an array. Arrays are (y, x), (y, x, channel), or several of these, 0..255 or 0..1;
            NaN is missing.
        channels: Of the model; what a transparent picture is turned into.

    Returns:
        (image, y, x, channel) float32, 0..255, NaN where missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, or not one of that many channels.
    """
    if isinstance(source, xr.DataArray):
        return _field(source.values, None, "the given array", channels)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no picture at {source!r}")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or (path.is_dir() and suffix != ".zarr"):
        return _from_files([path] if path.is_file() else found(path), path.name, channels)
    if suffix == ".npz":
        return _from_arrays(open_npz(path), path.name, channels)
    if suffix == ".npy":
        return _field(open_npy(path), None, path.name, channels)
    if suffix in (".nc", ".zarr"):
        with xr.open_dataset(path, engine="zarr" if suffix == ".zarr" else "h5netcdf") as dataset:
            arrays = {str(name): values.values for name, values in dataset.data_vars.items()}
        return _from_arrays(arrays, path.name, channels)
    raise ValueError(f"{path.name} is no picture: expected {' '.join(SUFFIXES)} .npz .npy .nc .zarr, or a folder")


def _from_files(files: list[Path], name: str, channels: int) -> xr.DataArray:
    if not files:
        raise ValueError(f"no picture lies in {name}: expected files that end in {' '.join(SUFFIXES)}")
    pictures = []
    for file in files:
        try:
            with Image.open(file) as opened:
                seen = np.asarray(opened.convert("RGBA" if channels == 3 else "LA"), dtype=np.float32)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file.name} cannot be read: {error}") from error
        pictures.append(np.where(seen[..., -1:] < 128, np.nan, seen[..., :channels]))
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"the pictures of {name} are of several sizes, {sorted(sizes)}: give those of one size")
    return as_field(np.stack(pictures).astype(np.float32), np.array([file.name for file in files], dtype=object))


def _from_arrays(arrays: dict[str, NDArray[Any]], name: str, channels: int) -> xr.DataArray:
    masks = {key: values for key, values in arrays.items() if key in (*SEEN, *UNSEEN)}
    rest = [key for key in arrays if key not in masks and arrays[key].ndim >= 2]
    if VARIABLE in arrays:
        rest = [VARIABLE]
    if len(rest) != 1 or len(masks) > 1:
        raise ValueError(f"{name} holds {sorted(arrays)}: expected `{VARIABLE}`, or one array, and perhaps a `mask`")
    missing = None
    for key, values in masks.items():
        missing = values.astype(bool) if key in UNSEEN else ~values.astype(bool)
    return _field(arrays[rest[0]], missing, name, channels)


def _field(values: NDArray[Any], missing: NDArray[np.bool_] | None, name: str, channels: int) -> xr.DataArray:
    """Several pictures, whatever the axes before (y, x, channel) are."""
    if values.ndim == 2 or values.shape[-1] not in (1, 3):
        values = values[..., None]
    if values.ndim < 3 or values.shape[-1] != channels or not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{name} is {values.dtype} {values.shape}: expected (y, x, {channels}), or several of that")
    size = values.shape[-3:-1]
    pictures = values.reshape(-1, *size, channels).astype(np.float32)
    if missing is not None:
        gone = missing[..., 0] if missing.ndim == values.ndim else missing
        if gone.shape[-2:] != size or gone.size not in (size[0] * size[1], pictures[..., 0].size):
            raise ValueError(f"the mask of {name} is {missing.shape}, its pictures are {size[0]} x {size[1]}")
        pictures[np.broadcast_to(gone.reshape(-1, *size), pictures.shape[:3])] = np.nan
    if np.nanmax(pictures, initial=0.0) <= 1 and np.issubdtype(values.dtype, np.floating):
        pictures *= 255.0
    low, high = float(np.nanmin(pictures, initial=0.0)), float(np.nanmax(pictures, initial=0.0))
    if low < 0 or high > 255:
        raise ValueError(f"{name} holds numbers from {low:.4g} to {high:.4g}: expected brightness, 0 to 255")
    return as_field(pictures, np.arange(len(pictures)))
