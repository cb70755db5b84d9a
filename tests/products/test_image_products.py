"""A model of pictures from end to end: trained on scenes, scored beside baselines, sampled, and asked to complete."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from infra.cli import main
from pipelines.config import load_config
from pipelines.data.images import ingest
from pipelines.data.store import open_store
from pipelines.products import generate
from pipelines.products.evaluate import evaluate
from pipelines.products.image_figures import Row, sheet, shown
from pipelines.products.image_inputs import read_pictures
from pipelines.products.image_scores import lower_half
from pipelines.products.linear_pictures import LinearPictures
from pipelines.products.pictures import training_pictures
from pipelines.training.train import train
from tests.data.scenes import scenes

SIDE = 16
SMALL = (
    "model.latent=8",
    "model.components=3",
    "model.flow_depth=2",
    "model.fourier_frequencies=32",
    "model.fourier_std=1.0",
    "model.encoder={centres: [64, 16], channels: [16, 16], neighbours: [9, 9], kernel_widths: [8], places: true}",
    "model.hypernetwork=[32]",
    "model.generator=[16, 16]",
    "model.gating=[16]",
    "model.component_posterior=exact",
    "training.epochs=14",
    "training.batch_size=16",
    "training.points=96",
    "training.hidden=0.5",
    "training.learning_rate=5.0e-3",
    "training.schedule=cosine",
    "training.stages={prior: 0, gate: 0}",
    "training.average=0.98",
    "training.validate_every=14",
    "training.select=validation_elbo",
    "training.threads=1",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Scenes of 16 x 16, drawn by a formula: 600 to learn from, 60 to choose by, 60 to be scored."""
    folder = tmp_path_factory.mktemp("pictures")
    np.savez(
        folder / "scenes.npz", train=scenes(600, 0, SIDE), validation=scenes(60, 1, SIDE), test=scenes(60, 2, SIDE)
    )
    return ingest(folder / "scenes.npz", folder / "scenes.zarr").store.path


@pytest.fixture(scope="module")
def model(store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of these scenes, trained for some seconds."""
    with contextlib.chdir(tmp_path_factory.mktemp("runs")), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return str(train(load_config("shapes3d", SMALL), store, name="scenes").checkpoint.absolute())


@pytest.fixture(scope="module")
def found(model: str, store: str) -> dict:
    return evaluate(model, store, members=4)


def test_reconstructions_and_completions_beat_the_mean_picture(found: dict) -> None:
    # Nothing above tells the hue of the floor: of the lower half, no guess is better than the mean.
    for task, margin in (
        ("reconstruction", 4.0),
        ("completion_of_the_middle_quarter", 2.0),
        ("completion_of_the_lower_half", -0.5),
    ):
        scores = found[task]
        assert set(scores) == {"vamoh", "mean picture", "nearest picture", "linear"}
        assert scores["vamoh"]["psnr"] > scores["mean picture"]["psnr"] + margin, task


def test_new_pictures_are_scored_on_stated_features_beside_three_other_generators(found: dict) -> None:
    table = found["new_pictures"]
    assert set(table) == {"vamoh", "mean picture", "linear", "training pictures"}
    assert found["pictures_of_each"] == 60 and "principal components" in found["features"]
    assert table["training pictures"]["frechet"] < table["vamoh"]["frechet"] < table["mean picture"]["frechet"]
    assert table["training pictures"]["recall"] > 0.5 and table["mean picture"]["recall"] == 0.0
    assert not any("fid" in row for row in table.values())  # these are not Inception's features


class Widened(torch.nn.Module):
    """Stands in for Inception, whose weights no package carries: pixels, and zeros up to its 2048 features."""

    def forward(self, pictures: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        flat = pictures.float().flatten(1)
        return torch.nn.functional.pad(flat, (0, 2048 - flat.shape[1]))


def test_the_distance_is_called_fid_only_with_the_users_own_weights(
    model: str, store: str, tmp_path: Path, monkeypatch
) -> None:
    torch.jit.script(Widened()).save(tmp_path / "weights.pt")
    monkeypatch.setenv("VAMOH_INCEPTION", str(tmp_path / "weights.pt"))
    found = evaluate(model, store, members=1)
    assert all("fid" in row and "frechet" not in row for row in found["new_pictures"].values())
    assert found["features"] == "Inception, 2048 features"
    monkeypatch.setenv("VAMOH_INCEPTION", str(tmp_path / "nothing.pt"))
    with pytest.raises(FileNotFoundError, match="Inception"):
        evaluate(model, store, members=1)


def test_without_the_training_store_the_model_is_scored_alone_and_that_is_said(model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", scenes(9, 7, SIDE))
    other = ingest(tmp_path / "other.npy", tmp_path / "other.zarr").store.path
    found = evaluate(model, other, split="all", members=1)
    assert set(found["reconstruction"]) == {"vamoh"} and "--reference" in found["note"]
    assert "new_pictures" not in found


def test_a_new_picture_is_one_function_at_every_resolution(model: str) -> None:
    once, twice = generate.sample(model, number=3), generate.sample(model, number=3, resolution=3 * SIDE)
    assert once["rgb"].dims == ("sample", "y", "x", "channel") and once["rgb"].dtype == np.uint8
    assert twice["rgb"].shape == (3, 3 * SIDE, 3 * SIDE, 3)
    # The middle of three pixels is the coarse pixel's own centre.
    assert np.abs(twice["rgb"][:, 1::3, 1::3].values.astype(int) - once["rgb"].values).max() <= 1
    assert np.allclose(twice["y"][1::3], once["y"])
    assert once["component"].values.max() < 3
    assert once.equals(generate.sample(model, number=5).isel(sample=slice(3)))


def test_completions_keep_what_was_seen_and_differ_elsewhere(model: str, store: str) -> None:
    truth = open_store(store).field[-4:].load()
    missing = lower_half(SIDE, SIDE)
    holed = truth.astype(np.float32).where(~xr.DataArray(missing, dims=("y", "x")))
    made = generate.complete(model, holed, number=3)["rgb"]
    assert made.dims == ("image", "realization", "y", "x", "channel")
    kept = np.broadcast_to(truth.values[:, None], made.shape)
    assert np.array_equal(made.values[:, :, ~missing], kept[:, :, ~missing])
    assert made.values[:, :, missing].astype(float).std(axis=1).mean() > 0.1
    whole = generate.complete(model, truth.astype(np.float32), number=2)["rgb"]
    assert np.array_equal(whole.values, kept[:, :2])
    own = generate.complete(model, holed, number=1, reconstruct=True)["rgb"]
    assert not np.array_equal(own.values[:, 0, ~missing], truth.values[:, ~missing])


def test_holes_are_read_from_transparency_from_nan_and_from_a_mask_alike(tmp_path: Path) -> None:
    values, missing = scenes(1, 3, 8)[0], lower_half(8, 8)
    holed = np.where(missing[..., None], np.nan, values).astype(np.float32)
    alpha = np.where(missing, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([values, alpha])).save(tmp_path / "hole.png")
    np.save(tmp_path / "hole.npy", holed)
    np.savez(tmp_path / "mask.npz", rgb=values, mask=missing)
    np.savez(tmp_path / "observed.npz", rgb=values[None], observed=~missing)
    np.savez(tmp_path / "unit.npz", picture=holed / 255)
    xr.Dataset({"rgb": (("y", "x", "channel"), holed)}).to_netcdf(tmp_path / "hole.nc", engine="h5netcdf")
    for name in ("hole.png", "hole.npy", "mask.npz", "observed.npz", "unit.npz", "hole.nc"):
        read = read_pictures(str(tmp_path / name), channels=3)
        assert read.dims == ("image", "y", "x", "channel") and read.shape == (1, 8, 8, 3), name
        assert np.allclose(read.values[0], holed, equal_nan=True, atol=1e-3), name


def test_inputs_that_are_no_such_pictures_are_refused_in_one_sentence(model: str, tmp_path: Path) -> None:
    for values, said in (
        (np.zeros((5, 5, 2)), "expected"),
        (np.full((8, 8, 3), 300.0), "0 to 255"),
        (np.zeros((200, 200, 3), np.uint8), "factor of 4"),
        (np.full((SIDE, SIDE, 3), np.nan), "nothing was seen"),
    ):
        np.save(tmp_path / "given.npy", values)
        with pytest.raises(ValueError, match=said):
            generate.complete(model, str(tmp_path / "given.npy"))
    with pytest.raises(FileNotFoundError):
        generate.complete(model, str(tmp_path / "nowhere.png"))
    with pytest.raises(ValueError, match="--resolution"):
        generate.sample(model, resolution=0.5)


def test_the_commands_write_arrays_and_sheets(model: str, tmp_path: Path, capsys) -> None:
    Image.fromarray(scenes(1, 5, SIDE)[0]).save(tmp_path / "seen.png")
    assert main(["sample", model, str(tmp_path / "new.npz"), "--number", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dims"]["sample"] == 3
    with np.load(tmp_path / "new.npz") as made:
        assert made["rgb"].shape == (3, SIDE, SIDE, 3)
    for name in ("new.png", "new.nc", "new.zarr"):
        assert main(["sample", model, str(tmp_path / name), "--number", "3"]) == 0
    assert main(["complete", model, str(tmp_path / "seen.png"), str(tmp_path / "whole.png"), "--reconstruct"]) == 0
    with xr.open_dataset(tmp_path / "new.nc", engine="h5netcdf") as read, Image.open(tmp_path / "new.png") as drawn:
        assert read["rgb"].shape == (3, SIDE, SIDE, 3) and read.attrs["Conventions"] == "CF-1.11"
        # Every pixel of the first picture is a square on the sheet in its own colour.
        on_sheet = np.asarray(drawn.convert("RGB"))
        assert (on_sheet == read["rgb"][0, 0, 0].values).all(axis=-1).sum() >= 25
    assert main(["sample", model, str(tmp_path / "new.ply")]) == 2
    assert "suffix" in capsys.readouterr().err


def test_a_model_that_was_just_trained_is_illustrated(model: str, store: str) -> None:
    (written,) = training_pictures(Path(model), store)
    with Image.open(written) as drawn:
        assert drawn.width > 700 and np.asarray(drawn).std() > 20


def test_a_sheet_shows_every_tile_in_its_colours_whatever_their_sizes() -> None:
    tiles = [shown(np.full((size, wide, 3), level)) for size, wide, level in ((4, 4, 40), (9, 6, 90), (5, 10, 140))]
    figure = sheet([Row(tiles=tiles, title="three", captions=["a", "b", "c\nd"])], title="A sheet", num_components=2)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    areas = [int((drawn == level).all(axis=-1).sum()) for level in (40, 90, 140)]
    assert areas == pytest.approx([100 * 100, 100 * 67, 50 * 100], rel=0.05)
    hole = shown(np.array([[[10.0], [np.nan]]]))
    assert hole.shape == (1, 2, 3) and hole[0, 1].std() == 0 and hole[0, 1, 0] > 0.5


def test_the_linear_baseline_is_exact_where_pictures_are_linear_in_few_numbers() -> None:
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(3, 6 * 5 * 3)) * 20
    pictures = (rng.normal(size=(200, 3)) @ axes + 128).reshape(200, 6, 5, 3)
    linear = LinearPictures.of(pictures[:150], 3)
    missing = lower_half(6, 5)
    assert np.allclose(linear.completed(pictures[150:], missing), np.clip(pictures[150:], 0, 255), atol=0.5)
    drawn = linear.sample(2_000, rng).reshape(2_000, -1)
    assert np.allclose(np.cov(drawn.T), np.cov(np.clip(pictures, 0, 255).reshape(200, -1).T), atol=450)
    assert LinearPictures.of(pictures[:150], 1).noise > linear.noise
