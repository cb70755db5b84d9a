"""Fields -> FunctionBatch: where the points are, what the model is told of them, and what it has to explain.

Training, validation and downscaling all come through `query`, so that a model is asked exactly what it was taught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.sphere import Lattice, sun_covariates, unit_vectors
from vamoh import FunctionBatch

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Between kelvin and the model's units: model = (value - offset) / scale."""

    offset: float
    scale: float

    def to_model(self, values: Floats) -> Tensor:
        """Kelvin -> model units, float32."""
        return torch.from_numpy(((values - self.offset) / self.scale).astype(np.float32))

    def to_kelvin(self, values: Tensor) -> Floats:
        """Model units -> kelvin, float64 (float32 is too coarse to add a small number to 280 in)."""
        return values.detach().cpu().double().numpy() * self.scale + self.offset


class Framed(NamedTuple):
    """Fields as a model learns from them.

    Attributes:
        batch: Of all points, or (with a context) of a part of them.
        num_total: Points of the whole fields.
        at: [n], the points of `batch` that are scored; None for all.
    """

    batch: FunctionBatch
    num_total: int
    at: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How fields become batches.

    Attributes:
        scaling: To the model's units.
        factors: Smallest and largest coarsening factor of the context; None for the classic model.
        points: Points of each function that a training batch scores; 0 for all.
        bounded: Values are kept within [0, 1] of the model's units (the likelihood knows no others).
    """

    scaling: Scaling
    factors: tuple[int, int] | None
    points: int = 0
    bounded: bool = False

    def training(self, fields: Floats, times: NDArray[Any], lattice: Lattice, rng: np.random.Generator) -> Framed:
        """Fields to learn from, at a random part of their points.

        Args:
            fields: [B, n, m] kelvin, NaN where unobserved.
            times: [B] dates.
            lattice: Where the values stand.
            rng: Draws the coarsening and the points.

        Returns:
            With a context, points are drawn in proportion to the area that they stand for, so that the polar rows of a
            grid do not count for more than they cover, and nothing else is kept. Without one the encoder reads the
            whole field, and points are drawn uniformly, so that the bound keeps its expectation.
        """
        total = fields.shape[1] * fields.shape[2]
        chosen, at = np.arange(total), None
        if 0 < self.points < total:
            area = None if self.factors is None else lattice.area
            drawn = np.sort(rng.choice(total, self.points, replace=False, p=area))
            chosen, at = (chosen, torch.from_numpy(drawn)) if self.factors is None else (drawn, None)
        coarse, where = None, lattice
        if self.factors is not None:
            coarse, where = _coarsen(fields, lattice, self.factors, rng)
            blank = ~np.isfinite(coarse).any(axis=(1, 2), keepdims=True)
            if blank.any():  # nothing to explain them from: any context will do, and nothing is observed
                coarse, fields = np.where(blank, self.scaling.offset, coarse), np.where(blank, np.nan, fields)
        batch = self.query((lattice.points[0][chosen], lattice.points[1][chosen]), times, coarse=coarse, lattice=where)
        values = self.scaling.to_model(fields.reshape(len(fields), -1)[:, chosen])
        if self.bounded:
            values = values.clamp(0, 1)
        batch = replace(batch, values=values[..., None], observed=torch.isfinite(values))
        return Framed(batch, total, at)

    def query(
        self,
        places: tuple[NDArray[np.float64], NDArray[np.float64]],
        times: NDArray[Any],
        *,
        coarse: Floats | None = None,
        lattice: Lattice | None = None,
    ) -> FunctionBatch:
        """The places at which fields are asked for, and the coarse fields that are known.

        Args:
            places: Latitude and longitude in degrees, [N] each.
            times: [B] dates.
            coarse: [B, n, m] kelvin on `lattice`, NaN where missing; None for the classic model.
            lattice: The coarse grid.
        """
        coords = torch.from_numpy(unit_vectors(*places).astype(np.float32))[None]
        if coarse is None:
            return FunctionBatch(coords=coords)
        assert lattice is not None
        flat = coarse.reshape(len(coarse), -1).astype(np.float64)
        base = lattice.interpolate(flat, *places)
        held = lattice.context_index
        values = self.scaling.to_model(flat[:, held])
        context = FunctionBatch(
            coords=torch.from_numpy(lattice.coords[held].astype(np.float32))[None],
            values=values[..., None],
            observed=torch.isfinite(values),
        )
        return FunctionBatch(
            coords=coords,
            covariates=torch.from_numpy(sun_covariates(times, *places)),
            base=self.scaling.to_model(base)[..., None],
            context=context,
        )


def _coarsen(
    fields: Floats, lattice: Lattice, factors: tuple[int, int], rng: np.random.Generator
) -> tuple[Floats, Lattice]:
    """Every f-th point from a random offset for a random f; from the first point where f is not a choice."""
    low, high = factors
    factor = int(rng.integers(low, high + 1))
    offset = (0, 0) if low == high else (int(rng.integers(factor)), int(rng.integers(factor)))
    return fields[:, offset[0] :: factor, offset[1] :: factor], lattice.every(factor, offset)
