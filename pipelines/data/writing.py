"""The values of a store, in one pass: written, summed into statistics and hashed, a slab of samples at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from pipelines.data.chunks import ChunkPlan, plan_chunks
from pipelines.data.fingerprint import Fingerprint
from pipelines.data.normalize import Moments, area_weights, block_moments

Progress = Callable[[int, int], None]

_NUM_WRITERS = 4


def write_values(
    field: xr.DataArray, folder: Path, plan: ChunkPlan | None, progress: Progress | None
) -> dict[str, str]:
    """Write a field's skeleton and its values.

    Args:
        field: (sample, *grid), Dask or NumPy, with the attribute `units`.
        folder: to be made.
        plan: how samples are grouped; None for what suits their number and size.
        progress: called with (samples written, samples in all) after each slab.

    Returns:
        The attributes that are known only when every value has been seen: `fingerprint` and `statistics`.

    Raises:
        OSError: if the source is damaged, or the disk full.
        ValueError: if the field refuses its own values when they are read.
    """
    num_samples = field.shape[0]
    sample_bytes = max(1, math.prod(field.shape[1:]) * field.dtype.itemsize)
    plan = plan or plan_chunks(num_samples, sample_bytes)
    _write_skeleton(field, folder, plan)
    array = zarr.open_group(folder, mode="r+", use_consolidated=False)[str(field.name)]
    assert isinstance(array, zarr.Array)
    array = array.with_config({"write_empty_chunks": True})  # one that is not there is one that was lost
    weights, moments = area_weights(field), Moments()
    fingerprint = Fingerprint(field, field.attrs["units"])
    unit = plan.shard or plan.chunk
    # One file a call: should one fail, leaving the pool waits for the others, so none is written after the clean-up.
    with ThreadPoolExecutor(_NUM_WRITERS) as writers:
        for start in range(0, num_samples, plan.slab):
            stop = min(start + plan.slab, num_samples)
            block = _read(field, start, stop)
            pieces = [slice(first, min(first + unit, stop)) for first in range(start, stop, unit)]
            written = [
                writers.submit(array.__setitem__, piece, block[piece.start - start : piece.stop - start])
                for piece in pieces
            ]
            moments = moments.merge(block_moments(block, weights))
            fingerprint.update(block)
            for future in written:
                future.result()
            if progress is not None:
                progress(stop, num_samples)
    return {"fingerprint": fingerprint.hexdigest(), "statistics": moments.statistics().to_json()}


def _read(field: xr.DataArray, start: int, stop: int) -> NDArray[Any]:
    """Read some samples of the source; what its reader finds damaged is said in one sentence."""
    try:
        return np.asarray(field.data[start:stop])
    except RuntimeError as error:  # what the C libraries of NetCDF and the compressors raise
        dim = field.dims[0]
        raise OSError(f"the source is damaged between {dim} {start} and {stop}: {error}") from error


def _write_skeleton(field: xr.DataArray, folder: Path, plan: ChunkPlan) -> None:
    """Write metadata and coordinates, describing the array of values without any of them."""
    name, grid = str(field.name), field.shape[1:]
    template = field.copy(data=dask.array.zeros(field.shape, dtype=field.dtype, chunks=(plan.slab, *grid)))
    template.encoding = {}
    encoding: dict[str, dict[str, Any]] = {
        name: {
            "chunks": (plan.chunk, *grid),
            "shards": None if plan.shard is None else (plan.shard, *grid),
            # Without a checksum, a damaged chunk is mostly decoded to other values.
            "compressors": (
                BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=field.dtype.itemsize),
                Crc32cCodec(),
            ),
        }
    }
    if np.issubdtype(field.dtype, np.floating):
        encoding[name]["_FillValue"] = float("nan")
    for dim in field.coords:
        encoding[str(dim)] = {"compressors": (ZstdCodec(), Crc32cCodec())}
    if "time" in field.coords:
        # Seconds hold every date of the sources exactly; microseconds where one has a fraction.
        encoding["time"] |= {"units": _time_units(field["time"]), "dtype": "int64"}
    dataset = template.to_dataset(name=name).assign_attrs(Conventions="CF-1.11")
    dataset.to_zarr(folder, mode="w", zarr_format=3, compute=False, consolidated=False, encoding=encoding)


def _time_units(time: xr.DataArray) -> str:
    """Choose the unit in which whole numbers write every date exactly."""
    values = time.values
    if values.dtype == object:
        whole = all(value.microsecond == 0 for value in values)
    else:
        whole = bool((values.astype("datetime64[s]") == values).all())
    return f"{'seconds' if whole else 'microseconds'} since 1970-01-01"
