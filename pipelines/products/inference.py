"""What a model infers of functions that were seen in whole or in part: q(z | X, Y), as its system does it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.domain import Chance, Draw, Geometry, kind_of
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh import FunctionBatch
from vamoh.model import Posterior
from vamoh.refinement import STEPS as STEPS
from vamoh.systems import Model

POINTS = 512  # that a step reads of a function; twice as many gave nothing
AT_ONCE = 16  # functions


def inferred(
    network: Model, plan: Plan, batch: FunctionBatch, geometry: Geometry, *, steps: int | None, seed: int
) -> Posterior:
    """The posterior of every function of a batch.

    Args:
        network, plan: The model.
        batch: What was seen, in the model's units, on all points of the geometry.
        geometry: Of these points.
        steps: VAMoH's, by which the encoder's answer is improved, 0 for that alone; Functa's, of gradient descent; as
            the system does it best where none are given.
        seed: Of the points and the latents of these steps.

    Raises:
        ValueError: If the system cannot infer.
    """
    cell = None if geometry.cell is None else torch.tensor(geometry.cell, dtype=batch.coords.dtype)
    parts = []
    for first in range(0, batch.batch_size, AT_ONCE):
        some = batch.rows(first, first + AT_ONCE)
        rng = np.random.default_rng((seed, first))
        draw = _Points(some, geometry, kind_of(plan.spec.domain).draw, Chance(rng, rng.spawn(some.batch_size)))
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        infer = system_of(plan.spec).infer
        parts.append(infer(network, some, draw, steps=steps, cell=cell, generator=chance))
    mean, log_scale = (torch.cat(each) for each in zip(*parts, strict=True))
    return Posterior(mean, log_scale)


class _Points:
    """Points that were seen, as a kind of data draws them: all where they are few."""

    def __init__(self, batch: FunctionBatch, geometry: Geometry, draw: Draw, chance: Chance) -> None:
        assert batch.values is not None
        self._geometry, self._draw, self._chance = geometry, draw, chance
        self._values = batch.values.numpy()
        self._seen = batch.mask.expand(len(self._values), -1).numpy()
        most = int(self._seen.sum(axis=1).max())
        total = self._seen.shape[1]
        # so many draws that about POINTS of them were seen
        self._count = round(POINTS * total / max(1, most))
        self._all = _all_of(self._seen, most) if self._count >= total or most <= POINTS else None

    def __call__(self) -> tuple[Tensor, Tensor]:
        if self._all is not None:
            return self._all
        index, weight = self._draw(self._values, self._geometry, self._count, self._chance)
        index = np.broadcast_to(index, (len(self._seen), index.shape[-1]))
        even = np.float32(self._seen.shape[1] / self._count)
        weight = np.where(np.take_along_axis(self._seen, index, axis=1), even if weight is None else weight, 0)
        return torch.from_numpy(index.copy()), torch.from_numpy(weight.astype(np.float32))


def _all_of(seen: NDArray[np.bool_], most: int) -> tuple[Tensor, Tensor]:
    """All that was seen of every function, filled up with points that count nothing."""
    index = np.argsort(~seen, axis=1, kind="stable")[:, :most]
    weight = np.take_along_axis(seen, index, axis=1).astype(np.float32)
    return torch.from_numpy(index), torch.from_numpy(weight)
