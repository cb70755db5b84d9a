"""The caller's own way of writing a field, remembered on the way in and given back on the way out.

Inside, every field is (time, latitude, longitude), north to south, west to east. Who gave `lat` from south to north and
longitudes from -180 to 180 gets the same back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.grid import goes_round

LongitudeRange = Literal["0..360", "-180..180", "either"]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How the caller writes a field.

    Attributes:
        time: the caller's name for time; None where the field had none.
        time_is_axis: False for a single time that is no dimension.
        latitude: the caller's name for latitude.
        longitude: the caller's name for longitude.
        northwards: latitudes ascend.
        longitude_range: the range that the caller's longitudes are in, where they tell it.
        wrapped: the caller's longitudes jump back at the seam (350, 355, 0, 5).
        units: the units that the caller's values came in.
    """

    time: str | None
    time_is_axis: bool
    latitude: str
    longitude: str
    northwards: bool
    longitude_range: LongitudeRange
    wrapped: bool
    units: str

    def to_json(self) -> str:
        """Write as JSON, for an attribute."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Conventions:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def longitude_range(longitude_deg: NDArray[np.float64]) -> LongitudeRange:
    """Tell which range longitudes are in; those within 0..180 fit either.

    >>> longitude_range(np.array([-10.0, 2.0]))
    '-180..180'
    """
    if longitude_deg.min() < 0.0:
        return "-180..180"
    return "0..360" if longitude_deg.max() > 180.0 else "either"


def apply_conventions(dataset: xr.Dataset, conventions: Conventions | str) -> xr.Dataset:
    """Write a canonical data set the way the caller writes fields; stays lazy.

    Args:
        dataset: with `latitude` and `longitude` as dimensions, or as coordinates of a list of points, and `time`.
        conventions: what `open_field` left in `.attrs["conventions"]`.

    Returns:
        The same values under the caller's names, latitude order, longitude range and form of time.
    """
    own = Conventions.from_json(conventions) if isinstance(conventions, str) else conventions
    if "latitude" in dataset.dims and own.northwards:
        dataset = dataset.isel(latitude=slice(None, None, -1))
    dataset = _longitudes(dataset, own)
    if "time" in dataset.dims and not own.time_is_axis and dataset.sizes["time"] == 1:
        dataset = dataset.isel(time=0, drop=own.time is None)
    names = {"latitude": own.latitude, "longitude": own.longitude, "time": own.time or "time"}
    return dataset.rename({ours: theirs for ours, theirs in names.items() if ours in dataset.variables})


def _longitudes(dataset: xr.Dataset, own: Conventions) -> xr.Dataset:
    """Bring longitudes into the caller's range: a globe is re-sorted, a region stays in one piece."""
    if own.longitude_range == "either":
        return dataset
    coordinate = dataset["longitude"]
    degrees = coordinate.values
    low, high = (0.0, 360.0) if own.longitude_range == "0..360" else (-180.0, 180.0)
    if not ((degrees < low) | (degrees > high)).any():
        return dataset
    on_grid = "longitude" in dataset.dims
    if on_grid and goes_round(degrees):
        # Round the globe one of the two ends is left out: -180 stands for 180, too.
        ranged = np.round((degrees - low) % 360.0 + low, 9)
        return dataset.assign_coords(longitude=coordinate.copy(data=ranged)).isel(longitude=np.argsort(ranged))
    shift = np.where(degrees < low, 360.0, np.where(degrees > high, -360.0, 0.0))
    ranged = np.where(shift == 0.0, degrees, np.round(degrees + shift, 9))
    in_one_piece = not on_grid or bool((np.diff(ranged) > 0).all())
    if in_one_piece or own.wrapped:
        return dataset.assign_coords(longitude=coordinate.copy(data=ranged))
    return dataset
