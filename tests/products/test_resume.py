"""A written ensemble survives kill -9: what is finished is kept, and is not computed again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.products import tiles, writing
from pipelines.products.downscale import downscale, downscale_file

# Small blocks, and a line for each that is computed.
COMMAND = """
import sys
from pipelines.products import tiles

tiles.TILE_POINTS = 300
original = tiles.Job.compute

def compute(job, ensemble, block):
    found = original(job, ensemble, block)
    print(block.places, flush=True)
    return found

tiles.Job.compute = compute
from infra.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def given(coarse, tmp_path) -> Path:
    coarse.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    return tmp_path / "in.nc"


def start(trained, given: Path, output: str, *more: str) -> subprocess.Popen[str]:
    line = ["downscale", str(trained.checkpoint), given.name, output, "--factor", "6", "--members", "2", *more]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *line],
        cwd=given.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_terminated_run_says_how_to_go_on(trained, given, tmp_path) -> None:
    process = start(trained, given, "out.zarr")
    assert process.stdout is not None and process.stdout.readline()
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    kept = len(set((tmp_path / "out.zarr.partial" / "done").read_text().split()))
    assert f"vamoh: out.zarr.partial keeps {kept} of" in error and "the same command goes on from there" in error


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_kill_9_loses_no_finished_block_and_the_same_command_goes_on(
    coarse, trained, teller, given, tmp_path, suffix
) -> None:
    output, stage = tmp_path / f"out{suffix}", tmp_path / f"out{suffix}.partial"
    first = start(trained, given, output.name)
    assert first.stdout is not None
    for _ in range(20):
        assert first.stdout.readline()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    kept = (stage / "done").read_text().splitlines()
    assert 15 <= len(kept) < 60 and not output.exists()

    second = start(trained, given, output.name)
    said, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    total = len(said.splitlines()[: said.splitlines().index(next(s for s in said.splitlines() if "output" in s))])
    assert f"vamoh: {len(kept)} of {total + len(kept)} blocks are in {stage.name} already: going on from there" in error
    assert not stage.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["in.nc", output.name]
    whole = downscale(coarse, teller, factor=6, members=2)
    with xr.open_dataset(output, engine="zarr" if suffix == ".zarr" else "h5netcdf") as back:
        np.testing.assert_allclose(back["t2m"], whole["t2m"], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(back["time"], whole["time"])
        assert dict(back.attrs) | {"history": ""} == dict(whole.attrs) | {"history": ""}


@pytest.fixture
def computed(monkeypatch) -> list[object]:
    """The blocks that were computed in this process; the fifth of the first run breaks."""
    blocks: list[object] = []
    original = tiles.Job.compute

    def compute(job, ensemble, block):  # noqa: ANN202
        if len(blocks) == 4:
            blocks.append(None)
            raise OSError("the disk is full")
        blocks.append(block)
        return original(job, ensemble, block)

    monkeypatch.setattr(tiles.Job, "compute", compute)
    monkeypatch.setattr(tiles, "TILE_POINTS", 900)
    monkeypatch.setattr(writing.os, "sched_getaffinity", lambda pid: {0})
    return blocks


@pytest.mark.parametrize("change", [{}, {"seed": 1}, {"members": 3}, {"also": ("spread",)}, {"factor": 2}])
def test_only_the_same_request_goes_on(coarse, trained, given, computed, change) -> None:
    said: list[str] = []
    request = {"factor": 3, "members": 2, "say": said.append}
    places = (str(trained.checkpoint), str(given), str(given.parent / "out.zarr"))
    with pytest.raises(OSError, match="the disk is full"):
        downscale_file(*places, **request)
    kept = len(set((given.parent / "out.zarr.partial" / "done").read_text().split()))
    assert said == [f"{places[2]}.partial keeps {kept} of 6 blocks: the same command goes on from there"]
    assert not (given.parent / "out.zarr").exists()
    before = len(computed)
    downscale_file(*places, **(request | change))
    after = len(computed) - before
    assert kept >= 4 and (after == 6 - kept if not change else after > 2)
    assert xr.open_zarr(places[2]).sizes["realization"] == change.get("members", 2)


def test_other_values_start_anew(coarse, trained, given, computed) -> None:
    places = (str(trained.checkpoint), str(given), str(given.parent / "out.zarr"))
    with pytest.raises(OSError, match="the disk is full"):
        downscale_file(*places, factor=3, members=2)
    (coarse + 1).assign_attrs(coarse.attrs).to_netcdf(given.parent / "next.nc", engine="h5netcdf")
    before = len(computed)
    downscale_file(places[0], str(given.parent / "next.nc"), places[2], factor=3, members=2)
    assert len(computed) - before == 6


def test_a_request_that_cannot_be_computed_leaves_nothing(coarse, trained, tmp_path) -> None:
    coarse[1] = np.nan
    coarse.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="no value at all"):
        downscale_file(str(trained.checkpoint), str(tmp_path / "in.nc"), str(tmp_path / "out.zarr"), factor=3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.nc"]


def test_two_processes_cannot_write_the_same_output(trained, given) -> None:
    first = start(trained, given, "out.zarr")
    assert first.stdout is not None and first.stdout.readline()
    with pytest.raises(FileExistsError, match="another process is writing"):
        downscale_file(str(trained.checkpoint), str(given), str(given.parent / "out.zarr"), factor=6, members=2)
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_a_tenth_of_a_degree_streams_in_less_than_two_gigabytes(trained, given) -> None:
    """A band of the globe of the same chunks: the peak is that of the chunks in flight, not of the output's 300 MB."""
    command = ["downscale", str(trained.checkpoint), "in.nc", "out.zarr", "--resolution", "0.1", "--members", "20"]
    # not `ru_maxrss`, which a new process has from the one that started it
    program = "import sys\nfrom infra.cli import main\ncode = main(sys.argv[1:])\n" \
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\nsys.exit(code)"  # fmt: skip
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--region=0,40,100,66"], cwd=given.parent, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout.splitlines()[-1]) < 2 * 2**20, time.perf_counter() - begun
    assert xr.open_zarr(given.parent / "out.zarr")["t2m"].nbytes > 60e6


@pytest.mark.ray
@pytest.mark.slow
def test_ray_workers_write_the_same_output(trained, given, teller, coarse, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    output = given.parent / "out.zarr"
    told = downscale_file(
        str(trained.checkpoint), str(given), str(output), factor=3, members=2, workers=2, conserve=True
    )
    assert told["members"] == 2
    with xr.open_zarr(output) as back:
        whole = downscale(coarse, teller, factor=3, members=2, conserve=True)
        np.testing.assert_allclose(back["t2m"], whole["t2m"], rtol=0, atol=1e-4)
    assert sorted(path.name for path in given.parent.iterdir()) == ["in.nc", "out.zarr"]
