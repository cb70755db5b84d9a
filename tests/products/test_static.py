"""A model that is told the height of the ground is right where nothing else can be known: between its grid's points."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.store import open_store
from pipelines.products.downscale import downscale
from pipelines.products.ensemble import Downscaler
from pipelines.training.plan import make_plan
from pipelines.training.train import train

LAPSE = -0.0065  # K/m
_SMALL = (
    "training.epochs=10", "training.validate_every=10", "training.batch_size=8", "training.threads=1",
    "context.every=3",
    "split={test: 0.2, validation: 0.1, blocks: 1, gap_hours: 0}",
    "model.encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.context_encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.local={neighbours: 12, kernels: 6, features: 2, location_features: 2, reach: 0.7, levels: 3, finest: 0.7}",
)  # fmt: skip


@pytest.fixture(scope="module")
def fine() -> xr.Dataset:
    """An analytic world of 0.25 degrees: hills of 600 m, and a temperature that is smooth but for its lapse."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.arange(60, 49.99, -0.25), np.arange(-10, 5.01, 0.25)
    rough = gaussian_filter(rng.normal(size=(latitude.size, longitude.size)), 1.2)
    height = 600 * np.maximum(rough / rough.std(), -0.5)
    a = rng.normal(size=(5, 120, 1, 1))
    north, east = np.meshgrid(latitude, longitude, indexing="ij")
    smooth = (
        280 + 5 * a[0] + 3 * a[1] * (north - 55) / 5 + 3 * a[2] * np.sin(east / 5) + 2 * a[3] * np.cos(north / 3 + a[4])
    )
    warm = smooth + LAPSE * height + 0.1 * rng.normal(size=smooth.shape)
    time = np.datetime64("2020-01-01", "ns") + np.arange(120) * np.timedelta64(6, "h")
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), warm.astype(np.float32), {"units": "K"}),
         "z": (("latitude", "longitude"), height, {"units": "m"})},
        coords={"time": time, "latitude": latitude, "longitude": longitude},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(fine: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of every second point, and the heights of all."""
    path = tmp_path_factory.mktemp("static")
    fine[["z"]].to_netcdf(path / "z.nc")
    ingest(fine[["t2m"]].isel(latitude=slice(None, None, 2), longitude=slice(None, None, 2)), path / "store.zarr")
    return path


@pytest.fixture(scope="module")
def tellers(folder: Path, workplace: Path) -> dict[str, Downscaler]:
    """Models that are told the heights, and are not."""
    with contextlib.chdir(workplace), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        config, store = load_config("downscale", _SMALL), str(folder / "store.zarr")
        return {
            name: Downscaler.of(str(train(config, store, name=f"static-{name}", statics=statics).checkpoint))
            for name, statics in (("told", [str(folder / "z.nc")]), ("not", []))
        }


def test_between_the_points_that_it_learned_from_the_error_falls_to_less_than_a_third(tellers, fine) -> None:
    truth = fine["t2m"][100:104]
    errors = {}
    for name, teller in tellers.items():
        found = downscale(truth[:, ::6, ::6], teller, like=truth, members=8)["t2m"].mean("realization").compute()
        between = (found.values - truth.values)[:, 1::2, 1::2]
        errors[name] = float(np.sqrt((between**2).mean()))
    assert errors["told"] < 0.33 * errors["not"]
    assert errors["told"] < 0.4  # 0.1 is noise


def test_a_checkpoint_knows_what_it_was_told_by_name_units_and_content(tellers, folder) -> None:
    (field,) = tellers["told"].checkpoint.plan.statics
    assert (field.name, field.units) == ("z", "m")
    assert field.slope == pytest.approx(LAPSE, rel=0.1)
    again = make_plan(load_config("downscale", _SMALL), open_store(str(folder / "store.zarr")), [str(folder / "z.nc")])
    assert again.statics[0].fingerprint == field.fingerprint
    assert tellers["not"].checkpoint.plan.statics == ()
    fine = downscale(open_store(str(folder / "store.zarr")).field[:1, ::3, ::3], tellers["told"], factor=2, members=1)
    assert fine.attrs["model_static_fields"] == f"z (m) {field.fingerprint}"


def test_static_fields_are_refused_where_they_cannot_be_used_or_differ_from_those_that_a_run_began_with(
    tellers, folder, workplace, fine
) -> None:
    store = str(folder / "store.zarr")
    with pytest.raises(ValueError, match="--static is for downscaling"):
        make_plan(load_config("era5", ["training.batch_size=4"]), open_store(store), [str(folder / "z.nc")])
    (2 * fine[["z"]]).to_netcdf(folder / "other.nc")
    with (
        contextlib.chdir(workplace),
        pytest.raises(ValueError, match="static fields differ from those that run static-told"),
    ):
        train(
            load_config("downscale", _SMALL), store, name="static-told", resume=True, statics=[str(folder / "other.nc")]
        )
