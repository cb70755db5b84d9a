"""What training knows of a kind of data: boxes, splits of items, and the points of whole functions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.data.box import Box
from pipelines.data.chunks import ChunkPlan
from pipelines.data.domain import Chance, Scaling, kind_of
from pipelines.data.items import Items
from pipelines.data.store import open_store, write_store
from pipelines.data.stored import ChunkError
from pipelines.data.whole import WholeFraming, query

DEFAULTS = {"test": 0.25, "train": None, "validation": 0.1, "blocks": 3, "gap_hours": 24.0, "seed": 3}


def items(count: int, marks: list[str] | None = None) -> xr.DataArray:
    coords = {} if marks is None else {"split": ("shape", marks)}
    return xr.DataArray(np.zeros((count, 2, 2, 2), np.uint8), dims=("shape", "x", "y", "z"), coords=coords)


def test_a_boxs_cells_are_equal_and_fill_it() -> None:
    box = Box((4, 2))
    np.testing.assert_allclose(box.axes[0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(box.coords[:3], [[-0.75, -0.5], [-0.75, 0.5], [-0.25, -0.5]])
    assert box.area.sum() == pytest.approx(1) and box.at(8).shape == (8, 4)
    assert Box.from_json(box.to_json()) == box


def test_a_finer_boxs_cells_lie_within_those_of_the_coarser_one() -> None:
    coarse, fine = Box((30, 30, 30)), Box((30, 30, 30)).at(60)
    np.testing.assert_allclose(fine.axes[0].reshape(-1, 2).mean(axis=1), coarse.axes[0])


def test_items_are_split_by_the_seed_and_every_item_is_for_one_thing() -> None:
    split = Items().split(items(100), **DEFAULTS)  # type: ignore[arg-type]
    parts = [split.train, split.validation, split.test]
    assert [len(part) for part in parts] == [67, 8, 25]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
    again = Items().split(items(100), **DEFAULTS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(split.test, again.test)
    other = Items().split(items(100), **DEFAULTS | {"seed": 4})  # type: ignore[arg-type]
    assert (split.test != other.test).any()


def test_a_split_that_the_store_brings_is_kept() -> None:
    marks = ["train"] * 6 + ["validation"] + ["test"] * 3
    split = Items().split(items(10, marks), **DEFAULTS)  # type: ignore[arg-type]
    assert split.train.tolist() == list(range(6)) and split.validation.tolist() == [6]
    assert split.test.tolist() == [7, 8, 9]


def test_a_span_of_time_is_refused_for_items() -> None:
    with pytest.raises(ValueError, match="spans of time"):
        Items().split(items(10), **DEFAULTS | {"test": "2019-03-01:2019-03-02"})  # type: ignore[arg-type]


def test_channels_stand_at_the_same_point() -> None:
    box, pictures = Box((5, 4)), np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    framing = WholeFraming(scaling=Scaling(offset=0, scale=255), bounded=True)
    framed = framing.training(pictures, np.arange(3), box, Chance.of(0, 0, range(3)))
    assert framed.batch.values is not None and framed.batch.values.shape == (3, 20, 3) and framed.num_total == 20
    np.testing.assert_allclose(framed.batch.values[1].view(5, 4, 3), pictures[1] / 255, atol=1e-6)
    assert torch.equal(framed.batch.coords, query(box).coords)


@pytest.mark.parametrize("shape", [(40, 40), (12, 12, 12)])
def test_what_is_hidden_is_a_part_of_some_functions(shape: tuple[int, ...]) -> None:
    framing, box = WholeFraming(scaling=Scaling(offset=0, scale=1), hidden=0.5), Box(shape)
    values = np.random.default_rng(1).random((400, *shape)).astype(np.float32)
    framed = framing.training(values, np.arange(400), box, Chance.of(2, 0, range(400)))
    assert framed.shown is not None and framed.batch.mask.all()  # hidden from the encoder, and scored
    share = framed.shown.double().mean(dim=1)
    assert share.min() > 0 and abs((share < 1).double().mean() - 0.5) < 0.1
    assert ((share > 0.25) & (share < 0.75)).sum() > 40 and (share < 0.1).sum() > 10  # halves, and sparse points


@pytest.mark.parametrize("points", [0, 30])
def test_a_voxels_value_is_asked_for_anywhere_in_its_cell(points: int) -> None:
    box, values = Box((5, 4, 3)), np.zeros((50, 5, 4, 3), np.float32)
    framing = WholeFraming(scaling=Scaling(offset=0, scale=1), points=points, within=1.0)
    framed = framing.training(values, np.arange(50), box, Chance.of(0, 0, range(50)))
    at = torch.arange(60) if framed.at is None else framed.at
    assert framed.places is not None and framed.places.shape == (50, len(at), 3)
    cells = box.index_of(framed.places.double().reshape(-1, 3).numpy()).reshape(50, -1)
    np.testing.assert_array_equal(cells, at.expand(50, -1))
    away = (framed.places - framed.batch.coords[:, at]) / torch.tensor(box.cell)
    assert away.mean().abs() < 0.02 and abs(float(away.std()) - 12**-0.5) < 0.01  # evenly
    one = framing.training(values[3:4], np.arange(1), box, Chance.of(0, 0, [3]))  # in whichever batch's part it is
    assert one.places is not None and torch.equal(one.places, framed.places[3:4])
    assert framing.entire.training(values, np.arange(50), box, Chance.of(0, 0, range(50))).places is None


def test_a_lost_chunk_of_whole_numbers_is_noticed(tmp_path: Path) -> None:
    field = items(12).assign_attrs(units="1").rename("occupancy").assign_coords(shape=[f"s{n}" for n in range(12)])
    field[:] = 1
    store = write_store(
        field, tmp_path / "s.zarr", source="", license="", domain="cube", plan=ChunkPlan(chunk=4, shard=None, slab=4)
    )
    (tmp_path / "s.zarr" / "occupancy" / "c" / "1" / "0" / "0" / "0").unlink()
    with pytest.raises(ChunkError, match=r"chunk occupancy/c/1/0/0/0 .* not there.*samples 4 to 7 \(s4 to s7\)"):
        open_store(store.path).field.compute()
    np.testing.assert_array_equal(open_store(store.path).field[:4], 1)


def test_what_a_store_says_of_its_samples_counts_for_its_fingerprint(tmp_path: Path) -> None:
    marks = [["train"] * 3 + ["test"], ["train"] * 4]
    stores = [
        write_store(items(4, mark).assign_attrs(units="1").rename("occupancy"), tmp_path / str(number), source="",
                    license="", domain="cube")
        for number, mark in enumerate(marks)
    ]  # fmt: skip
    assert stores[0].fingerprint != stores[1].fingerprint


def test_a_stretched_shape_is_the_shape_seen_larger_or_smaller(tmp_path: Path) -> None:
    box, shapes = Box((40, 40, 40)), np.zeros((50, 40, 40, 40), np.float32)
    shapes[:, 10:30, 10:30, 10:30] = 1  # a cube of half the box
    framing = WholeFraming(scaling=Scaling(offset=0, scale=1), stretch=0.25)
    framed = framing.training(shapes, np.arange(50), box, Chance.of(0, 0, range(50)))
    assert framed.batch.values is not None
    sides = [framed.batch.values.view(50, 40, 40, 40).amax(dim=axes).sum(dim=1) for axes in ((2, 3), (1, 3), (1, 2))]
    for side in sides:  # each axis by a share of its own, within a quarter
        assert side.min() >= 14 and side.max() <= 26 and side.double().std() > 2
    torch.testing.assert_close(framed.batch.values.sum(dim=(1, 2)), sides[0] * sides[1] * sides[2])
    entire = framing.all_of(shapes, box).values
    assert entire is not None and torch.equal(entire.view(50, 40, 40, 40), torch.from_numpy(shapes))


def test_what_a_step_draws_for_a_shape_does_not_depend_on_who_has_it() -> None:
    box, places = Box((8, 8, 8)), np.array([7, 3, 40, 11])
    shapes = (np.random.default_rng(3).random((4, 8, 8, 8)) > 0.5).astype(np.float32)
    framing = WholeFraming(
        scaling=Scaling(offset=0, scale=1), points=32, hidden=0.8, stretch=0.3, draw=kind_of("cube").draw
    )

    def framed(rows: slice) -> tuple[torch.Tensor, ...]:
        made = framing.training(shapes[rows], np.arange(4)[rows], box, Chance.of(5, 2, places[rows]))
        assert made.batch.values is not None and made.at is not None and made.rescale is not None
        assert made.shown is not None
        return made.batch.values, made.at, made.rescale, made.shown

    together, apart = framed(slice(4)), [framed(slice(0, 1)), framed(slice(1, 4))]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
        assert not torch.equal(whole[0], whole[1])
