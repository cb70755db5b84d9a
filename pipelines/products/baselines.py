"""What a model is measured against: interpolation, statistics of what it misses, regressions, a small network.

`bilinear`, `bicubic` and `conservative` know nothing but the coarse field. `MeanResidual`, `QuantileMapping`,
`FieldRidge`, `LocalRidge` and `WindowAttention` are trained on the same times as the model, but only for one coarse and
one fine grid; each gives a normal distribution at every pixel.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from pipelines.products.conservative import conservative
from pipelines.products.field_ridge import FieldRidge, FittedFieldRidge
from pipelines.products.interpolate import bicubic, bilinear
from pipelines.products.local_ridge import FittedLocalRidge, LocalRidge
from pipelines.products.quantile_mapping import FittedQuantileMapping, QuantileMapping
from pipelines.products.residuals import Array, Residuals, bilinear_pixels, check_grid, prediction

__all__ = [
    "Baseline",
    "FieldRidge",
    "FittedBaseline",
    "FittedFieldRidge",
    "FittedLocalRidge",
    "FittedMeanResidual",
    "FittedQuantileMapping",
    "LocalRidge",
    "MeanResidual",
    "QuantileMapping",
    "bicubic",
    "bilinear",
    "competitors",
    "conservative",
]

Forecasts = dict[str, xr.DataArray | xr.Dataset]


class FittedBaseline(Protocol):
    """A baseline ready to downscale fields on the coarse grid it was fitted on."""

    def predict(self, coarse: xr.DataArray) -> xr.Dataset:
        """Give `mean` (time, latitude, longitude) and `std` (latitude, longitude) on the fine grid."""


class Baseline(Protocol):
    """A baseline that learns from training fields."""

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> FittedBaseline:
        """Learn from `truth` (time, latitude, longitude) and the same times on the coarse grid."""


def competitors(
    coarse: xr.DataArray,
    truth: xr.DataArray,
    learned: tuple[xr.DataArray, xr.DataArray] | None = None,
    *,
    attention: float = 0.0,
) -> Forecasts:
    """What a user could have had instead of a model, by name.

    Args:
        coarse: dims (time, latitude, longitude), what is given.
        truth: for its grid alone.
        learned: fields to learn from on the grid of `truth`, and the same times on that of `coarse`; without them the
            baselines that learn are left out.
        attention: seconds to train a window-attention model for; 0 leaves it out.

    Returns:
        Fields, and normal distributions as data sets with `mean` and `std`.
    """
    grid = truth["latitude"].values, truth["longitude"].values
    forecasts: Forecasts = {
        "bilinear": bilinear(coarse, *grid),
        "bicubic": bicubic(coarse, *grid),
        "conservative": conservative(coarse, *grid),
    }
    if learned is None:
        return forecasts
    those_that_learn: dict[str, Baseline] = {
        "mean residual": MeanResidual(),
        "quantile mapping": QuantileMapping(),
        "field ridge": FieldRidge(),
        "local ridge": LocalRidge(),
    }
    if attention:
        from pipelines.products.attention import WindowAttention  # torch

        those_that_learn["window attention"] = WindowAttention(seconds=attention)
    for name, baseline in those_that_learn.items():
        forecasts[name] = baseline.fit(*learned).predict(coarse)
    return forecasts


@dataclass(frozen=True, kw_only=True)
class MeanResidual:
    """Bilinear interpolation plus the training times' mean of what it misses, at each pixel.

    Attributes:
        blocks: blocks of days to hold out in turn for the spread, at most.
    """

    blocks: int = 6

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> "FittedMeanResidual":
        """Average the residual over the training times.

        Args:
            truth: dims (time, latitude, longitude), NaN where missing.
            coarse: the same times on the coarse grid.

        Raises:
            ValueError: if the times differ or are fewer than two.

        """
        data = Residuals.of(truth, coarse, self.blocks)
        observed = np.isfinite(data.residual)
        residual = np.where(observed, data.residual, 0.0)
        count, total = observed.sum(axis=0), residual.sum(axis=0)  # (P,)
        squared_error = np.zeros(count.shape)
        for block in data.blocks:
            others = np.maximum(count - observed[block].sum(axis=0), 1)
            held_out_mean = (total - residual[block].sum(axis=0)) / others
            squared_error += (np.where(observed[block], residual[block] - held_out_mean, 0.0) ** 2).sum(axis=0)
        once = np.where(count > 0, count, np.nan)
        return FittedMeanResidual(
            residual=total / once,
            std=np.sqrt(squared_error / once),
            latitude=data.latitude,
            longitude=data.longitude,
            coarse_latitude=np.asarray(coarse["latitude"].values, np.float64),
            coarse_longitude=np.asarray(coarse["longitude"].values, np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class FittedMeanResidual:
    """The mean residual (P,) and the root mean square of held-out errors (P,), in the field's unit, and the grids."""

    residual: Array
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
        mean = bilinear_pixels(coarse, self.latitude, self.longitude) + self.residual
        return prediction(mean, self.std, coarse, self.latitude, self.longitude)
