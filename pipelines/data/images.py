"""Pictures as a kind of data: pixels in the plane [-1, 1]^2, rows downwards; and from any source to the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipelines.data.box import Box
from pipelines.data.domain import Scaling
from pipelines.data.image_sources import Source, pictures
from pipelines.data.items import Items
from pipelines.data.normalize import Statistics
from pipelines.data.staged import Fault
from pipelines.data.store import Store, check_target, write_store
from pipelines.data.writing import Progress

WHITE = 255.0
VARIABLE = "rgb"
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}


class Images(Items):
    """See `DataKind`."""

    def geometry(self, field: xr.DataArray) -> Box:
        """The pixels, (y, x)."""
        return Box((field.sizes["y"], field.sizes["x"]))

    def channels(self, field: xr.DataArray) -> int:
        """Three of a colour picture, one of a grey one."""
        return field.sizes["channel"]

    def scaling(self, numbers: Statistics, *, bounded: bool) -> Scaling:
        """Black is 0 and white 1, whatever the training pictures hold, so that 256 levels are the likelihood's own."""
        if bounded:
            return Scaling(offset=0.0, scale=WHITE)
        return Scaling(offset=numbers.mean, scale=numbers.std)


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What `ingest` made.

    Attributes:
        store: Opened.
        found: Pictures that the source has, or that were drawn from it.
        unreadable: Those that were left out, and why.
    """

    store: Store
    found: int
    unreadable: tuple[Fault, ...]


def ingest(
    source: Source,
    store: str | os.PathLike[str],
    *,
    size: int | None = None,
    number: int | None = None,
    grey: bool = False,
    seed: int = 0,
    license: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Ingested:
    """Write pictures to a new store: rgb(image, y, x, channel), uint8, 0..255.

    Args:
        source: A folder of pictures (with any folders in it), an .npz or .npy file, an HDF5 file of Shapes3D's layout,
            or "polymnist".
        store: The local folder to make. Beside it, STORE.partial holds the pictures that were read until it is made, so
            that a run that was stopped goes on.
        size: Side in pixels: the middle square of each picture is cut out and resampled. By default 64 for a folder,
            and the source's own height and width for all else.
        number: Take so many of the pictures, drawn at random; of "polymnist", make so many.
        grey: Keep the brightness only.
        seed: Of what is drawn.
        license: Under which the source is given.
        overwrite: Replace a store that is there.
        progress: Called with (pictures read, or, where they need no reading, written; pictures in all).

    Raises:
        FileNotFoundError: If there is no source.
        FileExistsError: If the store exists and is not to be replaced.
        ValueError: If the source holds no pictures, or they are of a kind that is not understood.
        OSError: If the source cannot be read or the store not be written.
    """
    check_target(store, overwrite=overwrite)
    if size is not None and size < 2:
        raise ValueError(f"--size is the side of a picture in pixels, at least 2, got {size}")
    if number is not None and number < 1:
        raise ValueError(f"--number is how many pictures to take, at least 1, got {number}")
    partial = Path(f"{os.fspath(store)}.partial")
    found = pictures(source, partial, size=size, number=number, grey=grey, seed=seed, progress=progress)
    made = write_store(
        as_field(found.values, found.names, found.labels),
        store,
        source=found.origin,
        license=license or found.license,
        overwrite=overwrite,
        domain="plane",
        progress=progress if found.folder is None else None,
    )
    found.clear()
    return Ingested(store=made, found=len(found.names) + len(found.faults), unreadable=found.faults)


def as_field(values: Any, names: Any, labels: Mapping[str, Any] | None = None) -> xr.DataArray:  # noqa: ANN401 - arrays
    """Pictures as the store has them.

    Args:
        values: [n, y, x, channel] uint8, NumPy or Dask.
        names: [n] texts or numbers.
        labels: Further coordinates along the pictures, [n] each: `category`, `split`.
    """
    box = Box(values.shape[1:3])
    y, x = box.axes
    coords = {
        "image": ("image", names, {"long_name": "picture"}),
        "y": ("y", y, {"long_name": "from the top to the bottom edge", "units": "1"}),
        "x": ("x", x, {"long_name": "from the left to the right edge", "units": "1"}),
        "channel": ("channel", np.array(CHANNELS[values.shape[3]], dtype=object)),
        **{name: ("image", along) for name, along in (labels or {}).items()},
    }
    attributes = {"units": "1", "long_name": "brightness, 0 black to 255 full"}
    return xr.DataArray(values, dims=("image", "y", "x", "channel"), coords=coords, name=VARIABLE, attrs=attributes)
