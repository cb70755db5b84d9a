"""Pictures of shapes: montages of what was generated, and what a trained model makes of a shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.shapes import AXES
from pipelines.data.store import Store
from pipelines.products import coarse_to_fine
from pipelines.products.generate import batch_of
from pipelines.products.inference import inferred
from pipelines.products.shading import picture
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.systems import system_of
from vamoh import FunctionBatch
from vamoh.systems import Model

SHOWN, ACROSS = 32, 8  # shapes of a montage, and how many stand side by side
SEED = 0


def montage(dataset: xr.Dataset) -> Figure:
    """Draw generated shapes, coloured by component: a row an item where it has realizations, else as they come."""
    probability, component = dataset["probability"], dataset["component"]
    several = "realization" in probability.dims
    across = min(probability.sizes["realization"], ACROSS) if several else min(probability.sizes["shape"], ACROSS)
    order = [dim for dim in ("shape", "realization") if dim in probability.dims]
    if several:
        probability, component = (each.isel(realization=slice(across)) for each in (probability, component))
    shown = probability.stack(each=order).transpose("each", *AXES).values[:SHOWN]
    parts = component.stack(each=order).transpose("each", *AXES).values[:SHOWN]
    images = [picture(solid, part) for solid, part in zip(shown, parts, strict=True)]
    titles = [""] * len(images)
    if several:
        names = [str(name) for name in dataset["shape"].values]
        titles = [names[number // across] if number % across == 0 else "" for number in range(len(images))]
    return rows_of(images, titles, across)


def illustration(checkpoint: Checkpoint, network: Model, store: Store, sample: int) -> Figure:
    """A shape, its reconstruction, its lower half, what the model adds to that (orange), and shapes from the prior."""
    plan = checkpoint.plan
    truth = store.field.isel(shape=[sample]).load().astype(np.float32)
    half = truth.copy(deep=True)
    half[..., truth.sizes["z"] // 2 :] = np.nan
    box = Box(truth.shape[1:])
    images, titles = [picture(truth.values[0])], ["Truth"]
    if system_of(plan.spec).ways:
        made = []
        for field in (truth, half):
            latents = inferred(network, plan, batch_of(plan, field), box, steps=None, seed=SEED).mean
            made.append(decoded(network, latents, box)[0, ..., 0])
        seen = np.isfinite(half.values[0])
        images += [
            picture(made[0]),
            picture(np.where(seen, truth.values[0], 0)),
            picture(np.where(seen, truth.values[0], made[1]), tint=(~seen).astype(np.float32)),
        ]
        titles += ["Reconstruction", "What is kept", "Completed"]
    noise = torch.randn(4, plan.spec.latent, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        drawn = decoded(network, network.latents(noise), box)
    images += [picture(each[..., 0], each[..., 1].astype(int)) for each in drawn]
    titles += [f"Sample {n}, by component" for n in range(1, 5)]
    return rows_of(images, titles, 4)


def decoded(network: Model, latents: torch.Tensor, box: Box, whole: int = coarse_to_fine.WHOLE) -> NDArray[np.float32]:
    """Functions of latents [B, Z] on a box: probability and component [B, x, y, z, 2], finely where the surface is."""
    found = []
    for latent in latents:

        @torch.no_grad()
        def ask(coords: NDArray[np.floating], latent: torch.Tensor = latent) -> NDArray[np.float32]:
            mixture = network.decode(
                latent[None], FunctionBatch(coords=torch.from_numpy(coords.astype(np.float32))[None])
            )
            part = mixture.logits[0].argmax(dim=-1, keepdim=True)
            return torch.cat([mixture.mean[0], part.to(mixture.mean)], dim=-1).numpy()

        found.append(coarse_to_fine.evaluated(ask, box, whole).reshape(*box.shape, 2))
    return np.stack(found)


def rows_of(images: Sequence[NDArray[np.float32]], titles: Sequence[str], across: int) -> Figure:
    """Pictures in rows."""
    down = -(-len(images) // across)
    figure = Figure(figsize=(1.7 * across, 1.85 * down), layout="constrained")
    grid = np.atleast_1d(np.array(figure.subplots(down, across), dtype=object)).ravel()
    for number, axes in enumerate(grid):
        assert isinstance(axes, Axes)
        axes.set_axis_off()
        if number < len(images):
            axes.imshow(images[number], interpolation="bilinear")
            axes.set_title(titles[number], fontsize=9)
    return figure
