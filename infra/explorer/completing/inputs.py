"""A sample of the store with a hole in it: what the model is given, and the file that `vamoh complete` reads."""

from __future__ import annotations

import io

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.domain import kind_of
from pipelines.data.store import Store


def labels_of(store: Store) -> dict[str, int]:
    """How the store's samples are called, and their numbers."""
    kind, field = kind_of(store.domain), store.field
    names = field[field.dims[0]].values if field.dims[0] in field.coords else np.arange(field.shape[0])
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        text = str(kind.label(name))
        found[text if text not in found else f"{text} ({number})"] = number
    return found


def sample_of(store: Store, number: int) -> xr.DataArray:
    """One sample (1, *grid), float32."""
    field = store.field.isel({store.field.dims[0]: [number]}).load()
    return field.astype(np.float32).assign_attrs(field.attrs)


def holed(sample: xr.DataArray, missing: NDArray[np.bool_]) -> xr.DataArray:
    """The sample, NaN where it is missing [*grid].

    Raises:
        ValueError: If nothing is missing, or everything is.
    """
    if not missing.any():
        raise ValueError("nothing is missing yet: draw a hole, or choose a part that is to be completed")
    if missing.all():
        raise ValueError("nothing is left to complete it from: make the hole smaller")
    return punched(sample, missing)


def punched(sample: xr.DataArray, missing: NDArray[np.bool_]) -> xr.DataArray:
    """The same without asking whether there is something to do."""
    gone = missing[..., None] if "channel" in sample.dims else missing
    return sample.copy(data=np.where(gone, np.float32(np.nan), sample.values))


def file_name(domain: str) -> str:
    """Of what `vamoh complete` is given."""
    return "gaps.nc" if domain == "sphere" else "gaps.npz"


def as_file(given: xr.DataArray, domain: str) -> io.BytesIO:
    """What that file holds: NetCDF with NaN of a field; values and what was `observed` of shapes and pictures."""
    file = io.BytesIO()
    if domain == "sphere":
        field = given.drop_vars([name for name in given.coords if name not in given.dims])
        file.write(bytes(field.rename("t2m").to_netcdf(engine="h5netcdf")))
    else:
        seen = np.isfinite(given.values)
        values = np.nan_to_num(given.values).round().astype(np.uint8)
        name = "occupancy" if domain == "cube" else "rgb"
        np.savez_compressed(file, **{name: values, "observed": seen[..., 0] if domain == "plane" else seen})
    file.seek(0)
    return file
