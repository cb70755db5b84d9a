"""A small real store, and sweeps around a small model that trains in a second."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from tuning.space import SpaceConfig, load_space

ENCODER = "{centres: [8, 4], channels: [4, 4], neighbours: [4, 4], kernel_widths: [4]}"
TINY = (
    "context.every=3",
    "split.gap_hours=0",
    "model.latent=3",
    "model.flow_depth=1",
    "model.fourier_frequencies=4",
    f"model.encoder={ENCODER}",
    f"model.context_encoder={ENCODER}",
    "model.hypernetwork=[6]",
    "model.generator=[5]",
    "model.gating=[5]",
    "model.local={neighbours: 9, kernels: 4, features: 2, location_features: 2, kernel_widths: [6], levels: 2}",
    "training.epochs=4",
    "training.batch_size=6",
    "training.points=60",
    "training.validate_every=1",
    "training.warmup=2",
    "training.threads=1",
)


@pytest.fixture(scope="session")
def store(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The 24 real fields of the globe at 12 degrees: 16 x 30 points."""
    return ingest(era5_sample, tmp_path_factory.mktemp("tuning") / "store", every=12)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a training run with a model of a few hundred parameters."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(yaml.safe_dump(load_config("downscale", TINY).model_dump(mode="json")))
    return str(path)


@pytest.fixture(scope="session")
def space(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SpaceConfig]:
    """A sweep around it; keywords are the keys of its file."""

    def build(**keys: object) -> SpaceConfig:
        path = tmp_path_factory.mktemp("space") / "space.yaml"
        path.write_text(yaml.safe_dump({"train": tiny, **keys}))
        return load_space(str(path))

    return build


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder with one MLflow database for all sweeps of a file: making a database takes seconds."""
    folder = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
