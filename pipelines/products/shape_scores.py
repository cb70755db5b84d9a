"""How good a model of shapes is: reconstruction, completion, finer evaluation, samples; each beside what is trivial.

    reconstruction    of every test shape, from all of its voxels
    completion        of a half that is hidden, scored there alone: the six halves (both of each axis) in turn
    finer             the same reconstructions at twice the resolution, against the truth's voxels divided by two
    samples           as many as there are test shapes, by distances of 2048 surface points

Beside them stand the training shape that is most like what the model was given (by IoU), the training shapes' mean, and
training shapes drawn at random as if they were generated.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.shapes import as_field
from pipelines.data.store import Store
from pipelines.products.generate import batch_of
from pipelines.products.inference import inferred
from pipelines.products.shape_distances import POINTS, Solids, distances, f1, iou, likeness, surface_points
from pipelines.products.shape_figures import decoded
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh.systems import Model

NEAREST, MEAN, TRAINING = "nearest training shape", "training mean", "training shapes"
LEVEL = 0.5
Tables = dict[str, dict[str, dict[str, float]]]


def scores(
    plan: Plan,
    network: Model,
    store: Store,
    chosen: NDArray[np.int64],
    learned: tuple[Store, NDArray[np.int64]] | None,
    *,
    seed: int,
) -> dict[str, Any]:
    """Score a model on some shapes of a store; see the module.

    Args:
        plan, network: The model.
        store, chosen: The shapes.
        learned: Those that it learned from; None leaves out the baselines.
        seed: Of all draws.
    """
    truth = store.field.isel(shape=chosen).values > LEVEL
    box = Box(truth.shape[1:])
    training = None if learned is None else _training(*learned, box)
    hidden = hidden_halves(len(truth), box.shape)
    tables: Tables = {"reconstruction": {}, "completion_of_a_hidden_half": {}}
    ways = system_of(plan.spec).ways
    for name, steps in ways.items():
        latents = _latents(plan, network, truth, None, steps, seed)
        made = decoded(network, latents, box)[..., 0] > LEVEL
        tables["reconstruction"][name] = overlap(made, truth)
        if name == plan.spec.system:
            tables["finer"] = {name: _finer(network, latents, box, truth, made)}
        made = decoded(network, _latents(plan, network, truth, hidden, steps, seed), box)[..., 0] > LEVEL
        tables["completion_of_a_hidden_half"][name] = overlap(made, truth, hidden)
    if training is not None:
        everywhere = np.zeros_like(hidden)
        mean = np.broadcast_to(mean_shape(training), truth.shape)
        for table, left in (("reconstruction", everywhere), ("completion_of_a_hidden_half", hidden)):
            found = training[nearest(truth, training, ~left)]
            of = left if left.any() else None
            tables[table] |= {NEAREST: overlap(found, truth, of), MEAN: overlap(mean, truth, of)}
    tables["samples"] = _samples(network, plan.spec.system, box, truth, training, seed)
    taken = {"refinement_steps": ways[plan.spec.system]} if ways else {}
    return {**tables, **taken, "surface_points": POINTS}


def overlap(made: Solids, truth: Solids, where: Solids | None = None) -> dict[str, float]:
    """Mean IoU and F1 of shapes [B, x, y, z], within `where` alone if it is given."""
    if where is not None:
        made, truth = made & where, truth & where
    return {"iou": float(iou(made, truth).mean()), "f1": float(f1(made, truth).mean())}


def hidden_halves(count: int, shape: tuple[int, ...]) -> Solids:
    """What is hidden of each of `count` shapes [count, x, y, z]: the lower, then the upper half along each axis."""
    hidden = np.zeros((count, *shape), dtype=bool)
    for number in range(count):
        axis, upper = number % 6 // 2, number % 2
        middle = shape[axis] // 2
        part = slice(middle, None) if upper else slice(None, middle)
        hidden[(number, *[part if other == axis else slice(None) for other in range(3)])] = True
    return hidden


def nearest(shapes: Solids, training: Solids, seen: Solids) -> NDArray[np.int64]:
    """For each shape [B, ...] the training shape [T, ...] with the largest IoU within what was seen of it [B, ...]."""
    known = training.reshape(len(training), -1).astype(np.float32)
    here, visible = (each.reshape(len(shapes), -1).astype(np.float32) for each in (shapes & seen, seen))
    both = here @ known.T
    union = here.sum(axis=1)[:, None] + visible @ known.T - both
    return np.asarray((both / np.maximum(union, 1)).argmax(axis=1))


def _training(store: Store, learned: NDArray[np.int64], box: Box) -> Solids | None:
    """The shapes that were learned from; None where they stand on another grid."""
    if tuple(store.field.shape[1:]) != box.shape:
        return None
    return np.asarray(store.field.isel(shape=learned).values > LEVEL)


def _latents(plan: Plan, network: Model, truth: Solids, hidden: Solids | None, steps: int, seed: int) -> torch.Tensor:
    """The posterior's means, given what is not hidden."""
    values = truth.astype(np.float32)
    if hidden is not None:
        values[hidden] = np.nan
    batch = batch_of(plan, as_field(values, np.arange(len(values))))
    return inferred(network, plan, batch, Box(truth.shape[1:]), steps=steps, seed=seed).mean


def _finer(network: Model, latents: torch.Tensor, box: Box, truth: Solids, made: Solids) -> dict[str, float]:
    """The same functions on twice as many cells along each axis."""
    fine = Box(tuple(2 * size for size in box.shape))
    divided = truth.repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    twice = np.stack([decoded(network, latent[None], fine, max(box.shape))[0, ..., 0] > LEVEL for latent in latents])
    return {
        f"iou_at_{max(box.shape)}": float(iou(made, truth).mean()),
        f"iou_at_{max(fine.shape)}": float(iou(twice, divided).mean()),
    }


def _samples(
    network: Model, system: str, box: Box, truth: Solids, training: Solids | None, seed: int
) -> dict[str, dict[str, float]]:
    """New shapes beside the test shapes, and what is trivially generated beside them."""
    rng = np.random.default_rng((seed, 1))
    noise = torch.from_numpy(rng.standard_normal((len(truth), network.spec.latent)).astype(np.float32))
    with torch.no_grad():
        drawn = decoded(network, network.latents(noise), box)[..., 0]
    systems = {system: drawn > LEVEL}
    if training is not None:
        picked = rng.choice(len(training), len(truth), replace=len(training) < len(truth))
        systems |= {TRAINING: training[picked], MEAN: mean_shape(training)[None].repeat(len(truth), axis=0)}
    reference = [surface_points(solid, POINTS, rng) for solid in truth]
    among_truth = distances(reference)
    found = {}
    for name, solids in systems.items():
        solid = [shape for shape in solids if shape.any()]
        if not solid:
            found[name] = {"empty": 1.0}
            continue
        # equal shapes have the same points: the mean is one of them
        different, which = np.unique(np.stack(solid).reshape(len(solid), -1), axis=0, return_inverse=True)
        clouds = [surface_points(shape.reshape(box.shape), POINTS, rng) for shape in different]
        among, across = distances(clouds)[np.ix_(which, which)], distances(clouds, reference)[which]
        like = likeness(among, across, among_truth)
        found[name] = {**asdict(like), "empty": 1 - len(solid) / len(solids)}
    return found


def mean_shape(training: Solids) -> Solids:
    """The training shapes' mean, cut where it has their mean volume: at one half hardly anything is solid."""
    mean = training.mean(axis=0)
    return np.asarray(mean >= np.quantile(mean, 1 - training.mean()))
