"""The whole globe at a tenth of a degree, 20 members, four times, through Ray: how long, and in how much memory.

    python -m tests.benchmarks.globe [--workers 2] [--resolution 0.1] [--region W,S,E,N] [--model MODEL] [--json FILE]

The input is ERA5 at every fourth point of 1 degree, the output a Zarr store in a temporary folder, which needs some 1.5
GB. Memory is that of the writing processes (of one at its largest) and of this process with all that it started, Ray's
own among them; pages that processes share count once. The model is trained here, in a minute, if none is given: the
time does not depend on how well.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipelines.products.downscale import downscale_file
from tests.benchmarks.downscale import COARSE, MEMBERS, TIMES, trained
from tests.benchmarks.fields import era5_hours
from tests.benchmarks.processes import family, read

EVERY_S = 0.5


class Watch(threading.Thread):
    """Looks at the memory of this process and its descendants now and then.

    Attributes:
        whole: Largest sum, GB.
        writer: Largest of a process that writes blocks, GB.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.whole, self.writer, self.done = 0.0, 0.0, threading.Event()

    def run(self) -> None:
        """Look until it is done."""
        while not self.done.wait(EVERY_S):
            held = {process: _gb(process) for process in family(os.getpid())}
            self.whole = max(self.whole, sum(held.values()))
            writers = [held[process] for process in held if b"Writer" in read(process, "cmdline")]
            self.writer = max([self.writer, *writers])


def _gb(process: int) -> float:
    """What a process holds, its share of what it shares with others; nothing if it has ended."""
    for line in read(process, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="Ray workers; 0 for the cores of this process")
    parser.add_argument("--resolution", type=float, default=0.1)
    parser.add_argument("--region", help="west,south,east,north: only there")
    parser.add_argument("--model", help="a model of the globe; else one is trained")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    region = tuple(float(side) for side in given.region.split(",")) if given.region else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or trained(folder)
        era5_hours(TIMES)[:, ::COARSE, ::COARSE].to_netcdf(folder / "coarse.nc")
        request = {"resolution": given.resolution, "region": region, "members": MEMBERS}
        watch, begun = Watch(), time.perf_counter()
        watch.start()
        written = downscale_file(
            model, str(folder / "coarse.nc"), str(folder / "fine.zarr"), workers=given.workers, **request
        )
        spent = time.perf_counter() - begun
        watch.done.set()
        watch.join()
        sizes = written["sizes"]
        values = sizes["realization"] * sizes["time"] * sizes["latitude"] * sizes["longitude"]
        disk = sum(part.stat().st_size for part in (folder / "fine.zarr").rglob("*") if part.is_file()) / 2**30
    figures = {
        "globe.values": float(values),
        "globe.seconds": spent,
        "globe.values_per_second": values / spent,
        "globe.gb_of_all_processes": watch.whole,
        "globe.gb_of_a_writer": watch.writer,
        "globe.gb_on_disk": disk,
    }
    for key, value in figures.items():
        print(f"{key:<40}{value:>14.4g}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
