"""A small real store and a small model, which train in seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipelines.config import Config, load_config
from pipelines.data.climate import ingest
from pipelines.data.store import Store
from pipelines.training.plan import Plan, make_plan

TINY_ENCODER = "{centres: [8, 4], channels: [4, 4], neighbours: [4, 4], kernel_widths: [4]}"
TINY = (
    "context.every=3",
    "split.gap_hours=0",
    "model.latent=3",
    "model.flow_depth=1",
    "model.fourier_frequencies=4",
    f"model.encoder={TINY_ENCODER}",
    f"model.context_encoder={TINY_ENCODER}",
    "model.hypernetwork=[6]",
    "model.generator=[5]",
    "model.gating=[5]",
    "model.local={neighbours: 9, kernels: 4, features: 2, location_features: 2, kernel_widths: [6], levels: 2}",
    "training.epochs=4",
    "training.batch_size=6",
    "training.points=60",
    "training.validate_every=2",
    "training.warmup=2",
    "training.threads=1",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def store(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The 24 real fields of the globe at 12 degrees: 16 x 30 points."""
    return ingest(era5_sample, tmp_path_factory.mktemp("training") / "store", every=12)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """The downscaling preset with a model of a few hundred parameters; overrides change it."""

    def build(*overrides: str) -> Config:
        return load_config("downscale", [*TINY, *overrides])

    return build


@pytest.fixture
def plan(store: Store, tiny: Callable[..., Config]) -> Plan:
    """The tiny run on the small store."""
    return make_plan(tiny(), store)
