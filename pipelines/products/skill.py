"""Scores of a forecast against truth on xarray objects: averages over the sphere's area, missing truth left out.

Every function takes fields with dims `latitude` and `longitude` (degrees) and any others, and averages over all dims
but those in `keep`. Forecast and truth must lie on exactly the same grid. `weighted=False` gives every grid point the
same weight instead of its area.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from scores.continuous import additive_bias
from scores.continuous import mae as scores_mae
from scores.continuous import rmse as scores_rmse
from scores.probability import crps_for_ensemble
from scores.processing import aggregate

MEMBERS = "realization"


def area_weights(latitude: ArrayLike) -> xr.DataArray:
    """The area of each row of a grid: the band between the midpoints to its neighbours, cut at the poles.

    On an evenly spaced grid this is proportional to cos(latitude), and to the polar cap's area for a pole row, which
    the cosine would leave out.

    Args:
        latitude: (n,) degrees, monotonic.

    Returns:
        (latitude,) positive weights with mean one.

    >>> area_weights([90.0, 0.0, -90.0]).values.round(3)
    array([0.439, 2.121, 0.439])
    """
    degrees = np.asarray(latitude, np.float64)
    if degrees.size == 1:
        return xr.DataArray(np.ones(1), dims="latitude", coords={"latitude": degrees})
    middles = 0.5 * (degrees[1:] + degrees[:-1])
    edges = np.concatenate([[2 * degrees[0] - middles[0]], middles, [2 * degrees[-1] - middles[-1]]])
    area = np.abs(np.diff(np.sin(np.deg2rad(np.clip(edges, -90.0, 90.0)))))
    return xr.DataArray(area / area.mean(), dims="latitude", coords={"latitude": degrees})


def rmse(
    forecast: xr.DataArray, truth: xr.DataArray, *, keep: Sequence[str] = (), weighted: bool = True
) -> xr.DataArray:
    """Root of the mean squared error, in the unit of `truth`."""
    forecast, truth, weights = _aligned(forecast, truth, weighted and "latitude" not in keep)
    return scores_rmse(forecast, truth, preserve_dims=list(keep), weights=weights)


def mae(
    forecast: xr.DataArray, truth: xr.DataArray, *, keep: Sequence[str] = (), weighted: bool = True
) -> xr.DataArray:
    """Mean absolute error, in the unit of `truth`: also the CRPS of a forecast without spread."""
    forecast, truth, weights = _aligned(forecast, truth, weighted and "latitude" not in keep)
    return scores_mae(forecast, truth, preserve_dims=list(keep), weights=weights)


def bias(
    forecast: xr.DataArray, truth: xr.DataArray, *, keep: Sequence[str] = (), weighted: bool = True
) -> xr.DataArray:
    """Mean of forecast minus truth, in the unit of `truth`."""
    forecast, truth, weights = _aligned(forecast, truth, weighted and "latitude" not in keep)
    return additive_bias(forecast, truth, preserve_dims=list(keep), weights=weights)


def crps_ensemble(
    ensemble: xr.DataArray, truth: xr.DataArray, *, keep: Sequence[str] = (), weighted: bool = True
) -> xr.DataArray:
    """Continuous ranked probability score of the members' empirical distribution, in the unit of `truth`.

    Args:
        ensemble: dims (realization, ..., latitude, longitude).
        truth: dims (..., latitude, longitude).
        keep: dims not to average over.
        weighted: whether a grid point counts by its area.
    """
    ensemble, truth, weights = _aligned(ensemble, truth, weighted and "latitude" not in keep)
    return crps_for_ensemble(ensemble, truth, MEMBERS, method="ecdf", preserve_dims=list(keep), weights=weights)


def crps_gaussian(
    mean: xr.DataArray, std: xr.DataArray, truth: xr.DataArray, *, keep: Sequence[str] = (), weighted: bool = True
) -> xr.DataArray:
    """Continuous ranked probability score of a normal distribution; with a zero `std` it is the absolute error.

    Source: Gneiting and Raftery (2007), eq. 21.
    """
    mean, truth, weights = _aligned(mean, truth, weighted and "latitude" not in keep)
    error = (truth - mean).astype(np.float64)
    spread = std.astype(np.float64)
    z = error / spread.where(spread > 0, np.inf)  # without spread only |error| is left, which the last line restores
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    score = spread * (z * (2 * xr.apply_ufunc(ndtr, z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    score = xr.where(spread > 0, score, np.abs(error)).where(np.isfinite(error))
    return _mean(score.transpose(*error.dims), keep, weights)


def spread_skill_ratio(ensemble: xr.DataArray, truth: xr.DataArray, *, weighted: bool = True) -> xr.DataArray:
    """The members' spread over the error of their mean: one when reliable, less when overconfident.

    The factor (M + 1) / M makes M exchangeable members and a truth drawn like them give one.

    Raises:
        ValueError: with fewer than two members, which have no spread.
    """
    members = ensemble.sizes[MEMBERS]
    if members < 2:
        raise ValueError(f"the spread of an ensemble needs at least 2 members, got {members}")
    ensemble, truth, weights = _aligned(ensemble, truth, weighted)
    variance = ensemble.astype(np.float64).var(MEMBERS, ddof=1).where(np.isfinite(truth))
    spread = (_mean(variance, (), weights) * (members + 1) / members) ** 0.5
    return spread / rmse(ensemble.mean(MEMBERS), truth, weighted=weighted)


def coverage(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *,
    level: float = 0.9,
    keep: Sequence[str] = (),
    weighted: bool = True,
) -> xr.DataArray:
    """The fraction of truth inside the members' central interval; compare with `expected_coverage`.

    Args:
        ensemble: dims (realization, ..., latitude, longitude).
        truth: dims (..., latitude, longitude).
        level: the interval's nominal probability, its ends at the ranks level * (M + 1).
        keep: dims not to average over.
        weighted: whether a grid point counts by its area.
    """
    ensemble, truth, weights = _aligned(ensemble, truth, weighted and "latitude" not in keep)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = ensemble.quantile(tails, dim=MEMBERS, method="weibull").transpose("quantile", ...)
    inside = ((truth >= low) & (truth <= high)).astype(np.float64).where(np.isfinite(truth))
    return _mean(inside.drop_vars("quantile", errors="ignore"), keep, weights)


def expected_coverage(members: int, level: float = 0.9) -> float:
    """What `coverage` gives a reliable ensemble: few members cannot reach far into the tails.

    >>> round(expected_coverage(8), 3), expected_coverage(50)
    (0.778, 0.9)
    """
    return min(level, (members - 1) / (members + 1))


def ensemble_scores(ensemble: xr.DataArray, truth: xr.DataArray, *, weighted: bool = True) -> dict[str, float]:
    """All scores of an ensemble and of its mean; the reliability ones only with two members or more."""
    mean = ensemble.mean(MEMBERS)
    scores = point_scores(mean, truth, weighted=weighted)
    scores["crps"] = float(crps_ensemble(ensemble, truth, weighted=weighted))
    if ensemble.sizes[MEMBERS] > 1:
        scores["spread_skill"] = float(spread_skill_ratio(ensemble, truth, weighted=weighted))
        scores["coverage_90"] = float(coverage(ensemble, truth, weighted=weighted))
    return scores


def gaussian_scores(
    mean: xr.DataArray, std: xr.DataArray, truth: xr.DataArray, *, weighted: bool = True
) -> dict[str, float]:
    """All scores of a normal distribution at each point, under the names of `ensemble_scores`."""
    scores = point_scores(mean, truth, weighted=weighted)
    scores["crps"] = float(crps_gaussian(mean, std, truth, weighted=weighted))
    observed = np.isfinite(truth - mean)
    _, _, weights = _aligned(mean, truth, weighted)
    variance = (std.astype(np.float64) ** 2).where(observed)
    inside = (np.abs(truth - mean) <= ndtri(0.95) * std).astype(np.float64).where(observed)
    scores["spread_skill"] = float(np.sqrt(_mean(variance, (), weights))) / scores["rmse"]
    scores["coverage_90"] = float(_mean(inside, (), weights))
    return scores


def point_scores(forecast: xr.DataArray, truth: xr.DataArray, *, weighted: bool = True) -> dict[str, float]:
    """All scores of a forecast without spread, whose CRPS is its mean absolute error."""
    absolute = float(mae(forecast, truth, weighted=weighted))
    return {
        "rmse": float(rmse(forecast, truth, weighted=weighted)),
        "mae": absolute,
        "bias": float(bias(forecast, truth, weighted=weighted)),
        "crps": absolute,
    }


def scores_of(forecast: xr.DataArray | xr.Dataset, truth: xr.DataArray, *, weighted: bool = True) -> dict[str, float]:
    """All scores of an ensemble, of a normal distribution (`mean` and `std`) or of a single field."""
    if isinstance(forecast, xr.Dataset):
        return gaussian_scores(forecast["mean"], forecast["std"], truth, weighted=weighted)
    scored = ensemble_scores if MEMBERS in forecast.dims else point_scores
    return scored(forecast, truth, weighted=weighted)


def _mean(score: xr.DataArray, keep: Sequence[str], weights: xr.DataArray | None) -> xr.DataArray:
    return aggregate(score, reduce_dims=[d for d in score.dims if d not in keep], weights=weights)


def _aligned(
    forecast: xr.DataArray, truth: xr.DataArray, weighted: bool
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray | None]:
    """Refuse grids that differ: xarray would silently score their intersection."""
    shared = [d for d in truth.dims if d in forecast.indexes and d in truth.indexes]
    for dim in shared:
        if not forecast.indexes[dim].equals(truth.indexes[dim]):
            raise ValueError(
                f"forecast and truth differ along {dim!r} ({forecast.sizes[dim]} and {truth.sizes[dim]} values, from "
                f"{forecast.indexes[dim][0]} and {truth.indexes[dim][0]}); select or interpolate one onto the other"
            )
    weights = area_weights(truth["latitude"].values) if weighted else None
    return forecast.drop_vars(_scalars(forecast)), truth.drop_vars(_scalars(truth)), weights


def _scalars(field: xr.DataArray) -> list[str]:
    return [str(name) for name, c in field.coords.items() if name not in field.dims]
