"""A fingerprint of content: equal for equal values, coordinates and units, whatever file, path or chunks they came in.

Every sample is hashed by itself and the hashes are hashed in order, so that the blocks in which a field is read do not
matter. Dates are hashed as microseconds in their calendar and every missing value as one bit pattern.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

_EPOCH = "microseconds since 1970-01-01"


class Fingerprint:
    """A running sha256 over a field's coordinates and its samples in order."""

    def __init__(self, field: xr.DataArray, units: str) -> None:
        """Start with everything but the values.

        Args:
            field: (sample, *grid); its values are not read.
            units: of the values.
        """
        head = {"dims": field.dims, "shape": field.shape, "dtype": str(field.dtype), "units": units}
        self._hash = hashlib.sha256(json.dumps(head).encode())
        along = [name for name in field.coords if name not in field.dims and field[name].dims == field.dims[:1]]
        for name in [*field.dims, *sorted(along, key=str)]:  # what is told of samples (their split) counts too
            if name in field.coords:
                self._hash.update(f"{name}".encode() + _coordinate_bytes(field[name].values))

    def update(self, block: NDArray[Any]) -> None:
        """Add the next samples.

        Args:
            block: (sample, *grid), NumPy.
        """
        little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
        if np.issubdtype(little.dtype, np.floating):
            missing = np.isnan(little)
            if missing.any():
                little = np.where(missing, np.array(np.nan, little.dtype), little)
        for sample in little:
            self._hash.update(hashlib.sha256(sample.data).digest())

    def hexdigest(self) -> str:
        """Give the fingerprint of what was added."""
        return self._hash.hexdigest()


def _coordinate_bytes(values: NDArray[Any]) -> bytes:
    """Write coordinates in one form: float64, or microseconds and the calendar, or text."""
    if np.issubdtype(values.dtype, np.datetime64):
        return b"proleptic_gregorian" + values.astype("datetime64[us]").astype("<i8").tobytes()
    if values.size and isinstance(values.ravel()[0], cftime.datetime):
        numbers = cftime.date2num(values, _EPOCH, calendar=values[0].calendar)
        return str(values[0].calendar).encode() + np.asarray(numbers, dtype="<i8").tobytes()
    if np.issubdtype(values.dtype, np.number):
        return values.astype("<f8").tobytes()
    return json.dumps([str(value) for value in values]).encode()
