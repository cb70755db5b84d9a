r"""Quantile mapping: the statistical baseline of climate services (BCSD), for every pixel by itself.

    fine(t) = B(t) + Q_truth(p) - Q_B(p),    p the rank of B(t) among the training times' B,

where B is the bilinear background and Q are quantiles over the training times: what is added depends on how warm it is.
Beyond the training range the outermost correction goes on, so that a warmer climate stays warmer.

Source: Wood et al. 2004, "Hydrologic implications of dynamical and statistical approaches to downscaling" (BCSD);
    Cannon et al. 2015 (the additive form).
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.products.residuals import Array, Residuals, bilinear_pixels, check_grid, prediction


@dataclass(frozen=True, kw_only=True)
class QuantileMapping:
    """What to fit.

    Attributes:
        levels: quantiles of each distribution, at most; never more than there are times.
        blocks: blocks of days to hold out in turn for the spread, at most.
    """

    levels: int = 50
    blocks: int = 6

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> "FittedQuantileMapping":
        """Learn both distributions at every pixel.

        Args:
            truth: dims (time, latitude, longitude), NaN where missing.
            coarse: the same times on the coarse grid.

        Raises:
            ValueError: if the times differ or are fewer than two.
        """
        data = Residuals.of(truth, coarse, self.blocks)
        times = np.arange(len(data.background))
        squared_error, count = np.zeros(data.residual.shape[1]), np.isfinite(data.residual).sum(axis=0)
        for block in data.blocks:
            others = np.setdiff1d(times, block, assume_unique=True)
            error = _corrections(data.background[block], *self._learn(data, others)) - data.residual[block]
            squared_error += np.nan_to_num(error**2).sum(axis=0)
        background, correction = self._learn(data, times)
        return FittedQuantileMapping(
            background=background,
            correction=correction,
            std=np.sqrt(squared_error / np.where(count > 0, count, np.nan)),
            latitude=data.latitude,
            longitude=data.longitude,
            coarse_latitude=np.asarray(coarse["latitude"].values, np.float64),
            coarse_longitude=np.asarray(coarse["longitude"].values, np.float64),
        )

    def _learn(self, data: Residuals, times: NDArray[np.intp]) -> tuple[Array, Array]:
        """Quantiles of the background, and what is to be added at each, (levels, P)."""
        number = min(self.levels, len(times))
        levels = (np.arange(number) + 0.5) / number
        observed = np.isfinite(data.residual[times])
        background = np.where(observed, data.background[times], np.nan)
        low = _quantiles(background, levels)
        return low, _quantiles(background + data.residual[times], levels) - low


@dataclass(frozen=True, kw_only=True)
class FittedQuantileMapping:
    """Quantiles of the background and the corrections at them, (levels, P); held-out errors (P,); and the grids."""

    background: Array
    correction: Array
    std: Array
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
        background = bilinear_pixels(coarse, self.latitude, self.longitude)
        mean = background + _corrections(background, self.background, self.correction)
        return prediction(mean, self.std, coarse, self.latitude, self.longitude)


def _corrections(background: Array, known: Array, correction: Array) -> Array:
    """(T, P) what to add to (T, P) backgrounds, between the quantiles (levels, P) and as at the outermost beyond."""
    added = np.empty_like(background)
    for pixel in range(background.shape[1]):
        added[:, pixel] = np.interp(background[:, pixel], known[:, pixel], correction[:, pixel])
    return np.where(np.isfinite(background), added, np.nan)


def _quantiles(values: Array, levels: Array) -> Array:
    """(levels, P) of what is observed; by Hazen's rule the values themselves where there are as many levels."""
    seen = np.asarray(np.isfinite(values).any(axis=0))
    quantile = np.quantile if np.isfinite(values).all() else np.nanquantile  # the latter is much slower
    result = np.full((len(levels), len(seen)), np.nan)
    result[:, seen] = quantile(values[:, seen], levels, axis=0, method="hazen")
    return result
