"""A model of kind "scattered" is given any set of points; one of another kind says what it needs."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import griddata

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.sphere import Lattice
from pipelines.data.store import open_store
from pipelines.products.downscale import downscale, downscale_file
from pipelines.products.ensemble import Downscaler
from pipelines.products.skill import area_weights
from pipelines.training.train import train

_SMALL = (
    "training.epochs=6", "training.validate_every=6", "training.batch_size=3", "training.threads=1",
    "split={test: 0.25, gap_hours: 0, validation: 0.06, blocks: 1}",
    "model.encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.context_encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.local={neighbours: 12, kernels: 6, features: 2, location_features: 2, reach: 0.7, levels: 3, finest: 0.7}",
)  # fmt: skip


@pytest.fixture(scope="module")
def europe(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of genuine ERA5: 24 fields of 21 x 31 points, 2 degrees."""
    path = tmp_path_factory.mktemp("stores") / "europe.zarr"
    return ingest(str(era5_sample), path, region=(-20, 30, 40, 70), every=2).path


@pytest.fixture(scope="module")
def checkpoints(europe: str, workplace: Path) -> dict[str, Path]:
    """Models for any set of points and for every third point, really trained on 17 fields."""
    asked = {"scattered": "context.every=[2,5]", "downscale": "context.every=3"}
    with contextlib.chdir(workplace), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return {
            preset: train(load_config(preset, (*_SMALL, every)), europe, name=f"europe-{preset}").checkpoint
            for preset, every in asked.items()
        }


@pytest.fixture(scope="module")
def anywhere(checkpoints: dict[str, Path]) -> Downscaler:
    return Downscaler.of(str(checkpoints["scattered"]))


@pytest.fixture(scope="module")
def on_a_lattice(checkpoints: dict[str, Path]) -> Downscaler:
    return Downscaler.of(str(checkpoints["downscale"]))


@pytest.fixture(scope="module")
def truth(europe: str) -> xr.DataArray:
    """Fields that the models did not see: (6, 21, 31), K."""
    return open_store(europe).field[-6:].load()


@pytest.fixture(scope="module")
def stations(truth: xr.DataArray) -> xr.Dataset:
    """Two of the fields at 80 places that are no grid points."""
    rng = np.random.default_rng(4)
    latitude, longitude = rng.uniform(31, 69, 80), rng.uniform(-19, 39, 80)
    fields = truth[:2].values.reshape(2, -1).astype(float)
    values = Lattice.of(truth).interpolate(fields, latitude, longitude)
    coords = {"time": truth["time"][:2], "latitude": ("station", latitude), "longitude": ("station", longitude)}
    return xr.Dataset({"t2m": (("time", "station"), values, {"units": "K"})}, coords=coords)


def rmse(field: xr.DataArray, truth: xr.DataArray) -> float:
    squares = (field - truth.astype(float)) ** 2
    return float(np.sqrt(squares.weighted(area_weights(truth["latitude"].values)).mean()))


def test_stations_become_members_that_are_nearer_to_the_truth_than_what_interpolates_them(
    anywhere, stations, truth
) -> None:
    fine = downscale(stations, anywhere, like=truth, members=8, also=("spread",)).compute()
    assert fine["t2m"].dims == ("realization", "time", "latitude", "longitude")
    assert fine["t2m"].attrs["units"] == "K"
    found = fine["t2m"].mean("realization")
    np.testing.assert_allclose(found["longitude"], truth["longitude"])
    at, wanted = (
        np.stack([latitude, longitude * np.cos(np.deg2rad(50.0))], axis=-1)
        for latitude, longitude in (
            (stations["latitude"].values, stations["longitude"].values),
            Lattice.of(truth).points,
        )
    )
    linear = truth[:2].astype(float)
    for hour, values in enumerate(stations["t2m"].values):
        near, far = (griddata(at, values, wanted, method=method) for method in ("linear", "nearest"))
        linear[hour] = np.where(np.isnan(near), far, near).reshape(truth.shape[1:])  # outside their hull
    assert rmse(found, truth[:2]) < 0.8 * rmse(linear, truth[:2])
    assert 0.3 < float(fine["t2m_spread"].mean()) < 5


def test_a_member_is_one_function_whatever_it_is_asked_for_and_however_the_points_are_ordered(
    anywhere, stations
) -> None:
    whole = downscale(stations, anywhere, resolution=1, region=(-10, 35, 20, 60), members=2)["t2m"].compute()
    part = downscale(stations, anywhere, resolution=5, region=(-10, 35, 20, 60), members=2)["t2m"].compute()
    np.testing.assert_allclose(part, whole[:, :, ::5, ::5], atol=1e-3)
    turned = downscale(stations.isel(station=slice(None, None, -1)), anywhere, resolution=1,
                       region=(-10, 35, 20, 60), members=2)["t2m"]  # fmt: skip
    np.testing.assert_allclose(turned, whole, atol=2e-2)


def test_a_grid_with_gaps_is_the_set_of_the_points_that_are_left(anywhere, truth) -> None:
    coarse = truth[:1, ::3, ::3].copy()
    coarse[0, 2:5, 1:6] = np.nan
    asked = {"resolution": 1.5, "region": (-15, 35, 30, 60), "members": 2}
    gappy = downscale(coarse, anywhere, **asked)["t2m"].compute()
    assert np.isfinite(gappy).all()
    latitude, longitude = Lattice.of(coarse).points
    held = np.intersect1d(Lattice.of(coarse).distinct_index, np.flatnonzero(np.isfinite(coarse.values.ravel())))
    coords = {"time": coarse["time"], "lat": ("obs", latitude[held]), "lon": ("obs", longitude[held])}
    values = xr.DataArray(coarse.values.reshape(1, -1)[:, held], dims=("time", "obs"), coords=coords, name="t2m")
    listed = downscale(values, anywhere, units="K", **asked)["t2m"].compute()
    np.testing.assert_allclose(listed, gappy, atol=1e-2)


def test_half_the_points_missing_costs_a_model_that_analyses_them_less_than_interpolation(
    anywhere, on_a_lattice, truth
) -> None:
    coarse = truth[:, ::3, ::3].copy()
    gappy = coarse.where(np.random.default_rng(0).random(coarse.shape) > 0.5)
    errors = {
        name: [
            rmse(downscale(given, model, like=truth, members=8)["t2m"].mean("realization").compute(), truth)
            for given in (coarse, gappy)
        ]
        for name, model in (("any set", anywhere), ("lattice", on_a_lattice))
    }
    between = Lattice.of(gappy).interpolate(gappy.values.reshape(6, -1).astype(float), *Lattice.of(truth).points)
    linear = rmse(truth.copy(data=between.reshape(truth.shape)), truth)
    for whole, half in errors.values():
        assert whole < half < 0.8 * linear


def test_a_table_of_stations_is_downscaled_to_a_file_in_one_call(checkpoints, stations, tmp_path) -> None:
    table, out = tmp_path / "stations.csv", tmp_path / "fine.nc"
    hour = stations.isel(time=0)
    rows = zip(hour["latitude"].values, hour["longitude"].values, hour["t2m"].values - 273.15, strict=True)
    table.write_text("name,latitude,longitude,t2m\n" + "".join(f"s,{a},{b},{c}\n" for a, b, c in rows))
    asked = {"resolution": 2.0, "members": 2, "units": "degC", "time": "2026-03-31T00"}
    downscale_file(str(checkpoints["scattered"]), str(table), str(out), **asked)
    with xr.open_dataset(out) as fine:
        assert fine["t2m"].shape == (2, 1, 21, 31)  # where the model was trained
        assert 200 < float(fine["t2m"].min()) < float(fine["t2m"].max()) < 330


def test_a_checkpoint_holds_all_that_a_set_of_points_needs(anywhere, europe) -> None:
    plan = anywhere.checkpoint.plan
    assert plan.background is not None
    assert plan.spec.covariates == 5
    fields = open_store(europe).field.values.reshape(24, -1)
    kept = (np.abs(plan.background.fields[:, None] - fields[None]).max(axis=-1) < 1e-4).argmax(axis=1)
    assert len(set(kept)) == 17 and kept.max() < 18  # the training samples, and no others


def test_no_variance_is_usual_where_points_lie_elsewhere_each_time(anywhere, on_a_lattice) -> None:
    assert anywhere.checkpoint.leverage.usual is None
    assert on_a_lattice.checkpoint.leverage.usual is not None


def test_what_cannot_be_asked_of_points_is_refused_in_a_sentence(anywhere, on_a_lattice, stations) -> None:
    with pytest.raises(ValueError, match=r"this model takes fields on a grid: train one with context\.kind scattered"):
        downscale(stations, on_a_lattice, resolution=5)
    with pytest.raises(ValueError, match="has no cells for --factor: leave it out, and say --resolution"):
        downscale(stations, anywhere, factor=2)
    with pytest.raises(ValueError, match="has no cells for --conserve: leave it out"):
        downscale(stations, anywhere, resolution=5, conserve=True)
    elsewhere = stations.assign_coords(latitude=-stations["latitude"])
    with pytest.raises(ValueError, match="no point of the input lies in the region"):
        downscale(elsewhere, anywhere, resolution=5)["t2m"].compute()


def test_sets_that_the_training_did_not_have_are_doubted(anywhere, stations) -> None:
    with pytest.warns(UserWarning, match="The input's points are some .* degrees apart, the model was trained on"):
        downscale(stations.isel(station=slice(0, 8)), anywhere, resolution=5)
