"""A model beside networks that were made for other fields, trained on the same times for the same while.

    python tests/benchmarks/networks.py runs/uk/best --store uk.zarr [--seconds 300] [--json FILE]

The window-attention super-resolver is that of `vamoh evaluate --attention`. DeepSensor's convolutional neural process
(`pip install deepsensor`) gets all that a user of it would find out: the residual of bilinear interpolation to
predict, the coarse field without its mean, the height of the sun, and on the fine grid what interpolation misses on
average and where a point lies. Both keep the weights that explained a held-out block of days best.

Source: Gordon et al. 2020 (ConvCNP); Andersson et al. 2023 for downscaling with it; deepsensor 0.4.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does, before torch allocates anything

import numpy as np
import torch
import xarray as xr

from pipelines.data.sphere import sun_covariates
from pipelines.data.store import open_store
from pipelines.products import skill
from pipelines.products.ensemble import Downscaler
from pipelines.products.evaluate import Trial, coarsened, default_factor, samples_of, training_fields
from pipelines.products.interpolate import bilinear
from pipelines.products.residuals import day_blocks

GRID = ("latitude", "longitude")
CHECKS, CHECKED, CHANNELS, RATE = 20, 12, (48, 48, 48, 48), 1e-3


def convnp(learned: tuple[xr.DataArray, xr.DataArray], coarse: xr.DataArray, seconds: float) -> xr.Dataset:
    """Train DeepSensor's process for so long, and have it downscale.

    Args:
        learned: Fields (time, latitude, longitude) and the same times on the coarse grid.
        coarse: What to downscale.
        seconds: Of training.

    Returns:
        `mean` and `std` (time, latitude, longitude), kelvin.
    """
    import deepsensor.torch  # noqa: F401 - says with what it computes
    from deepsensor.data.loader import TaskLoader
    from deepsensor.data.processor import DataProcessor
    from deepsensor.model.convnp import ConvNP

    begun = time.perf_counter()
    grid = [learned[0][axis].values for axis in GRID]
    given = xr.concat([learned[1], coarse], "time").astype(np.float32)
    missed = (learned[0] - bilinear(learned[1], *grid)).astype(np.float32)
    places = np.meshgrid(*grid, indexing="ij")
    static = xr.Dataset(
        {"usual": missed.mean("time"), "north": (GRID, places[0]), "east": (GRID, places[1])},
        coords=dict(zip(GRID, grid, strict=True)),
    ).astype(np.float32)
    told = xr.Dataset({"relative": given - given.mean(GRID), "sun": _sun(given)})
    processor = DataProcessor(x1_name="latitude", x2_name="longitude")
    told, static, target = processor([told, static, missed.rename("missed").to_dataset()])
    target = target.reindex(time=told["time"])  # it looks for each time of a task, known or not
    loader = TaskLoader(context=[told, static], target=target)
    blocks = day_blocks(learned[0]["time"], 6)
    held = blocks[len(blocks) // 2]
    fitted = np.setdiff1d(np.arange(len(missed)), held)
    hours = learned[0]["time"].values

    torch.manual_seed(0)
    model = ConvNP(processor, loader, unet_channels=CHANNELS, likelihood="cnp", verbose=False)
    network, rng = model.model, np.random.default_rng(0)

    def loss_at(number: int) -> torch.Tensor:
        return model.loss_fn(loader(hours[number], "all", "all"), normalise=True)

    loss_at(fitted[0])  # its parameters are made when it is first called
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    checks, best, kept, steps = 0, np.inf, None, 0
    while (share := (time.perf_counter() - begun) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * share))
        loss = loss_at(rng.choice(fitted))  # one at a time: with concat_tasks of grids it does not learn
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
        if share * CHECKS >= checks + 1:
            checks = int(share * CHECKS)
            with torch.no_grad():
                score = float(np.mean([float(loss_at(at)) for at in held[:: max(1, len(held) // CHECKED)]]))
            if score < best:
                best, kept = score, copy.deepcopy(network.state_dict())
    if kept is not None:
        network.load_state_dict(kept)
    print(f"DeepSensor: {steps} steps, held-out loss {best:.3f}", flush=True)
    with torch.no_grad():
        tasks = [loader(hour, "all") for hour in coarse["time"].values]
        found = model.predict(tasks, X_t=missed[:1])["missed"]
    base = bilinear(coarse, *grid)
    return xr.Dataset({"mean": base + found["mean"].values, "std": base.copy(data=found["std"].values)})


def _sun(field: xr.DataArray) -> xr.DataArray:
    """The height of the sun over a field's grid, as the models are told."""
    latitude, longitude = (axis.ravel() for axis in np.meshgrid(*(field[axis] for axis in GRID), indexing="ij"))
    values = sun_covariates(field["time"].values, latitude, longitude)
    return field.copy(data=np.asarray(values)[..., 0].reshape(field.shape).astype(np.float32))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--store", required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    teller, store = Downscaler.of(given.model), open_store(given.store)
    plan = teller.checkpoint.plan
    factor = default_factor(plan)
    truth = store.field.isel(time=samples_of(store, plan, "test")).load()
    trial = Trial(teller=teller, truth=truth, learned=training_fields(store, plan, truth), seed=0)
    coarse, wanted, forecasts = trial.run(factor, members=32, attention=given.seconds)
    assert trial.learned is not None
    paired = trial.learned, coarsened(trial.learned, factor, means=plan.downscaling.kind == "means")
    forecasts["DeepSensor ConvNP"] = convnp(paired, coarse, given.seconds)
    scores = {name: skill.scores_of(each, wanted, weighted=False) for name, each in forecasts.items()}
    print("every grid point alike            RMSE    CRPS")
    for name, score in scores.items():
        print(f"{name:<30}{score['rmse']:8.3f}{score['crps']:8.3f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
