"""A damaged chunk is found, named with what it held, and skipped and counted where that is wanted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.chunks import ChunkPlan
from pipelines.data.normalize import statistics
from pipelines.data.store import Store, open_store, write_store
from pipelines.data.stored import ChunkError
from pipelines.data.stream import FieldStream, Samples

PLANS = {
    "whole": ChunkPlan(chunk=4, shard=None, slab=24),
    "single": ChunkPlan(chunk=1, shard=None, slab=24),
    "sharded": ChunkPlan(chunk=2, shard=8, slab=24),
}


@pytest.fixture(scope="module")
def written(globe: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The 24 real fields in three chunk plans."""
    folder = tmp_path_factory.mktemp("damage")
    for name, plan in PLANS.items():
        write_store(globe.assign_attrs(units="K"), folder / name, source="", license="", plan=plan)
    return {name: folder / name for name in PLANS}


@pytest.fixture
def broken(written: dict[str, Path], tmp_path: Path) -> Callable[..., Store]:
    """A copy of one with something done to the bytes of a chunk's file."""

    def make(plan: str, key: str, change: Callable[[bytes], bytes] | None) -> Store:
        copy = Path(shutil.copytree(written[plan], tmp_path / plan))
        file = copy / "t2m" / "c" / key
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))
        return open_store(copy)

    return make


def flipped(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def stream(store: Store, **changes: object) -> FieldStream:
    given = {"store": store, "samples": np.arange(24), "batch_size": 5, "seed": 3, "buffer": 2, "last": "keep"}
    return FieldStream(**{**given, **changes})  # type: ignore[arg-type]


def real(batches: list[Samples]) -> list[int]:
    return sorted(p for batch in batches for p, w in zip(batch.position.tolist(), batch.weight, strict=True) if w)


@pytest.mark.parametrize("change", [flipped, halved, emptied, None], ids=["flipped", "truncated", "empty", "missing"])
def test_a_damaged_chunk_ends_a_stream_with_its_name_and_its_samples(broken, change) -> None:
    store = broken("whole", "3/0/0", change)
    with pytest.raises(ChunkError) as failure:
        list(stream(store).epoch(0))
    said = str(failure.value)
    assert said.startswith(f"chunk t2m/c/3/0/0 of {store.path!r} is ") and "\n" not in said
    assert "it holds samples 12 to 15 (2026-03-28T" in said
    assert said.endswith("make the store again, or skip its samples with --skip-corrupt")


@pytest.mark.parametrize(
    ("plan", "key", "lost", "name"),
    [
        ("whole", "5/0/0", [20, 21, 22, 23], "t2m/c/5/0/0"),
        ("single", "7/0/0", [7], "t2m/c/7/0/0"),
        ("sharded", "1/0/0", [10, 11], "1 of shard t2m/c/1/0/0"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_skipping_loses_the_samples_of_the_damaged_chunk_alone_and_counts_them(
    broken, globe, plan, key, lost, name, workers
) -> None:
    store = broken(plan, key, flipped)
    parts = [stream(store, rank=rank, world_size=workers, skip_corrupt=True, threads=2) for rank in range(workers)]
    for epoch in range(2):
        batches = [list(part.epoch(epoch)) for part in parts]
        assert {len(given) for given in batches} == {5}
        assert len({tuple(len(batch.weight) for batch in given) for given in batches}) == 1
        assert real([batch for given in batches for batch in given]) == sorted(set(range(24)) - set(lost))
        assert sum(part.skipped for part in parts) == len(lost)
    for batch in batches[0]:
        kept = batch.weight == 1
        np.testing.assert_array_equal(batch.fields[kept], globe.values[batch.position[kept]])
        assert np.isfinite(batch.fields).all()
    assert {key for part in parts for key in part.damaged} == {name}


def test_the_good_samples_are_where_they_were_without_the_damage(broken, written) -> None:
    hurt, whole = stream(broken("whole", "3/0/0", None), skip_corrupt=True), stream(open_store(written["whole"]))
    for one, other in zip(hurt.epoch(1), whole.epoch(1), strict=True):
        np.testing.assert_array_equal(one.position, other.position)
        kept = one.weight == 1
        np.testing.assert_array_equal(one.fields[kept], other.fields[kept])


def test_a_store_opened_to_skip_damage_has_gaps_there_whoever_reads_it(broken, globe) -> None:
    path = broken("whole", "3/0/0", flipped).path
    store = open_store(path, skip_corrupt=True)
    expected = globe.values.copy()
    expected[12:16] = np.nan
    np.testing.assert_array_equal(store.field.values, expected)
    assert statistics(store.field).missing == expected[12:16].size
    given = stream(store)
    assert real(list(given.epoch(0))) == sorted(set(range(24)) - {12, 13, 14, 15}) and given.skipped == 4
    with pytest.raises(ChunkError, match=r"t2m/c/3/0/0"):
        open_store(path).field.isel(time=[3, 13]).load()


def test_damage_below_a_selection_names_the_stored_samples(broken) -> None:
    store = broken("whole", "3/0/0", flipped)
    over = replace(store, dataset=(store.dataset - 273.15).isel(time=slice(2, None)))
    with pytest.raises(ChunkError, match=r"chunk t2m/c/3/0/0 .* it holds samples 12 to 15"):
        list(stream(over, samples=np.arange(22)).epoch(0))
    given = list(stream(over, samples=np.arange(22), skip_corrupt=True).epoch(0))
    assert real(given) == sorted(set(range(22)) - {10, 11, 12, 13})


def test_gaps_in_the_observations_are_no_damage(globe, tmp_path) -> None:
    field = globe.where(globe["time"] != globe["time"][5]).assign_attrs(units="K")
    store = write_store(field, tmp_path / "gaps", source="", license="", plan=PLANS["single"])
    batches = list(stream(store).epoch(0))
    assert real(batches) == list(range(24))


def test_a_failure_of_the_graph_over_a_sound_store_is_not_called_damage(written) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise ValueError("cannot convert")

    store = open_store(written["whole"])
    field = store.field.copy(data=store.field.data.map_blocks(fail, meta=np.empty((0, 0, 0), np.float32)))
    with pytest.raises(ValueError, match="^cannot convert$"):
        list(stream(replace(store, dataset=store.dataset.assign(t2m=field)), skip_corrupt=True).epoch(0))


def test_stores_from_before_there_were_checksums_are_streamed(globe, tmp_path) -> None:
    store = write_store(globe.assign_attrs(units="K"), tmp_path / "new", source="", license="", plan=PLANS["whole"])
    template = xr.open_zarr(tmp_path / "new")
    for name in template.variables:
        template[name].encoding.pop("compressors", None)
    template.to_zarr(tmp_path / "old", zarr_format=3, consolidated=True)
    old = open_store(tmp_path / "old")
    assert "crc32c" in (tmp_path / "new" / "t2m" / "zarr.json").read_text()
    assert "crc32c" not in (tmp_path / "old" / "t2m" / "zarr.json").read_text()
    for one, other in zip(stream(old).epoch(0), stream(store).epoch(0), strict=True):
        np.testing.assert_array_equal(one.fields, other.fields)


def test_a_damaged_coordinate_is_said_on_opening(written, tmp_path) -> None:
    copy = Path(shutil.copytree(written["whole"], tmp_path / "copy"))
    file = copy / "time" / "c" / "0"
    file.write_bytes(flipped(file.read_bytes()))
    with pytest.raises(ValueError, match=r"copy' is not a store: .*checksum"):
        open_store(copy)
