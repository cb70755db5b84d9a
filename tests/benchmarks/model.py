"""Times and memory of the paper's five models, beside plain matrix products and the public code's own times.

    python -m tests.benchmarks.model [--json FILE] [--preset NAME]... [--repeats 5]

One thread. A preset is measured in a process of its own, so that a peak of memory is its own too. GEMM is the time of
the generators' matrix products alone, on operands of the same sizes, in the same process: what the core would need if
a decoder were nothing else. The public code's times are those of its own repository on one core of the same kind.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything

import torch
from torch import Tensor

from pipelines.config import Config, load_config
from pipelines.training.step import Drawn, Objective, differentiate, make_optimizer, take_step, vamoh_groups
from vamoh import FunctionBatch, VAMoH, neighbours, remembered
from vamoh.encodings import even_places
from vamoh.spec import ModelSpec

Figures = dict[str, float]
PUBLIC = {
    "era5.train_step.b8.fp32": 1.07,
    "era5.train_step.b64.fp32": 8.7,
    "era5.encode.b1.fp32": 0.017,
    "era5.decode.b1.fp32": 0.025,
    "era5.reconstruct.b1.fp32": 0.050,
    "era5.reconstruct.b64.fp32": 3.54,
    "chairs.train_step.b8.fp32": 4.19,
    "chairs.train_step.b22.fp32": 9.4,
    "chairs.encode.b1.fp32": 0.103,
    "chairs.decode.b1.fp32": 0.099,
    "chairs.reconstruct.b1.fp32": 0.291,
    "polymnist.train_step.b64.fp32": 0.60,
    "polymnist.reconstruct.b1.fp32": 0.007,
    "shapes3d.train_step.b64.fp32": 8.94,
    "shapes3d.reconstruct.b1.fp32": 0.055,
    "celebahq.train_step.b16.fp32": 5.3,
    "celebahq.reconstruct.b1.fp32": 0.185,
}
TRAINED = {"era5": (8, 64), "chairs": (8, 22), "polymnist": (64,), "shapes3d": (64,), "celebahq": (16,)}
POINTS = {"era5": (46, 90), "chairs": (32, 32, 32), "polymnist": (28, 28), "shapes3d": (64, 64), "celebahq": (64, 64)}
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def places(name: str) -> Tensor:
    """The paper's grid [N, D] of a data set."""
    shape = POINTS[name]
    if name == "era5":
        latitude = torch.deg2rad(torch.linspace(90, -90, shape[0]))[:, None].expand(shape)
        longitude = torch.deg2rad(torch.arange(shape[1]) * 4.0)[None].expand(shape)
        ring = latitude.cos()
        return torch.stack([ring * longitude.cos(), ring * longitude.sin(), latitude.sin()], -1).view(-1, 3)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(shape))


def functions(spec: ModelSpec, coords: Tensor, batch: int) -> FunctionBatch:
    """Random smooth functions with values in [0, 1] (0 and 1 for occupancy): how long a step takes is the same."""
    generator = torch.Generator().manual_seed(batch)
    waves = torch.randn(batch, spec.channels, coords.shape[-1], generator=generator) * 3
    values = 0.5 + 0.5 * torch.sin(coords @ waves.transpose(1, 2))
    return FunctionBatch(coords=coords[None], values=values.round() if spec.likelihood == "bernoulli" else values)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def peak_gb(work: Callable[[], object]) -> float:
    """Largest resident memory of the process while `work` runs."""
    Path("/proc/self/clear_refs").write_text("5")
    work()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One preset in this process."""

    name: str
    repeats: int

    def run(self) -> Figures:
        """All of its figures."""
        torch.set_num_threads(1)
        figures: Figures = {}
        for batch in TRAINED[self.name]:
            for short, precision in PRECISIONS.items():
                config = load_config(self.name, [f"training.precision={precision}"])
                figures |= self._training(config, batch, short)
        config = load_config(self.name)
        model = VAMoH(config.model).eval()
        coords = places(self.name)
        with torch.no_grad():
            for batch in (1, 64):
                figures |= self._inference(model, functions(config.model, coords, batch))
        return figures

    def _training(self, config: Config, batch: int, precision: str) -> Figures:
        model = VAMoH(config.model)
        objective, optimizer = (
            Objective(model, config.training, 1000),
            make_optimizer(vamoh_groups(model, config.training)),
        )
        given = functions(config.model, places(self.name), batch)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, batch, config.model.latent, generator=generator)
        points = config.training.points

        def step(late: int) -> None:
            at = torch.randperm(given.num_points, generator=generator)[:points].sort().values if points else None
            drawn, size = (
                Drawn(batch=given, num_total=given.num_points, at=at, noise=noise),
                config.training.micro_batch,
            )
            differentiate(objective, drawn, at_a_time=size, epoch=late, step=late)
            take_step(model, optimizer, config.training.clip)

        learned = max(config.training.stages.prior, config.training.stages.gate)
        key = f"{self.name}.train_step.b{batch}"
        figures = {f"{key}.{precision}": seconds(lambda: step(learned), self.repeats)}
        figures[f"{key}.{precision}.peak_gb"] = peak_gb(lambda: step(learned))
        if precision == "fp32":
            figures[f"{key}.normal_prior.fp32"] = seconds(lambda: step(0), self.repeats)
        return figures

    def _inference(self, model: VAMoH, given: FunctionBatch) -> Figures:
        batch, query = given.batch_size, FunctionBatch(coords=given.coords)
        latent = torch.randn(batch, model.spec.latent, generator=torch.Generator().manual_seed(1))
        work: dict[str, Callable[[], object]] = {
            "encode": lambda: model.posterior(given),
            "decode": lambda: model.decode(latent, query).mean,
            "reconstruct": lambda: model.decode(model.posterior(given).mean, query).mean,
        }
        figures: Figures = {}
        for what, call in work.items():
            key = f"{self.name}.{what}.b{batch}.fp32"
            figures[key] = seconds(call, max(self.repeats, 20 if batch == 1 else 0))
            figures[f"{key}.peak_gb"] = peak_gb(call)
        products = decoder_products(model, batch, given.num_points)
        gemm = products.seconds(self.repeats)
        suffix = "" if batch == 64 else f".b{batch}"
        figures[f"{self.name}.decode.gflops{suffix}"] = products.gflop / figures[f"{self.name}.decode.b{batch}.fp32"]
        figures[f"{self.name}.gemm.gflops{suffix}"] = products.gflop / gemm
        figures[f"{self.name}.decode.over_gemm{suffix}"] = gemm / figures[f"{self.name}.decode.b{batch}.fp32"]
        return figures


@dataclass(frozen=True)
class Products:
    """Matrix products [rows, in] x [in, out], `count` of each size."""

    sizes: list[tuple[int, int, int, int]]

    @property
    def gflop(self) -> float:
        """Of all of them."""
        return sum(2e-9 * count * rows * i * o for count, rows, i, o in self.sizes)

    def seconds(self, repeats: int) -> float:
        """The time that they take by themselves, on operands that are in place, a function at a time."""
        total = 0.0
        for count, rows, i, o in self.sizes:
            left, right = torch.randn(rows, i), torch.randn(i, o)
            out = torch.empty(rows, o)
            total += count * seconds(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), max(7, repeats))
        return total


def decoder_products(model: VAMoH, batch: int, num_points: int) -> Products:
    """What a decoder multiplies: hypernetworks once, the generators' layers for every function and component."""
    spec, layers = model.spec, model.generators.layers
    widths = [spec.latent, *spec.hypernetwork, model.generators.num_parameters]
    sizes = [(spec.components, batch, i, o) for i, o in zip(widths[:-1], widths[1:], strict=True)]
    first, *rest = layers
    sizes.append((batch, num_points, first[0], first[1] * spec.components))  # components see the same features
    sizes += [(batch * spec.components, num_points, i, o) for i, o in rest]
    gate = [spec.latent, *spec.gating, spec.components]
    sizes += [(batch, num_points, i, o) for i, o in zip(gate[1:-1], gate[2:], strict=True)]
    return Products([*sizes, (1, num_points, first[0], spec.gating[0])])


def scaling_in_points() -> Figures:
    """Decoding a million points costs a hundred times ten thousand, and ten million stay under a gigabyte."""
    torch.set_num_threads(1)
    model = VAMoH(load_config("era5").model).eval()
    latent = torch.zeros(1, model.spec.latent)
    figures: Figures = {}
    with torch.no_grad():
        for power in (4, 5, 6, 7):
            query = FunctionBatch(coords=even_places("sphere", 10**power)[None])
            begun = time.perf_counter()
            peak = peak_gb(lambda q=query: model.decode(latent, q))
            figures[f"era5.decode.microseconds_a_point.1e{power}"] = (time.perf_counter() - begun) * 1e6 / 10**power
            figures[f"era5.decode.peak_gb.1e{power}"] = peak
    return figures


def plans() -> Figures:
    """Farthest points and neighbours of all five layers of a new set of 32768 points."""
    torch.set_num_threads(1)
    spec = load_config("chairs").model.encoder

    def build() -> None:
        remembered._made.clear()
        coords = torch.rand(32768, 3)
        coords = coords[neighbours.canonical_order(coords)]
        for centres, near in zip(spec.centres, spec.neighbours, strict=True):
            chosen = coords[neighbours.farthest_points(coords, centres)]
            neighbours.nearest(chosen, coords, near)
            coords = chosen

    return {"chairs.plan.32768_points": seconds(build, 5)}


def in_own_process(work: Callable[[], Figures]) -> Figures:
    """Run `work` where nothing else has been."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work)


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preset", action="append", choices=list(TRAINED))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    figures: Figures = {}
    work = [Bench(name=name, repeats=given.repeats).run for name in given.preset or TRAINED]
    for each in [*work, *([] if given.preset else [scaling_in_points, plans])]:
        new = in_own_process(each)
        for key, value in new.items():
            public = f"   public {PUBLIC[key]:g}: {PUBLIC[key] / value:.1f} times" if key in PUBLIC else ""
            print(f"{key:<46}{value:>10.4f}{public}", flush=True)
        figures |= new
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
