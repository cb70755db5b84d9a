r"""The ridge regression on the whole coarse field: every pixel is a linear function of every coarse point.

    truth_p - B_p = a_p + sum_j w_pj (C_j - mean C_j),    a, W minimise  |error|^2 + s m |W|^2,

with one penalty for all pixels, s times the mean variance m of a coarse point, chosen on held-out blocks of days. All
pixels share one singular value decomposition. What it costs not to know where things are: compare `local_ridge`.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.products.residuals import Array, Residuals, bilinear_pixels, check_grid, flat, prediction


@dataclass(frozen=True, kw_only=True)
class FieldRidge:
    """What to fit.

    Attributes:
        strengths: penalties s to choose from, in samples.
        blocks: blocks of days to hold out in turn, at most.
    """

    strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    blocks: int = 6

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> "FittedFieldRidge":
        """Choose the penalty, then solve for every pixel.

        Args:
            truth: dims (time, latitude, longitude), NaN where missing.
            coarse: the same times on the coarse grid.

        Raises:
            ValueError: if the times differ or are fewer than two.
        """
        data = Residuals.of(truth, coarse, self.blocks)
        times = np.arange(len(data.points))
        squared_error = np.zeros((len(self.strengths), data.residual.shape[1]))
        for block in data.blocks:
            others = np.setdiff1d(times, block, assume_unique=True)
            for number, solution in enumerate(_solutions(data, others, self.strengths)):
                error = solution.corrections(data.points[block]) - data.residual[block]
                squared_error[number] += np.nan_to_num(error**2).sum(axis=0)
        chosen = int(np.argmin(squared_error @ data.pixel_area))
        count = np.isfinite(data.residual).sum(axis=0)
        return FittedFieldRidge(
            solution=_solutions(data, times, self.strengths[chosen : chosen + 1])[0],
            std=np.sqrt(squared_error[chosen] / np.where(count > 0, count, np.nan)),
            strength=self.strengths[chosen],
            latitude=data.latitude,
            longitude=data.longitude,
            coarse_latitude=np.asarray(coarse["latitude"].values, np.float64),
            coarse_longitude=np.asarray(coarse["longitude"].values, np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class Solution:
    """W in two factors: (J, r) directions of the coarse field, and (r, P) what each adds; means (J,) and (P,)."""

    directions: Array
    response: Array
    coarse_mean: Array
    intercept: Array

    def corrections(self, points: Array) -> Array:
        """(T, J) coarse fields -> (T, P) what to add to the background; a missing point is taken for its mean."""
        return self.intercept + (np.nan_to_num(points - self.coarse_mean) @ self.directions) @ self.response


@dataclass(frozen=True, kw_only=True)
class FittedFieldRidge:
    """The regression, the penalty that was chosen, the held-out errors' root mean square (P,), and the grids."""

    solution: Solution
    std: Array
    strength: float
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
        mean = bilinear_pixels(coarse, self.latitude, self.longitude) + self.solution.corrections(flat(coarse))
        return prediction(mean, self.std, coarse, self.latitude, self.longitude)


def _solutions(data: Residuals, times: NDArray[np.intp], strengths: tuple[float, ...]) -> list[Solution]:
    """The regression on some times, for every strength."""
    points, residual = data.points[times], data.residual[times]
    coarse_mean, intercept = _observed_mean(points), _observed_mean(residual)
    features = np.nan_to_num(points - coarse_mean)
    left, size, right = np.linalg.svd(features, full_matrices=False)
    projected = left.T @ np.where(np.isfinite(residual), residual - intercept, 0.0)  # (r, P)
    variance = max(float((size**2).sum()) / features.size, 1e-12)
    return [
        Solution(
            directions=right.T,
            response=(size / (size**2 + strength * variance))[:, None] * projected,
            coarse_mean=coarse_mean,
            intercept=intercept,
        )
        for strength in strengths
    ]


def _observed_mean(values: Array) -> Array:
    """Means over the times of what is observed; NaN where nothing is."""
    seen = np.isfinite(values)
    count = seen.sum(axis=0)
    return np.asarray(np.where(seen, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan), np.float64)
