"""Voxels in files: read as others wrote them, and refused where a file is not what it says."""

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pipelines.data.voxels import (
    at_resolution,
    check_archive,
    read_arrays,
    read_binvox,
    read_tensor,
    solid_cells,
    write_binvox,
)


def uneven(size: int = 7) -> np.ndarray:
    """A solid without any symmetry."""
    x, y, z = np.ogrid[:size, :size, :size]
    return (x + 2 * y < size + 1) & (z < 4) & ((x > 0) | (z > 2))


def test_a_binvox_goes_round(tmp_path: Path) -> None:
    write_binvox(uneven(), tmp_path / "a.binvox")
    assert np.array_equal(read_binvox((tmp_path / "a.binvox").read_bytes()), uneven())


def test_a_binvox_is_what_another_program_reads_and_writes(tmp_path: Path) -> None:
    write_binvox(uneven(40), tmp_path / "a.binvox")
    theirs = trimesh.load(tmp_path / "a.binvox")
    assert np.array_equal(theirs.encoding.dense, uneven(40))
    written = trimesh.exchange.binvox.export_binvox(trimesh.voxel.VoxelGrid(uneven(40)))
    assert np.array_equal(read_binvox(written), uneven(40))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"OFF\n3 1 0\n", "no binvox"),
        (b"#binvox 1\ndim 4 4 4\n", "no binvox"),
        (b"#binvox 1\ndim 4 4\ndata\n" + bytes([1, 64]), "three whole numbers|dimensions"),
        (b"#binvox 1\ndim 100000 100000 100000\ndata\n" + bytes([1, 255]), "dimensions"),
        (b"#binvox 1\ndim -4 4 4\ndata\n" + bytes([1, 64]), "dimensions"),
        (b"#binvox 1\ndim 4 4 4\ndata\n" + bytes([1, 63]), "do not add up"),
        (b"#binvox 1\ndim 4 4 4\ndata\n" + bytes([1, 255]) * 1000, "do not add up"),
    ],
)
def test_a_binvox_that_is_not_what_it_says_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_binvox(data)


def test_arrays_are_read_by_their_names(tmp_path: Path) -> None:
    chairs, tables = np.stack([uneven(), ~uneven()]), uneven()[None].astype(np.uint8)
    np.savez_compressed(tmp_path / "a.npz", chair=chairs, table=tables)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["chair", "table"]
    assert np.array_equal(found["chair"], chairs) and np.array_equal(found["table"], tables)
    np.save(tmp_path / "a.npy", np.asfortranarray(chairs))
    assert np.array_equal(read_arrays(tmp_path / "a.npy")[""], chairs)


def npy(shape: tuple[int, ...], descr: str = "|u1", body: bytes = b"\x01" * 64) -> bytes:
    """An .npy whose header says what it likes."""
    head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy((10**9, 64, 64, 64)), "says that it holds"),
        (npy((2, 4, 4, 4)), "says that it holds|ends before"),
        (npy((1, 10**5, 1, 1)), "dimensions"),
        (npy((64,)), "expected \\(n, x, y, z\\)"),
        (npy((1, 4, 4, 4), "|O"), "no occupancies"),
        (npy((1, 4, 4, 4), "<U1"), "no occupancies"),
        (b"\x93NUMPY\x01\x00\xff", "no array"),
        (b"not an array", "no array"),
    ],
)
def test_an_array_whose_header_is_absurd_is_refused_before_memory_is_taken(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("chair.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=said):
            read_arrays(tmp_path / name)


def test_an_archive_that_unfolds_to_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chair.npy", npy((1, 256, 256, 256), body=bytes(256**3)))
    size = (tmp_path / "bomb.npz").stat().st_size
    assert size < 20_000
    with zipfile.ZipFile(tmp_path / "bomb.npz") as archive, pytest.raises(ValueError, match="GiB where"):
        check_archive(archive, "bomb.npz", size, 2**20)


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy((1, 4, 4, 4)))
    data = (tmp_path / "a.npz").read_bytes()
    entry, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[8:12] = struct.pack("<HH", 9, 9)
    tail[12:16] = struct.pack("<I", 9 * (end - entry))
    (tmp_path / "a.npz").write_bytes(data[:entry] + data[entry:end] * 9 + bytes(tail))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="overlap|verlapped|more than once|twice|damaged"):
            read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["../chair.npy", "/etc/chair.npy", "a/../../chair.npy", "c:\\chair.npy"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(name, npy((1, 4, 4, 4)))
    with pytest.raises(ValueError, match="outside"):
        read_arrays(tmp_path / "a.npz")


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_tensors_of_shapes_are_read() -> None:
    solid = uneven()
    for tensor in (torch.from_numpy(solid), torch.from_numpy(solid)[None].float(), torch.from_numpy(solid).byte()):
        assert np.array_equal(read_tensor(saved(tensor)), solid)


class Harmful:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harmed"),)


def test_a_tensor_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a tensor"):
        read_tensor(saved(Harmful()))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"junk", saved([1, 2]), saved(torch.zeros(3)), saved(torch.full((2, 2, 2), 7.0))])
def test_what_is_no_tensor_of_voxels_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_tensor(content)


def test_occupancies_are_true_or_above_one_half() -> None:
    assert solid_cells(np.array([0, 0.49, 0.51, 1])).tolist() == [False, False, True, True]
    assert solid_cells(np.array([0, 100, 200], np.uint8)).tolist() == [False, False, True]
    for wrong in (np.array([np.nan, 1.0]), np.array([-1, 0]), np.array([3.0]), np.array(["a"])):
        with pytest.raises(ValueError, match="occupancies"):
            solid_cells(wrong)


def test_a_solid_keeps_its_place_and_volume_at_any_resolution() -> None:
    axis = (np.arange(60) + 0.5) / 30 - 1
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    ball = (x - 0.1) ** 2 + (y + 0.2) ** 2 + z**2 < 0.6**2
    for size in (120, 90, 31, 30):
        solid = at_resolution(ball, size)
        places = (np.argwhere(solid) + 0.5) * 2 / size - 1
        np.testing.assert_allclose(places.mean(axis=0), [0.1, -0.2, 0], atol=0.01)
        assert solid.mean() == pytest.approx(ball.mean(), rel=0.16 if size < 60 else 0.005)
    assert np.array_equal(at_resolution(at_resolution(ball, 120), 60), ball)


def test_a_thin_leg_stays_whole_on_a_coarser_grid() -> None:
    leg = np.zeros((64, 64, 64), dtype=bool)
    leg[20:22, 32:34] = True
    assert at_resolution(leg, 32).any(axis=(0, 1)).all()


def test_a_box_that_is_no_cube_is_centred_in_one() -> None:
    solid = at_resolution(np.ones((8, 4, 2), dtype=bool), 8)
    assert solid.shape == (8, 8, 8)
    assert np.array_equal(np.argwhere(solid).min(axis=0), [0, 2, 3])
    assert np.array_equal(np.argwhere(solid).max(axis=0), [7, 5, 4])
