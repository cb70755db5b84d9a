"""The page of an evaluation: one field before and after, scores, spectra, ranks, and skill over resolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from pipelines.data.sphere import Lattice
from pipelines.data.times import label
from pipelines.products import plot, score_charts
from pipelines.products.baselines import Forecasts
from pipelines.products.diagnosis import mean_of
from pipelines.products.report import Table, write_report
from pipelines.products.skill import MEMBERS
from pipelines.products.spectra import EARTH_RADIUS_KM

OURS = "vamoh"
_TOLD = ("model", "version", "run_id", "store", "fingerprint", "split", "from", "to", "samples", "factor", "every")


def write_evaluation(
    path: str | Path, result: Mapping[str, Any], coarse: xr.DataArray, truth: xr.DataArray, forecasts: Forecasts
) -> Path:
    """Write the page.

    Args:
        path: The HTML file; an older one is replaced.
        result: Of `evaluate`, of a downscaling model.
        coarse: What was given (time, latitude, longitude).
        truth: Where it was asked for.
        forecasts: What every system made of it, ours first.
    """
    ours = result["scores"][OURS]
    figures = [("One field, before and after", _MAPS, _maps(coarse, truth, forecasts))]
    figures += figures_of(result, coarse)
    return write_report(
        path,
        title=f"Downscaling {_size(coarse)} to {_size(truth)}",
        summary=(
            f"{result['samples']} fields of {result['from']} to {result['to']} that the model did not learn from: "
            f"{result['members']} members on {_size(truth)} points from {_size(coarse)}. The error of their mean is "
            f"{ours['rmse']:.3f} {result['units']}, where bilinear interpolation has "
            f"{result['scores']['bilinear']['rmse']:.3f}."
        ),
        scores_table=result["scores"],
        figures=figures,
        tables=tables_of(result),
        provenance={name.replace("_", " "): result[name] for name in _TOLD if result.get(name) is not None}
        | {"weights": "by area", "members": result["members"], "seed": result["seed"]},
        units=result["units"],
    )


def figures_of(result: Mapping[str, Any], coarse: xr.DataArray) -> list[tuple[str, str, Figure]]:
    """The charts that a result has the numbers for: title, caption, figure."""
    figures = []
    found = result.get("scales")
    if found:
        names = [f"{OURS} members", OURS, "bilinear", "local ridge"]
        chart = score_charts.power_ratios(
            found["wavelength_km"],
            found["power"],
            names=names,
            judged_from_km=found["judged_from_km"],
            coarse_km=2 * Lattice.of(coarse).spacing_rad * EARTH_RADIUS_KM,
        )
        figures.append(("Power at every wavelength", _SPECTRA, chart))
    if result.get("reliability"):
        figures.append(("Where truth lies among the members", _RANKS, score_charts.ranks(_counts(result))))
    if result.get("curve"):
        figures.append(("Skill over resolution", _CURVE, score_charts.skill_curves(result["curve"])))
    return figures


def tables_of(result: Mapping[str, Any]) -> list[Table]:
    """What the figures are of, as numbers."""
    tables = []
    found, ranks, rows = result.get("scales"), result.get("reliability"), result.get("curve")
    if found or ranks:
        lines: list[tuple[str, ...]] = []
        if found and "members_over_truth" in found:
            ratio = found["members_over_truth"]
            lines.append(
                (
                    f"members' power over truth's, {found['judged_from_km']:.0f} km and longer",
                    f"{ratio['lowest']:.2f} to {ratio['highest']:.2f}",
                    "0.8 to 1.2",
                )
            )
        if ranks:
            lines += [
                ("spread over skill", f"{ranks['spread_skill']:.2f}", "0.8 to 1.25"),
                ("central 90 % interval covers", f"{ranks['coverage_90']:.3f}", f"{ranks['expected_coverage_90']:.3f}"),
                (
                    f"chi-square of the ranks, {ranks['cases']} cases",
                    f"{ranks['chi_square']:.1f} (p = {ranks['p_value']:.2g})",
                    f"about {ranks['degrees']:.0f}",
                ),
                ("share of truth in a wrong rank", f"{100 * ranks['uneven']:.1f} %", "0"),
            ]
        tables.append(Table(title="Reliability", header=("of the members", "is", "should be"), rows=tuple(lines)))
    if found:
        resolved = [(name, f"{km:.0f}" if np.isfinite(km) else "none") for name, km in found["effective_km"].items()]
        tables.append(
            Table(
                title="Effective resolution",
                header=("Method", "km"),
                rows=tuple(resolved),
                note="The wavelength down to which the error of the (mean) field has less than half the power of what "
                "truth does beside its mean over the times: a coast that never moves is no skill.",
            )
        )
    if rows:
        systems = list(rows[0]["rmse"])
        header = ("Input, output spacing (km)", *systems, "effective resolution (km)")
        tables.append(Table(title="RMSE (K) over resolution", header=header, rows=tuple(map(_curve_row, rows))))
    return tables


def _curve_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    where = f"{row['input_km']:.0f} to {row['output_km']:.0f}" + ("" if row["trained"] else " (not trained on)")
    scores = (f"{score:.3f}" for score in row["rmse"].values())
    effective = row["effective_km"].get(OURS, np.nan)
    return (where, *scores, f"{effective:.0f}" if np.isfinite(effective) else "none")


def _counts(result: Mapping[str, Any]) -> list[int]:
    return list(result["reliability"]["rank_counts"])


def _maps(coarse: xr.DataArray, truth: xr.DataArray, forecasts: Forecasts) -> Figure:
    """The sample whose error is the median of all, so that it is neither the best nor the worst."""
    ensemble = forecasts[OURS]
    assert isinstance(ensemble, xr.DataArray)
    mean = mean_of(ensemble)
    error = ((mean - truth) ** 2).mean(["latitude", "longitude"]).values
    number = int(np.argsort(error)[len(error) // 2])
    said = {"units": "K", "long_name": "2 m temperature"} | {
        key: truth.attrs[key] for key in ("units", "long_name") if key in truth.attrs
    }
    return plot.comparison(
        coarse.isel(time=number).assign_attrs(said),
        mean.isel(time=number).assign_attrs(said),
        truth=truth.isel(time=number).assign_attrs(said),
        spread=ensemble.isel(time=number).std(MEMBERS).assign_attrs(units=said["units"]),
        title=label(truth["time"].values[number]),
    )


def _size(field: xr.DataArray) -> str:
    return f"{field.sizes['latitude']} x {field.sizes['longitude']}"


_MAPS = (
    "The sample whose error is the median of all. The error is what the coarse values do not tell: coasts, mountains. "
    "The spread should be large where the error is."
)
_SPECTRA = (
    "Members should have truth's power at every wavelength. Their mean has less where the coarse input does not say "
    "what is there, and interpolation has almost none."
)
_RANKS = (
    "High ends: the members are too sure. A hump: they are not sure enough. A slope: they are too cold or too warm. "
    "One of each pair of mirrored members is counted."
)
_CURVE = "The same model throughout; the ridges are fitted anew for every pair of grids."
