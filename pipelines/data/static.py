"""Fields that do not change and are known everywhere: orography, the share of land. A model is told them everywhere.

What interpolation between coarse points misses of such a field, times a slope (K a unit: a lapse rate) that is fitted
to the training fields, is added to the interpolated temperature, so that it holds between the points of the training
grid, where nothing else was learned; and the generators and the gate are told its value. A checkpoint keeps the fields
themselves: nothing has to be given again where the model is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data import axes, grid
from pipelines.data.sources import open_datasets
from pipelines.data.sphere import Lattice

Array = NDArray[np.float64]
MARGIN_CELLS = 2.0  # of the training grid, that are kept around it
MAX_VALUES = 2**23


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticField:
    """One field.

    Attributes:
        name, units: As its file says, units "1" where it says none.
        fingerprint: Sixteen hexadecimal digits of its values and their grid, as they were cut.
        lattice: Its own grid.
        values: [n m] float32 in its units.
        offset, scale: Of its value in the training region, for the model.
        slope: Of temperature against it, kelvin a unit.
    """

    name: str
    units: str
    fingerprint: str
    lattice: Lattice
    values: NDArray[np.float32]
    offset: float = 0.0
    scale: float = 1.0
    slope: float = 0.0

    def at(self, places: tuple[Array, Array]) -> Array:
        """Its values [N] at latitudes and longitudes."""
        return self.lattice.interpolate(self.values[None].astype(np.float64), *places)[0]

    def feature(self, places: tuple[Array, Array]) -> NDArray[np.float32]:
        """What the generators are told at places, [N]."""
        return ((self.at(places) - self.offset) / self.scale).astype(np.float32)

    def missed(self, places: tuple[Array, Array], coarse: Lattice) -> Array:
        """What interpolation between the points of a coarse grid misses of it [N], in its units."""
        return self.at(places) - coarse.interpolate(self.at(coarse.points)[None], *places)[0]

    def scaled(self, trained: Lattice) -> StaticField:
        """With the scales of a training grid.

        Raises:
            ValueError: If the field says nothing there.
        """
        here = self.at(trained.points)
        if not here.std() > 0:
            raise ValueError(f"the static field {self.name!r} is the same everywhere in the store's region")
        return replace(self, offset=float(here.mean()), scale=float(here.std()))

    def to_json(self) -> dict[str, Any]:
        """All but the values."""
        about = {key: getattr(self, key) for key in ("name", "units", "fingerprint", "offset", "scale", "slope")}
        axes_ = {"latitude": self.lattice.latitude.tolist(), "longitude": self.lattice.longitude.tolist()}
        return about | axes_ | {"closed": self.lattice.periodic}

    @classmethod
    def from_json(cls, tree: dict[str, Any], values: NDArray[np.float32]) -> StaticField:
        """Read what `to_json` wrote."""
        where = {axis: np.asarray(tree[axis], dtype=np.float64) for axis in ("latitude", "longitude")}
        rest = {key: value for key, value in tree.items() if key not in ("latitude", "longitude", "closed")}
        return cls(lattice=Lattice(**where, closed=tree["closed"]), values=values, **rest)


def lapse(statics: Sequence[StaticField], places: tuple[Array, Array], coarse: Lattice) -> Array:
    """What is added to what is interpolated between the points of a coarse grid [N], kelvin."""
    return np.sum([each.slope * each.missed(places, coarse) for each in statics], axis=0)


def with_slopes(
    statics: Sequence[StaticField], residual: Array, trained: Lattice, coarse: Lattice
) -> tuple[StaticField, ...]:
    """With the slopes that fit what interpolation misses of the training fields best, all fields at once.

    Args:
        statics: The fields.
        residual: [n m] kelvin, truth minus interpolation, the mean over some training fields; NaN where unknown.
        trained: The training grid.
        coarse: What was interpolated between.
    """
    missed = np.stack([each.missed(trained.points, coarse) for each in statics], axis=-1)
    known = np.isfinite(residual)
    weight = np.sqrt(trained.area[known])
    slopes, *_ = np.linalg.lstsq(missed[known] * weight[:, None], residual[known] * weight, rcond=None)
    return tuple(replace(each, slope=float(slope)) for each, slope in zip(statics, slopes, strict=True))


def open_statics(sources: Sequence[str], trained: Lattice) -> tuple[StaticField, ...]:
    """Every field on a grid of some files, cut to the training region.

    Args:
        sources: Files, or URLs.
        trained: The training grid.

    Raises:
        ValueError: If there is none, two have one name, or one is not known all over the region.
    """
    found: dict[str, StaticField] = {}
    for source in sources:
        before = len(found)
        for place, dataset in open_datasets(source, variable=None):
            for name, field in dataset.data_vars.items():
                if not _is_static(field):
                    continue
                if str(name) in found:
                    raise ValueError(f"two static fields are named {name!r}: rename one of them")
                found[str(name)] = _cut(field, trained, place).scaled(trained)
        if len(found) == before:
            raise ValueError(f"{source} holds no static field: expected a variable of latitude and longitude alone")
    return tuple(found.values())


def _is_static(field: xr.DataArray) -> bool:
    try:
        axes.horizontal_axes(field)
    except ValueError:
        return False
    return sum(size > 1 for size in field.sizes.values()) == 2 and bool(np.issubdtype(field.dtype, np.number))


def _cut(field: xr.DataArray, trained: Lattice, place: str) -> StaticField:
    """The part around the training region, north to south and west to east."""
    horizontal = axes.horizontal_axes(field)
    names = (horizontal.latitude, horizontal.longitude)
    latitude = grid.latitude_axis(field[names[0]].values, names[0])
    longitude = grid.longitude_axis(field[names[1]].values, names[1])
    margin = MARGIN_CELLS * float(np.rad2deg(trained.spacing_rad))
    north, south = trained.latitude[0], trained.latitude[-1]
    latitude = latitude.take(_around(latitude.values_deg, south, north, margin))
    turned = longitude.values_deg
    whole = grid.goes_round(turned)
    if not trained.periodic:
        west, east = trained.longitude[0], trained.longitude[-1]
        turned = west + np.mod(turned - west + margin, 360.0) - margin
        order = np.argsort(turned)
        kept = order[_around(turned[order], west, east, margin)]
        longitude, turned = longitude.take(kept), turned[kept]
    own = Lattice(latitude=latitude.values_deg, longitude=turned, closed=trained.periodic and whole)
    values = field.squeeze().transpose(*(field[name].dims[0] for name in names)).values
    values = values[np.ix_(latitude.positions, longitude.positions)].astype(np.float32)
    _check_covers(own, trained, str(field.name), place, values)
    digest = hashlib.sha256(values.tobytes() + own.latitude.tobytes() + own.longitude.tobytes())
    units = str(field.attrs.get("units", "1"))
    return StaticField(
        name=str(field.name), units=units, fingerprint=digest.hexdigest()[:16], lattice=own, values=values.ravel()
    )


def _around(axis: Array, low: float, high: float, margin: float) -> NDArray[np.int64]:
    return np.flatnonzero((axis >= low - margin - 1e-6) & (axis <= high + margin + 1e-6))


def _check_covers(own: Lattice, trained: Lattice, name: str, place: str, values: NDArray[np.float32]) -> None:
    if min(own.shape) < 2:
        raise ValueError(f"the static field {name!r} of {place} does not cover the store's region")
    step = max(np.abs(np.diff(axis)).max() for axis in (own.latitude, own.longitude))
    short = max(trained.latitude[0] - own.latitude[0], own.latitude[-1] - trained.latitude[-1])
    if not trained.periodic:
        short = max(short, own.longitude[0] - trained.longitude[0], trained.longitude[-1] - own.longitude[-1])
    elif not own.periodic:
        short = np.inf
    if short > step + 1e-6:
        raise ValueError(f"the static field {name!r} of {place} does not cover the store's region")
    if not np.isfinite(values).all():
        raise ValueError(
            f"the static field {name!r} of {place} has no value at {np.count_nonzero(~np.isfinite(values))} places of "
            "the store's region: fill them (orography: 0 over the sea)"
        )
    if values.size > MAX_VALUES:
        raise ValueError(
            f"the static field {name!r} of {place} has {values.size} values in the store's region, at most "
            f"{MAX_VALUES} are kept in a model: give it on a coarser grid"
        )
