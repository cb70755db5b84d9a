"""Fields on the sphere as a kind of data: samples are times, values stand on a grid of latitudes and longitudes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.domain import Chance, Drawn, Floats, Geometry, Scaling, evenly
from pipelines.data.normalize import Statistics
from pipelines.data.sphere import Lattice
from pipelines.data.split import Split, split_samples
from pipelines.data.times import label


class Fields:
    """See `DataKind`."""

    def geometry(self, field: xr.DataArray) -> Lattice:
        """The grid."""
        return Lattice.of(field)

    def geometry_from_json(self, tree: Mapping[str, Any]) -> Lattice:
        """The grid of a checkpoint."""
        return Lattice(latitude=np.asarray(tree["latitude"]), longitude=np.asarray(tree["longitude"]))

    def channels(self, field: xr.DataArray) -> int:
        """One, a temperature."""
        return 1

    def split(
        self,
        field: xr.DataArray,
        *,
        test: float | str,
        train: str | None,
        validation: float,
        blocks: int,
        gap_hours: float,
        seed: int,
    ) -> Split:
        """Contiguous in time (`split_samples`); nothing is drawn."""
        times = field[field.dims[0]].values
        return split_samples(times, test=test, train=train, validation=validation, blocks=blocks, gap_hours=gap_hours)

    def scaling(self, numbers: Statistics, *, bounded: bool) -> Scaling:
        """By the range of the training fields, or by their mean and standard deviation."""
        if bounded:
            return Scaling(offset=numbers.minimum, scale=numbers.maximum - numbers.minimum)
        return Scaling(offset=numbers.mean, scale=numbers.std)

    def draw(self, values: Floats, geometry: Geometry, count: int, chance: Chance) -> Drawn:
        """Uniformly over the grid, as the bound sums over it."""
        return evenly(values, geometry, count, chance)

    def unseen(self, field: xr.DataArray, first: str, last: str) -> NDArray[np.int64]:
        """The times outside that span."""
        times = field[field.dims[0]]
        seen = times.sel({str(field.dims[0]): slice(first, last)}).values
        return np.flatnonzero(~np.isin(times.values, seen))

    def about(self, geometry: Lattice) -> dict[str, Any]:
        """The grid's steps and its region: west, south, east, north."""
        latitude, longitude = geometry.latitude, geometry.longitude
        return {
            "grid_degrees": steps(geometry, 1),
            "region": [float(edge) for edge in (longitude[0], latitude[-1], longitude[-1], latitude[0])],
        }

    def where(self, geometry: Lattice) -> str:
        """The globe, or the region."""
        latitude, longitude = geometry.latitude, geometry.longitude
        if geometry.periodic:
            return "the globe"
        return f"{longitude[0]:g} to {longitude[-1]:g} degrees east, {latitude[-1]:g} to {latitude[0]:g} degrees north"

    def label(self, sample: Any) -> str:  # noqa: ANN401 - datetime64 or cftime
        """The date, ISO text."""
        return label(sample)


def steps(lattice: Lattice, factor: int) -> str:
    """Steps of every `factor`-th point along latitude and longitude, degrees."""
    axes = (lattice.latitude, lattice.longitude)
    found = {f"{factor * float(np.median(np.abs(np.diff(axis)))):.4g}" for axis in axes if len(axis) > 1}
    return " x ".join(sorted(found)) or "unknown"
