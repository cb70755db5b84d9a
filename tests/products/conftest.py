"""Real fields for the tests of products, in the layout that the stores have, and models that were trained on them."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.store import open_store
from pipelines.products.downscale import downscale
from pipelines.products.ensemble import Downscaler
from pipelines.training.train import train


@pytest.fixture(scope="session")
def uk_hours(uk_grib: Path) -> xr.DataArray:
    """ERA5 2 m temperature over the British Isles, hourly in March 2019: (744, 33, 49), K."""
    with xr.open_dataset(uk_grib, engine="cfgrib", backend_kwargs={"indexpath": ""}) as dataset:
        field = dataset["t2m"].load()
    return field.drop_vars([name for name in field.coords if name not in field.dims])


@pytest.fixture(scope="session")
def globe(era5_sample: Path) -> xr.DataArray:
    """ERA5 2 m temperature of the globe at 1 degree, every 7-8 h: (24, 181, 360), K."""
    hours = xr.open_zarr(era5_sample, consolidated=False)["t2m"].load().rename(time_index="time")
    time = np.datetime64("1940-01-01", "ns") + pd.to_timedelta(hours["time"].values, unit="h").to_numpy()
    return hours.assign_coords(time=time).assign_attrs(units="K", long_name="2 m temperature")


@dataclass(frozen=True)
class Trained:
    """A model that was really trained, if not for long.

    Attributes:
        folder: Its working directory, where MLflow's and the runs' folders are.
        checkpoint: The best checkpoint.
        store: What it was trained on: genuine ERA5 of the globe at 4 degrees, 24 fields of 46 x 90.
        run_id: MLflow's.
    """

    folder: Path
    checkpoint: Path
    store: str
    run_id: str


_TINY = (
    "split.gap_hours=0",
    "model.latent=4",
    "model.components=2",
    "model.flow_depth=1",
    "model.fourier_frequencies=4",
    "model.hypernetwork=[16]",
    "model.generator=[8]",
    "model.gating=[8]",
    "model.encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "training.points=256",
    "training.batch_size=5",
    "training.members=4",
    "training.threads=1",
    "training.learning_rate=0.01",
    "training.stages={prior: 0, gate: 0}",
)
_TINY_CONTEXT = (
    "context.every=3",
    "training.epochs=6",
    "training.validate_every=6",
    "model.context_encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.local={neighbours: 12, kernels: 6, features: 2, location_features: 2, reach: 0.7, levels: 3, finest: 0.7}",
)


@pytest.fixture(scope="session")
def globe_store(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of genuine ERA5 of the globe: 24 fields of 46 x 90 points, 4 degrees."""
    path = tmp_path_factory.mktemp("stores") / "globe.zarr"
    return ingest(str(era5_sample), path, every=4).path


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory that the models below are trained in."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def trained(globe_store: str, workplace: Path) -> Trained:
    """A downscaling model for every third point of 46 x 90, registered as `tiny`."""
    return _train("downscale", (*_TINY, *_TINY_CONTEXT), globe_store, workplace, "tiny")


@pytest.fixture(scope="session")
def classic(globe_store: str, workplace: Path) -> Trained:
    """A classic model of whole fields of 46 x 90 points, registered as `classic`."""
    return _train("era5", (*_TINY, "training.epochs=2"), globe_store, workplace, "classic")


@pytest.fixture(scope="session")
def teller(trained: Trained) -> Downscaler:
    """The downscaling model, ready to be asked."""
    return Downscaler.of(str(trained.checkpoint))


@pytest.fixture(scope="session")
def truth(globe_store: str) -> xr.DataArray:
    """Fields that the models did not see: (6, 46, 90), K."""
    return open_store(globe_store).field[-6:].load()


@pytest.fixture
def coarse(truth: xr.DataArray) -> xr.DataArray:
    """Every third point of three of them: (3, 16, 30), from pole to pole and round the globe."""
    return truth[:3, ::3, ::3].copy()


@pytest.fixture(scope="session")
def whole(truth: xr.DataArray, teller: Downscaler) -> xr.DataArray:
    """Two members on 46 x 90, of three times."""
    return downscale(truth[:3, ::3, ::3], teller, factor=3, members=2)["t2m"].compute()


def _train(preset: str, overrides: tuple[str, ...], store: str, folder: Path, name: str) -> Trained:
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = train(load_config(preset, overrides), store, name=name, register=name)
    return Trained(folder, result.checkpoint, store, result.run_id)
