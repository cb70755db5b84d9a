"""The stream beside a plain read of the same store, and beside xbatcher: `python -m tests.benchmarks.stream`.

All in one process, in turns, medians of the ratios of each turn. Decoded megabytes a second:

    zarr        the array read in order, block by block, and thrown away
    stream      a full shuffle in batches of 32, one thread reading ahead; and two
    xbatcher    one sample a patch, shuffled and batched by torch's DataLoader: the same job
    blocks      32 neighbouring samples a patch, only the patches shuffled: xbatcher's easier job
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from pipelines.data.chunks import ChunkPlan
from pipelines.data.store import Store, write_store
from pipelines.data.stream import FieldStream
from tests.benchmarks.fields import era5_hours

FIELDS, BATCH, TURNS = 768, 32, 11
XBATCHER_FIELDS = 64
PLANS = {
    "chunk1": ChunkPlan(chunk=1, shard=None, slab=256),
    "chunk32": ChunkPlan(chunk=32, shard=None, slab=256),
    "sharded": ChunkPlan(chunk=32, shard=128, slab=256),
}
COLUMNS = (
    ("zarr_mb_per_s", 9),
    ("mb_per_s", 9),
    ("mb_per_s_2_threads", 11),
    ("xbatcher_mb_per_s", 10),
    ("xbatcher_blocks_mb_per_s", 9),
)
WAIT_STEPS = 6


def rate(read: Callable[[], int]) -> float:
    """Decoded megabytes a second."""
    begun = time.perf_counter()
    return read() / 1e6 / (time.perf_counter() - begun)


def sequential(store: Store) -> int:
    """Read the array as zarr does, in order, as many samples at a time as the stream reads."""
    array = zarr.open_array(f"{store.path}/{store.variable}", mode="r")
    block = store.field.data.chunks[0][0]
    return sum(array[first : first + block].nbytes for first in range(0, array.shape[0], block))


def streamed(store: Store, epoch: int, threads: int | None = None) -> int:
    """An epoch of the stream."""
    samples = np.arange(store.field.shape[0])
    stream = FieldStream(store=store, samples=samples, batch_size=BATCH, seed=0, threads=threads, last="keep")
    return sum(batch.fields.nbytes for batch in stream.epoch(epoch))


def xbatched(store: Store, patch: int) -> int:
    """Shuffled patches of some samples through xbatcher and torch's DataLoader."""
    from torch.utils.data import DataLoader
    from xbatcher import BatchGenerator
    from xbatcher.loaders.torch import MapDataset

    count = XBATCHER_FIELDS if patch == 1 else FIELDS
    field = xr.open_zarr(store.path, chunks=None)[store.variable].isel(time=slice(count))
    sizes = {"time": patch, "latitude": field.sizes["latitude"], "longitude": field.sizes["longitude"]}
    patches = MapDataset(BatchGenerator(field, input_dims=sizes, preload_batch=False))
    loader = DataLoader(patches, batch_size=BATCH // patch, shuffle=True)
    return sum(int(batch.nbytes) for batch in loader)


def copied() -> float:
    """What copying a block costs in memory."""
    block, into = np.ones((32, 181, 360), np.float32), np.empty((32, 181, 360), np.float32)

    def copy() -> int:
        for _ in range(20):
            np.copyto(into, block)
        return 20 * block.nbytes

    return statistics.median(rate(copy) for _ in range(TURNS))


def decompressed(store: Store) -> float:
    """What decompressing the stored chunks costs, from memory to memory and without zarr."""
    from numcodecs import Blosc

    files = sorted(Path(store.path, store.variable, "c").rglob("0"))
    chunks = [file.read_bytes()[:-4] for file in files if file.is_file()]
    codec = Blosc()
    return statistics.median(rate(lambda: sum(len(codec.decode(chunk)) for chunk in chunks)) for _ in range(TURNS))


def wait_fraction(folder: Path) -> float:
    """How much of a short real training of the preset `era5` is waiting for data, on 46 x 90 points."""
    from pipelines.config import load_config
    from pipelines.training.train import train

    config = load_config("era5", ["training.epochs=1", "training.members=2", "training.threads=1"])
    count = round(config.training.batch_size * WAIT_STEPS / (1 - float(config.split.test)) * 1.6)
    store = write_store(era5_hours(count, every=4), folder / "era5.zarr", source="", license="")
    logging.disable(logging.WARNING)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return train(config, store.path, name="wait").metrics["data_wait_fraction"]
    finally:
        os.chdir(before)


def figures(store: Store) -> dict[str, float]:
    """What one store gives, by turns."""
    streamed(store, 0), sequential(store)
    turns = [
        (rate(lambda: sequential(store)), rate(partial(streamed, store, turn)), rate(partial(streamed, store, turn, 2)))
        for turn in range(TURNS)
    ]
    zarr_rate, ours, two = (statistics.median(column) for column in zip(*turns, strict=True))
    samples, blocks = (statistics.median(rate(partial(xbatched, store, patch)) for _ in range(3)) for patch in (1, 32))
    return {
        "zarr_mb_per_s": zarr_rate,
        "mb_per_s": ours,
        "mb_per_s_2_threads": two,
        "xbatcher_mb_per_s": samples,
        "xbatcher_blocks_mb_per_s": blocks,
        "over_zarr": statistics.median(turn[1] / turn[0] for turn in turns),
        "over_zarr_2_threads": statistics.median(turn[2] / turn[0] for turn in turns),
        "over_xbatcher": ours / samples,
        "over_xbatcher_blocks": ours / blocks,
    }


def compare(folder: Path) -> dict[str, float]:
    """All figures but those of a training."""
    field = era5_hours(FIELDS)
    stores = {name: write_store(field, folder / name, source="", license="", plan=plan) for name, plan in PLANS.items()}
    by_plan = {name: figures(store) for name, store in stores.items()}
    found = {f"stream.{key}.{name}": value for name, one in by_plan.items() for key, value in one.items()}
    found |= {
        "stream.decompress_mb_per_s": decompressed(stores["chunk32"]),
        "stream.memcpy_mb_per_s": copied(),
        "stream.over_zarr": by_plan["chunk32"]["over_zarr"],
        # Each with the chunks that suit it best.
        "stream.over_xbatcher": by_plan["chunk32"]["mb_per_s"]
        / max(one["xbatcher_mb_per_s"] for one in by_plan.values()),
    }
    print(f"{'MB/s':<12}{'zarr':>9}{'stream':>9}{'2 threads':>11}{'xbatcher':>10}{'blocks':>9}{'over zarr':>11}")
    for name, one in by_plan.items():
        print(
            f"{name:<12}" + "".join(f"{one[key]:>{width}.0f}" for key, width in COLUMNS) + f"{one['over_zarr']:>11.2f}"
        )
    limits = f"decompress {found['stream.decompress_mb_per_s']:.0f}, memcpy {found['stream.memcpy_mb_per_s']:.0f}"
    print(f"limits of one core: {limits} MB/s")
    print(f"over zarr {found['stream.over_zarr']:.2f} (at least 0.80)")
    print(f"over xbatcher, each with its best chunks, {found['stream.over_xbatcher']:.1f} (at least 2)")
    return found


def main() -> None:
    """Print a table; write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--no-training", action="store_true", help="leave out the training")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder))
        if not given.no_training:
            found["stream.data_wait_fraction"] = wait_fraction(Path(folder))
            print(f"data wait of an era5 training {found['stream.data_wait_fraction']:.2%} (at most 2 %)")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
