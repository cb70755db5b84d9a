"""The canonical Zarr v3 store: one variable (sample, *grid), whole samples in a chunk, and what is known of it.

A store is written beside its final path and renamed when it is complete, so that a path either holds a whole store or
nothing new.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr
import zarr

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.normalize import Statistics
from pipelines.data.writing import Progress, write_values

Domain = Literal["sphere", "cube", "plane"]

SCHEMA_VERSION = 1
DIMS: Mapping[str, tuple[str, ...]] = {
    "sphere": ("time", "latitude", "longitude"),
    "cube": ("shape", "x", "y", "z"),
    "plane": ("image", "y", "x", "channel"),
}
_ATTRIBUTES = ("schema_version", "domain", "variable", "units", "source", "license", "fingerprint", "statistics")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A canonical store, opened lazily.

    Attributes:
        path: a local path or a URL; what to ship to a worker, which opens it itself.
        dataset: the lazy data set, one Dask block a chunk.
        variable: the name of the values.
        domain: where the coordinates live.
        units: of the values.
        fingerprint: sha256 of the content, equal for equal values and coordinates whatever file they came in.
        statistics: of the values.
        license: under which the source is given.
        source: where the values come from.
    """

    path: str
    dataset: xr.Dataset
    variable: str
    domain: Domain
    units: str
    fingerprint: str
    statistics: Statistics
    license: str
    source: str

    @property
    def field(self) -> xr.DataArray:
        """The values, (sample, *grid)."""
        return self.dataset[self.variable]


def write_store(
    field: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    source: str,
    license: str,
    overwrite: bool = False,
    domain: Domain = "sphere",
    progress: Progress | None = None,
) -> Store:
    """Write a field to a new store, in one pass and in bounded memory.

    Args:
        field: (sample, *grid) with coordinates and the attribute `units`, Dask or NumPy; NaN where unobserved.
        path: a local folder that does not exist yet.
        source: where the values come from.
        license: under which they are given.
        overwrite: replace a store that is there; anything else is left alone.
        domain: where the coordinates live; fixes the names of the dimensions.
        progress: called with (samples written, samples in all) after each slab.

    Returns:
        The store, opened.

    Raises:
        FileExistsError: if the path exists and is not to be, or must not be, replaced.
        ValueError: if the field does not have the domain's dimensions, or its values are refused when they are read.
        OSError: if it cannot be written; then nothing of it is kept.
    """
    check_target(path, overwrite=overwrite)
    if field.dims != DIMS[domain]:
        raise ValueError(f"a store on the {domain} has dimensions {DIMS[domain]}, not {field.dims}")
    if "units" not in field.attrs:
        raise ValueError(f"variable {field.name!r} has no units: a store says what its values are in")
    with written_beside(path, overwrite=overwrite) as folder:
        attributes = {
            "schema_version": SCHEMA_VERSION,
            "domain": domain,
            "variable": str(field.name),
            "units": field.attrs["units"],
            "source": source,
            "license": license,
            **write_values(field, folder, progress),
        }
        group = zarr.open_group(folder, mode="r+", use_consolidated=False)
        group.attrs.update(attributes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(folder)
    return open_store(path)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a path that a store cannot be written to, before any work is done.

    Raises:
        FileExistsError: if it exists, or is no Zarr store and so is not replaced either.
        ValueError: if it is a URL: a store appears by a rename, which object stores do not have.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(f"a store is written to a local folder, not to {text!r}: write it here and copy it there")
    refuse_existing(path, overwrite=overwrite)
    if os.path.lexists(path) and not (Path(path) / "zarr.json").is_file():
        raise FileExistsError(f"{text!r} exists and is no store: --overwrite replaces stores only")


def open_store(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Store:
    """Open a store lazily and check that it is one.

    Args:
        path: a local folder or a URL of any fsspec protocol.
        storage_options: for fsspec.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: if it is no store, of another schema version, or damaged.
    """
    text = os.fspath(path)
    if "://" not in text and not os.path.lexists(path):
        raise FileNotFoundError(f"there is no store at {text!r}: make one with `vamoh data climate SOURCE {text}`")
    try:
        options = dict(storage_options or {}) or None
        dataset = xr.open_zarr(text, consolidated=True, chunks=None, storage_options=options)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{text!r} is not a store: expected a folder that `vamoh data` wrote ({error})") from error
    attributes = dataset.attrs
    version = attributes.get("schema_version")
    if version is None:
        raise ValueError(f"{text!r} is Zarr but not a store: make one from it with `vamoh data climate {text} STORE`")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{text!r} has schema version {version}, this program reads {SCHEMA_VERSION}: make the store again from "
            f"{attributes.get('source', 'its source')!r}"
        )
    missing = [key for key in _ATTRIBUTES if key not in attributes]
    if missing or attributes["variable"] not in dataset or attributes["domain"] not in DIMS:
        what = f"the attribute {missing[0]!r}" if missing else "its variable, or knows no such domain"
        raise ValueError(f"the store {text!r} is damaged: it lacks {what}; make it again")
    return _checked(text, dataset)


def _checked(text: str, dataset: xr.Dataset) -> Store:
    """Build the store's description from its attributes, comparing them with the array itself."""
    attributes = dataset.attrs
    name, domain = attributes["variable"], attributes["domain"]
    field = dataset[name]
    if field.dims != DIMS[domain]:
        raise ValueError(f"the store {text!r} is damaged: {name!r} has dimensions {field.dims}, not {DIMS[domain]}")
    if field.attrs.get("units") != attributes["units"]:
        raise ValueError(
            f"the store {text!r} is damaged: its values are in {field.attrs.get('units')!r}, its description says "
            f"{attributes['units']!r}"
        )
    samples = field.encoding["chunks"][0]
    return Store(
        path=text,
        dataset=dataset.chunk({dim: samples if dim == field.dims[0] else -1 for dim in field.dims}),
        variable=name,
        domain=domain,
        units=attributes["units"],
        fingerprint=attributes["fingerprint"],
        statistics=Statistics.from_json(attributes["statistics"]),
        license=attributes["license"],
        source=attributes["source"],
    )
