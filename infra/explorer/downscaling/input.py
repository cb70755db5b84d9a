"""The coarse fields that are downscaled: every so many-th point of a store's, or those of a dropped file.

What a visitor drops is data and nothing else: it is written under a name of our own, must be NetCDF by its first
bytes, must hold all that it refers to (HDF5 can point to any file of the server), and is then opened as `vamoh
downscale` opens it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from infra.explorer.security import MAX_UPLOAD_BYTES
from pipelines.data.climate import open_field
from pipelines.data.coarsening import coarsened
from pipelines.data.conventions import Conventions
from pipelines.data.sources import open_datasets
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.training.plan import Plan

Floats = NDArray[np.floating]
MAX_VALUES = 2**26  # of a dropped file, which may be far smaller than what it holds
_OWN = Conventions(
    time="time", time_is_axis=True, latitude="latitude", longitude="longitude",
    northwards=False, longitude_range="either", wrapped=False, units="K",
)  # fmt: skip
_MAGIC = (b"\x89HDF", b"CDF\x01", b"CDF\x02", b"CDF\x05")


class Given(Protocol):
    """Coarse fields over time."""

    @property
    def name(self) -> str:
        """Of the variable."""

    @property
    def times(self) -> NDArray[Any]:
        """[T]."""

    @property
    def lattice(self) -> Lattice:
        """Of the coarse fields."""

    @property
    def input(self) -> str:
        """The file's name in the command that does the same."""

    @property
    def conventions(self) -> Conventions:
        """How its owner writes it."""

    @property
    def cell_methods(self) -> str:
        """What the values are of their cells, by CF; empty where nothing is said."""

    def coarse(self, times: NDArray[np.int64]) -> Floats:
        """Fields [T', n, m] in kelvin at these positions in time."""

    def truth(self, times: NDArray[np.int64]) -> tuple[Floats, Lattice] | None:
        """What the coarse fields were made from, [T', N, M]; None where it is not known."""


@dataclass(frozen=True, eq=False)
class FromStore:
    """Coarse fields made of a store's.

    Args:
        store: Of temperatures on the sphere.
        every: Keep every so many-th point, or the means around them.
        means: Whether they are means.
    """

    store: Store
    every: int
    means: bool = False

    def __post_init__(self) -> None:
        rows, columns = self.fine.shape
        if min(-(-rows // self.every), -(-columns // self.every)) < 2:
            raise ValueError(
                f"every {self.every}th point of {rows} x {columns} leaves no grid: choose a smaller number"
            )

    @property
    def name(self) -> str:
        """See `Given`."""
        return self.store.variable

    @property
    def times(self) -> NDArray[Any]:
        """See `Given`."""
        return np.asarray(self.store.field["time"].values)

    @property
    def fine(self) -> Lattice:
        """The store's own grid."""
        return Lattice.of(self.store.field)

    @property
    def lattice(self) -> Lattice:
        """See `Given`."""
        return self._coarsened(np.zeros((1, *self.fine.shape)))[1]

    @property
    def input(self) -> str:
        """See `Given`."""
        return "coarse.nc"

    @property
    def conventions(self) -> Conventions:
        """See `Given`: the store's own."""
        return _OWN

    @property
    def cell_methods(self) -> str:
        """See `Given`."""
        return "area: mean" if self.means else ""

    def coarse(self, times: NDArray[np.int64]) -> Floats:
        """See `Given`."""
        return self._coarsened(self.store.field[times].values)[0]

    def truth(self, times: NDArray[np.int64]) -> tuple[Floats, Lattice] | None:
        """See `Given`."""
        return None if self.every == 1 else (self.store.field[times].values, self.fine)

    def _coarsened(self, fields: Floats) -> tuple[Floats, Lattice]:
        if self.every == 1:
            return fields, self.fine
        return coarsened(fields, self.fine, (self.every, self.every), np.random.default_rng(0), means=self.means)


@dataclass(frozen=True, eq=False)
class FromFile:
    """Coarse fields that a visitor has dropped, in memory.

    Args:
        field: (time, latitude, longitude) kelvin, canonical, with its conventions.
        input: The file's own name, for the command only.
    """

    field: xr.DataArray
    input: str

    @property
    def name(self) -> str:
        """See `Given`."""
        return str(self.field.name)

    @property
    def times(self) -> NDArray[Any]:
        """See `Given`."""
        return np.asarray(self.field["time"].values)

    @property
    def lattice(self) -> Lattice:
        """See `Given`."""
        return Lattice.of(self.field)

    @property
    def conventions(self) -> Conventions:
        """See `Given`."""
        return Conventions.from_json(self.field.attrs["conventions"])

    @property
    def cell_methods(self) -> str:
        """See `Given`."""
        return str(self.field.attrs["cell_methods"])

    def coarse(self, times: NDArray[np.int64]) -> Floats:
        """See `Given`."""
        return np.asarray(self.field.values[times])

    def truth(self, times: NDArray[np.int64]) -> tuple[Floats, Lattice] | None:
        """See `Given`: nothing is known of it."""
        return None


def usual_every(store: Store, plan: Plan) -> int:
    """Every which point of a store gives a model's usual input."""
    assert plan.config.context is not None
    low, high = plan.config.context.factors
    own = Lattice.of(store.field).spacing_rad
    return max(1, round((low + high) // 2 * plan.lattice.spacing_rad / own))


def from_upload(
    content: bytes, name: str, *, variable: str = "", units: str = "", step: Callable[[int, int], None] | None = None
) -> FromFile:
    """Read a dropped file.

    Args:
        content: Of the file.
        name: What the visitor calls it; shown, and used for nothing else.
        variable, units: Where the file does not say.
        step: Told of the progress.

    Raises:
        ValueError: If it is too large, no NetCDF, points to other files, or holds no temperature on a grid.
    """
    shown = Path(name.replace("\\", "/")).name[:80] or "the file"
    if len(content) > MAX_UPLOAD_BYTES:
        raise ValueError(
            f"{shown} has {len(content) / 1024**2:.0f} MB, the explorer takes {MAX_UPLOAD_BYTES / 1024**2:.0f}: "
            "cut it to a region or to fewer times, or use vamoh downscale"
        )
    if not content.startswith(_MAGIC):
        raise ValueError(f"{shown} is no NetCDF file: expected a temperature field on latitude and longitude (.nc)")
    with tempfile.TemporaryDirectory(prefix="vamoh-dropped-") as folder:
        path = Path(folder) / "dropped.nc"
        path.write_bytes(content)
        try:
            _refuse_references(path, shown)
            field = open_field(str(path), variable or None, units or None)
            if field.size > MAX_VALUES:
                raise ValueError(
                    f"{shown} holds {field.size / 1e6:.0f} million values, the explorer takes {MAX_VALUES / 1e6:.0f}: "
                    "cut it to a region or to fewer times, or use vamoh downscale"
                )
            if step is not None:
                step(1, 2)
            methods = [
                str(dataset[field.name].attrs.get("cell_methods", ""))
                for _, dataset in open_datasets(str(path), variable=str(field.name))
                if field.name in dataset
            ]
            return FromFile(field.load().assign_attrs(cell_methods="".join(methods)), shown)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(repr(str(path)), shown).replace(str(path), shown)) from error


def _refuse_references(path: Path, shown: str) -> None:
    """Refuse HDF5 whose data lie in other files: it would show a visitor what the server can read."""
    if not path.read_bytes()[:4] == _MAGIC[0]:
        return

    def look(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{shown} points to other files, which are not opened: save it with its data inside")
            if not isinstance(link, h5py.HardLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                look(item)
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise ValueError(f"{shown} points to other files, which are not opened: save it with its data inside")

    try:
        with h5py.File(path, "r") as file:
            look(file)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{shown} cannot be read: it is damaged, or cut off") from error
