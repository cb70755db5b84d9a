"""Tuning measures on the user's own store, and changes how its samples lie, never what they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.cli import main
from pipelines.data import tune
from pipelines.data.chunks import ChunkPlan
from pipelines.data.store import Store, open_store, write_store
from pipelines.data.stream import FieldStream

OTHER = ChunkPlan(chunk=8, shard=16, slab=16)


@pytest.fixture
def store(globe: xr.DataArray, tmp_path: Path) -> Store:
    """The 24 real fields, five in a chunk, which is no plan that tuning would think of."""
    plan = ChunkPlan(chunk=5, shard=None, slab=25)
    return write_store(globe.assign_attrs(units="K"), tmp_path / "store", source="ERA5", license="CC BY", plan=plan)


def test_every_plan_is_measured_and_nothing_is_left_or_changed(store, tmp_path) -> None:
    told = []
    found = tune.tune(store.path, progress=lambda done, total: told.append((done, total)))
    assert {one.chunks for one in found.measured} == {"1", "8", "5", "8 in shards of 24"}
    assert all(one.mb_per_s > 0 for one in found.measured)
    assert found.best in found.measured and found.best.wait is not None
    assert told[-1][0] == told[-1][1] == len(told)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert open_store(store.path).stored.chunk == 5 and open_store(store.path).streaming == {}


def test_applying_writes_the_same_samples_in_the_best_chunks_and_records_the_rest(store, globe, tmp_path) -> None:
    found = tune.tune(store.path)
    found = replace(found, best=replace(found.best, plan=OTHER, threads=2, prefetch=3))
    made = tune.apply(found)
    assert (made.stored.chunk, made.stored.shard, made.streaming) == (8, 16, {"threads": 2, "prefetch": 3})
    assert (made.fingerprint, made.source, made.license) == (store.fingerprint, "ERA5", "CC BY")
    np.testing.assert_array_equal(made.field.values, globe.values)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_settings_alone_are_recorded_without_writing_the_samples_again(store) -> None:
    found = tune.tune(store.path)
    found = replace(found, best=replace(found.best, plan=found.current, threads=1, prefetch=7))
    chunk = Path(store.path) / "t2m" / "c" / "0" / "0" / "0"
    before = chunk.stat().st_mtime_ns
    made = tune.apply(found)
    assert made.streaming == {"threads": 1, "prefetch": 7} and chunk.stat().st_mtime_ns == before
    stream = FieldStream(store=made, samples=np.arange(24), batch_size=4, seed=0)
    batches = stream.epoch(0)
    assert batches._queue.maxsize == 7
    batches.close()


def test_a_store_at_a_url_is_measured_as_it_is_and_not_changed(store, serve) -> None:
    with serve(Path(store.path).parent) as url:
        found = tune.tune(f"{url}/store")
        assert {one.chunks for one in found.measured} == {"as they are"}
        with pytest.raises(ValueError, match="settings are recorded in a local store"):
            tune.apply(found)


def test_the_command_answers_in_a_table_and_in_json(store, capsys) -> None:
    assert main(["data", "tune", store.path]) == 0
    assert "best chunks" in capsys.readouterr().out
    assert main(["data", "tune", store.path, "--apply", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["applied"] and tree["best"] in tree["measured"]
    assert open_store(store.path).streaming == {key: tree["best"][key] for key in ("threads", "prefetch")}
    assert main(["data", "tune", f"{store.path}-absent"]) == 2
