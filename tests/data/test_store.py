"""A store is whole or is not there, gives back what was written, and says what it holds."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipelines.data import atomic
from pipelines.data.atomic import written_beside
from pipelines.data.chunks import CHUNK_SAMPLES, plan_chunks
from pipelines.data.climate import ingest
from pipelines.data.inspection import inspect
from pipelines.data.normalize import statistics
from pipelines.data.store import open_store, write_store


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of half a megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tiny file system needs to be root with the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_store_gives_back_exactly_what_was_written(uk: xr.DataArray, tmp_path: Path) -> None:
    written = write_store(uk, tmp_path / "store", source="ERA5", license="CC BY 4.0")
    opened = open_store(tmp_path / "store")
    xr.testing.assert_identical(opened.field.compute().drop_attrs(), uk.drop_attrs())
    assert (opened.source, opened.license, opened.units) == ("ERA5", "CC BY 4.0", "K")
    assert opened.fingerprint == written.fingerprint and opened.statistics == statistics(uk)


def test_a_store_is_plain_zarr_v3_to_everyone_else(uk_grib: Path, tmp_path: Path) -> None:
    store = ingest(uk_grib, tmp_path / "store")
    plain = xr.open_zarr(tmp_path / "store", consolidated=True)
    assert plain["t2m"].dims == ("time", "latitude", "longitude")
    assert plain["t2m"].encoding["chunks"] == (CHUNK_SAMPLES, 33, 49)
    assert plain["time"].values[-1] == np.datetime64("2019-03-31T23:00")
    assert plain["latitude"].attrs["units"] == "degrees_north"
    assert plain["t2m"].attrs["standard_name"] == "air_temperature"
    assert store.field.data.chunks[0][:2] == (CHUNK_SAMPLES, CHUNK_SAMPLES)
    assert zarr.open_group(tmp_path / "store", mode="r").metadata.zarr_format == 3
    assert json.loads(plain.attrs["statistics"])["count"] == 744 * 33 * 49
    stored = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file())
    assert plain["t2m"].nbytes > 2.5 * stored


@pytest.mark.parametrize("change", ["value", "time", "place", "units", "missing"])
def test_the_fingerprint_follows_the_content(uk: xr.DataArray, tmp_path: Path, change: str) -> None:
    other = uk.copy(deep=True)
    match change:
        case "value":
            other[3, 2, 1] = np.nextafter(other[3, 2, 1].values, np.float32(400))
        case "time":
            other = other.assign_coords(time=other["time"] + np.timedelta64(1, "s"))
        case "place":
            other = other.assign_coords(longitude=other["longitude"] + 360)
        case "units":
            other.attrs["units"] = "degC"
        case "missing":
            other[3, 2, 1] = np.nan
    prints = [write_store(field, tmp_path / name, source="", license="").fingerprint
              for name, field in (("a", uk), ("b", other), ("c", uk.chunk(time=7, latitude=4)))]  # fmt: skip
    assert prints[0] == prints[2] != prints[1]


def test_an_existing_store_is_kept_unless_it_is_to_be_overwritten(uk: xr.DataArray, tmp_path: Path) -> None:
    path = tmp_path / "store"
    first = write_store(uk, path, source="first", license="")
    with pytest.raises(FileExistsError, match=r"exists already: choose another name, or say --overwrite"):
        write_store(uk, path, source="second", license="")
    assert open_store(path).source == "first"
    second = write_store(uk.isel(time=slice(5)), path, source="second", license="", overwrite=True)
    assert second.fingerprint != first.fingerprint and open_store(path).field.sizes["time"] == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_what_is_no_store_is_never_overwritten(uk: xr.DataArray, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"exists and is no store: --overwrite replaces stores only"):
        write_store(uk, tmp_path / "thesis", source="", license="", overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_store_can_be_made_from_itself(uk: xr.DataArray, tmp_path: Path) -> None:
    write_store(uk, tmp_path / "store", source="", license="")
    store = ingest(tmp_path / "store", tmp_path / "store", every=4, overwrite=True)
    np.testing.assert_array_equal(store.field.values, uk.values[:, ::4, ::4])


def test_an_interrupted_write_leaves_what_was_there(uk: xr.DataArray, tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(uk, tmp_path / "new", source="", license="", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    write_store(uk, tmp_path / "old", source="kept", license="")
    with pytest.raises(KeyboardInterrupt):
        write_store(uk, tmp_path / "old", source="", license="", overwrite=True, progress=interrupt)
    assert open_store(tmp_path / "old").source == "kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_leaves_nothing(uk_grib: Path, tiny_disk: Path) -> None:
    with pytest.raises(OSError, match=r"no space left to write '.*store'") as failure:
        ingest(uk_grib, tiny_disk / "store")
    assert isinstance(failure.value.__cause__, OSError) and failure.value.__cause__.errno == errno.ENOSPC
    assert list(tiny_disk.iterdir()) == []


def test_a_limit_on_file_sizes_leaves_nothing(uk_grib: Path, tmp_path: Path) -> None:
    """As a full disk, for everyone: several files are being written when the first one fails."""
    code = """
import resource, sys
from pipelines.data.climate import ingest
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    ingest(sys.argv[1], sys.argv[2])
except OSError as error:
    print(error)
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(uk_grib), str(tmp_path / "store")]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.stdout.startswith("no space left to write"), done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    real, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise PermissionError("the rename is not allowed")
        real(source, target)

    monkeypatch.setattr(atomic, "_exchanged", lambda *_: False)
    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(PermissionError), written_beside(tmp_path / "out", overwrite=True) as beside:
        beside.mkdir()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["out", "old"]


def test_a_folder_that_is_replaced_is_there_all_the_time(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (tmp_path / "other").mkdir()
    if not atomic._exchanged(final, tmp_path / "other"):
        pytest.skip("two folders of this file system cannot change names in one step")
    (tmp_path / "other").rmdir()
    ended, missing = threading.Event(), []

    def look() -> None:
        while not ended.is_set():
            if not os.path.lexists(final):
                missing.append(True)

    watch = threading.Thread(target=look)
    watch.start()
    for turn in range(300):
        with written_beside(final, overwrite=True) as beside:
            beside.mkdir()
            (beside / str(turn)).touch()
    ended.set()
    watch.join()
    assert not missing
    assert [entry.name for entry in tmp_path.rglob("*")] == ["out", "299"]


def test_stores_of_many_small_samples_are_sharded(uk_grib: Path, tmp_path: Path) -> None:
    plan = plan_chunks(87_600, 33 * 49 * 4)
    assert plan.chunk == CHUNK_SAMPLES and plan.shard is not None
    assert plan.shard % plan.chunk == 0 and plan.slab % plan.shard == 0
    few = xr.DataArray(
        np.linspace(250, 300, 3000 * 4, dtype=np.float32).reshape(3000, 2, 2),
        dims=("time", "latitude", "longitude"),
        coords={"time": np.datetime64("2000-01-01", "ns") + np.arange(3000) * np.timedelta64(1, "h"),
                "latitude": [1.0, 0.0], "longitude": [0.0, 1.0]},
        name="t2m",
        attrs={"units": "K"},
    )  # fmt: skip
    store = write_store(few, tmp_path / "many", source="", license="")
    np.testing.assert_array_equal(store.field.values, few.values)
    assert store.field.data.chunks[0][0] == CHUNK_SAMPLES
    assert len(list((tmp_path / "many" / "t2m" / "c").rglob("*"))) < 10
    assert inspect(tmp_path / "many").shards is not None


def test_a_very_large_sample_has_a_chunk_of_its_own() -> None:
    plan = plan_chunks(1000, 400 * 2**20)
    assert (plan.chunk, plan.shard, plan.slab) == (1, None, 1)


def test_a_source_that_is_no_store_is_refused_in_one_sentence(plain: xr.Dataset, uk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no store at .* make one with `vamoh data climate"):
        open_store(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder' is not a store"):
        open_store(tmp_path / "folder")
    plain.to_zarr(tmp_path / "plain", zarr_format=3)
    with pytest.raises(ValueError, match=r"plain' is Zarr but not a store: make one from it"):
        open_store(tmp_path / "plain")
    (tmp_path / "file.nc").write_bytes(b"CDF")
    with pytest.raises(ValueError, match=r"file.nc' is not a store"):
        open_store(tmp_path / "file.nc")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("schema_version", 99, r"has schema version 99, this program reads 1: make the store again from 'ERA5'"),
        ("units", "degC", r"damaged: its values are in 'K', its description says 'degC'"),
        ("domain", "cube", r"damaged: 't2m' has dimensions"),
        ("variable", "tas", r"damaged"),
        ("fingerprint", None, r"lacks the attribute 'fingerprint'"),
    ],
)
def test_a_store_of_another_kind_is_refused(uk, tmp_path: Path, attribute: str, value: object, message: str) -> None:
    write_store(uk, tmp_path / "store", source="ERA5", license="")
    group = zarr.open_group(tmp_path / "store", mode="r+", use_consolidated=False)
    if value is None:
        del group.attrs[attribute]
    else:
        group.attrs[attribute] = value
    zarr.consolidate_metadata(tmp_path / "store")
    with pytest.raises(ValueError, match=message) as refusal:
        open_store(tmp_path / "store")
    assert "\n" not in str(refusal.value)


def test_a_store_opens_over_http(serve, uk: xr.DataArray, tmp_path: Path) -> None:
    written = write_store(uk, tmp_path / "store", source="", license="")
    with serve(tmp_path) as url:
        opened = open_store(f"{url}/store")
        assert opened.fingerprint == written.fingerprint
        np.testing.assert_array_equal(opened.field.isel(time=0).values, uk.isel(time=0).values)
    with pytest.raises((ValueError, OSError)):
        open_store(f"{url}/store")


def test_inspection_says_what_is_there(uk_grib: Path, tmp_path: Path) -> None:
    ingest(uk_grib, tmp_path / "store", license="Copernicus licence")
    found = inspect(tmp_path / "store")
    assert found.dims == {"time": 744, "latitude": 33, "longitude": 49}
    assert found.spacing == {"latitude": "0.25", "longitude": "0.25"}
    assert found.time_span == ("2019-03-01T00:00", "2019-03-31T23:00") and found.time_step == "1 h"
    assert found.extent == (-10.0, 50.0, 2.0, 58.0)
    assert found.compression_ratio > 2.5 and found.missing_fraction == 0.0
    assert json.loads(json.dumps(found.to_dict()))["license"] == "Copernicus licence"
    rows = dict(found.rows())
    assert rows["size"].startswith("4.8 MB") and rows["dimensions"] == "time 744, latitude 33, longitude 49"
    lines = found.sketch.splitlines()
    assert all(len(line) == 60 for line in lines[:-1]) and 10 < len(lines) < 35
    assert set("".join(lines[:-1])) == set(" ░▒▓█"), "the Highlands are colder than the Channel"


def test_inspection_tells_uneven_steps_and_gaps(globe: xr.DataArray, tmp_path: Path) -> None:
    holes = globe.where(globe["latitude"] < 60)
    write_store(holes.assign_attrs(units="K"), tmp_path / "store", source="", license="")
    found = inspect(tmp_path / "store")
    assert found.time_step == "7 h to 8 h"
    assert found.missing_fraction == pytest.approx(8 / 46)
    assert "missing ·" in found.sketch and found.sketch.splitlines()[0] == "·" * 60
