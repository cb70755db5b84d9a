r"""The local ridge regression: the baseline that a model with a free output grid has to beat.

Each fine pixel p has a small linear model of its own for what bilinear interpolation B misses, from the coarse points
C_j around it:

    truth_p - B_p = a_p + sum_j w_pj (C_j - B_p),

    a_p, w_p minimise  sum_t error(t)^2 + s sum_j exp(dist_pj / reach) var(C_j - B_p) w_pj^2.

Differences from B make it invariant to a shift of the whole field (the weights on C sum to zero); the penalty grows
with distance and is relative to each feature's own variance, so the strength s counts samples: about 8 is right for
500 hours of one region as for 18 fields of the globe. Only s is chosen, on held-out blocks of days, and the spread is
that of the held-out errors. It needs training fields on exactly the grid that is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipelines.products.residuals import Array, Residuals, bilinear_pixels, check_grid, flat, prediction

_CHUNK_BYTES = 32 * 2**20
_DAILY_CYCLE_GROWTH = 4.0  # its penalty is that of a coarse point one cell away


@dataclass(frozen=True, kw_only=True)
class LocalRidge:
    """What to fit.

    Attributes:
        neighbours: coarse points per pixel, the nearest by great-circle distance.
        strengths: penalties s to choose from, in samples.
        reach: the distance over which the penalty grows by e, in coarse cells (the root of their mean area).
        daily_cycle: whether sine and cosine of the time of day (UTC) are features too.
        blocks: blocks of days to hold out in turn, at most.
    """

    neighbours: int = 36
    strengths: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    reach: float = 0.7
    daily_cycle: bool = False
    blocks: int = 6

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> "FittedLocalRidge":
        """Choose the penalty, then solve for every pixel.

        Args:
            truth: dims (time, latitude, longitude), the training fields, NaN where missing.
            coarse: the same times on the coarse grid.

        Raises:
            ValueError: if the times differ or are fewer than two, or every coarse point is missing.

        """
        data = Residuals.of(truth, coarse, self.blocks)
        index, distance = _nearest_points(coarse, data, self.neighbours)
        hours = _daily_cycle(truth["time"], self.daily_cycle)
        growth = np.exp(distance / self.reach)  # (P, neighbours)
        growth = np.pad(growth, ((0, 0), (0, hours.shape[1])), constant_values=_DAILY_CYCLE_GROWTH)

        squared_error = np.zeros((len(self.strengths), index.shape[0]))
        for part in _chunks(index.shape[0], data.points.shape[0] * growth.shape[1]):
            samples = _Samples.gather(data, index, growth, hours, part)
            squared_error[:, part] = samples.held_out_squared_error(data.blocks, self.strengths)
        chosen = int(np.argmin(squared_error @ data.pixel_area))

        weights, intercept = np.empty(growth.shape), np.empty(index.shape[0])
        for part in _chunks(index.shape[0], data.points.shape[0] * growth.shape[1]):
            samples = _Samples.gather(data, index, growth, hours, part)
            scaled, offset = samples.solve(np.arange(data.points.shape[0]), self.strengths[chosen : chosen + 1])
            weights[part], intercept[part] = scaled[0] / samples.scale, offset[0]
        count = np.isfinite(data.residual).sum(axis=0)
        with np.errstate(invalid="ignore"):
            std = np.where(count > 0, np.sqrt(squared_error[chosen] / count), np.nan)
        return FittedLocalRidge(
            index=index,
            weights=weights,
            intercept=np.where(count > 0, intercept, np.nan),
            std=std,
            strength=self.strengths[chosen],
            daily_cycle=self.daily_cycle,
            latitude=data.latitude,
            longitude=data.longitude,
            coarse_latitude=np.asarray(coarse["latitude"].values, np.float64),
            coarse_longitude=np.asarray(coarse["longitude"].values, np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class FittedLocalRidge:
    """One linear model for each of P fine pixels.

    Attributes:
        index: (P, neighbours) coarse points, latitude-major.
        weights: (P, neighbours or neighbours + 2) of the differences C_j - B, then of the daily cycle.
        intercept: (P,) in the field's unit, NaN for a pixel that was never observed.
        std: (P,) root mean square of the held-out errors, in the field's unit.
        strength: the penalty that was chosen.
        daily_cycle: whether the last two weights are those of the time of day.
        latitude: of the fine grid, degrees.
        longitude: of the fine grid, degrees.
        coarse_latitude: degrees.
        coarse_longitude: degrees.
    """

    index: NDArray[np.intp]
    weights: Array
    intercept: Array
    std: Array
    strength: float
    daily_cycle: bool
    latitude: Array
    longitude: Array
    coarse_latitude: Array
    coarse_longitude: Array

    def predict(self, coarse: xr.DataArray) -> xr.Dataset:
        """Downscale fields on the coarse grid that was fitted.

        Args:
            coarse: dims (time, latitude, longitude).

        Returns:
            `mean` (time, latitude, longitude) and `std` (latitude, longitude) of a normal distribution.

        Raises:
            ValueError: if the coarse grid is another one.

        """
        check_grid(coarse, self.coarse_latitude, self.coarse_longitude)
        points, mean = flat(coarse), bilinear_pixels(coarse, self.latitude, self.longitude)
        hours = _daily_cycle(coarse["time"], self.daily_cycle)
        for part in _chunks(*self.index.shape, points.shape[0]):
            features = _features(points, mean[:, part], self.index[part], hours)
            mean[:, part] += (self.intercept[part, None] + np.einsum("pmt,pm->pt", features, self.weights[part])).T
        return prediction(mean, self.std, coarse, self.latitude, self.longitude)


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """A chunk of p pixels: m features at T times, scaled so that one penalty serves all.

    Attributes:
        features: (p, m, T) divided by `scale`.
        target: (p, T), zero where missing.
        observed: (p, T) one or zero.
        scale: (p, m), infinite for a feature that never varies.
    """

    features: Array
    target: Array
    observed: Array
    scale: Array

    @classmethod
    def gather(cls, data: Residuals, index: NDArray[np.intp], growth: Array, hours: Array, part: slice) -> "_Samples":
        """Features and targets of the pixels in `part`."""
        target = data.residual[:, part].T
        observed = np.isfinite(target).astype(np.float64)
        features = _features(data.points, data.background[:, part], index[part], hours)
        count = np.maximum(observed.sum(axis=1), 1.0)[:, None]
        mean = np.einsum("pmt,pt->pm", features, observed) / count
        variance = np.einsum("pmt,pt->pm", (features - mean[..., None]) ** 2, observed) / count
        varies = variance > 1e-12 * variance.max(axis=1, keepdims=True)
        scale = np.sqrt(np.where(varies, variance, np.inf) * growth[part])
        return cls(features=features / scale[..., None], target=np.nan_to_num(target), observed=observed, scale=scale)

    def held_out_squared_error(self, blocks: Sequence[NDArray[np.intp]], strengths: Sequence[float]) -> Array:
        """(strengths, p) sums over the observed times, each predicted without its own block."""
        total = np.zeros((len(strengths), self.target.shape[0]))
        times = np.arange(self.target.shape[1])
        for block in blocks:
            training = np.setdiff1d(times, block, assume_unique=True)
            weights, intercept = self.solve(training, strengths)
            features = np.take(self.features, block, axis=2)
            error = weights.transpose(1, 0, 2) @ features + intercept.T[..., None]  # (p, strengths, t)
            error -= self.target[:, None, block]
            total += (error**2 @ self.observed[:, block, None])[..., 0].T
        return total

    def solve(self, times: NDArray[np.intp], strengths: Sequence[float]) -> tuple[Array, Array]:
        """Scaled weights (strengths, p, m) and intercepts (strengths, p) of the ridge regression on some times."""
        observed = self.observed[:, times]
        count = np.maximum(observed.sum(axis=1), 1.0)
        x, y = np.take(self.features, times, axis=2), self.target[:, times]  # (p, m, t), (p, t)
        feature_mean = (x @ observed[..., None])[..., 0] / count[:, None]
        target_mean = (y * observed).sum(axis=1) / count
        x -= feature_mean[..., None]
        x *= observed[:, None, :]
        y = (y - target_mean[:, None]) * observed
        weights = np.stack(list(_ridge(x, y[..., None], strengths)))
        return weights, target_mean - (feature_mean * weights).sum(axis=-1)


def _ridge(x: Array, y: Array, strengths: Sequence[float]) -> Iterator[Array]:
    """Solve min |x^T w - y|^2 + s |w|^2 for every strength s; x is (p, m, t), y (p, t, 1), each w (p, m)."""
    transposed = x.transpose(0, 2, 1)
    if x.shape[1] <= x.shape[2]:
        gram, right = x @ transposed, x @ y
        for strength in strengths:
            yield np.asarray(np.linalg.solve(gram + strength * np.eye(x.shape[1]), right)[..., 0], np.float64)
    else:  # fewer times than features: the same solution from the smaller system
        gram = transposed @ x
        for strength in strengths:
            yield (x @ np.linalg.solve(gram + strength * np.eye(x.shape[2]), y))[..., 0]


def _chunks(pixels: int, *per_pixel: int) -> list[slice]:
    step = max(1, _CHUNK_BYTES // (8 * int(np.prod(per_pixel))))
    return [slice(start, start + step) for start in range(0, pixels, step)]


def _features(points: Array, background: Array, index: NDArray[np.intp], hours: Array) -> Array:
    """(p, m, T) differences C_j - B, zero where missing, and the daily cycle."""
    differences = points.T[index] - background.T[:, None, :]  # (p, neighbours, T)
    cycle = np.broadcast_to(hours.T, (index.shape[0], hours.shape[1], hours.shape[0]))
    return np.concatenate([np.nan_to_num(differences), cycle], axis=1)


def _daily_cycle(time: xr.DataArray, wanted: bool) -> Array:
    """(T, 2) sine and cosine of the time of day, or (T, 0)."""
    if not wanted:
        return np.zeros((time.size, 0))
    angle = 2 * np.pi / 24 * np.asarray(time.dt.hour + time.dt.minute / 60, np.float64)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _nearest_points(coarse: xr.DataArray, data: Residuals, count: int) -> tuple[NDArray[np.intp], Array]:
    """(P, count) coarse points that were ever observed, nearest first, and their great-circle distance in cells."""
    latitude, longitude = (np.asarray(coarse[name].values, np.float64) for name in ("latitude", "longitude"))
    usable = np.flatnonzero(np.isfinite(data.points).any(axis=0))
    if usable.size == 0:
        raise ValueError("every value of the coarse training field is missing")
    tree = cKDTree(_unit_vectors(latitude, longitude)[usable])
    chord, nearest = tree.query(_unit_vectors(data.latitude, data.longitude), k=np.arange(min(count, usable.size)) + 1)
    steps = [np.abs(np.diff(axis)).mean() for axis in (latitude, longitude) if axis.size > 1]
    area = np.deg2rad(steps[0]) * np.deg2rad(steps[-1]) * np.cos(np.deg2rad(latitude)).mean()
    return usable[nearest], 2 * np.arcsin(np.clip(chord / 2, 0, 1)) / np.sqrt(area)


def _unit_vectors(latitude: Array, longitude: Array) -> Array:
    """(latitude * longitude, 3) points on the unit sphere, latitude-major."""
    phi, lam = np.deg2rad(np.repeat(latitude, longitude.size)), np.deg2rad(np.tile(longitude, latitude.size))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
