"""Memory is bounded by the blocks of a window and the batches that wait, whatever the store's size."""

import os
import subprocess
import sys
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray as xr

from pipelines.data.store import write_store

ALLOWED = 96 * 2**20
SAMPLES, GRID = 3872, (181, 360)  # of 1 degree: 1009 MB

# What is loaded and the threads that have begun are not the stream's: the limit is what it may add to them.
PROGRAM = """
import resource, sys
import numpy as np
from pipelines.data.store import open_store
from pipelines.data.stream import FieldStream

store, allowed = open_store(sys.argv[1]), int(sys.argv[2])
given = dict(store=store, samples=np.arange(store.field.shape[0]), seed=0, last="keep")
warm = FieldStream(batch_size=1, buffer=1, prefetch=1, **given).epoch(0)
next(warm)
warm.close()
stream = FieldStream(batch_size=32, buffer=4, prefetch=2, **given)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + allowed
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
{body}
"""
STREAM = """
total = sum(batch.fields.nbytes for batch in stream.epoch(1))
assert total == store.field.nbytes, total
"""
WHOLE = """
try:
    store.field.values
except MemoryError:
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten times the allowed memory; a pattern that costs little to write."""
    row = np.linspace(250, 300, GRID[1], dtype=np.float32)
    values = dask.array.from_array(np.arange(SAMPLES, dtype=np.float32) / 64, chunks=64)[:, None, None] + row
    field = xr.DataArray(
        dask.array.broadcast_to(values, (SAMPLES, *GRID)),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": np.datetime64("2000-01-01", "ns") + np.arange(SAMPLES) * np.timedelta64(1, "h"),
            "latitude": np.linspace(90, -90, GRID[0]),
            "longitude": np.arange(360.0),
        },
        name="t2m",
        attrs={"units": "K"},
    )
    path = tmp_path_factory.mktemp("large") / "store"
    assert write_store(field, path, source="", license="").field.nbytes > 10 * ALLOWED
    return path


def run(body: str, store: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", PROGRAM.format(body=body), str(store), str(ALLOWED)]
    environment = {**os.environ, "PYTHONPATH": str(root), "MALLOC_ARENA_MAX": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_a_store_of_ten_times_the_allowed_memory_is_streamed(large: Path) -> None:
    done = run(STREAM, large)
    assert done.returncode == 0, done.stderr[-2000:]
    assert run(WHOLE, large).returncode == 3, "the limit holds: the whole of it does not fit"
