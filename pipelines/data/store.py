"""The canonical Zarr v3 store: one variable (sample, *grid), whole samples in a chunk, and what is known of it.

A store is written beside its final path and renamed when it is complete, so that a path either holds a whole store or
nothing new.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array
import xarray as xr
import zarr

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.chunks import ChunkPlan, block_samples
from pipelines.data.normalize import Statistics
from pipelines.data.remote import is_url, persistently, remote_options
from pipelines.data.sources import client_errors, public_name
from pipelines.data.stored import StoredArray
from pipelines.data.writing import Progress, write_values

Domain = Literal["sphere", "cube", "plane"]

SCHEMA_VERSION = 1
DIMS: Mapping[str, tuple[str, ...]] = {
    "sphere": ("time", "latitude", "longitude"),
    "cube": ("shape", "x", "y", "z"),
    "plane": ("image", "y", "x", "channel"),
}
_NO_STORE = "{!r} is not a store: expected a folder that `vamoh data` wrote ({})"
_ATTRIBUTES = ("schema_version", "domain", "variable", "units", "source", "license", "fingerprint", "statistics")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A canonical store, opened lazily.

    Attributes:
        path: a local path or a URL; what to ship to a worker, which opens it itself.
        dataset: the lazy data set, one Dask block a chunk, or for so many small chunks as hold 32 samples.
        stored: the values as they are stored, which the data set is a graph over.
        variable: the name of the values.
        domain: where the coordinates live.
        units: of the values.
        fingerprint: sha256 of the content, equal for equal values and coordinates whatever file they came in.
        statistics: of the values.
        license: under which the source is given.
        source: where the values come from.
        streaming: settings that `vamoh data tune` found best: `threads`, `prefetch`.
    """

    path: str
    dataset: xr.Dataset
    stored: StoredArray
    variable: str
    domain: Domain
    units: str
    fingerprint: str
    statistics: Statistics
    license: str
    source: str
    streaming: Mapping[str, int]

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
    plan: ChunkPlan | None = None,
    streaming: Mapping[str, int] | None = None,
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
        plan: how samples are grouped; None for what suits their number and size.
        streaming: settings to record for streams (`Store.streaming`).
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
            **({"streaming": dict(streaming)} if streaming else {}),
            **write_values(field, folder, plan, progress),
        }
        group = zarr.open_group(folder, mode="r+", use_consolidated=False)
        group.attrs.update(attributes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(folder)
    return open_store(path)


def record_streaming(path: str | os.PathLike[str], settings: Mapping[str, int]) -> None:
    """Record settings for streams in a local store, in one step: the old description stays until the new one is whole.

    Raises:
        OSError: if it cannot be written.
    """
    described = Path(path) / "zarr.json"
    tree = json.loads(described.read_text())
    tree["attributes"]["streaming"] = dict(settings)
    with written_beside(described, overwrite=True) as beside:
        beside.write_text(json.dumps(tree, indent=2))


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


def open_store(
    path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None, skip_corrupt: bool = False
) -> Store:
    """Open a store lazily and check that it is one.

    Args:
        path: a local folder or a URL of any fsspec protocol.
        storage_options: for fsspec.
        skip_corrupt: read the samples of damaged chunks as unobserved, wherever they are read, instead of failing.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: if it is no store, of another schema version, or damaged.
        OSError: if it cannot be reached.
    """
    text = os.fspath(path)
    if "://" not in text and not os.path.lexists(path):
        raise FileNotFoundError(f"there is no store at {text!r}: make one with `vamoh data climate SOURCE {text}`")
    try:
        options = remote_options(text, storage_options)
        dataset = persistently(
            lambda: xr.open_zarr(text, consolidated=True, chunks=None, storage_options=options), text
        )
    except client_errors() as error:
        if is_url(text) and not isinstance(error, FileNotFoundError):
            raise OSError(f"{public_name(text)!r} cannot be reached: {' '.join(str(error).split())[:300]}") from error
        raise ValueError(_NO_STORE.format(text, error)) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(_NO_STORE.format(text, error)) from error
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
    return _checked(text, dataset, skip_corrupt=skip_corrupt, options=options)


def _checked(text: str, dataset: xr.Dataset, *, skip_corrupt: bool, options: Mapping[str, Any] | None = None) -> Store:
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
    statistics = Statistics.from_json(attributes["statistics"])
    stored = StoredArray(field, text, complete=statistics.missing == 0, skip_corrupt=skip_corrupt, options=options)
    samples = block_samples(stored.chunk, field.dtype.itemsize * math.prod(field.shape[1:]))
    blocks = dask.array.from_array(stored, chunks=(samples, *field.shape[1:]), name=stored.graph)
    return Store(
        path=text,
        dataset=dataset.assign({name: field.copy(data=blocks)}),
        stored=stored,
        variable=name,
        domain=domain,
        units=attributes["units"],
        fingerprint=attributes["fingerprint"],
        statistics=statistics,
        license=attributes["license"],
        source=attributes["source"],
        streaming={key: int(value) for key, value in attributes.get("streaming", {}).items()},
    )
