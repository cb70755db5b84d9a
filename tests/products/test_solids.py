"""Probabilities become closed meshes, and high resolution is asked for only where the surface is."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipelines.data.box import Box
from pipelines.data.voxels import read_binvox
from pipelines.products.coarse_to_fine import evaluated
from pipelines.products.solids import Mesh, mesh_of, write_meshes, write_voxels


def ball(size: int, radius: float = 0.6, sharpness: float = 20.0) -> np.ndarray:
    """A probability that falls through one half at a radius."""
    away = np.linalg.norm(Box((size,) * 3).coords, axis=1).reshape(size, size, size)
    return 1 / (1 + np.exp((away - radius) * sharpness))


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def test_the_surface_lies_where_the_probability_is_one_half_far_more_precisely_than_a_voxel() -> None:
    mesh = mesh_of(ball(24))
    error = np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.6)
    assert error.max() < 0.02 * 2 / 24
    solid = as_trimesh(mesh)
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.02)  # positive: faces look outward
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1)
    assert ((mesh.normals * mesh.vertices).sum(axis=1) > 0.6 * 0.99).all()


@pytest.mark.parametrize("seed", range(4))
def test_any_probability_whatever_gives_a_closed_mesh(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for values in (
        rng.random((9, 7, 8)),
        (rng.random((9, 7, 8)) > 0.6).astype(float),
        rng.choice([0, 0.5, 1], (6, 6, 6)),
    ):
        assert as_trimesh(mesh_of(values)).is_watertight


def test_real_chairs_are_watertight(chairs_npz: Path) -> None:
    with np.load(chairs_npz) as arrays:
        chairs = arrays["train"]
    for chair in chairs[::100]:
        mesh = as_trimesh(mesh_of(chair.astype(np.float32)))
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(chair.mean() * 8, rel=0.5)


def test_what_touches_the_edge_of_the_cube_is_closed_there() -> None:
    mesh = as_trimesh(mesh_of(np.ones((4, 5, 6))))
    assert mesh.is_watertight
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), 1, atol=1e-3)


def test_nothing_solid_is_said() -> None:
    with pytest.raises(ValueError, match="the largest is 0.4"):
        mesh_of(np.full((4, 4, 4), 0.4))


def test_every_vertex_has_the_colour_of_the_component_that_explains_it() -> None:
    parts = np.zeros((20, 20, 20), int)
    parts[:, :, 10:] = 1
    mesh = mesh_of(ball(20), parts)
    assert mesh.colours is not None
    upper, lower = mesh.colours[mesh.vertices[:, 2] > 0.12], mesh.colours[mesh.vertices[:, 2] < -0.12]
    assert len(np.unique(upper, axis=0)) == len(np.unique(lower, axis=0)) == 1
    assert not np.array_equal(upper[0], lower[0])


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".obj", ".stl"])
def test_files_of_meshes_are_read_back_closed_with_normals_and_colours(tmp_path: Path, suffix: str) -> None:
    meshes = [mesh_of(ball(16), np.ones((16, 16, 16), int)), mesh_of(ball(16, 0.4))]
    path = tmp_path / f"a{suffix}"
    write_meshes([mesh_of(ball(16), np.ones((16, 16, 16), int)), mesh_of(ball(16, 0.4))], path, suffix)
    loaded = trimesh.load(path, force="mesh")
    assert len(loaded.faces) == sum(len(mesh.faces) for mesh in meshes)
    loaded.merge_vertices(merge_norm=True, merge_tex=True)
    assert loaded.is_watertight
    assert loaded.volume == pytest.approx(sum(as_trimesh(mesh).volume for mesh in meshes), rel=1e-4)
    assert loaded.extents[0] == pytest.approx(2.4 + 1.0, abs=0.05)  # side by side
    if suffix == ".ply":
        assert b"property float nx" in path.read_bytes() and b"property uchar red" in path.read_bytes()
    if suffix == ".glb":
        assert b"NORMAL" in path.read_bytes() and b"COLOR_0" in path.read_bytes()
        assert set(trimesh.load(path).geometry) == {"shape_0", "shape_1"}
    if suffix == ".obj":
        assert "\nvn " in path.read_text()


def test_voxels_are_written_as_binvox(tmp_path: Path) -> None:
    write_voxels(ball(20), tmp_path / "a.binvox")
    assert np.array_equal(read_binvox((tmp_path / "a.binvox").read_bytes()), ball(20) > 0.5)


class Asked:
    """A solid as a function of the place, and how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, places: np.ndarray) -> np.ndarray:
        self.count += len(places)
        bar = np.abs(places - [0.1, 0.0, 0.2]).max(axis=1) - 0.45
        rod = np.hypot(places[:, 0] + 0.4, places[:, 1] - 0.3) - 0.05  # about three voxels thick at 64
        return np.stack([1 / (1 + np.exp(40 * np.minimum(bar, rod))), places[:, 0] > 0], axis=-1).astype(np.float32)


@pytest.mark.parametrize("shape", [(256, 256, 256), (100, 150, 130), (65, 65, 65)])
def test_what_is_asked_only_near_the_surface_is_the_same_solid(shape: tuple[int, ...]) -> None:
    fine, everywhere = Asked(), Asked()
    box = Box(shape)
    made = evaluated(fine, box)
    assert made.shape == (np.prod(shape), 2)
    places = box.coords if shape[0] < 256 else box.coords[:: 64 * 7 + 1]
    here = slice(None) if shape[0] < 256 else slice(None, None, 64 * 7 + 1)
    truth = everywhere(places)
    assert np.array_equal(made[here, 0] > 0.5, truth[:, 0] > 0.5)
    assert fine.count < {256: 0.15, 100: 0.3, 65: 1.1}[shape[0]] * np.prod(shape)


def test_a_small_grid_is_asked_everywhere_once() -> None:
    asked = Asked()
    assert np.array_equal(evaluated(asked, Box((20, 21, 22)))[:, 0], Asked()(Box((20, 21, 22)).coords)[:, 0])
    assert asked.count == 20 * 21 * 22
