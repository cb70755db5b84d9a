"""Skill as a function of resolution: one model asked for one grid from coarser and coarser fields, and for others.

The fitted baselines learn anew for every pair of grids; the model is the same throughout.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from pipelines.data.sphere import Lattice
from pipelines.products import diagnosis, skill
from pipelines.products.baselines import Forecasts
from pipelines.products.evaluate import SYSTEM, Trial
from pipelines.products.spectra import EARTH_RADIUS_KM

MEMBERS = 8
COMPARED = (SYSTEM, "bilinear", "bicubic", "field ridge", "local ridge")


def skill_curve(trial: Trial, factors: Sequence[int], *, own: int) -> list[dict[str, Any]]:
    """Score other input and output resolutions.

    Args:
        trial: The model and the fields.
        factors: Of the coarse fields; those that leave fewer than three rows or columns are left out.
        own: The factor at which coarser outputs are asked for as well.

    Returns:
        A row for each: `factor`, `every`, `input_km`, `output_km`, whether the model was `trained` on such input, and
        by system `rmse`, `crps` (area weighted, kelvin) and `effective_km`.
    """
    rows, columns = trial.truth.shape[1:]
    asked = [(factor, 1) for factor in factors if 2 <= factor <= (min(rows, columns) - 1) // 2]
    asked += [(own, every) for every in range(2, own) if own % every == 0]
    return [_row(trial, factor, every) for factor, every in asked]


def _row(trial: Trial, factor: int, every: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it was not trained on is said in the row
        _, truth, forecasts = trial.run(factor, every, members=MEMBERS)
    forecasts = {name: forecasts[name] for name in COMPARED if name in forecasts}
    spacing = Lattice.of(trial.truth).spacing_rad * EARTH_RADIUS_KM
    found = diagnosis.scales(forecasts, truth)
    return {
        "factor": factor,
        "every": every,
        "input_km": factor * spacing,
        "output_km": every * spacing,
        "trained": _near_training(trial, factor),
        "rmse": {name: float(skill.rmse(diagnosis.mean_of(each), truth)) for name, each in forecasts.items()},
        "crps": _crps(forecasts, truth),
        "effective_km": found["effective_km"] if found else {},
    }


def _near_training(trial: Trial, factor: int) -> bool:
    """Whether the model saw such input in training, in degrees, not in factors: the store may be another one."""
    plan = trial.teller.checkpoint.plan
    assert plan.config.context is not None
    low, high = plan.config.context.factors
    seen = plan.lattice.spacing_rad / Lattice.of(trial.truth).spacing_rad
    return bool(low * seen * 0.95 <= factor <= high * seen * 1.05)


def _crps(forecasts: Forecasts, truth: xr.DataArray) -> dict[str, float]:
    scores = {}
    for name, forecast in forecasts.items():
        if isinstance(forecast, xr.Dataset):
            score = skill.crps_gaussian(forecast["mean"], forecast["std"], truth)
        elif skill.MEMBERS in forecast.dims:
            score = skill.crps_ensemble(forecast, truth)
        else:
            score = skill.mae(forecast, truth)
        scores[name] = float(np.asarray(score))
    return scores
