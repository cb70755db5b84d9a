"""What one number a system does not tell: which scales are right, and whether truth could be one of the members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.products.ranks import flatness, rank_histogram, unmirrored
from pipelines.products.skill import MEMBERS, coverage, expected_coverage, spread_skill_ratio
from pipelines.products.spectra import effective_resolution, zonal_spectrum

CELLS = 3.0  # wavelengths of so many target cells and more are judged; shorter ones are the grid's own noise
BAND = 0.2
_LEAST_MEMBERS = 4


def mean_of(forecast: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """The one field that a forecast would give."""
    if isinstance(forecast, xr.Dataset):
        return forecast["mean"]
    return forecast.mean(MEMBERS) if MEMBERS in forecast.dims else forecast


def scales(forecasts: Mapping[str, xr.DataArray | xr.Dataset], truth: xr.DataArray) -> dict[str, Any] | None:
    """Power spectra of truth, of each system's (mean) field and of single members; None where rows are too short.

    Returns:
        `wavelength_km`; `power` by name, K2 km; `judged_from_km`, the wavelength of three cells; `effective_km` by
        name, the wavelength down to which a field's error has less than half the power of what truth does beside its
        mean over the times (a fixed coast is no skill); and, of an ensemble, `members_over_truth`: the lowest and
        highest ratio of the members' power to truth's from `judged_from_km` on, and the share of wavelengths where it
        is within 20 %.
    """
    if truth.sizes["longitude"] < 8:
        return None
    limits = (-60.0, 60.0) if (np.abs(truth["latitude"].values) <= 60.0).any() else (-90.0, 90.0)
    reference = _power(truth, limits)
    changing = _power(truth - truth.mean("time"), limits) if truth.sizes["time"] > 2 else reference
    lines, effective = {"truth": reference}, {}
    for name, forecast in forecasts.items():
        field = mean_of(forecast)
        if isinstance(forecast, xr.DataArray) and MEMBERS in forecast.dims:
            lines[f"{name} members"] = _power(forecast, limits)
        lines[name] = _power(field, limits)
        effective[name] = effective_resolution(_power(field - truth, limits), changing)
    wavelength = reference["wavelength"].values
    judged = wavelength >= CELLS / 2 * wavelength.min() * (1 - 1e-9)
    found: dict[str, Any] = {
        "wavelength_km": wavelength.tolist(),
        "power": {name: line.values.tolist() for name, line in lines.items()},
        "judged_from_km": float(wavelength[judged].min()),
        "effective_km": effective,
    }
    for name, line in lines.items():
        if name.endswith(" members"):
            ratio = (line / reference).values[judged]
            found["members_over_truth"] = {
                "lowest": float(ratio.min()),
                "highest": float(ratio.max()),
                "within_20_percent": float((np.abs(ratio - 1) <= BAND).mean()),
            }
    return found


def reliability(ensemble: xr.DataArray, truth: xr.DataArray, factor: int) -> dict[str, Any] | None:
    """Ranks, spread and coverage of an ensemble; None where it is too small for them.

    Args:
        ensemble: dims (realization, time, latitude, longitude).
        truth: dims (time, latitude, longitude).
        factor: Target cells along a coarse cell: one case is counted for every coarse cell and day.
    """
    if ensemble.sizes[MEMBERS] < _LEAST_MEMBERS:
        return None
    ranked = unmirrored(ensemble)
    counts = rank_histogram(ranked, truth)
    cases = _days(truth["time"]) * -(-truth.sizes["latitude"] // factor) * -(-truth.sizes["longitude"] // factor)
    return {
        "spread_skill": float(spread_skill_ratio(ensemble, truth)),
        "coverage_90": float(coverage(ensemble, truth)),
        "expected_coverage_90": expected_coverage(ensemble.sizes[MEMBERS]),
        "rank_counts": counts.tolist(),
        "cases": cases,
        **flatness(counts, cases),
    }


def summary(found: Mapping[str, Any]) -> dict[str, dict[str, float | str]]:
    """What of a result's `scales` and `reliability` belongs on a screen, a line each."""
    lines: dict[str, dict[str, float | str]] = {}
    spectra, ranks = found.get("scales"), found.get("reliability")
    if spectra and "members_over_truth" in spectra:
        ratio = spectra["members_over_truth"]
        lines["members' power over truth's"] = {
            "lowest": ratio["lowest"],
            "highest": ratio["highest"],
            "from km": spectra["judged_from_km"],
        }
    if spectra:
        lines["effective resolution, km"] = dict(spectra["effective_km"])
    if ranks:
        lines["ranks"] = {name: ranks[name] for name in ("chi_square", "degrees", "p_value", "uneven")}
        lines["90 % interval"] = {"covers": ranks["coverage_90"], "reliable": ranks["expected_coverage_90"]}
    return lines


def _power(field: xr.DataArray, limits: tuple[float, float]) -> xr.DataArray:
    return zonal_spectrum(field, south=limits[0], north=limits[1])


def _days(time: xr.DataArray) -> int:
    days: NDArray[np.int64] = (time.dt.year * 1000 + time.dt.dayofyear).values
    return len(np.unique(days))
