"""Fields from any set of points, beside what interpolates scattered points.

    python -m tests.benchmarks.points --store uk.zarr --model models:/t2m-any@champion [--beside MODEL] [--json FILE]

Every 8th field of the model's test split is known at some of its points: a lattice, a lattice with gaps, random points.
Printed is the area-weighted RMSE of whole fields, kelvin; of the models the CRPS of 32 members too. `--beside` is a
model of a lattice, which is given the lattices, their gaps as NaN. The Gaussian process is fitted to each field alone.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import griddata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice
from pipelines.data.store import open_store
from pipelines.products.downscale import one_thread_a_block
from pipelines.products.ensemble import Downscaler
from pipelines.training.plan import split_of

MEMBERS, EVERY = 32, 8
Floats = NDArray[np.float64]
Points = NDArray[np.int64]


def known_sets(shape: tuple[int, int]) -> dict[str, tuple[Points | None, Points]]:
    """By name: the lattice [n, m] of places that a set belongs to, if it does, and the places [P] that are known."""
    rng, grid = np.random.default_rng(2026), np.arange(shape[0] * shape[1]).reshape(shape)
    fourth = grid[::4, ::4].ravel()
    sets: dict[str, tuple[Points | None, Points]] = {"every 4": (grid[::4, ::4], fourth)}
    for missing in (0.1, 0.5):
        kept = np.sort(rng.permutation(fourth)[: round((1 - missing) * fourth.size)])
        sets[f"every 4, {missing:.0%} missing"] = (grid[::4, ::4], kept)
    sets["100 random"] = (None, np.sort(rng.choice(grid.size, 100, replace=False)))
    for step in (2, 6, 8):
        sets[f"every {step}"] = (grid[::step, ::step], grid[::step, ::step].ravel())
    return sets


def linear(places: Floats, at: Points, values: Floats) -> Floats:
    """Linear on triangles, the nearest value outside of them."""
    inside, outside = (griddata(places[at], values.T, places, method=method) for method in ("linear", "nearest"))
    return np.where(np.isnan(inside), outside, inside).T


def gaussian_process(places: Floats, at: Points, values: Floats) -> Floats:
    """Matern 3/2 with noise, fitted to each field by maximum likelihood."""
    kernel = ConstantKernel(10, (0.1, 1e3)) * Matern(3.0, (0.3, 50), nu=1.5) + WhiteKernel(1e-2, (1e-5, 1.0))
    found = []
    for field in values:
        process = GaussianProcessRegressor(kernel).fit(places[at], field - field.mean())
        found.append(process.predict(places) + field.mean())
    return np.stack(found)


def members_of(
    teller: Downscaler, lattice: Lattice, truth: Floats, times: NDArray[Any], grid: Points | None, at: Points
) -> Floats:
    """[M, T, N] kelvin."""
    latitude, longitude = lattice.points
    where: Lattice | Scatter = Scatter(latitude=latitude[at], longitude=longitude[at])
    given = truth[:, None, at]
    if grid is not None:
        seen = np.full_like(truth, np.nan)
        seen[:, at] = truth[:, at]
        given = seen[:, grid.ravel()].reshape(len(truth), *grid.shape)
        where = Lattice(latitude=np.unique(latitude[grid])[::-1].copy(), longitude=np.unique(longitude[grid]))
    with one_thread_a_block():
        return teller.ensemble(given, where, times, members=MEMBERS, seed=0).at(latitude, longitude)[0].astype(float)


def crps(members: Floats, truth: Floats) -> Floats:
    """[T, N], of M equal steps."""
    ordered, count = np.sort(members, axis=0), len(members)
    weight = (2 * np.arange(count) + 1 - count)[:, None, None]
    return np.abs(members - truth).mean(axis=0) - (ordered * weight).sum(axis=0) / count**2


def main() -> None:
    """Print a line for each set and each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", required=True, help="of kind scattered")
    parser.add_argument("--beside", help="a model of a lattice")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the optimiser, that a bound was reached
    tellers = {"scattered": Downscaler.of(given.model)}
    if given.beside:
        tellers["lattice"] = Downscaler.of(given.beside)
    store = open_store(given.store)
    held = store.field[split_of(tellers["scattered"].checkpoint.plan.config, store).test[::EVERY]].load()
    lattice, truth = Lattice.of(store.field), held.values.astype(float).reshape(len(held), -1)
    latitude, longitude = lattice.points
    places = np.stack([latitude, longitude * np.cos(np.deg2rad(latitude.mean()))], axis=-1)

    def mean(error: Floats) -> float:
        return float((error * lattice.area).sum(axis=-1).mean())

    figures: dict[str, float] = {}
    for name, (grid, at) in known_sets(lattice.shape).items():
        ways = {"linear": linear(places, at, truth[:, at])}
        if len(at) < 200:
            ways["gaussian_process"] = gaussian_process(places, at, truth[:, at])
        for way, field in ways.items():
            figures[f"{name}.{way}.rmse"] = mean((field - truth) ** 2) ** 0.5
        for way, teller in tellers.items():
            if way == "lattice" and grid is None:
                continue
            members = members_of(teller, lattice, truth, held["time"].values, grid, at)
            figures[f"{name}.{way}.rmse"] = mean((members.mean(axis=0) - truth) ** 2) ** 0.5
            figures[f"{name}.{way}.crps"] = mean(crps(members, truth))
        for key in [key for key in figures if key.startswith(f"{name}.")]:
            print(f"{key:<48}{figures[key]:.3f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
