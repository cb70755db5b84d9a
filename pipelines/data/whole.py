"""Whole functions as a classic model learns from them: all of one is read, or a part, and some of its points scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.domain import Chance, Draw, Floats, Geometry, Scaling, evenly
from vamoh import FunctionBatch


class Framed(NamedTuple):
    """Functions as a model learns from them.

    Attributes:
        batch: Of all points, or (with a context) of a part of them.
        num_total: Points of the whole functions.
        at: [n] or [B, n], the points of `batch` that are scored; None for all.
        rescale: [B, n], how many points each of these counts for; None for num_total / n.
        shown: [B, N] bool, what the encoder sees of `batch`; None for all.
        places: [B, n, D], where the values that are scored are asked for; None for their points.
    """

    batch: FunctionBatch
    num_total: int
    at: Tensor | None = None
    rescale: Tensor | None = None
    shown: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class WholeFraming:
    """How samples become batches of a model without a context.

    Attributes:
        scaling: To the model's units.
        points: Points of each function that a training batch scores; 0 for all.
        bounded: Values are kept within [0, 1] of the model's units (the likelihood knows no others).
        hidden: Share of the functions of which the encoder sees only a part, while all of them is scored: so it learns
            to complete.
        stretch: Samples are drawn out or pressed together along each axis by up to this share, anew whenever they are
            seen, so that a few are not learned by heart; what comes in from outside the grid is `outside`.
        within: Share of a point's cell in which its value is asked for, anywhere: a voxel's is that of all of its cell.
        draw: Which points are scored.
        outside: In the store's units.
    """

    scaling: Scaling
    points: int = 0
    bounded: bool = False
    hidden: float = 0.0
    stretch: float = 0.0
    within: float = 0.0
    draw: Draw = evenly
    outside: float = 0.0

    @property
    def entire(self) -> WholeFraming:
        """The same, of which all is shown and scored as it is."""
        return replace(self, points=0, hidden=0.0, stretch=0.0, within=0.0)

    def training(self, fields: Floats, times: NDArray[Any], geometry: Geometry, chance: Chance) -> Framed:
        """Functions to learn from.

        Args:
            fields: [B, *grid] or [B, *grid, C] in the store's units, NaN where unobserved.
            times: [B] dates or names; not read.
            geometry: Where the values stand.
            chance: Draws the points that are scored, and of each function how it is stretched, where in a
                cell it is asked, and what is hidden.
        """
        coords = asked = geometry.coords
        if self.stretch:
            fields = np.stack(
                [
                    _stretched(each, geometry.shape, self.stretch, self.outside, own)
                    for each, own in zip(fields, chance.own, strict=True)
                ]
            )
        at = rescale = shown = places = None
        if 0 < self.points < len(coords):
            flat = fields.reshape(len(fields), len(coords), -1)
            chosen, weight = self.draw(flat, geometry, self.points, chance)
            asked = coords[chosen]
            at, rescale = torch.from_numpy(chosen), None if weight is None else torch.from_numpy(weight)
        if self.within and geometry.cell is not None:
            asked = np.broadcast_to(asked, (len(fields), *asked.shape[-2:]))
            places = torch.from_numpy(_within(asked, self.within * np.array(geometry.cell), chance).astype(np.float32))
        if self.hidden:
            shown = torch.from_numpy(np.stack([_shown(coords, self.hidden, own) for own in chance.own]))
        return Framed(self.all_of(fields, geometry), len(coords), at, rescale, shown, places)

    def all_of(self, fields: Floats, geometry: Geometry) -> FunctionBatch:
        """Functions as they are, at all of their points; `fields` as for `training`."""
        values = self.scaling.to_model(fields.reshape(len(fields), len(geometry.coords), -1))
        if self.bounded:
            values = values.clamp(0, 1)
        return replace(query(geometry), values=values, observed=torch.isfinite(values).all(dim=-1))


def query(geometry: Geometry) -> FunctionBatch:
    """The places of a geometry, at which functions are asked for."""
    return FunctionBatch(coords=torch.from_numpy(geometry.coords.astype(np.float32))[None])


def _stretched(field: Floats, shape: tuple[int, ...], share: float, outside: float, rng: np.random.Generator) -> Floats:
    """A sample, scaled about the grid's middle along each axis; the nearest cell's values."""
    for axis, size in enumerate(shape):
        middle = (size - 1) / 2
        where = np.rint(middle + (np.arange(size) - middle) / (1 + rng.uniform(-share, share))).astype(np.int64)
        moved = np.take(field, where, axis=axis, mode="clip")
        gone = (where < 0) | (where >= size)
        moved[(slice(None),) * axis + (gone,)] = outside
        field = moved
    return field


def _within(places: NDArray[np.float64], sides: NDArray[np.float64], chance: Chance) -> NDArray[np.float64]:
    """Places [B, n, D], each moved to anywhere in a box of these sides [D] about it."""
    moved = [own.uniform(-0.5, 0.5, each.shape) for each, own in zip(places, chance.own, strict=True)]
    return places + sides * np.stack(moved)


def _shown(coords: NDArray[np.float64], hidden: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """What is seen of a function at N points, [N]: all; or a half-space, all but a ball, random points, by chance.

    Only coordinates are asked for, so it is one law on the sphere, in the cube and in the plane.
    """
    if rng.random() >= hidden:
        return np.ones(len(coords), dtype=bool)
    direction = rng.standard_normal(coords.shape[1])
    match rng.integers(3):
        case 0:
            along = np.eye(coords.shape[1])[rng.integers(coords.shape[1])] if rng.random() < 0.5 else direction
            height = coords @ (along * rng.choice([-1.0, 1.0]))
            shown = height <= np.quantile(height, rng.uniform(0.3, 0.7))
        case 1:
            away = np.linalg.norm(coords - coords[rng.integers(len(coords))], axis=1)
            shown = away > np.quantile(away, rng.uniform(0.1, 0.4))
        case _:
            shown = rng.random(len(coords)) < 10 ** rng.uniform(-2, 0)
    if not shown.any():
        shown[rng.integers(len(coords))] = True
    return shown
