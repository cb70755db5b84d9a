"""Where truth lies among the members: flat ranks mean that truth could be one of them.

Members 2 i and 2 i + 1 mirror each other, which makes their mean right and their ranks not: of a pair that mirrors,
truth lies between the two half of the time. So only one of each pair is ranked.

Source: Hamill 2001, "Interpretation of rank histograms for verifying ensemble forecasts".
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import chi2

from pipelines.products.skill import MEMBERS


def unmirrored(ensemble: xr.DataArray) -> xr.DataArray:
    """One member of each pair, which are drawn independently."""
    return ensemble.isel({MEMBERS: slice(0, None, 2)})


def rank_histogram(ensemble: xr.DataArray, truth: xr.DataArray) -> NDArray[np.int64]:
    """How many values of truth have 0, 1, ... M members below them.

    Args:
        ensemble: dims (realization, ..., latitude, longitude), M members drawn independently.
        truth: dims (..., latitude, longitude), NaN where missing.

    Returns:
        (M + 1,) counts.
    """
    below = (ensemble < truth).sum(MEMBERS)
    known = truth.notnull() & ensemble.notnull().all(MEMBERS)
    ranks = below.values[known.transpose(*below.dims).values]
    return np.bincount(ranks, minlength=ensemble.sizes[MEMBERS] + 1)


def flatness(counts: NDArray[np.int64], cases: int) -> dict[str, float]:
    """How far ranks are from flat, and whether chance alone does that.

    Neighbouring points and hours are nearly one case: chi-square is that of shares as observed among so many
    independent cases.

    Args:
        counts: (M + 1,).
        cases: Independent cases, at most the sum of the counts.

    Returns:
        `chi_square`, its `degrees` of freedom, `p_value`, and `uneven`: the share of truth that lies in a wrong rank.

    >>> flatness(np.array([10, 10, 10, 10]), 40)["chi_square"], flatness(np.array([40, 0, 0, 0]), 40)["uneven"]
    (0.0, 0.75)
    """
    ranks = len(counts)
    share = counts / max(int(counts.sum()), 1)
    statistic = float(min(cases, counts.sum()) * ranks * ((share - 1 / ranks) ** 2).sum())
    return {
        "chi_square": statistic,
        "degrees": float(ranks - 1),
        "p_value": float(chi2.sf(statistic, ranks - 1)),
        "uneven": float(np.abs(share - 1 / ranks).sum() / 2),
    }
