"""A downscaled data set, written block by block, so that a stopped run goes on with the blocks that are missing.

    OUTPUT.partial/data.zarr      what is written, chunk by chunk
    OUTPUT.partial/done           a line for every block that is finished
    OUTPUT.partial/request.json   what was asked for: another request starts anew

When all blocks are done the store takes the place of OUTPUT, or is copied to the NetCDF file that does.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import xarray as xr
import zarr

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.fingerprint import Fingerprint
from pipelines.products.downscale import Asked, encoding, one_thread_a_block
from pipelines.products.tiles import BLOCK_TIMES, Job

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def write_blocks(
    asked: Asked,
    dataset: xr.Dataset,
    path: Path,
    *,
    overwrite: bool,
    workers: int,
    again: dict[str, Any],
    progress: Progress | None,
    say: Say,
) -> None:
    """Write what is asked for.

    Args:
        asked: The request.
        dataset: Its lazy result, for the names and attributes.
        path: Of the NetCDF file or Zarr store.
        overwrite: Replace it if it exists.
        workers: Ray workers; 0 for threads of this process.
        again: With which a Ray worker asks for the same by itself.
        progress: Called with (blocks done, blocks in all).
        say: Told what is worth a line.

    Raises:
        ValueError: If the request cannot be computed; then nothing is kept.
        OSError: If it cannot be written, or another process writes it; what is finished is kept.
    """
    stage = path.with_name(f"{path.name}.partial")
    blocks, key = asked.job.blocks, _key(asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(stage), one_thread_a_block():
        done = _begin(stage, dataset, key)
        if done:
            say(f"{len(done)} of {len(blocks)} blocks are in {stage} already: going on from there")
        pending = [number for number in range(len(blocks)) if number not in done]
        finished = _by_ray(again, stage, pending, workers) if workers else _by_threads(asked.job, stage, pending)
        try:
            with closing(finished), (stage / "done").open("a") as record:
                for count, number in enumerate(finished, start=len(done) + 1):
                    record.write(f"{number}\n")
                    record.flush()
                    if progress is not None:
                        progress(count, len(blocks))
        except ValueError:
            shutil.rmtree(stage)  # it will not be asked for again
            raise
        except BaseException:
            kept = len(_recorded(stage))
            say(f"{stage} keeps {kept} of {len(blocks)} blocks: the same command goes on from there")
            raise
        _finish(stage, dataset, path, overwrite=overwrite)


def write_block(job: Job, group: zarr.Group, number: int, ensembles: dict[int, Any]) -> int:
    """Compute one block and write it into its chunks; `ensembles` keeps the members of its times for the next."""
    block = job.blocks[number]
    start = block.times.start
    if start not in ensembles:
        ensembles.clear()
        ensembles[start] = job.ensemble(block.times)
    for name, values in job.compute(ensembles[start], block).items():
        target, where = group[name], (block.times, *block.places)
        assert isinstance(target, zarr.Array)
        lead = (slice(None),) if job.variables[name].each_member else ()
        if target.ndim < values.ndim:  # a single time that is no axis
            values, where = values.take(0, axis=len(lead)), block.places
        target[*lead, *where] = values
    return number


def _by_threads(job: Job, stage: Path, pending: Sequence[int]) -> Generator[int, None, None]:
    """On the cores of this machine, a few blocks ahead of what is recorded; gives numbers as they are finished."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group, running = zarr.open_group(stage / "data.zarr", mode="r+"), set[Future[int]]()
    ended: set[Future[int]] = set()
    ensembles: dict[int, dict[int, Any]] = {}
    pool = ThreadPoolExecutor(min(cores, max(1, len(pending))))
    try:
        for number in pending:
            start = job.blocks[number].times.start
            if start not in ensembles:
                ensembles = {start: {start: job.ensemble(job.blocks[number].times)}}
            running.add(pool.submit(write_block, job, group, number, ensembles[start]))
            while len(running) > cores:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ended)
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in ended)
    except GeneratorExit:
        pool.shutdown(cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)  # what is being computed is finished, and counts
        for each in (*ended, *running):
            if each.done() and not each.cancelled() and each.exception() is None:
                yield each.result()
        raise
    pool.shutdown()


def _by_ray(again: dict[str, Any], stage: Path, pending: Sequence[int], workers: int) -> Generator[int, None, None]:
    from pipelines.products.ray_writing import by_ray

    return by_ray(again, stage, pending, workers)


def _key(asked: Asked) -> str:
    """Changes with anything that the output depends on."""
    job = asked.job
    content = Fingerprint(job.field, "K")
    for first in range(0, job.field.sizes["time"], BLOCK_TIMES):
        content.update(job.field[first : first + BLOCK_TIMES].values)
    digest = hashlib.sha256(content.hexdigest().encode())
    for axis in (job.target.latitude, job.target.longitude, job.given.latitude, job.given.longitude):
        digest.update(axis.tobytes())
    said = (
        job.teller.fingerprint, job.members, job.seed, job.also, job.conserve, job.target.names, job.chunks,
        str(job.field.name), asked.conventions.to_json(), version("vamoh"),
    )  # fmt: skip
    digest.update(repr(said).encode())
    return digest.hexdigest()


def _begin(stage: Path, dataset: xr.Dataset, key: str) -> set[int]:
    """Have a stage for this request: the one that is there, or a new one; the blocks that it holds."""
    request = stage / "request.json"
    if (stage / "data.zarr").is_dir() and request.is_file() and json.loads(request.read_text())["key"] == key:
        return _recorded(stage)
    for left in stage.iterdir():
        if left.name != "lock":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        chunked = {str(name): {"chunks": tuple(s[0] for s in v.chunks or ())} for name, v in dataset.data_vars.items()}
        dataset.to_zarr(stage / "data.zarr", zarr_format=3, consolidated=True, compute=False, encoding=chunked)
    (stage / "request.new").write_text(json.dumps({"key": key}))
    os.replace(stage / "request.new", request)  # last: without it a stage is started anew
    return set()


def _recorded(stage: Path) -> set[int]:
    """The blocks that are finished."""
    record = stage / "done"
    return {int(line) for line in record.read_text().splitlines()} if record.is_file() else set()


def _finish(stage: Path, dataset: xr.Dataset, path: Path, *, overwrite: bool) -> None:
    """Put the whole in its place."""
    refuse_existing(path, overwrite=overwrite)
    with written_beside(path, overwrite=overwrite) as beside:
        if path.suffix == ".zarr":
            os.rename(stage / "data.zarr", beside)
        else:
            with xr.open_zarr(stage / "data.zarr", chunks={}) as whole, dask.config.set(scheduler="synchronous"):
                for name in whole.variables:
                    whole[name].encoding = dict(dataset[name].encoding)
                whole.to_netcdf(beside, engine="h5netcdf", encoding=encoding(dataset))
    shutil.rmtree(stage)


@contextmanager
def _held(stage: Path) -> Iterator[None]:
    """Be the only one who writes there; the system lets go of it whatever ends this process."""
    stage.mkdir(exist_ok=True)
    with (stage / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(f"another process is writing {stage}: wait for it, or choose another name") from error
        yield
