"""Geometry of fields on the sphere: unit vectors, interpolation between lattice points, and where the sun stands.

Everything is a function of latitude and longitude that has no seam and no singular pole, so that what the model makes
of it has none either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipelines.data.grid import goes_round
from pipelines.data.times import calendar_of

Array = NDArray[np.float64]
NUM_SUN_COVARIATES = 4
AXIAL_TILT_DEG = 23.44
EARTH_RADIUS_KM = 6371.0
SAME_PLACE = 1e-6  # radians, some metres


def unit_vectors(latitude_deg: Array, longitude_deg: Array) -> Array:
    """Degrees [...] -> unit vectors [..., 3]: x towards (0 N, 0 E), z towards the north pole."""
    # To a tenth of a metre, so that a place is the same one in every longitude convention.
    turned = np.mod(np.round(np.mod(longitude_deg, 360.0), 6), 360.0)  # rounding may reach 360
    latitude, longitude = np.deg2rad(latitude_deg), np.deg2rad(turned)
    level = np.cos(latitude)
    level = np.where(np.abs(latitude_deg) > 90 - 1e-9, 0.0, level)  # every longitude is the same place there
    return np.stack([level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], axis=-1)


def east_north_by_km(gradient: NDArray[np.floating], latitude_deg: Array, longitude_deg: Array) -> Array:
    """Components of a gradient on the unit sphere, by kilometre on the ground.

    Args:
        gradient: [..., N, 3], tangent, by radian (as `VAMoH.decode` gives it; times the scaling's scale for K).
        latitude_deg, longitude_deg: [N].

    Returns:
        [..., N, 2], eastward and northward. At a pole they are those of the meridian that longitude names.
    """
    latitude, longitude = np.deg2rad(latitude_deg), np.deg2rad(longitude_deg)
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)], axis=-1)
    flat = np.stack([np.cos(longitude), np.sin(longitude)], axis=-1) * -np.sin(latitude)[:, None]
    north = np.concatenate([flat, np.cos(latitude)[:, None]], axis=-1)
    return np.stack([(gradient * axis).sum(axis=-1) for axis in (east, north)], axis=-1) / EARTH_RADIUS_KM


def sun_covariates(times: NDArray[Any], latitude_deg: Array, longitude_deg: Array) -> NDArray[np.float32]:
    """Time of day and of year as four smooth functions of place.

    The cosine of the sun's zenith angle, its derivative with respect to the hour angle (morning or afternoon), and the
    cosine and sine of the season.

    Args:
        times: [T] datetime64 or cftime, UTC.
        latitude_deg, longitude_deg: [N].

    Returns:
        [T, N, 4], within [-1, 1].
    """
    turn, season, declination = (each[:, None] for each in _clock(times))  # [T, 1]
    # the hour angle is the turn plus the longitude: sines of their sum from those of each
    east, north = np.deg2rad(longitude_deg), np.deg2rad(latitude_deg)
    cosine = np.cos(turn) * np.cos(east) - np.sin(turn) * np.sin(east)
    sine = np.sin(turn) * np.cos(east) + np.cos(turn) * np.sin(east)
    level = np.cos(north) * np.cos(declination)
    zenith = np.sin(north) * np.sin(declination) + level * cosine
    found = np.empty((*zenith.shape, NUM_SUN_COVARIATES), np.float32)
    for number, covariate in enumerate((zenith, -level * sine, np.cos(season), np.sin(season))):
        found[..., number] = covariate
    return found


def _clock(times: NDArray[Any]) -> tuple[Array, Array, Array]:
    """Of times [T]: how far the earth has turned since noon at 0 E, the season, and the sun's declination, radians."""
    if times.dtype == object:
        hour = np.array([time.hour + time.minute / 60 + time.second / 3600 for time in times])
        day = np.array([time.dayofyr - 1 for time in times])
    else:  # xarray's accessors take milliseconds, and every block of places asks for this
        date = times.astype("datetime64[D]")
        hour = (times - date) / np.timedelta64(1, "h")
        day = (date - times.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    days = 360 if calendar_of(times) == "360_day" else 365.25
    season = 2 * np.pi * (day + hour / 24) / days
    declination = np.deg2rad(-AXIAL_TILT_DEG) * np.cos(season + 2 * np.pi * 10 / days)
    return np.deg2rad(15 * (hour - 12)), season, declination


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """A regular latitude-longitude grid as a set of places.

    Attributes:
        latitude: [n] degrees, strictly descending.
        longitude: [m] degrees, strictly increasing.
        closed: Known to go round the globe, even where the last step is wider than the others.
    """

    latitude: Array
    longitude: Array
    closed: bool = False

    @classmethod
    def of(cls, field: xr.DataArray | xr.Dataset) -> Lattice:
        """The grid of a canonical field."""
        return cls(latitude=field["latitude"].values.astype(float), longitude=field["longitude"].values.astype(float))

    @property
    def region(self) -> tuple[float, float, float, float]:
        """West, south, east, north, degrees; all of the longitudes of a grid that goes round."""
        west, east = float(self.longitude[0]), float(self.longitude[-1])
        edges = [float(self.latitude[0]), float(self.latitude[-1])]
        return west, min(edges), west + 360.0 if self.periodic else east, max(edges)

    @property
    def cell(self) -> None:
        """Values are of points."""
        return None

    def index_of(self, coords: Array) -> NDArray[np.int64]:
        """The point at each of the places [n, 3], [n]; -1 where there is none."""
        apart, index = cKDTree(self.coords).query(coords)
        return np.where(apart < SAME_PLACE, index, -1)

    def at(self, step_deg: float) -> Lattice:
        """A grid of this step over the same region, from its north-west corner."""
        width = 360.0 - 1e-6 if self.periodic else self.longitude[-1] - self.longitude[0] + 1e-6
        rows = int((self.latitude[0] - self.latitude[-1] + 1e-6) / step_deg) + 1
        return Lattice(
            latitude=self.latitude[0] - step_deg * np.arange(rows),
            longitude=self.longitude[0] + step_deg * np.arange(int(width / step_deg) + 1),
            closed=self.periodic,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"latitude": self.latitude.tolist(), "longitude": self.longitude.tolist()}

    def every(self, factor: int, offset: tuple[int, int] = (0, 0)) -> Lattice:
        """Every `factor`-th row and column from `offset` on."""
        rows, columns = self.latitude[offset[0] :: factor], self.longitude[offset[1] :: factor]
        return Lattice(latitude=rows, longitude=columns, closed=self.periodic)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return len(self.latitude), len(self.longitude)

    @cached_property
    def points(self) -> tuple[Array, Array]:
        """Latitude and longitude of every point, [n m] each, row after row."""
        latitude, longitude = np.meshgrid(self.latitude, self.longitude, indexing="ij")
        return latitude.ravel(), longitude.ravel()

    @cached_property
    def coords(self) -> Array:
        """Unit vectors [n m, 3]."""
        return unit_vectors(*self.points)

    @cached_property
    def periodic(self) -> bool:
        """Whether the grid goes round the globe."""
        return self.closed or goes_round(self.longitude)

    @cached_property
    def area(self) -> Array:
        """The share of the sphere that each point stands for, [n m], summing to one."""
        edges = np.concatenate([[self.latitude[0]], (self.latitude[1:] + self.latitude[:-1]) / 2, [self.latitude[-1]]])
        if len(self.latitude) == 1:
            band = np.ones(1)
        else:
            edges[[0, -1]] = np.clip(2 * self.latitude[[0, -1]] - edges[[1, -2]], -90, 90)
            band = -np.diff(np.sin(np.deg2rad(edges)))
        area = np.repeat(band, len(self.longitude))
        return area / area.sum()

    @cached_property
    def spacing_rad(self) -> float:
        """The side of a square as large as the mean cell, radians."""
        if min(self.shape) < 2:
            return float(np.deg2rad(1.0))
        rows, columns = np.abs(np.diff(self.latitude)).mean(), np.diff(self.longitude).mean()
        return float(np.deg2rad(np.sqrt(rows * columns * np.cos(np.deg2rad(self.latitude)).mean())))

    @cached_property
    def context_index(self) -> NDArray[np.int64]:
        """The points that a set of this lattice holds: a pole once, and no row much denser than the rows are apart.

        Near the poles meridians crowd; without this the nearest points of a place would all lie on one row.
        """
        rows, columns = self.shape
        if min(rows, columns) < 2:
            return np.arange(rows * columns)
        apart = np.abs(np.diff(self.latitude)).mean() / np.diff(self.longitude).mean()
        kept = []
        for row, latitude in enumerate(self.latitude):
            level = max(np.cos(np.deg2rad(latitude)), 1e-9)
            step = columns if abs(latitude) > 90 - 1e-9 else max(1, min(columns, int(0.75 * apart / level)))
            kept.append(row * columns + np.arange(0, columns, step))
        return np.concatenate(kept)

    @property
    def distinct_index(self) -> NDArray[np.int64]:
        """All points, a pole once."""
        rows, columns = self.shape
        poles = np.abs(self.latitude) > 90 - 1e-9
        return np.concatenate([row * columns + np.arange(1 if pole else columns) for row, pole in enumerate(poles)])

    def interpolate(self, values: NDArray[np.floating], latitude_deg: Array, longitude_deg: Array) -> Array:
        """Bilinear interpolation of fields at places, the field that a model corrects.

        Missing corners are left out; where all are missing, the nearest value that is not stands in. Outside the
        lattice the outermost row or column goes on, but towards a pole that the lattice does not reach the row's mean.

        Args:
            values: [B, n m], NaN where missing; every field has a value somewhere.
            latitude_deg, longitude_deg: [N].

        Returns:
            [B, N].
        """
        index, weight = self.corners(latitude_deg, longitude_deg)
        grid = values.reshape(len(values), *self.shape)
        poles = np.flatnonzero(np.abs(self.latitude) > 90 - 1e-9)
        if len(poles):  # a row there is one point, whatever stands in it
            grid = grid.copy()
            for pole in poles:
                grid[:, pole] = _mean_observed(grid[:, pole])[:, None]
            values = grid.reshape(len(values), -1)
        with np.errstate(invalid="ignore"):
            ends = [_mean_observed(grid[:, row]) for row in (0, -1)]
        whole = np.concatenate([values, *[end[:, None] for end in ends]], axis=1)
        used = weight.any(axis=0)  # one corner alone where all places are points of the lattice
        index, weight = index[:, used], weight[:, used]
        result = np.zeros((len(values), len(index)))
        for near, share in zip(index.T, weight.T, strict=True):
            result += whole.take(near, axis=1) * share
        if np.isfinite(result).all():
            return result
        corner = whole.take(index, axis=1)  # [B, N, 4 + 1]
        seen = np.isfinite(corner)
        total = (weight * seen).sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            result = (np.where(seen, corner, 0.0) * weight).sum(axis=-1) / total
        where = unit_vectors(latitude_deg, longitude_deg)
        for row, empty in enumerate(total < 1e-6):
            if empty.any():
                known = np.isfinite(values[row])
                nearest = cKDTree(self.coords[known]).query(where[empty])[1]
                result[row, empty] = values[row, known][nearest]
        return result

    def corners(self, latitude_deg: Array, longitude_deg: Array) -> tuple[NDArray[np.int64], Array]:
        """Indices [N, 5] into the points and the two end rows' means, and their weights."""
        rows, columns = self.shape
        at = np.clip(latitude_deg, self.latitude[-1], self.latitude[0])
        low, down = _bracket(-self.latitude, -at)
        if self.periodic:
            east = self.longitude[0] + np.mod(longitude_deg - self.longitude[0], 360.0)
            left, along = _bracket(np.append(self.longitude, self.longitude[0] + 360.0), east)
        else:
            middle = 0.5 * (self.longitude[0] + self.longitude[-1])
            east = middle + np.mod(longitude_deg - middle + 180.0, 360.0) - 180.0
            left, along = _bracket(self.longitude, np.clip(east, self.longitude[0], self.longitude[-1]))
        right = (left + 1) % columns
        below = np.minimum(low + 1, rows - 1)
        north = np.clip((latitude_deg - self.latitude[0]) / max(90 - self.latitude[0], 1e-9), 0, 1)
        south = np.clip((self.latitude[-1] - latitude_deg) / max(90 + self.latitude[-1], 1e-9), 0, 1)
        polar = (north + south) if self.periodic else np.zeros_like(north)
        index = np.stack(
            [
                low * columns + left,
                low * columns + right,
                below * columns + left,
                below * columns + right,
                rows * columns + (south > 0),
            ],
            axis=-1,
        )
        across = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        return index, np.stack([*[part * (1 - polar) for part in across], polar], axis=-1)


def _bracket(knots: Array, points: Array) -> tuple[NDArray[np.int64], Array]:
    """The interval of ascending `knots` that holds each point, and how far along it the point lies."""
    if len(knots) == 1:
        return np.zeros(points.shape, dtype=np.int64), np.zeros(points.shape)
    low = np.clip(np.searchsorted(knots, points, side="right") - 1, 0, len(knots) - 2)
    return low, (points - knots[low]) / (knots[low + 1] - knots[low])


def _mean_observed(row: NDArray[np.floating]) -> NDArray[np.floating]:
    """Means [B] of [B, m] over what is not NaN; NaN where nothing is."""
    seen = np.isfinite(row)
    return np.where(seen, row, 0.0).sum(axis=1) / np.where(seen.any(axis=1), seen.sum(axis=1), np.nan)
