"""Shapes from any source into a store, and the points of them that training scores."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from pipelines.data import voxelising
from pipelines.data.box import Box
from pipelines.data.domain import Chance, kind_of
from pipelines.data.shape_sources import Files
from pipelines.data.shapenet import Item
from pipelines.data.shapes import Shapes, at_surface, ingest
from pipelines.data.voxels import write_binvox


def ball(size: int, radius: float = 0.6) -> np.ndarray:
    places = Box((size,) * 3).coords
    return (np.linalg.norm(places - [0.1, 0, -0.1], axis=1) < radius).reshape(size, size, size)


def mesh(radius: float) -> bytes:
    return trimesh.creation.icosphere(2, radius).export(file_type="ply")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two categories of meshes and voxels, three files that cannot be read, and files that are no shapes."""
    root = tmp_path / "things"
    for category in ("ball", "brick"):
        (root / category).mkdir(parents=True)
    for number in range(3):
        (root / "ball" / f"{number}.ply").write_bytes(mesh(1 + number))
    write_binvox(ball(16), root / "brick" / "a.binvox")
    stream = io.BytesIO()
    torch.save(torch.from_numpy(ball(32))[None], stream)
    (root / "brick" / "b.pt").write_bytes(stream.getvalue())
    (root / "brick" / "c.obj").write_text("v 0 0\nf nothing\n")
    (root / "brick" / "d.binvox").write_bytes(b"#binvox 1\ndim 90000 90000 90000\ndata\n")
    write_binvox(np.zeros((8, 8, 8), dtype=bool), root / "brick" / "e.binvox")
    (root / "brick" / "c.mtl").write_text("newmtl a\n")
    (root / "README.txt").write_text("three balls and some bricks")
    return root


def test_real_chairs_come_back_from_a_store_as_they_were(chairs_npz: Path, tmp_path: Path) -> None:
    made = ingest(chairs_npz, tmp_path / "chairs.zarr", test=89)
    with np.load(chairs_npz) as arrays:
        assert np.array_equal(made.store.field.values, arrays["train"])
    assert made.found == 889 and made.unreadable == ()
    assert made.store.domain == "cube" and made.store.units == "1"
    split = Shapes().split(made.store.field, test=0.25, train=None, validation=0.05, blocks=3, gap_hours=24.0, seed=0)
    assert np.array_equal(split.test, np.arange(800, 889)) and len(split.train) == 760
    stored = sum(path.stat().st_size for path in (tmp_path / "chairs.zarr").rglob("*") if path.is_file())
    assert stored < made.store.field.nbytes / 8  # less than a bit a voxel
    assert not (tmp_path / "chairs.zarr.partial").exists()


def test_a_folder_of_everything_becomes_a_store_and_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    told = []
    made = ingest(folder, tmp_path / "a.zarr", resolution=20, progress=lambda done, total: told.append((done, total)))
    field = made.store.field
    assert list(field["shape"].values) == ["ball/0", "ball/1", "ball/2", "brick/a", "brick/b"]
    assert list(field["category"].values) == ["ball"] * 3 + ["brick"] * 2
    assert field.shape == (5, 20, 20, 20) and field.dtype == np.uint8
    assert {fault.name for fault in made.unreadable} == {"brick/c", "brick/d", "brick/e"} and made.found == 8
    assert json.loads(field.attrs["unreadable"]).keys() == {"brick/c", "brick/d", "brick/e"}
    assert "dimensions" in json.loads(field.attrs["unreadable"])["brick/d"]
    assert "empty" in json.loads(field.attrs["unreadable"])["brick/e"]
    assert told[-1] == (8, 8)
    np.testing.assert_allclose(field["x"].values, Box((20,)).axes[0])
    assert np.array_equal(field[0].values, field[1].values)  # size is not kept, shape is


def test_a_zip_is_read_in_place_and_names_that_lead_out_of_it_are_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "things.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    packed = ingest(tmp_path / "things.zip", tmp_path / "a.zarr", resolution=12)
    plain = ingest(folder, tmp_path / "b.zarr", resolution=12)
    assert packed.store.fingerprint == plain.store.fingerprint
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../evil.ply", mesh(1))
    with pytest.raises(ValueError, match="outside"):
        ingest(tmp_path / "bad.zip", tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()


def test_a_run_that_was_stopped_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files.__init__, "__defaults__", (64, 1))
    read, real = [], voxelising._bits

    def stops(source: Files, resolution: int, up: voxelising.Up, item: Item) -> np.ndarray:
        read.append(item)
        if len(read) == 4:
            raise KeyboardInterrupt
        return real(source, resolution, up, item)

    whole = ingest(folder, tmp_path / "whole.zarr", resolution=12).store.fingerprint
    monkeypatch.setattr("pipelines.data.staged.CPU_COUNT", 1)
    monkeypatch.setattr(voxelising, "_bits", stops)
    with pytest.raises(KeyboardInterrupt):
        ingest(folder, tmp_path / "a.zarr", resolution=12)
    assert not (tmp_path / "a.zarr").exists() and (tmp_path / "a.zarr.partial").is_dir()
    again: list[object] = []
    monkeypatch.setattr(voxelising, "_bits", lambda *given: again.append(given[3]) or real(*given))
    assert ingest(folder, tmp_path / "a.zarr", resolution=12).store.fingerprint == whole
    assert 0 < len(again) < 8
    assert not (tmp_path / "a.zarr.partial").exists()


def test_work_in_progress_of_another_source_is_not_taken(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zarr.partial").mkdir()
    (tmp_path / "a.zarr.partial" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        ingest(folder, tmp_path / "a.zarr", resolution=12)


def test_a_shapenet_tree_is_read_by_its_taxonomy_and_its_official_split(tmp_path: Path) -> None:
    root = tmp_path / "ShapeNetCore.v2"
    splits = {"a1": "train", "a2": "val", "a3": "test", "b1": "train"}
    for model in splits:
        synset = "03001627" if model.startswith("a") else "04379243"
        (root / synset / model / "models").mkdir(parents=True)
        write_binvox(
            ball(24, 0.3 + 0.1 * int(model[1])), root / synset / model / "models/model_normalized.solid.binvox"
        )
    models = root / "03001627" / "a2" / "models"
    (models / "model_normalized.solid.binvox").write_bytes(b"#binvox 1\ndamaged")
    (models / "model_normalized.obj").write_text(trimesh.creation.box().export(file_type="obj"))
    (root / "taxonomy.json").write_text(
        json.dumps([{"synsetId": "03001627", "name": "chair"}, {"synsetId": "04379243", "name": "table,desk"}])
    )
    with (root / "all.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "synsetId", "subSynsetId", "modelId", "split"])
        rows.writerows([0, "x", "x", model, split] for model, split in splits.items())
    made = ingest(root, tmp_path / "all.zarr", resolution=24).store.field
    assert list(made["shape"].values) == ["03001627/a1", "03001627/a2", "03001627/a3", "04379243/b1"]
    assert list(made["category"].values) == ["chair", "chair", "chair", "table"]
    assert list(made["split"].values) == ["train", "validation", "test", "train"]
    assert np.array_equal(made[0].values.astype(bool), ball(24, 0.4))
    assert made[1].values[1:-1, 1:-1, 1:-1].all()  # the mesh, where the voxels are damaged
    only = ingest(root, tmp_path / "chairs.zarr", resolution=24, category="chair").store.field
    assert len(only) == 3
    with pytest.raises(ValueError, match="did you mean 'chair'"):
        ingest(root, tmp_path / "c.zarr", category="chairs")


def test_arrays_are_categories_or_splits_by_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", chair=ball(8)[None], table=np.stack([ball(8)] * 3))
    made = ingest(tmp_path / "a.npz", tmp_path / "a.zarr").store.field
    assert list(made["category"].values) == ["chair", "table", "table", "table"] and "split" not in made.coords
    np.savez(tmp_path / "b.npz", train=np.stack([ball(8)] * 2), test=ball(8)[None])
    made = ingest(tmp_path / "b.npz", tmp_path / "b.zarr").store.field
    assert list(made["split"].values) == ["train", "train", "test"] and "category" not in made.coords


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_what_points_upwards_in_the_source_does_so_in_the_store_and_nothing_is_mirrored(
    tmp_path: Path, up: voxelising.Up
) -> None:
    rng = np.random.default_rng(0)
    solid = rng.random((8, 8, 8)) > 0.7
    np.save(tmp_path / "a.npy", solid[None])
    made = ingest(tmp_path / "a.npy", tmp_path / "a.zarr", up=up).store.field[0].values
    axis = "xyz".index(up)
    assert np.array_equal(made.sum(axis=(0, 1)), solid.sum(axis=tuple(other for other in range(3) if other != axis)))
    turned = {"x": Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), "y": Rotation.from_euler("x", 90, True)}
    places = np.argwhere(solid) - 3.5
    moved = turned[up].apply(places) if up in turned else places
    assert set(map(tuple, np.rint(moved + 3.5).astype(int))) == set(map(tuple, np.argwhere(made)))


def test_mistakes_are_said_before_any_work_is_done(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected .npz"):
        ingest(tmp_path / "nothing", tmp_path / "a.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no shapes"):
        ingest(tmp_path / "empty", tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="from 4 to 1024"):
        ingest(folder, tmp_path / "a.zarr", resolution=5000)
    with pytest.raises(ValueError, match="of the 3 shapes of category 'ball'"):
        ingest(folder, tmp_path / "a.zarr", resolution=12, test=3)


def test_the_surface_is_where_a_cell_touches_the_other_sort() -> None:
    solid = np.zeros((2, 5, 6, 7), dtype=bool)
    solid[0, 2, 3, 3] = True
    near = at_surface(solid)
    assert near[0].sum() == 7 and near[0, 2, 3, 3] and near[0, 1, 3, 3] and not near[0, 1, 2, 3]
    assert not near[1].any()


def test_points_are_drawn_half_at_the_surface_and_sums_over_them_are_unbiased() -> None:
    rng, box = np.random.default_rng(0), Box((10, 11, 12))
    centres = box.coords
    solid = np.stack([np.linalg.norm(centres, axis=1) < 0.5, np.abs(centres).max(axis=1) < 0.7])
    values = solid[..., None].astype(np.uint8)
    # anything: here what a model might lose at each point
    loss = rng.gamma(1.0, size=(2, len(centres))) * (1 + 5 * at_surface(solid.reshape(2, 10, 11, 12)).reshape(2, -1))
    estimates, near = [], []
    for number in range(3000):
        index, weight = kind_of("cube").draw(values, box, 64, Chance.of(0, number, range(2)))
        assert index.shape == weight.shape == (2, 64)
        estimates.append((np.take_along_axis(loss, index, axis=1) * weight).sum(axis=1))
        near.append(np.take_along_axis(at_surface(solid.reshape(2, 10, 11, 12)).reshape(2, -1), index, axis=1).mean())
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - loss.sum(axis=1)) < 4 * error).all()
    assert (error < 0.01 * loss.sum(axis=1)).all()
    share = at_surface(solid.reshape(2, 10, 11, 12)).mean()
    assert np.mean(near) == pytest.approx(0.5 + 0.5 * share, abs=0.01)


def test_points_of_a_shape_without_a_surface_are_drawn_uniformly() -> None:
    index, weight = Shapes().draw(np.ones((1, 1000, 1)), Box((10, 10, 10)), 100, Chance.of(0, 0, [0]))
    assert index.shape == (1, 100)
    np.testing.assert_allclose(weight, 10)
