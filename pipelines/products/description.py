"""What a downscaled data set says of itself: names and units by the CF conventions, and where it comes from."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from importlib.metadata import version

import xarray as xr

from pipelines.data.times import calendar_of
from pipelines.products.doubts import doubts, taught
from pipelines.products.tiles import Job

_AXES = {
    "realization": {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
}
_LEAPING = {"standard", "gregorian", "proleptic_gregorian", "julian"}
_LETTERS = {"time": "T", "latitude": "Y", "longitude": "X"}


def described(dataset: xr.Dataset, job: Job) -> xr.Dataset:
    """Give the attributes; what the model is asked beyond its training is a warning, too."""
    plan, origin = job.teller.checkpoint.plan, job.teller.origin
    calibration = job.teller.checkpoint.calibration
    for name, attrs in _AXES.items():
        dataset[name].attrs = dict(attrs)
        dataset[name].encoding = {"_FillValue": None}  # a coordinate has no gaps
    dataset["time"].attrs.setdefault("standard_name", "time")
    dataset["time"].attrs.setdefault("long_name", "time")
    if calendar_of(dataset["time"].values) in _LEAPING:
        dataset["time"].attrs.setdefault("units_metadata", "leap_seconds: none")
    for name, letter in _LETTERS.items():
        if name in dataset.dims:  # a list of stations has no axes but its own
            dataset[name].attrs["axis"] = letter
    if job.target.names is not None:
        dataset["station"].attrs = {"long_name": "station name", "cf_role": "timeseries_id"}
    for name, variable in job.variables.items():
        dataset[name].attrs = dict(variable.attrs)
    found = doubts(plan, job.given, job.target, str(job.field.attrs.get("cell_methods", "")))
    for doubt in found:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    every = None if plan.config.context is None else plan.config.context.every
    program = f"vamoh {version('vamoh')}"
    model = f"{origin.get('model', '')} {origin.get('version', '')}".strip()
    asked = f"{job.members} members, seed {job.seed}" + (f", {job.conserve} conserved" if job.conserve else "")
    told = f"model {model} (weights {job.teller.fingerprint}, trained on data {plan.fingerprint[:12]})"
    now, earlier = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", str(job.field.attrs.get("history", ""))
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": "Downscaled 2 metre temperature",
        "source": f"VAMoH {model}".strip(),
        "history": f"{now} {program}: downscaled with {told}, {asked}\n{earlier}".strip(),
        "references": "https://arxiv.org/abs/2302.06223",
        "program": program,
        "model": origin.get("model", ""),
        "model_version": origin.get("version", ""),
        "model_run": origin.get("run_id", ""),
        "model_weights": job.teller.fingerprint,
        "model_data_fingerprint": plan.fingerprint,
        "model_trained": f"{plan.trained_from} to {plan.trained_to}",
        "model_context_every": str(every),
        **taught(plan),
        "calibration": "" if calibration is None else f"conformal, {calibration.about}",
        "seed": job.seed,
        "conserved": job.conserve or "",
        "warnings": " ".join(found),
    }
    if job.target.names is not None:
        dataset.attrs["featureType"] = "timeSeries"
    return dataset
