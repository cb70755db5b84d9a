"""The values as they are stored, read so that nothing damaged goes unnoticed: what lies below every Dask graph.

What is read from a URL is asked for again before that counts as a failure (`remote`). A failure names the chunk and the
samples that it holds. A chunk whose bytes are not what was written (its checksum says so, or it is not there) is
damage, which `skipping` reads as NaN and notes; a server that does not answer is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from pipelines.data.remote import PAUSES_S, is_url, persistently
from pipelines.data.sources import client_errors, public_name
from pipelines.data.times import label

# What zarr's codecs raise: the checksum's, and those of the compressors.
_DAMAGE = (ValueError, RuntimeError)

_skipped: ContextVar[dict[int, str] | None] = ContextVar("skipped", default=None)


class ChunkError(OSError):
    """A chunk that cannot be read, named, with the samples that it holds."""


@contextmanager
def skipping() -> Iterator[dict[int, str]]:
    """In this thread, read damaged chunks as NaN; gives what was found, a sentence by the chunk's number."""
    found: dict[int, str] = {}
    token = _skipped.set(found)
    try:
        yield found
    finally:
        _skipped.reset(token)


class StoredArray:
    """A store's values [sample, *grid], as an array for Dask to read from.

    Args:
        field: The values, lazily and without Dask, as xarray opened them.
        path: The store's.
        complete: No value is missing: NaN is what zarr gives for a chunk that is not there, and zero where values are
            whole numbers.
        skip_corrupt: Read damaged chunks as NaN wherever this is read, not only within `skipping`.
        options: For fsspec.

    Attributes:
        chunk: Samples of a chunk.
        shard: Samples of a shard, or None.
        graph: The name of the Dask array that is nothing but these values.
        index: Of the samples, where they have coordinates.
    """

    def __init__(
        self,
        field: xr.DataArray,
        path: str,
        *,
        complete: bool,
        skip_corrupt: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.shape, self.dtype, self.ndim = field.shape, field.dtype, field.ndim
        self.chunk = int(field.encoding["chunks"][0])
        self.index: pd.Index | None = field.indexes.get(field.dims[0])
        self._times = None if self.index is None else field[field.dims[0]].values
        self._values, self._name = field.variable, str(field.name)
        self.skip_corrupt = skip_corrupt
        self.graph = f"stored-{uuid4().hex}"
        shards = field.encoding.get("shards")
        self.shard = None if shards is None else int(shards[0])
        self._path, self._complete, self._options = path, complete, options

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - an index in NumPy's sense
        """Read a part.

        Raises:
            ChunkError: If a chunk of it cannot be read, or is damaged and is not to be skipped.
        """
        try:
            values = self._read(key)
        except _DAMAGE:
            return self._chunk_by_chunk(key)
        return self._chunk_by_chunk(key) if self._lacks(values, self._chunks(key)) else values

    def key(self, chunk: int) -> str:
        """A chunk's file in the store; where it shares one, its number in it."""
        beside = (self.shard or self.chunk) // self.chunk
        return self._file(chunk) if beside == 1 else f"{chunk % beside} of shard {self._file(chunk)}"

    def _file(self, chunk: int) -> str:
        beside = (self.shard or self.chunk) // self.chunk
        return f"{self._name}/c/{chunk // beside}" + "/0" * (self.ndim - 1)

    def _read(self, key: Any) -> NDArray[Any]:  # noqa: ANN401
        try:
            return persistently(lambda: self._values[key].values, self._path, also=_DAMAGE)
        except client_errors() as error:
            raise ChunkError(self._unreachable(self._chunks(key), error)) from error

    def _lacks(self, values: NDArray[Any], chunks: NDArray[np.int64]) -> bool:
        """Whether a chunk was not there: by the first value of each sample, or, of whole numbers, by its file."""
        if not self._complete or not values.size:
            return False
        if self.dtype.kind == "f":
            return bool(np.isnan(values.reshape(len(values), -1)[:, 0] if values.ndim else values).any())
        files, root = url_to_fs(self._path, **(self._options or {}))
        return not all(files.exists(f"{root}/{name}") for name in {self._file(int(chunk)) for chunk in chunks})

    def _chunks(self, key: Any) -> NDArray[np.int64]:  # noqa: ANN401
        """The chunks that a part lies in."""
        first = key[0] if isinstance(key, tuple) else key
        return np.unique(np.atleast_1d(np.arange(self.shape[0])[first]) // self.chunk)

    def _chunk_by_chunk(self, key: Any) -> NDArray[Any]:  # noqa: ANN401
        """Read a part of which something is damaged, in memory of the chunks that it lies in."""
        chunks = self._chunks(key)
        first, found = int(chunks[0]) * self.chunk, _skipped.get()
        last = min((int(chunks[-1]) + 1) * self.chunk, self.shape[0])
        values = np.full((last - first, *self.shape[1:]), np.nan if self.dtype.kind == "f" else 0, self.dtype)
        for chunk in chunks:
            part = slice(chunk * self.chunk, min((chunk + 1) * self.chunk, self.shape[0]))
            try:
                read = self._read(part)
                reason = "its file is not there" if self._lacks(read, np.array([chunk])) else None
            except _DAMAGE as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
            if reason is None:
                values[part.start - first : part.stop - first] = read
                continue
            sentence = self._sentence(int(chunk), f"is damaged ({reason})")
            if found is None and not self.skip_corrupt:
                raise ChunkError(f"{sentence}: make the store again, or skip its samples with --skip-corrupt")
            if found is not None:
                found[int(chunk)] = sentence
        places = np.arange(self.shape[0])[key[0] if isinstance(key, tuple) else key] - first
        rest = key[1:] if isinstance(key, tuple) else ()
        return values[places][(..., *rest)] if np.ndim(places) == 0 else values[places][(slice(None), *rest)]

    def _unreachable(self, chunks: NDArray[np.int64], error: BaseException) -> str:
        """Name the first of some chunks that cannot be read."""
        failed = int(chunks[0])
        errors: tuple[type[BaseException], ...] = (*client_errors(), *_DAMAGE)
        for chunk in chunks if len(chunks) > 1 else ():
            try:
                self._values[chunk * self.chunk : (chunk + 1) * self.chunk].load()
            except errors as again:
                failed, error = int(chunk), again
                break
        attempts = f" after {len(PAUSES_S) + 1} attempts" if is_url(self._path) else ""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return self._sentence(failed, f"cannot be read{attempts} ({reason})")

    def _sentence(self, chunk: int, what: str) -> str:
        first, last = chunk * self.chunk, min((chunk + 1) * self.chunk, self.shape[0]) - 1
        dated = "" if self._times is None else f" ({_called(self._times[first])} to {_called(self._times[last])})"
        return (
            f"chunk {self.key(chunk)} of {public_name(self._path)!r} {what}: it holds samples {first} to {last}{dated}"
        )


def _called(sample: Any) -> str:  # noqa: ANN401 - a date, or a name
    """A sample of a store by its date, or by its name where it has one."""
    return label(sample) if isinstance(sample, np.datetime64 | cftime.datetime) else str(sample)
