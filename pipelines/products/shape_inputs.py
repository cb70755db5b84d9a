"""What is to be completed: voxels of which a part is missing, in the forms that users have them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.shape_sources import SUFFIXES, open_shapes
from pipelines.data.shapes import AXES, NAME, as_field
from pipelines.data.store import open_store
from pipelines.data.voxels import check_archive

MASK = "observed"
_EXPECTED = (
    "expected occupancies (shape, x, y, z) with NaN where nothing was seen, or with a second array `observed`: .npz, "
    ".npy, .nc or a store; or a shape as a file"
)


def read_shapes(source: str | xr.DataArray) -> xr.DataArray:
    """Voxels (shape, x, y, z) float32, NaN where nothing was seen.

    Args:
        source: An .npz with an array of occupancies, and perhaps one called `observed` of the same shape; .npy; .nc;
            a store; any file or folder that `vamoh data shapes` takes; or an array.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If it is no such thing.
    """
    if isinstance(source, xr.DataArray):
        return _field(source.values, "the given array", None if source.ndim == 3 else source[source.dims[0]].values)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {source!r}: {_EXPECTED}")
    if path.suffix in (".npz", ".npy"):
        return _field(_arrays(path), source)
    if path.suffix == ".nc":
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            names = [str(name) for name in dataset.data_vars if set(AXES) <= set(dataset[name].dims)]
            kept = [name for name in ("probability", NAME) if name in names] or names
            if not kept:
                raise ValueError(f"{source!r} has no variable with the axes x, y and z: {_EXPECTED}")
            return _field(dataset[kept[0]].transpose(..., *AXES).values, source)
    if (path / "zarr.json").is_file():
        store = open_store(path)
        return _field(store.field.values, source, store.field["shape"].values)
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        found = open_shapes(path)
        shapes = [found.read(item, found.resolution) for item in found.items]
        return _field(np.stack(shapes), source, np.array([item.name for item in found.items], dtype=object))
    raise ValueError(f"{source!r} is none of what can be completed: {_EXPECTED}")


def _arrays(path: Path) -> NDArray[np.float32]:
    """Occupancies of an .npz or .npy, NaN where its `observed` says that nothing was seen."""
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                check_archive(archive, str(path), path.stat().st_size)
        held = np.load(path, allow_pickle=False)
        arrays = {"": held} if isinstance(held, np.ndarray) else {name: held[name] for name in held.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    others = [name for name in arrays if name != MASK]
    if len(others) != 1:
        raise ValueError(f"{str(path)!r} holds {', '.join(map(repr, arrays)) or 'nothing'}: {_EXPECTED}")
    values = arrays[others[0]]
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{str(path)!r} holds values of type {values.dtype}: {_EXPECTED}")
    if MASK not in arrays:
        return values.astype(np.float32)
    mask = arrays[MASK]
    if mask.dtype.kind not in "biu" or mask.shape not in (values.shape, values.shape[-3:]):
        raise ValueError(f"`observed` of {str(path)!r} must be true or false for every voxel, got shape {mask.shape}")
    return np.where(mask.astype(bool), values.astype(np.float32), np.float32(np.nan))


def _field(values: NDArray[np.generic], source: str, names: NDArray[np.generic] | None = None) -> xr.DataArray:
    """Occupancies as a store's field, checked."""
    occupancy = np.asarray(values, np.float32)
    if occupancy.ndim == 5 and occupancy.shape[1] == 1:
        occupancy = occupancy[:, 0]
    occupancy = occupancy[None] if occupancy.ndim == 3 else occupancy
    if occupancy.ndim != 4:
        raise ValueError(f"{source!r} has shape {values.shape}: {_EXPECTED}")
    seen = occupancy[np.isfinite(occupancy)]
    if seen.size and (seen.min() < 0 or seen.max() > 1):
        raise ValueError(f"{source!r} has values from {seen.min():g} to {seen.max():g}: occupancies are within 0 and 1")
    labels = np.arange(len(occupancy)) if names is None else names
    return as_field(occupancy, labels)
