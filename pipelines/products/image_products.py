"""Pictures, as users meet them: files in, arrays and sheets out, and scores beside baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.domain import Geometry
from pipelines.data.images import CHANNELS, VARIABLE, as_field
from pipelines.data.store import Store
from pipelines.data.whole import query
from pipelines.products.generate import batch_of
from pipelines.products.image_evaluation import reconstruction_tables, sample_table
from pipelines.products.image_features import inception
from pipelines.products.image_figures import Row, components, sheet, shown
from pipelines.products.image_inputs import read_pictures
from pipelines.products.image_scores import Mask, filled, lower_half, middle_patch
from pipelines.products.kinds import Ask, Generated
from pipelines.products.linear_pictures import LinearPictures
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh.systems import Model

COMPLETIONS = 8  # of each picture that are averaged to be scored, at most
LARGEST_SIDE = 4096
INCEPTION_VARIABLE = "VAMOH_INCEPTION"
_DECODED = 4_000_000  # places times components times pictures at once
_SHEET, _MAPPED, _WIDE = 64, 16, 8  # pictures of a sheet, of one with maps of components, side by side
_SHOWN_COMPLETIONS, _SHOWN_SAMPLES = 4, 6


class ImageProducts:
    """See `ProductKind`."""

    values = VARIABLE
    writers: Mapping[str, Callable[[xr.Dataset, Path], None]] = {}

    def read(self, source: str | xr.DataArray, plan: Plan) -> xr.DataArray:
        """Pictures with holes (`read_pictures`), of a size that the model can make sense of."""
        field = read_pictures(source, channels=plan.spec.channels)
        trained = plan.geometry.shape
        if not all(side / 4 <= given <= 4 * side for given, side in zip(field.shape[1:3], trained, strict=True)):
            raise ValueError(
                f"the model learned from pictures of {trained[0]} x {trained[1]}, these are {field.shape[1]} x "
                f"{field.shape[2]}: bring them to a size within a factor of 4"
            )
        return field

    def at(self, geometry: Geometry, resolution: float) -> Box:
        """So many pixels along the longer side."""
        assert isinstance(geometry, Box)
        if resolution != round(resolution) or not 1 <= resolution <= LARGEST_SIDE:
            raise ValueError(f"--resolution is pixels along the longer side, 1 to {LARGEST_SIDE}, got {resolution:g}")
        return geometry.at(int(resolution))

    def evaluated(self, ask: Ask, geometry: Geometry) -> NDArray[np.float32]:
        """Everywhere."""
        return ask(geometry.coords)

    def named(self, made: Generated, plan: Plan) -> xr.Dataset:
        """rgb (image, realization, y, x, channel), 0..255, and the component (image, realization, y, x)."""
        (height, width), channels = made.geometry.shape, made.values.shape[-1]
        items, each = made.values.shape[:2]
        like = as_field(np.zeros((1, height, width, channels), np.uint8), np.zeros(1))
        first = "sample" if made.items is None else "image"
        dims = (first, "realization", "y", "x")
        values = made.values.round().clip(0, 255).astype(np.uint8).reshape(items, each, height, width, channels)
        index = made.components.reshape(items, each, height, width)
        told = {"long_name": "most probable component, from 0", "num_components": plan.spec.components}
        return xr.Dataset(
            {self.values: ((*dims, "channel"), values, like.attrs), "component": (dims, index, told)},
            {
                first: np.arange(items) if made.items is None else made.items,
                "y": like["y"],
                "x": like["x"],
                "channel": ("channel", np.array(CHANNELS[channels])),
            },
            {"Conventions": "CF-1.11"},
        )

    def figure(self, dataset: xr.Dataset) -> Figure:
        """A sheet: a row for each picture that was completed, or new ones in rows; where few, with their components."""
        values = dataset[self.values].values
        many = values.ndim == 5
        rows = list(values) if many else [values[first : first + _WIDE] for first in range(0, len(values), _WIDE)]
        index = dataset["component"].values
        maps = list(index) if many else [index[first : first + _WIDE] for first in range(0, len(index), _WIDE)]
        few = values[..., 0, 0, 0].size <= _MAPPED
        drawn: list[Row] = []
        for row, mapped in list(zip(rows, maps, strict=True))[: _SHEET // _WIDE]:
            drawn.append(Row(tiles=[shown(picture) for picture in row[:_WIDE]]))
            if few:
                drawn.append(Row(tiles=[components(one) for one in mapped[:_WIDE]]))
        return sheet(drawn, num_components=dataset["component"].attrs["num_components"] if few else 0)

    def illustration(self, checkpoint: Checkpoint, network: Model, store: Store, sample: int) -> Figure:
        """A picture, its reconstruction and completions, and new pictures at 1, 2 and 4 times the resolution."""
        plan = checkpoint.plan
        truth = store.field.isel(image=[sample]).load()
        name, mapped = str(truth["image"].values[0]), "components of\nthe first"
        captions = ["truth", "seen", *(f"completion {number + 1}" for number in range(_SHOWN_COMPLETIONS)), mapped]
        rows = []
        shown_of = (("whole", None), ("patch missing", middle_patch), ("half missing", lower_half))
        for title, mask in shown_of if system_of(plan.spec).ways else ():
            missing = None if mask is None else mask(*truth.shape[1:3])
            seen = hidden(truth, missing)
            made, index = _completions(network, plan, seen, members=_SHOWN_COMPLETIONS, seed=0)
            given = made[0] if missing is None else filled(truth.values, made[0], missing)
            tiles = [shown(truth[0].values), shown(seen[0].values), *(shown(one) for one in given)]
            rows.append(Row(tiles=[*tiles, components(index[0, 0])], title=title, captions=captions))
            captions = []
        noise = _noise(network, _SHOWN_SAMPLES, 0)
        with torch.no_grad():
            latents = network.latents(noise)
        box = Box(plan.geometry.shape)
        captions = [*(f"new {number + 1}" for number in range(_SHOWN_SAMPLES)), mapped]
        for factor in (1, 2, 4):
            finer = box.at(factor * max(box.shape))
            made, index = _decoded(network, plan, latents, finer)
            tiles = [*(shown(one) for one in made), components(index[0])]
            rows.append(Row(tiles=tiles, title=f"{finer.shape[0]} x {finer.shape[1]}", captions=captions))
            captions = []
        title = f"What the model makes of picture {name}, and pictures of its own"
        return sheet(rows, title=title, num_components=plan.spec.components)

    def scores(
        self,
        checkpoint: Checkpoint,
        network: Model,
        store: Store,
        chosen: NDArray[np.int64],
        learned: tuple[Store, NDArray[np.int64]] | None,
        *,
        members: int,
        seed: int,
    ) -> dict[str, Any]:
        """PSNR and SSIM of reconstructions and completions; of new pictures, precision, recall and a Frechet distance.

        A reconstruction is what the posterior's mean gives, a completion the mean of at most 8. The linear baseline has
        as many numbers for a picture as the model. The arguments are those of `ProductKind`. For users who have the
        weights of Inception, their path in the environment variable VAMOH_INCEPTION makes the distance the FID.
        """
        plan = checkpoint.plan
        weights = os.environ.get(INCEPTION_VARIABLE)
        network_features = inception(weights) if weights else None
        truth = store.field.isel(image=chosen).load()
        training = None if learned is None else _training(*learned, truth)
        linear = None if training is None else LinearPictures.of(training, plan.spec.latent, seed)

        def completed(_: NDArray[Any], missing: Mask | None) -> NDArray[np.float32]:
            seen = hidden(truth, missing)
            number = 0 if missing is None else min(members, COMPLETIONS)
            return _completions(network, plan, seen, members=number, seed=seed)[0].mean(axis=1)

        system, infers = plan.spec.system, bool(system_of(plan.spec).ways)
        result: dict[str, Any] = dict(
            reconstruction_tables(truth.values, training, completed if infers else None, linear, system=system)
        )
        if training is None or linear is None:
            return result | {"note": "baselines and scores of new pictures need the training store: --reference"}
        if len(truth) < 4:
            return result | {"note": "fewer than 4 pictures: new ones are not scored"}

        def sample(number: int) -> NDArray[np.float32]:
            noise = _noise(network, number, seed)
            with torch.no_grad():
                latents = network.latents(noise)
            return _decoded(network, plan, latents, Box(truth.shape[1:3]))[0]

        table, about = sample_table(
            truth.values,
            training,
            sample,
            linear,
            seed=seed,
            inception=network_features,
            system=system,
        )
        return result | {"new_pictures": table} | about


def hidden(truth: xr.DataArray, missing: Mask | None) -> xr.DataArray:
    """Pictures as float32, NaN where missing."""
    seen = truth.astype(np.float32)
    return seen if missing is None else seen.where(xr.DataArray(~missing, dims=("y", "x")))


def _training(store: Store, learned: NDArray[np.int64], truth: xr.DataArray) -> NDArray[np.uint8] | None:
    """What was learned from; None where it is of another size."""
    return store.field.isel(image=learned).values if store.field.shape[1:] == truth.shape[1:] else None


def _noise(network: Model, number: int, seed: int) -> torch.Tensor:
    """Standard normal [number, Z]."""
    return torch.randn(number, network.spec.latent, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _completions(
    network: Model, plan: Plan, seen: xr.DataArray, *, members: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures [n, R, y, x, channel] from as many draws of the posterior, and their components; of its mean for 0."""
    box = Box(seen.shape[1:3])
    noise = _noise(network, members, seed) if members else torch.zeros(1, network.spec.latent)
    made, maps = [], []
    for part in _parts(len(seen), network, box):
        mean, log_scale = network.posterior(batch_of(plan, seen[part]))
        drawn = [_decoded(network, plan, mean + log_scale.exp() * each, box) for each in noise]
        made.append(np.stack([pictures for pictures, _ in drawn], axis=1))
        maps.append(np.stack([index for _, index in drawn], axis=1))
    return np.concatenate(made), np.concatenate(maps)


@torch.no_grad()
def _decoded(
    network: Model, plan: Plan, latents: torch.Tensor, box: Box
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures [n, y, x, channel], 0..255, and the most probable component [n, y, x]."""
    where, made, maps = query(box), [], []
    for part in _parts(len(latents), network, box):
        mixture = network.decode(latents[part], where)
        made.append(plan.scaling.to_kelvin(mixture.mean).reshape(-1, *box.shape, plan.spec.channels))
        maps.append(mixture.logits.argmax(dim=-1).numpy().reshape(-1, *box.shape))
    return np.concatenate(made).astype(np.float32), np.concatenate(maps)


def _parts(count: int, network: Model, box: Box) -> Iterator[slice]:
    """Pictures that are decoded at a time."""
    together = max(1, _DECODED // (network.spec.components * int(np.prod(box.shape))))
    for first in range(0, count, together):
        yield slice(first, first + together)
