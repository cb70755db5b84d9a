"""Fields with a context -> FunctionBatch: where points are, what the model is told of them, what it has to explain.

Training, validation and downscaling all come through `query`, so that a model is asked exactly what it was taught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.background import Analysis, Background
from pipelines.data.coarsening import Kind, coarsened, observations, observed, thinned
from pipelines.data.domain import Chance, Floats, Geometry, Scaling
from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice, sun_covariates, unit_vectors
from pipelines.data.static import StaticField, lapse
from pipelines.data.whole import Framed
from vamoh import FunctionBatch


class Known(NamedTuple):
    """The fields that a model is told.

    Attributes:
        coarse: [B, n, m] kelvin on `lattice`, NaN where missing.
        lattice: The grid that they are interpolated on.
        spread: [B, n, m] kelvin, how far off they may be; None where they are what was observed.
        strange: [B, n, m], how far the states lie from those of training; None where that is not asked for.
        every: The model is told every so many-th row and column of them.
        beyond: What was observed, [B, n', m'] kelvin, and its grid: what is told outside of `lattice`.
    """

    coarse: Floats
    lattice: Lattice
    spread: Floats | None = None
    strange: Floats | None = None
    every: int = 1
    beyond: tuple[Floats, Lattice] | None = None


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How fields become batches of a downscaling model.

    Attributes:
        scaling: To the model's units.
        factors: Smallest and largest coarsening factor of the context.
        points: Points of each function that a training batch scores; 0 for all.
        kind: What a coarse value is: the truth at a point, its mean over the cell around it, or the truth at any
            points.
        noise: Standard deviation of the errors of what is known, kelvin.
        background: What whole fields are made with of what is known, before the model corrects them; None to
            interpolate it.
        statics: What the model is told of places beside the time.
    """

    scaling: Scaling
    factors: tuple[int, int]
    points: int = 0
    kind: Kind = "points"
    noise: float = 0.0
    background: Background | None = None
    statics: tuple[StaticField, ...] = ()

    @property
    def entire(self) -> Framing:
        """The same, of which all is scored."""
        return replace(self, points=0)

    def training(self, fields: Floats, times: NDArray[Any], geometry: Geometry, chance: Chance) -> Framed:
        """Fields to learn from, at a random part of their points.

        Args:
            fields: [B, n, m] kelvin, NaN where unobserved.
            times: [B] dates.
            geometry: The lattice on which the values stand.
            chance: Draws the coarsening and the points, and of each field the errors of what is known.

        Returns:
            Points are drawn in proportion to the area that they stand for, so that the polar rows of a grid do not
            count for more than they cover, and nothing else is kept.
        """
        assert isinstance(geometry, Lattice)
        lattice, total = geometry, len(geometry.coords)
        chosen = np.arange(total)
        if 0 < self.points < total:
            chosen = np.sort(chance.common.choice(total, self.points, replace=False, p=lattice.area))
        known = self._context(fields, times, lattice, chance)
        return Framed(self._framed(fields, times, lattice, chosen, known), total)

    def held_out(
        self, fields: Floats, times: NDArray[Any], lattice: Lattice, chance: Chance
    ) -> tuple[FunctionBatch, torch.Tensor]:
        """As `training`, at all points, and how far the states lie from those of training there, [B, N]."""
        known = self._context(fields, times, lattice, chance, strange=True)
        batch = self._framed(fields, times, lattice, np.arange(len(lattice.coords)), known)
        return batch, self.strange_at(lattice.points, known)

    def _framed(
        self, fields: Floats, times: NDArray[Any], lattice: Lattice, chosen: NDArray[np.int64], known: Known
    ) -> FunctionBatch:
        """Fields at the chosen points, and what is known of them."""
        blank = ~np.isfinite(known.coarse).any(axis=(1, 2), keepdims=True)
        if blank.any():  # nothing to explain them from: any context will do, and nothing is observed
            known = known._replace(coarse=np.where(blank, self.scaling.offset, known.coarse))
            if known.spread is not None:
                known = known._replace(spread=np.where(blank, 0.0, known.spread))
            fields = np.where(blank, np.nan, fields)
        batch = self.query((lattice.points[0][chosen], lattice.points[1][chosen]), times, known)
        values = self.scaling.to_model(fields.reshape(len(fields), -1)[:, chosen])
        return replace(batch, values=values[..., None], observed=torch.isfinite(values))

    def known(self, coarse: Floats, lattice: Lattice | Scatter) -> Known:
        """What the model is told of an input.

        Args:
            coarse: [B, n, m] kelvin on `lattice`, or [B, 1, n] at points; NaN where missing.
            lattice: Where the values stand.

        Raises:
            ValueError: If the model takes grids only, or nothing is known where it was trained.
        """
        if isinstance(lattice, Scatter):
            self.refuse_points()
        if self.background is None:
            assert isinstance(lattice, Lattice)
            return Known(coarse, lattice)
        values, places, beyond = _flat(coarse), observations(lattice, means=self.kind == "means"), None
        held = self.within(*lattice.points)
        if isinstance(lattice, Lattice):
            beyond = (coarse, lattice) if self._outside(*lattice.points).size else None
            held = np.intersect1d(held, lattice.distinct_index)
        if not np.isfinite(values[:, held]).any(axis=1).all():
            if isinstance(lattice, Lattice) and self.kind != "scattered":
                return Known(coarse, lattice, np.full(coarse.shape, self.scaling.scale), np.ones(coarse.shape))
            raise ValueError(
                "no point of the input lies in the region that the model was trained on: a model of kind scattered "
                "knows no other"
            )
        found = self.background.analyse(
            values[:, held], places.of(held), noise=self.noise, strange_every=self.strange_every
        )
        return self._analysed(found)._replace(beyond=beyond)

    def refuse_points(self) -> None:
        """Refuse an input at points where the model takes grids.

        Raises:
            ValueError: Then.
        """
        if self.kind != "scattered":
            raise ValueError(
                "the input is a list of points, and this model takes fields on a grid: train one with context.kind "
                "scattered (preset `scattered`)"
            )

    def query(
        self, places: tuple[NDArray[np.float64], NDArray[np.float64]], times: NDArray[Any], known: Known
    ) -> FunctionBatch:
        """The places at which fields are asked for, and what is known of the fields.

        Args:
            places: Latitude and longitude in degrees, [N] each.
            times: [B] dates.
            known: What the model is told.
        """
        base, left = self._base(places, known)
        covariates = [sun_covariates(times, *places)]
        if self.statics:
            told = np.stack([each.feature(places) for each in self.statics], axis=-1)
            covariates.append(np.broadcast_to(told, (len(times), *told.shape)))
        if left is not None:
            covariates.append((left / self.scaling.scale).astype(np.float32)[..., None])
        return FunctionBatch(
            coords=torch.from_numpy(unit_vectors(*places).astype(np.float32))[None],
            covariates=torch.from_numpy(np.concatenate(covariates, axis=-1)),
            base=self.scaling.to_model(base)[..., None],
            context=self.told(known),
        )

    @property
    def strange_every(self) -> int:
        """Rows and columns over which how strange a state is hardly changes: it follows what is observed."""
        return max(1, self.factors[0] - 1)

    def strange_at(self, places: tuple[NDArray[np.float64], NDArray[np.float64]], known: Known) -> torch.Tensor:
        """How far states lie from those of training, float32 [B, N]; one everywhere where that is not known."""
        if known.strange is None:
            return torch.ones(len(known.coarse), len(places[0]))
        found = known.lattice.interpolate(_flat(known.strange), *places)
        return torch.from_numpy(found.astype(np.float32))

    def told(self, known: Known) -> FunctionBatch:
        """The points that a model is told."""
        flat, lattice = _flat(known.coarse), known.lattice
        if known.every > 1:
            flat, lattice = thinned(known.coarse, lattice, known.every)
        held = lattice.context_index
        values, coords = flat[:, held], lattice.coords[held]
        if known.beyond is not None:
            observed, grid = known.beyond
            also = np.intersect1d(self._outside(*grid.points), grid.context_index)
            values = np.concatenate([values, _flat(observed)[:, also]], axis=1)
            coords = np.concatenate([coords, grid.coords[also]])
        scaled = self.scaling.to_model(values)
        return FunctionBatch(
            coords=torch.from_numpy(coords.astype(np.float32))[None],
            values=scaled[..., None],
            observed=torch.isfinite(scaled),
        )

    def _base(
        self, places: tuple[NDArray[np.float64], NDArray[np.float64]], known: Known
    ) -> tuple[Floats, Floats | None]:
        """What the model corrects, and how far off it may be, kelvin [B, N]."""
        lattice, left = known.lattice, None
        base = lattice.interpolate(_flat(known.coarse), *places) + lapse(self.statics, places, lattice)
        if known.spread is not None:
            left = lattice.interpolate(_flat(known.spread), *places)
        if known.beyond is not None:
            observed, grid = known.beyond
            outside = self._outside(*places)
            there = (places[0][outside], places[1][outside])
            base[:, outside] = grid.interpolate(_flat(observed), *there) + lapse(self.statics, there, grid)
            if left is not None:
                left[:, outside] = self.scaling.scale
        return base, left

    def _context(
        self, fields: Floats, times: NDArray[Any], lattice: Lattice, chance: Chance, *, strange: bool = False
    ) -> Known:
        """What is known of fields in training; if asked, with how strange they are."""
        rng = chance.common
        if self.background is None:
            coarse, where = coarsened(fields, lattice, self.factors, rng, means=self.kind == "means")
            return Known(self._noisy(coarse, chance), where)
        drawn = np.random.default_rng((_SETS, int(rng.integers(self.background.num_sets))))
        values, places = observed(fields, lattice, self.factors, drawn, self.kind)
        values = self._noisy(values, chance)
        parts = self.background.part_of(times)
        every = self.strange_every if strange else 0
        return self._analysed(
            self.background.analyse(values, places, noise=self.noise, without=parts, strange_every=every)
        )

    def _analysed(self, found: Analysis) -> Known:
        """What is told of whole fields."""
        assert self.background is not None
        return Known(found.fields, self.background.lattice, found.spread, found.strange, every=self.factors[0])

    def _noisy(self, known: Floats, chance: Chance) -> Floats:
        """With errors of its own for every field [B, ...]."""
        if not self.noise:
            return known
        errors = [own.normal(0.0, self.noise, each.shape) for each, own in zip(known, chance.own, strict=True)]
        return known + np.stack(errors)

    def within(self, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which places lie where the background is known, or a coarse cell beside it."""
        assert self.background is not None
        margin = np.rad2deg(self.background.lattice.spacing_rad) * self.factors[1]
        return np.flatnonzero(self._beside(latitude, longitude, margin))

    def _outside(self, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which places do not lie where the background is known."""
        return np.flatnonzero(~self._beside(latitude, longitude, 1e-6))

    def _beside(
        self, latitude: NDArray[np.float64], longitude: NDArray[np.float64], margin: float
    ) -> NDArray[np.bool_]:
        """Whether places lie where the background is known, or so many degrees beside it."""
        assert self.background is not None
        grid = self.background.lattice
        kept = (latitude <= grid.latitude[0] + margin) & (latitude >= grid.latitude[-1] - margin)
        if not grid.periodic:
            middle = (grid.longitude[0] + grid.longitude[-1]) / 2
            away = np.abs((longitude - middle + 180.0) % 360.0 - 180.0)
            kept &= away <= (grid.longitude[-1] - grid.longitude[0]) / 2 + margin
        return kept


_SETS = 11  # seed of the sets of points that training takes turns with


def _flat(fields: Floats) -> Floats:
    """[B, n, m] -> [B, n m]."""
    return fields.reshape(len(fields), -1).astype(np.float64)
