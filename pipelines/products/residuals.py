"""What bilinear interpolation misses: the training material of every baseline that learns, as plain matrices."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.products.interpolate import interpolate
from pipelines.products.skill import area_weights

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Paired fields of T times on P fine pixels and J coarse points, latitude-major, in the field's unit.

    Attributes:
        points: (T, J) the coarse field, NaN where missing.
        background: (T, P) its bilinear interpolation.
        residual: (T, P) truth minus background, NaN where either is missing.
        latitude: of the fine grid, degrees.
        longitude: of the fine grid, degrees.
        blocks: held-out sets of times, contiguous, each of whole days.
    """

    points: Array
    background: Array
    residual: Array
    latitude: Array
    longitude: Array
    blocks: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, truth: xr.DataArray, coarse: xr.DataArray, blocks: int) -> "Residuals":
        """Pair training fields.

        Args:
            truth: dims (time, latitude, longitude).
            coarse: the same times on the coarse grid.
            blocks: how many blocks of days to hold out in turn, at most.

        Raises:
            ValueError: if the times differ or are fewer than two.

        """
        if not truth.indexes["time"].equals(coarse.indexes["time"]):
            raise ValueError(
                f"truth and coarse field must have the same times, got {truth.sizes['time']} and {coarse.sizes['time']}"
            )
        if truth.sizes["time"] < 2:
            raise ValueError("a baseline that learns needs at least 2 training times, got 1; use bilinear or bicubic")
        latitude = np.asarray(truth["latitude"].values, np.float64)
        longitude = np.asarray(truth["longitude"].values, np.float64)
        background = bilinear_pixels(coarse, latitude, longitude)
        return cls(
            points=flat(coarse),
            background=background,
            residual=flat(truth) - background,
            latitude=latitude,
            longitude=longitude,
            blocks=day_blocks(truth["time"], blocks),
        )

    @property
    def pixel_area(self) -> Array:
        """(P,) relative areas."""
        return np.repeat(area_weights(self.latitude).values, self.longitude.size)


def flat(field: xr.DataArray) -> Array:
    """(T, latitude * longitude) values in float64."""
    values = field.transpose("time", "latitude", "longitude").values.astype(np.float64)
    return values.reshape(values.shape[0], -1)


def bilinear_pixels(coarse: xr.DataArray, latitude: Array, longitude: Array) -> Array:
    """(T, P) the bilinear background, in float64."""
    field = coarse.transpose("time", "latitude", "longitude")
    fine = interpolate(field.values, field["latitude"].values, field["longitude"].values, latitude, longitude)
    return fine.reshape(fine.shape[0], -1)


def day_blocks(time: xr.DataArray, blocks: int) -> tuple[NDArray[np.intp], ...]:
    """Split times into contiguous blocks of whole days; neighbouring hours are too alike to be held out one by one.

    Args:
        time: (T,) datetime64 or cftime, increasing.
        blocks: how many, at most; at least two come out, by splitting a day if there is only one.
    """
    day = (time.dt.year * 1000 + time.dt.dayofyear).values
    starts = np.flatnonzero(np.append(True, np.diff(day) != 0))
    if starts.size < 2:
        return tuple(np.array_split(np.arange(day.size), 2))
    first = [part[0] for part in np.array_split(starts, min(max(blocks, 2), starts.size))]
    return tuple(np.split(np.arange(day.size), first[1:]))


def prediction(mean: Array, std: Array, coarse: xr.DataArray, latitude: Array, longitude: Array) -> xr.Dataset:
    """A normal distribution at each pixel.

    Args:
        mean: (T, P).
        std: (P,).
        coarse: the field downscaled, for its times, precision and attributes.
        latitude: of the fine grid.
        longitude: of the fine grid.

    Returns:
        `mean` (time, latitude, longitude) and `std` (latitude, longitude).

    """
    dtype = np.result_type(coarse.dtype, np.float32)
    shape = (latitude.size, longitude.size)
    attributes = {"units": coarse.attrs["units"]} if "units" in coarse.attrs else {}
    return xr.Dataset(
        {
            "mean": (("time", "latitude", "longitude"), mean.reshape(-1, *shape).astype(dtype), attributes),
            "std": (("latitude", "longitude"), std.reshape(shape).astype(dtype), attributes),
        },
        coords={"time": coarse["time"], "latitude": latitude, "longitude": longitude},
    )


def check_grid(coarse: xr.DataArray, latitude: Array, longitude: Array) -> None:
    """Refuse a coarse field on another grid than the fitted one.

    Raises:
        ValueError: naming both sizes.
    """
    for name, fitted in (("latitude", latitude), ("longitude", longitude)):
        given = np.asarray(coarse[name].values, np.float64)
        if given.shape != fitted.shape or not np.allclose(given, fitted, atol=1e-6):
            raise ValueError(
                f"this baseline was fitted on {fitted.size} coarse {name}s from {fitted[0]:g} to {fitted[-1]:g}, got "
                f"{given.size} from {given[0]:g} to {given[-1]:g}; it works on one grid only"
            )
