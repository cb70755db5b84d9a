"""What downscaling costs, beside its own matrix products: points a second, memory, and where the time goes.

    python -m tests.benchmarks.downscale [--json FILE] [--model MODEL] [--repeats 3]

One thread. A point is one value: of one member, at one time, in one place. GEMM is the time of all matrix products of
the method's formulas (WeightNet, kernels, generators, gate, the random field), alone, on operands of the same sizes, in
the same process: what the core would need if there were no neighbours to find, no tables to look up, no activations, no
cosines and no quantiles to solve for. Products of single places or members are made in batches. The program
gets by with fewer products than the formulas have, because members that mirror each other share a random field, and
because the sum over neighbours is made before that over kernels: `over_own_gemm` counts only what it makes.
`over_gemm_one_by_one` takes the time of every small product by itself, which is mostly that of the call. Products are
torch's own; the program calls oneDNN for the large ones (`vamoh/onednn.py`), which is faster on some processors:
`over_fastest_gemm` does so too. The model is trained here, for a minute, if none is given: the time does not depend on
how well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import xarray as xr

from pipelines.config import load_config
from pipelines.data.climate import ingest
from pipelines.data.memory import keep_freed_memory
from pipelines.data.sphere import Lattice
from pipelines.products import ensemble as module
from pipelines.products.downscale import ask, downscale
from pipelines.products.ensemble import Downscaler, Ensemble
from pipelines.products.writing import write_blocks
from pipelines.training.train import train
from tests.benchmarks.fields import era5_hours
from tests.benchmarks.model import Figures, Products, peak_gb, seconds
from vamoh import FunctionBatch, onednn, remembered
from vamoh.neighbours import Neighbours, nearest
from vamoh.normal_mixture import NormalMixtures
from vamoh.random_field import FREQUENCIES_PER_SCALE

TIMES, MEMBERS, COARSE = 4, 20, 4


def trained(folder: Path) -> str:
    """The checkpoint of a model of the demo's shape, of ERA5 on 1 degree, from every fourth point."""
    store = ingest(era5_hours(24).to_dataset(name="t2m"), folder / "era5.zarr")
    with contextlib.chdir(folder):
        config = load_config("demo", ["training.epochs=2", "training.validate_every=2", "training.threads=1"])
        return str(train(config, store.path, name="benchmark").checkpoint.absolute())


def places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """About so many places of a square of a tenth of a degree."""
    side = round(count**0.5)
    return Lattice(latitude=60 - 0.1 * np.arange(side), longitude=0.1 * np.arange(side)).points


def cold(ensemble: Ensemble, where: tuple[np.ndarray, np.ndarray]) -> Callable[[], object]:
    """Ask at places that nothing is remembered of."""

    def work() -> object:
        remembered._made.clear()
        return ensemble.at(*where)

    return work


@dataclass(frozen=True)
class Ceiling:
    """Matrix products: large ones, and `count` batches of small ones, (count, batch, rows, in, out)."""

    large: Products
    small: list[tuple[int, int, int, int, int]]

    @property
    def gflop(self) -> float:
        """Of all of them."""
        return self.large.gflop + sum(2e-9 * math.prod(size) for size in self.small)

    def seconds(self, repeats: int, *, batched: bool = True) -> float:
        """The time that they take by themselves, the small ones in their batches or one by one."""
        total = self.large.seconds(repeats)
        if not batched:
            return total + Products([(count * batch, *size) for count, batch, *size in self.small]).seconds(repeats)
        for count, batch, rows, i, o in self.small:
            left, right, out = torch.randn(batch, rows, i), torch.randn(batch, i, o), torch.empty(batch, rows, o)
            total += count * seconds(lambda a=left, b=right, c=out: torch.bmm(a, b, out=c), max(7, repeats))
        return total

    def fastest(self, repeats: int) -> float:
        """The time that they take with every large one by torch or by oneDNN, whichever is faster."""
        total = Ceiling(Products([]), self.small).seconds(repeats)
        for count, rows, i, o in self.large.sizes:
            left, right = torch.randn(rows, i), torch.randn(o, i)
            other = count * seconds(lambda a=left, b=right: onednn.linear(a, b), max(7, repeats))
            total += min(other, Products([(count, rows, i, o)]).seconds(repeats))
        return total


def products(told: Downscaler, times: int, members: int, count: int, *, own: bool = False) -> Ceiling:
    """The matrix products of `count` places in the parts that they are asked for in.

    Args:
        told: The model.
        times, members, count: What is asked for.
        own: Only those that the program makes.
    """
    spec, model = told.model.spec, told.model
    assert spec.local is not None
    block = next(iter(module.parts(min(count, module.PLACES), times * members))).stop
    near, kernels, queries = spec.local.neighbours, spec.local.kernels, spec.local.features
    blocks, waves = -(-count // block), 2 * FREQUENCIES_PER_SCALE * len(told.law.lengths)
    net = [spec.num_axes + 1, *spec.local.kernel_widths, kernels]
    sizes = [(blocks, block * near, i, o) for i, o in zip(net[:-1], net[1:], strict=True)]
    small = [(blocks, block, 1 + queries, kernels, near)]  # the sum over neighbours is not held for a product
    if own:
        small = [(blocks, block, times, near, kernels)]
        sizes.append((blocks, block * times, kernels, queries))
    first, *rest = model.generators.layers  # points are the last axis from here on
    sizes.append((blocks * times, first[1] * spec.components * members, first[0], block))
    small += [(blocks * times, members * spec.components, o, i, block) for i, o in rest]
    gate = [*spec.gating, spec.components]
    sizes.append((blocks * times, gate[0], first[0], block))
    sizes += [(blocks * times, o, i, members * block) for i, o in zip(gate[:-1], gate[1:], strict=True)]
    sizes.append((blocks, waves // 2, spec.num_axes, block))
    sizes.append((blocks, (-(-members // 2) if own else members) * times, waves, block))
    return Ceiling(Products(sizes), small)


def shares(told: Downscaler, ensemble: Ensemble, where: tuple[np.ndarray, np.ndarray], repeats: int) -> Figures:
    """Shares of the parts in the time that a few thousand places take."""
    plan, model = told.checkpoint.plan, told.model
    latitude, longitude = (axis[: module.PLACES] for axis in where)

    def query() -> FunctionBatch:
        return plan.downscaling.query((latitude, longitude), ensemble.times, ensemble.known)

    asked = query()
    assert model.local is not None and asked.context is not None

    def near() -> Neighbours:
        remembered._made.clear()
        return nearest(asked.coords[0], asked.context.coords[0], plan.spec.local.neighbours)

    found, times, members = near(), len(ensemble.times), len(ensemble.fields)
    part = next(module.parts(len(latitude), times * members))
    share = len(latitude) / part.stop
    with torch.no_grad():
        placed = model.place(asked)
        assert placed.local is not None
        here = asked.coords[0, part]
        score = ensemble._drawn.at(here).transpose(0, 1)
        mixtures = NormalMixtures.empty(model.spec.components, *score.shape)

        def speak() -> None:
            for time, several in enumerate(ensemble._members):
                one = NormalMixtures(*(each[:, time] for each in mixtures))
                several.fill(one, placed.features.seen(time, part), placed.added[time, :, part])

        speak()
        spent = seconds(cold(ensemble, (latitude, longitude)), repeats)
        each = {
            "interpolation_and_sun": seconds(query, repeats),
            "neighbours": seconds(near, repeats),
            "kernels": seconds(lambda: model.local._basis(model.local._told(found)[0]), repeats),
            "feature_grids": seconds(lambda: model.local.grids(asked.coords[0]), repeats),
            "place_but_neighbours": seconds(lambda: model.place(asked), repeats),
            "leverage": seconds(lambda: told.leverage(ensemble.known, latitude, longitude), repeats),
            "random_field": share * seconds(lambda: ensemble._drawn.at(here), repeats),
            "generators_and_gate": share * seconds(speak, repeats),
            "quantiles": share * seconds(lambda: mixtures.at_score(score), repeats),
        }
    return {name: part / spent for name, part in each.items()}


def memory(told: Downscaler, coarse: xr.DataArray, folder: Path) -> Figures:
    """Largest resident memory while a fifth of the globe of a tenth of a degree is written, on all cores."""
    asked = ask(coarse, told, resolution=0.1, region=(0, 20, 90, 65), members=MEMBERS)
    dataset = asked.dataset()

    def write() -> None:
        write_blocks(asked, dataset, folder / "out.zarr", overwrite=True, workers=0, again={}, progress=None,
                     say=lambda line: None)  # fmt: skip

    begun = time.perf_counter()
    peak = peak_gb(write)
    values = dataset["t2m"].size
    return {
        "downscale.peak_gb": peak,
        "downscale.written.points_per_second": values / (time.perf_counter() - begun),
        "downscale.written.cores": float(len(os.sched_getaffinity(0))),
    }


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", help="a model of the globe; else one is trained")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = Downscaler.of(given.model or trained(folder))
        torch.set_num_threads(1)
        keep_freed_memory()
        coarse = era5_hours(TIMES)[:, ::COARSE, ::COARSE]
        figures = measured(told, coarse, given.repeats) | memory(told, coarse, folder)
    for key, value in figures.items():
        print(f"{key:<52}{value:>14.4g}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


def measured(told: Downscaler, coarse: xr.DataArray, repeats: int) -> Figures:
    """Points a second, their share of the ceiling, linearity, and the time for the globe."""
    lattice, times = Lattice.of(coarse), coarse["time"].values

    def drawn(members: int) -> Ensemble:
        return told.ensemble(coarse.values, lattice, times, members=members, seed=0)

    where, ensemble, figures = places(2**14), drawn(MEMBERS), Figures()
    spent = seconds(cold(ensemble, where), repeats)
    values = MEMBERS * TIMES * len(where[0])
    gemm = products(told, TIMES, MEMBERS, len(where[0]))
    made = products(told, TIMES, MEMBERS, len(where[0]), own=True)
    ceiling = gemm.seconds(repeats)
    figures["downscale.points_per_second"] = values / spent
    figures["downscale.gemm.points_per_second"] = values / ceiling
    figures["downscale.over_gemm"] = ceiling / spent
    figures["downscale.over_fastest_gemm"] = gemm.fastest(repeats) / spent
    figures["downscale.over_own_gemm"] = made.seconds(repeats) / spent
    figures["downscale.over_gemm_one_by_one"] = gemm.seconds(repeats, batched=False) / spent
    figures["downscale.gflops"] = gemm.gflop / spent
    figures["downscale.gemm.gflops"] = gemm.gflop / ceiling
    figures |= {f"downscale.share.{name}": part for name, part in shares(told, ensemble, where, repeats).items()}
    for power in (10, 12, 14, 16):
        few = places(2**power)
        cost = seconds(cold(ensemble, few), repeats) / (MEMBERS * TIMES * len(few[0]))
        figures[f"downscale.microseconds_a_point.places_2e{power}"] = cost * 1e6
    for members in (1, 5, 20, 80):
        cost = seconds(cold(drawn(members), where), repeats) / (TIMES * len(where[0]))
        figures[f"downscale.microseconds_a_place_and_time.members_{members}"] = cost * 1e6
    begun = time.perf_counter()
    globe = downscale(coarse, told, resolution=0.01, members=MEMBERS)
    figures["downscale.globe_0p01.seconds_to_open"] = time.perf_counter() - begun
    tenth = 1801 * 3600 * MEMBERS * TIMES
    figures["downscale.globe_0p1.hours_one_thread_extrapolated"] = tenth * spent / values / 3600
    figures["downscale.globe_0p01.hours_one_thread_extrapolated"] = globe["t2m"].size * spent / values / 3600
    return figures


if __name__ == "__main__":
    main()
