"""Pictures from folders, arrays and HDF5 to the store."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from pipelines.data.images import Images, ingest
from pipelines.data.normalize import Statistics
from pipelines.data.picture_files import MAX_PIXELS
from pipelines.data.store import open_store
from pipelines.data.stored import ChunkError
from tests.data.scenes import factors, scenes, write_shapes3d

Folder = Callable[[dict[str, Image.Image]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Write pictures by their names below a folder."""

    def write(pictures: dict[str, Image.Image]) -> Path:
        for name, picture in pictures.items():
            (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "pictures" / name)
        return tmp_path / "pictures"

    return write


def drawn(count: int, side: int = 8) -> list[Image.Image]:
    return [Image.fromarray(values) for values in scenes(count, side=side)]


def stored(source: Path | str, store: Path, **options: int | bool) -> xr.DataArray:
    return ingest(source, store, **options).store.field.load()


def test_pictures_of_the_wanted_size_are_stored_pixel_for_pixel_in_the_order_of_their_names(
    folder: Folder, tmp_path: Path
) -> None:
    values = scenes(3, side=8)
    source = folder({name: Image.fromarray(one) for name, one in zip(("b.png", "a.png", "c.bmp"), values, strict=True)})
    field = stored(source, tmp_path / "s.zarr", size=8)
    assert field.dims == ("image", "y", "x", "channel") and field.dtype == np.uint8
    assert list(field["image"].values) == ["a.png", "b.png", "c.bmp"]
    assert list(field["channel"].values) == ["red", "green", "blue"]
    assert np.array_equal(field.values, values[[1, 0, 2]])
    assert np.allclose(field["y"], (np.arange(8) + 0.5) / 4 - 1) and np.array_equal(field["x"], field["y"])


def test_a_wide_picture_loses_its_sides_and_is_averaged_down(folder: Folder, tmp_path: Path) -> None:
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = (10, 200, 90)  # the middle square
    field = stored(folder({"wide.png": Image.fromarray(wide)}), tmp_path / "s.zarr", size=4)
    assert np.array_equal(field.values[0], np.broadcast_to(np.uint8([10, 200, 90]), (4, 4, 3)))


def test_fine_stripes_become_grey_and_not_other_stripes(folder: Folder, tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    field = stored(folder({"stripes.png": Image.fromarray(stripes)}), tmp_path / "s.zarr", size=12, grey=True)
    assert field.sizes["channel"] == 1 and abs(field.values.astype(int) - 127.5).max() < 12


def test_pictures_are_turned_upright_and_lie_on_white_where_they_are_transparent(
    folder: Folder, tmp_path: Path
) -> None:
    top_red = np.zeros((8, 8, 3), np.uint8)
    top_red[:4, :, 0] = 255
    source = folder({"seen.png": Image.fromarray(np.dstack([top_red, np.uint8([[255] * 4 + [0] * 4] * 8)]))})
    turned = Image.fromarray(np.rot90(top_red).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(source / "turned.png", exif=exif)
    seen, upright = stored(source, tmp_path / "s.zarr", size=8).values
    assert np.array_equal(upright, top_red)
    assert np.array_equal(seen[:, :4], top_red[:, :4]) and (seen[:, 4:] == 255).all()


def test_sixteen_bits_are_cut_to_eight_and_a_palette_is_looked_up(folder: Folder, tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    palette = drawn(1, 4)[0].quantize(5)
    plain = np.asarray(palette.convert("RGB"))
    deep_values, palette_values = stored(folder({"a.png": deep, "b.gif": palette}), tmp_path / "s.zarr", size=4).values
    assert (deep_values == 40_000 >> 8).all() and np.array_equal(palette_values, plain)


def test_what_cannot_be_read_is_named_with_its_reason_and_the_rest_is_stored(folder: Folder, tmp_path: Path) -> None:
    source = folder({f"{name}.png": picture for name, picture in zip("acf", drawn(3), strict=True)})
    (source / "b.png").write_text("no picture")
    (source / "d.png").write_bytes((source / "c.png").read_bytes()[:150])
    Image.fromarray(np.ones((4, 4), np.float32)).save(source / "e.tiff")
    (source / "notes.txt").write_text("not meant as a picture")
    made = ingest(source, tmp_path / "s.zarr", size=8)
    assert list(made.store.field["image"].values) == ["a.png", "c.png", "f.png"]
    assert made.found == 6
    assert [fault.name for fault in made.unreadable] == ["b.png", "d.png", "e.tiff"]
    assert [
        word in fault.reason for fault, word in zip(made.unreadable, ("no picture", "truncated", "range"), strict=True)
    ]
    assert "3 unreadable" in made.store.source
    assert not (tmp_path / "s.zarr.partial").exists()


def test_a_decompression_bomb_is_refused_by_its_header(folder: Folder, tmp_path: Path) -> None:
    source = folder({"fine.png": drawn(1)[0]})
    side = int(MAX_PIXELS**0.5) + 1
    for name, length in (("bomb.png", side), ("larger.png", 3 * side)):
        header = b"IHDR" + struct.pack(">IIBBBBB", length, length, 8, 2, 0, 0, 0)
        chunks = [header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
        body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
        (source / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    made = ingest(source, tmp_path / "s.zarr", size=8)
    assert [fault.name for fault in made.unreadable] == ["bomb.png", "larger.png"]
    assert all("bomb" in fault.reason for fault in made.unreadable)


def test_the_names_of_folders_give_the_split_and_the_category(folder: Folder, tmp_path: Path) -> None:
    names = ("test/cat/1.png", "train/cat/1.png", "train/dog/1.png", "val/dog/1.png")
    field = stored(folder(dict(zip(names, drawn(4), strict=True))), tmp_path / "s.zarr", size=8)
    assert list(field["split"].values) == ["test", "train", "train", "validation"]
    assert list(field["category"].values) == ["cat", "cat", "dog", "dog"]
    split = Images().split(field, test=0.5, train=None, validation=0.5, blocks=1, gap_hours=0, seed=0)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([1, 2], [3], [0])


def test_without_names_the_split_is_drawn_by_the_seed_and_is_a_partition(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", scenes(50, side=4)[..., 0])
    field = stored(tmp_path / "grey.npy", tmp_path / "s.zarr")
    options = {"test": 0.2, "train": None, "validation": 0.25, "blocks": 3, "gap_hours": 24.0}
    one, same, other = (Images().split(field, seed=seed, **options) for seed in (3, 3, 4))
    assert sorted(np.concatenate([one.train, one.validation, one.test])) == list(range(50))
    assert [len(part) for part in (one.train, one.validation, one.test)] == [30, 10, 10]
    assert np.array_equal(one.test, same.test) and not np.array_equal(one.test, other.test)
    with pytest.raises(ValueError, match="spans of time"):
        Images().split(field, seed=0, **{**options, "train": "2019-03"})


def test_arrays_of_several_names_are_categories_or_splits(tmp_path: Path) -> None:
    values = scenes(5, side=6)
    np.savez_compressed(tmp_path / "kinds.npz", chair=values[:2], table=values[2:].transpose(0, 3, 1, 2))
    field = stored(tmp_path / "kinds.npz", tmp_path / "kinds.zarr")
    assert np.array_equal(field.values, values) and list(field["category"].values) == ["chair"] * 2 + ["table"] * 3
    np.savez(tmp_path / "parts.npz", train=values[:3] / 255, test=values[3:] / 255)
    field = stored(tmp_path / "parts.npz", tmp_path / "parts.zarr")
    assert np.array_equal(field.values, values) and list(field["split"].values) == ["train"] * 3 + ["test"] * 2
    np.savez(tmp_path / "labelled.npz", x=values, y=np.arange(5))
    field = stored(tmp_path / "labelled.npz", tmp_path / "labelled.zarr", number=2)
    chosen = field["image"].values
    assert np.array_equal(field.values, values[chosen]) and list(field["category"].values) == [str(i) for i in chosen]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[None]]), "no array of numbers"),
        (np.full((2, 4, 4), 300.0), "0 to 1"),
        (np.full((2, 4, 4), np.nan), "0 to 1"),
        (np.full((2, 4, 4), 3), "int64"),
        (np.zeros((2, 4, 4, 7), np.uint8), "shape"),
        (np.zeros(9, np.uint8), "no pictures"),
    ],
)
def test_arrays_whose_meaning_is_not_certain_are_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "given.npy", values, allow_pickle=True)
    with pytest.raises(ValueError, match=said):
        ingest(tmp_path / "given.npy", tmp_path / "s.zarr")
    assert not list(tmp_path.glob("s.zarr*"))


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused_unread(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.data.image_arrays.LARGE_BYTES", 2**20)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 128, 128), np.uint8))
    with pytest.raises(ValueError, match="bomb"):
        ingest(tmp_path / "bomb.npz", tmp_path / "s.zarr")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "bomb.npz").read_bytes()[:-30])
    with pytest.raises(ValueError, match="damaged"):
        ingest(tmp_path / "cut.npz", tmp_path / "s.zarr")


def test_the_layout_of_shapes3d_is_read_with_its_factors(tmp_path: Path) -> None:
    source = write_shapes3d(tmp_path / "3dshapes.h5", 70)
    field = stored(source, tmp_path / "s.zarr", number=30, seed=1)
    chosen, told = field["image"].values, factors(70)
    assert len(set(chosen)) == 30 and np.array_equal(field.values, scenes(70)[chosen])
    assert np.array_equal(field["floor_hue"].values, told[chosen, 0])
    assert list(field["category"].values) == [
        ("cube", "cylinder", "sphere", "capsule")[int(k)] for k in told[chosen, 4]
    ]
    smaller = stored(source, tmp_path / "small.zarr", size=16)
    assert smaller.shape == (70, 16, 16, 3)
    # Averages stay: what is resampled is the same picture.
    assert np.allclose(smaller.mean(("y", "x")).values, scenes(70).mean((1, 2)), atol=2)


def test_black_is_zero_and_white_is_one_whatever_the_pictures_hold() -> None:
    dim = Statistics(mean=60.0, std=9.0, minimum=40.0, maximum=90.0, count=5, missing=0)
    scaling = Images().scaling(dim, bounded=True)
    assert scaling.to_model(np.array([0.0, 51.0, 255.0])).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_a_source_that_is_nothing_of_the_kind_is_refused_in_one_sentence(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "pictures.zip").write_bytes(b"")
    (tmp_path / "bad.h5").write_text("text")
    (tmp_path / "empty").mkdir()
    for source, said in (("pictures.zip", "unpack"), ("bad.h5", "HDF5"), ("empty", "no picture lies")):
        with pytest.raises(ValueError, match=said):
            ingest(tmp_path / source, tmp_path / "s.zarr")
    with pytest.raises(FileNotFoundError, match="polymnist"):
        ingest(tmp_path / "nowhere", tmp_path / "s.zarr")
    source = folder({"a.png": drawn(1)[0]})
    (source / "a.png").write_text("broken")
    with pytest.raises(ValueError, match="none of 1 files"):
        ingest(source, tmp_path / "s.zarr")


def test_a_store_is_made_once_and_its_fingerprint_is_of_its_content(folder: Folder, tmp_path: Path) -> None:
    source = folder({f"{i}.png": picture for i, picture in enumerate(drawn(3))})
    first = ingest(source, tmp_path / "a.zarr", size=8).store
    with pytest.raises(FileExistsError):
        ingest(source, tmp_path / "a.zarr", size=8)
    assert ingest(source, tmp_path / "b.zarr", size=8).store.fingerprint == first.fingerprint
    assert ingest(source, tmp_path / "a.zarr", size=4, overwrite=True).store.fingerprint != first.fingerprint
    assert open_store(tmp_path / "a.zarr").domain == "plane"


def test_a_damaged_chunk_is_named_with_the_pictures_that_it_holds(folder: Folder, tmp_path: Path) -> None:
    store = ingest(
        folder({f"{i}.png": picture for i, picture in enumerate(drawn(3))}), tmp_path / "s.zarr", size=8
    ).store
    chunk = tmp_path / "s.zarr/rgb/c/0/0/0/0"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    chunk.write_bytes(damaged)
    with pytest.raises(ChunkError, match=r"samples 0 to 2 \(0.png to 2.png\)"):
        store.field.load()
