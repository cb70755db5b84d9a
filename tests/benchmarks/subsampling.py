"""Scoring some of a field's points: how fast a step becomes, and what it costs in the bound.

    python -m tests.benchmarks.subsampling [--steps 200] [--points 512] [--json FILE] [--plot FILE.png]

Two models of the preset `era5`, equal at their start, see the same genuine fields on the paper's own 46 x 90 grid in
the same order with the same noise, 64 a step; one scores every point, the other a new random part in every step, and
both bounds are estimated on all points of fields that neither trains on. One thread. Takes some 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from torch import Tensor

from pipelines.config import load_config
from pipelines.data.climate import open_source
from pipelines.data.sphere import Lattice
from pipelines.products.demo import sample
from pipelines.training.step import Drawn, Objective, differentiate, make_optimizer, take_step, vamoh_groups
from vamoh import FunctionBatch, VAMoH

BATCH, HELD_OUT, RATE, LATE = 64, 6, 1e-3, 10_000
PUBLIC_STEP_S = 8.7  # the public code, full grid, batch 64, flow prior


def genuine_fields() -> FunctionBatch:
    """ERA5 2 m temperature [24, 4140, 1], scaled to [0, 1], in time order."""
    field = open_source(str(sample()), every=4).compute()
    values = torch.from_numpy(field.values.reshape(len(field), -1)).float()
    values = (values - values.min()) / (values.max() - values.min())
    return FunctionBatch(coords=torch.from_numpy(Lattice.of(field).coords).float()[None], values=values[..., None])


def train(
    fields: FunctionBatch, held: FunctionBatch, steps: int, points: int, note: int
) -> tuple[list[tuple[int, float]], float]:
    """The held-out bound (nats a field) every `note` steps, and a step's median seconds."""
    config = load_config("era5", [f"training.learning_rate={RATE}"])
    model, training = VAMoH(config.model), config.training
    assert fields.values is not None
    objective, optimizer = Objective(model, training, len(fields.values)), make_optimizer(vamoh_groups(model, training))
    generator = torch.Generator().manual_seed(1)  # of the batches and the noise, the same for both
    choice = torch.Generator().manual_seed(2)
    curve, times = [(0, bound(model, held))], []
    for step in range(steps):
        chosen = torch.randint(len(fields.values), (BATCH,), generator=generator)
        batch = FunctionBatch(coords=fields.coords, values=fields.values[chosen])
        noise = torch.randn(2, BATCH, config.model.latent, generator=generator)
        total = batch.num_points
        begun = time.perf_counter()
        at = torch.randperm(total, generator=choice)[:points].sort().values if points else None
        size = 0 if points else training.micro_batch  # few points take little memory
        differentiate(
            objective, Drawn(batch=batch, num_total=total, at=at, noise=noise), at_a_time=size, epoch=LATE, step=LATE
        )
        take_step(model, optimizer, training.clip)
        times.append(time.perf_counter() - begun)
        if (step + 1) % note == 0:
            curve.append((step + 1, bound(model, held)))
            print(f"  step {step + 1:>5}   bound {curve[-1][1]:>10.1f} nats   {times[-1]:.2f} s", flush=True)
    return curve, statistics.median(times)


@torch.no_grad()
def bound(model: VAMoH, held: FunctionBatch, draws: int = 16) -> float:
    """Mean of the full bound over held-out fields and draws of the latent."""
    generator = torch.Generator().manual_seed(3)
    bounds: list[Tensor] = [model.elbo(held, generator=generator).elbo for _ in range(draws)]
    return float(torch.stack(bounds).mean())


def main() -> None:
    """Print both curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    fields = genuine_fields()
    count = fields.batch_size
    held, seen = fields.rows(count - HELD_OUT, count), fields.rows(0, count - HELD_OUT)
    curves, seconds = {}, {}
    for name, points in (("all points", 0), (f"{given.points} points", given.points)):
        print(name)
        curves[name], seconds[name] = train(seen, held, given.steps, points, max(1, given.steps // 10))
    whole, part = (curve[-1][1] for curve in curves.values())
    full_s, part_s = seconds.values()
    figures = {
        "subsampling.step_s.full": full_s,
        "subsampling.step_s.part": part_s,
        "subsampling.over_public": PUBLIC_STEP_S / part_s,
        "subsampling.bound.full": whole,
        "subsampling.bound.part": part,
        "subsampling.bound.difference": (part - whole) / abs(whole),
    }
    for key, value in figures.items():
        print(f"{key:<34}{value:>12.4f}")
    if given.json:
        given.json.write_text(json.dumps(figures | {"curves": curves}, indent=2) + "\n")
    if given.plot:
        plot(curves, given.plot)


def plot(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Both curves in one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="held-out bound (nats a field)")
    for name, curve in curves.items():
        axes.plot(*zip(*curve[1:], strict=True), label=name, marker=".")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
