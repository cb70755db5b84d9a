"""A model of real chairs, if not trained for long: samples, completions, files of all formats, scores, pictures."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import trimesh
import xarray as xr

import pipelines
from infra.cli import main
from pipelines.config import load_config
from pipelines.data.shapes import as_field, ingest
from pipelines.data.store import open_store
from pipelines.data.voxels import read_binvox
from pipelines.products.evaluate import evaluate
from pipelines.products.shape_inputs import read_shapes
from pipelines.training.train import train

SIZE = 16
TINY = (
    "model.latent=6",
    "model.flow_depth=2",
    "model.fourier_frequencies=12",
    "model.encoder={centres: [64, 16], channels: [8, 8], neighbours: [32, 8], kernel_widths: [8], places: true}",
    "model.hypernetwork=[16]",
    "model.generator=[16]",
    "model.gating=[8]",
    "training.epochs=25",
    "training.batch_size=16",
    "training.points=256",
    "training.warmup=0",
    "training.learning_rate=0.01",
    "training.average=0.9",
    "training.validate_every=25",
    "training.members=2",
    "training.threads=1",
    "split.validation=0.05",
)


@pytest.fixture(scope="module")
def store(chairs_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """84 genuine chairs at 16^3, the last 12 for tests."""
    folder = tmp_path_factory.mktemp("chairs")
    with np.load(chairs_npz) as arrays:
        np.savez(folder / "chairs.npz", chair=arrays["train"][:84])
    return ingest(folder / "chairs.npz", folder / "chairs.zarr", resolution=SIZE, test=12).store.path


@pytest.fixture(scope="module")
def model(store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint."""
    folder = tmp_path_factory.mktemp("shapes")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return str(folder / train(load_config("shapes", TINY), store, name="tiny").checkpoint)


@pytest.fixture
def half(store: str) -> xr.DataArray:
    """Two chairs of which the upper half is missing."""
    field = open_store(store).field[-2:].load().astype(np.float32)
    field[..., SIZE // 2 :] = np.nan
    return field


def test_samples_are_one_function_at_every_resolution(model: str) -> None:
    coarse = pipelines.sample(model, number=2)
    fine = pipelines.sample(model, number=2, resolution=3 * SIZE)
    assert coarse["probability"].dims == ("shape", "x", "y", "z")
    assert fine["probability"].shape == (2, 48, 48, 48)
    same = fine["probability"][:, 1::3, 1::3, 1::3]  # the same places
    np.testing.assert_allclose(same, coarse["probability"], atol=1e-4)
    assert 0 <= float(fine["probability"].min()) and float(fine["probability"].max()) <= 1
    assert set(np.unique(fine["component"])) <= {0, 1}


def test_completions_keep_what_was_seen_and_differ_elsewhere(model: str, half: xr.DataArray, tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", chairs=half.values)
    assert main(["complete", model, str(tmp_path / "half.npz"), str(tmp_path / "whole.npz"), "--number", "3"]) == 0
    with np.load(tmp_path / "whole.npz") as arrays:
        assert list(arrays) == ["probability"]
        made = arrays["probability"]
    assert made.shape == (2, 3, SIZE, SIZE, SIZE)
    seen = np.isfinite(half.values)
    for number in range(3):
        assert np.array_equal(made[:, number][seen], half.values[seen])
    assert (made.std(axis=1)[~seen] > 0).any()
    again = pipelines.complete(model, half, number=1, reconstruct=True)["probability"].values[:, 0]
    assert not np.array_equal(again[seen], half.values[seen])


def test_the_ascent_explains_what_was_seen_better_than_the_encoder_alone(model: str, half: xr.DataArray) -> None:
    seen = np.isfinite(half.values)

    def loss(refine: int) -> float:
        made = pipelines.complete(model, half, number=1, reconstruct=True, refine=refine)["probability"].values[:, 0]
        right = np.where(half.values > 0.5, made, 1 - made)[seen]
        return float(-np.log(np.maximum(right, 1e-6)).mean())

    assert loss(40) < loss(0)


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".obj", ".stl"])
def test_meshes_are_written_closed(model: str, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"chairs{suffix}"
    assert main(["sample", model, str(output), "--number", "2", "--resolution", "24"]) == 0
    mesh = trimesh.load(output, force="mesh")
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    assert mesh.is_watertight and len(mesh.faces) > 0


def test_voxels_and_pictures_are_written(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", model, str(tmp_path / "a.binvox"), "--number", "1", "--resolution", "20"]) == 0
    assert read_binvox((tmp_path / "a.binvox").read_bytes()).shape == (20, 20, 20)
    assert main(["sample", model, str(tmp_path / "b.binvox"), "--number", "2"]) == 2
    assert "holds one shape" in capsys.readouterr().err
    assert main(["sample", model, str(tmp_path / "a.png"), "--number", "3"]) == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["sample", model, str(tmp_path / "a.ply"), "--resolution", "2.5"]) == 2
    assert "number of voxels" in capsys.readouterr().err


def test_the_evaluation_puts_trivial_baselines_beside_the_model(model: str, store: str) -> None:
    found = evaluate(model, store)
    tables = found if isinstance(found, dict) else found.scores
    whole = tables["reconstruction"]
    assert {"vamoh", "nearest training shape", "training mean"} <= set(whole)
    assert all(0 <= scores["iou"] <= scores["f1"] <= 1 for scores in whole.values())
    assert whole["nearest training shape"]["iou"] > whole["training mean"]["iou"]
    assert whole["vamoh"]["iou"] >= whole["vamoh, the encoder alone"]["iou"] - 0.02
    assert set(tables["finer"]["vamoh"]) == {"iou_at_16", "iou_at_32"}
    samples = tables["samples"]
    assert samples["training mean"]["coverage"] == pytest.approx(1 / 12)
    assert samples["training shapes"]["coverage"] > 0.3
    assert {"mmd", "coverage", "one_nn", "empty"} == set(samples["vamoh"])


def test_what_is_to_be_completed_is_read_in_every_form(half: xr.DataArray, store: str, tmp_path: Path) -> None:
    values = half.values
    np.savez(tmp_path / "a.npz", values=values)
    np.savez(tmp_path / "b.npz", values=np.nan_to_num(values).astype(np.uint8), observed=np.isfinite(values))
    np.save(tmp_path / "c.npy", values)
    as_field(values, np.arange(2)).to_dataset().to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    for name in ("a.npz", "b.npz", "c.npy", "d.nc"):
        np.testing.assert_array_equal(read_shapes(str(tmp_path / name)).values, values)
    assert read_shapes(half).dims == ("shape", "x", "y", "z")
    assert read_shapes(half[0]).shape == (1, SIZE, SIZE, SIZE)
    assert read_shapes(store).shape == (84, SIZE, SIZE, SIZE)


def test_what_cannot_be_completed_is_refused_in_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2, 2)), b=np.ones((2, 2, 2)))
    np.savez(tmp_path / "large.npz", a=np.full((2, 2, 2), 7.0))
    np.savez(tmp_path / "flat.npz", a=np.ones((2, 2)))
    np.savez(tmp_path / "mask.npz", a=np.ones((2, 2, 2)), observed=np.ones((3, 3, 3), dtype=bool))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for name, said in {
        "two": "expected occupancies",
        "large": "within 0 and 1",
        "flat": "has shape",
        "mask": "observed",
        "junk": "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=said):
            read_shapes(str(tmp_path / f"{name}.npz"))
    with pytest.raises(FileNotFoundError):
        read_shapes(str(tmp_path / "none.npz"))
