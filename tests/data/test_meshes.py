"""Meshes become solid voxels, whether they are closed or not."""

import numpy as np
import pytest
import trimesh

from pipelines.data.meshes import SUFFIXES, solid_of, voxelised


def content(mesh: trimesh.Trimesh, suffix: str = ".ply") -> bytes:
    data = mesh.export(file_type=suffix[1:])
    return data.encode() if isinstance(data, str) else data


def inside(mesh: trimesh.Trimesh, resolution: int) -> tuple[np.ndarray, float]:
    """Where the centres of the voxels lie in the coordinates of a mesh, and voxels in a unit of them."""
    low, high = mesh.bounds
    scale = (resolution - 2) / (high - low).max()
    cells = np.stack(np.meshgrid(*[np.arange(resolution) + 0.5] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = (cells - resolution / 2) / scale + (low + high) / 2
    return places, float(scale)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_solid(suffix: str) -> None:
    mesh = trimesh.creation.capsule(radius=0.4, height=1.0, count=[16, 16])
    solid = voxelised(content(mesh, suffix), suffix, 24)
    expected = voxelised(content(mesh), ".ply", 24)
    assert (solid != expected).sum() <= 8  # text formats round the vertices
    assert 0.05 < solid.mean() < 0.2


def test_a_torus_is_what_its_formula_says_but_for_the_cells_that_its_surface_passes_through() -> None:
    mesh = trimesh.creation.torus(1.0, 0.35, major_sections=200, minor_sections=100)
    resolution = 48
    solid = voxelised(content(mesh), ".ply", resolution)
    places, scale = inside(mesh, resolution)
    ring = np.hypot(np.hypot(places[:, 0], places[:, 1]) - 1.0, places[:, 2])
    depth = ((0.35 - ring) * scale).reshape(solid.shape)  # in voxels
    half_diagonal = np.sqrt(3) / 2
    assert solid[depth > 0.1].all()
    assert not solid[depth < -half_diagonal - 0.1].any()


def test_a_mesh_with_a_hole_is_made_solid_all_the_same() -> None:
    whole = trimesh.creation.icosphere(subdivisions=4)
    torn = whole.copy()
    torn.update_faces(np.random.default_rng(0).random(len(torn.faces)) > 0.02)  # many small holes
    torn.remove_unreferenced_vertices()
    assert whole.is_watertight and not torn.is_watertight
    expected, solid = (voxelised(content(mesh), ".ply", 40) for mesh in (whole, torn))
    assert (solid & ~expected).sum() == 0
    assert solid.sum() > 0.9 * expected.sum()


def test_an_open_box_keeps_what_is_in_it_empty() -> None:
    box = trimesh.creation.box()
    lid = box.triangles_center[:, 2] > 0.49
    box.update_faces(~lid)
    solid = voxelised(content(box), ".ply", 20)
    assert not solid[10, 10, 5:].any()
    assert solid[1, 10, 5:18].all() and solid[10, 10, 1]


def test_a_closed_shell_is_solid_and_what_it_surrounds_from_outside_is_not() -> None:
    cup = trimesh.creation.revolve([[0, 0], [0.5, 0], [0.5, 1], [0.4, 1], [0.4, 0.1], [0, 0.1]], sections=64)
    assert cup.is_watertight
    solid = voxelised(content(cup), ".ply", 40)
    assert not solid[20, 20, 10:].any()
    assert solid[20, 20, 1:4].all()


def test_the_longest_edge_fills_the_grid_but_for_a_cell_on_either_side() -> None:
    box = trimesh.creation.box(extents=(4.0, 2.0, 1.0))
    box.apply_translation([100, -7, 3])
    places = np.argwhere(voxelised(content(box), ".ply", 34))
    assert places.min(axis=0)[0] == 1 and places.max(axis=0)[0] == 32
    extent = places.max(axis=0) - places.min(axis=0) + 1
    assert np.abs(extent - [32, 16, 8]).max() <= 2


@pytest.mark.parametrize(
    ("data", "suffix", "said"),
    [
        (b"", ".obj", "cannot be read|no triangles"),
        (b"ply\nformat ascii 1.0\nelement vertex 4000000000\nproperty float x\nend_header\n", ".ply", "cannot be read"),
        (b"OFF\n-3 1 0\n", ".off", "cannot be read|no triangles"),
        (b"\x00" * 80 + b"\xff\xff\xff\xff", ".stl", "cannot be read|no triangles"),
        (b"glTF\x02\x00\x00\x00\xff\xff\xff\xff", ".glb", "cannot be read"),
        (b"v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n", ".obj", "not finite"),
        (b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", ".obj", "no extent|no triangles"),
        (b"v 0 0 0\nv 1 0 0\nf 1 2 99999\n", ".obj", "cannot be read|no triangles"),
    ],
)
def test_a_damaged_mesh_is_refused_in_a_sentence(data: bytes, suffix: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        voxelised(data, suffix, 16)


def test_a_surface_without_end_is_refused() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]])
    faces = np.zeros((20_000, 3), np.int32) + np.arange(3, dtype=np.int32)
    with pytest.raises(ValueError, match="too large"):
        solid_of(corners, faces, 1024, watertight=False)
