"""A pickle runs code when it is read. One is planted in every place where one could lie: none of them is read."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.images import ingest as ingest_images
from pipelines.data.shapes import ingest as ingest_shapes
from pipelines.data.store import open_store
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, load_training, save_checkpoint
from pipelines.training.plan import make_plan
from pipelines.training.registry import load_model
from tests.training.conftest import TINY


class Payload:
    """What an attacker pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists once a planted pickle has run."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists(), "the payload works"
    path.unlink()
    return path


@pytest.fixture
def source(tmp_path: Path, era5_sample: Path) -> Path:
    """Six real fields as Zarr v2."""
    field = xr.open_zarr(era5_sample)["t2m"].isel({"time_index": slice(0, 6)})[:, ::12, ::12].load()
    field.encoding.clear()
    for name in field.coords:
        field[name].encoding.clear()
    field.to_dataset().to_zarr(tmp_path / "source.zarr", zarr_format=2, consolidated=False)
    return tmp_path / "source.zarr"


@pytest.fixture
def checkpoint(tmp_path: Path, era5_sample: Path) -> Path:
    store = ingest(era5_sample, tmp_path / "store", every=12)
    plan = make_plan(load_config("downscale", TINY), store)
    model = plan.new_model()
    optimizer = torch.optim.Adam(model.parameters())
    save_checkpoint(tmp_path / "best", Checkpoint(plan=plan, epoch=1), model, training=(model, optimizer))
    return tmp_path / "best"


def pickled(canary: Path, form: str) -> bytes:
    if form == "pickle":
        return pickle.dumps(Payload(canary))
    stream = io.BytesIO()
    torch.save({"weights": Payload(canary)}, stream)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("file", ["model", "background", "state", "checkpoint.json"])
def test_in_a_checkpoint(file: str, form: str, checkpoint: Path, canary: Path) -> None:
    described = json.loads((checkpoint / "checkpoint.json").read_text())
    (checkpoint / (file if "." in file else f"{file}.safetensors")).write_bytes(pickled(canary, form))
    if file == "background" and not described["background"]:
        load_checkpoint(checkpoint)  # it is not looked at
    elif file == "state":
        _, model = load_checkpoint(checkpoint)
        with pytest.raises(ValueError, match="cannot be read"):
            load_training(checkpoint, model, torch.optim.Adam(model.parameters()))
    else:
        with pytest.raises(ValueError, match="cannot be read"):
            load_checkpoint(checkpoint)
    assert not canary.exists()


def test_beside_a_checkpoint_and_as_the_model_of_its_mlflow_description(checkpoint: Path, canary: Path) -> None:
    for name in ("python_model.pkl", "model.pkl", "data.pkl", "model.pt"):
        (checkpoint / name).write_bytes(pickled(canary, "pickle"))
    flavor = {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}
    described = {"flavors": {"python_function": flavor}}
    (checkpoint / "MLmodel").write_text(json.dumps(described))
    load_model(str(checkpoint))
    assert not canary.exists()


# Zarr refuses the first by the array's type; the second hides behind a filter that it knows, and reaches numcodecs.
@pytest.mark.parametrize("filters", [["pickle"], ["vlen-utf8", "pickle"]], ids="+".join)
@pytest.mark.parametrize("name", ["t2m", "latitude"])
def test_in_the_filter_of_a_zarr_source(name: str, filters: list[str], source: Path, canary: Path) -> None:
    array = source / name
    described = json.loads((array / ".zarray").read_text())
    described |= {"dtype": "|O", "filters": [{"id": each} for each in filters], "compressor": None, "fill_value": None}
    (array / ".zarray").write_text(json.dumps(described))
    for chunk in array.iterdir():
        if not chunk.name.startswith("."):
            chunk.write_bytes(pickled(canary, "pickle"))
    with pytest.raises((ValueError, OSError, RuntimeError)):
        ingest(source, source.with_name("store"))
    assert not canary.exists()


def test_in_the_codec_of_a_store(checkpoint: Path, canary: Path) -> None:
    array = checkpoint.parent / "store" / "t2m"
    described = json.loads((array / "zarr.json").read_text())
    described["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (array / "zarr.json").write_text(json.dumps(described))
    for chunk in (array / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(pickled(canary, "pickle"))
    with pytest.raises((ValueError, OSError)):
        open_store(str(checkpoint.parent / "store")).field.load()
    assert not canary.exists()


def test_in_the_index_beside_a_grib_file(uk_grib: Path, tmp_path: Path, canary: Path) -> None:
    pytest.importorskip("cfgrib")
    link = tmp_path / "era5.grib"
    link.symlink_to(uk_grib)
    for index in (".idx", ".5b7b6.idx", ".923a8.idx"):
        Path(f"{link}{index}").write_bytes(pickled(canary, "pickle"))
    ingest(link, tmp_path / "store", time="2019-03-01:2019-03-01")
    assert not canary.exists()


def test_in_arrays_tensors_and_archives_of_images_and_shapes(tmp_path: Path, canary: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    hidden = np.array([Payload(canary)], dtype=object)
    np.save(inputs / "a.npy", hidden, allow_pickle=True)
    np.savez(inputs / "a.npz", images=hidden, voxels=hidden)
    (inputs / "b.pt").write_bytes(pickled(canary, "torch"))
    (inputs / "c.pt").write_bytes(pickled(canary, "pickle"))
    with zipfile.ZipFile(inputs / "d.zip", "w") as archive:
        archive.writestr("d.npy", (inputs / "a.npy").read_bytes())
        archive.writestr("d.pt", (inputs / "b.pt").read_bytes())
    for source in sorted(inputs.iterdir()):
        for number, take in enumerate((ingest_images, ingest_shapes)):
            with pytest.raises((ValueError, OSError)):
                take(str(source), str(tmp_path / f"store-{source.name}-{number}"))
            assert not canary.exists(), (source.name, take.__module__)
