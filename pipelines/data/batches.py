"""Fields with a context -> FunctionBatch: where points are, what the model is told of them, what it has to explain.

Training, validation and downscaling all come through `query`, so that a model is asked exactly what it was taught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.background import Background
from pipelines.data.coarsening import coarsened, drawn_places, thinned
from pipelines.data.domain import Chance, Floats, Geometry, Scaling
from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice, sun_covariates, unit_vectors
from pipelines.data.static import StaticField, lapse
from pipelines.data.whole import Framed
from vamoh import FunctionBatch

Kind = Literal["points", "means", "scattered"]


class Known(NamedTuple):
    """The coarse fields that a model is told.

    Attributes:
        coarse: [B, n, m] kelvin on `lattice`, NaN where missing.
        lattice: The grid that they are interpolated on.
        spread: [B, n, m] kelvin, how far off they may be; None where they are what was observed.
    """

    coarse: Floats
    lattice: Lattice
    spread: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How fields become batches of a downscaling model.

    Attributes:
        scaling: To the model's units.
        factors: Smallest and largest coarsening factor of the context.
        points: Points of each function that a training batch scores; 0 for all.
        kind: What a coarse value is: the truth at a point, its mean over the cell around it, or the truth at any
            points, of which whole fields are made first (`background`).
        noise: Standard deviation of the errors of what is known, kelvin.
        background: Of kind "scattered".
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
        coarse = known.coarse
        blank = ~np.isfinite(coarse).any(axis=(1, 2), keepdims=True)
        if blank.any():  # nothing to explain them from: any context will do, and nothing is observed
            known = known._replace(coarse=np.where(blank, self.scaling.offset, coarse))
            if known.spread is not None:
                known = known._replace(spread=np.where(blank, 0.0, known.spread))
            fields = np.where(blank, np.nan, fields)
        places = (lattice.points[0][chosen], lattice.points[1][chosen])
        batch = self.query(places, times, **known._asdict())
        values = self.scaling.to_model(fields.reshape(len(fields), -1)[:, chosen])
        return Framed(replace(batch, values=values[..., None], observed=torch.isfinite(values)), total)

    def known(self, coarse: Floats, lattice: Lattice | Scatter) -> Known:
        """What the model is told of an input.

        Args:
            coarse: [B, n, m] kelvin on `lattice`, or [B, 1, n] at points; NaN where missing.
            lattice: Where the values stand.

        Raises:
            ValueError: If the model takes grids only, or nothing is known where it was trained.
        """
        if self.background is None:
            if isinstance(lattice, Scatter):
                self.refuse_points()
            assert isinstance(lattice, Lattice)
            return Known(coarse, lattice)
        latitude, longitude = lattice.points
        values = coarse.reshape(len(coarse), -1).astype(np.float64)
        held = self.within(latitude, longitude)
        if isinstance(lattice, Lattice):
            held = np.intersect1d(held, lattice.context_index)
        if not np.isfinite(values[:, held]).any(axis=1).all():
            raise ValueError(
                "no point of the input lies in the region that the model was trained on: a model of kind scattered "
                "knows no other"
            )
        found = self.background.analyse(values[:, held], (latitude[held], longitude[held]), noise=self.noise)
        return Known(found.fields, self.background.lattice, found.spread)

    def refuse_points(self) -> None:
        """Refuse an input at points where the model takes grids.

        Raises:
            ValueError: Then.
        """
        if self.background is None:
            raise ValueError(
                "the input is a list of points, and this model takes fields on a grid: train one with context.kind "
                "scattered (preset `scattered`)"
            )

    def query(
        self,
        places: tuple[NDArray[np.float64], NDArray[np.float64]],
        times: NDArray[Any],
        *,
        coarse: Floats,
        lattice: Lattice,
        spread: Floats | None = None,
    ) -> FunctionBatch:
        """The places at which fields are asked for, and the coarse fields that are known.

        Args:
            places: Latitude and longitude in degrees, [N] each.
            times: [B] dates.
            coarse, lattice, spread: See `Known`.
        """
        coords = torch.from_numpy(unit_vectors(*places).astype(np.float32))[None]
        flat: Floats = coarse.reshape(len(coarse), -1).astype(np.float64)
        base = lattice.interpolate(flat, *places)
        covariates = [sun_covariates(times, *places)]
        if self.statics:
            base = base + lapse(self.statics, places, lattice)
            told = np.stack([each.feature(places) for each in self.statics], axis=-1)
            covariates.append(np.broadcast_to(told, (len(times), *told.shape)))
        if spread is not None:
            left = lattice.interpolate(spread.reshape(len(spread), -1), *places) / self.scaling.scale
            covariates.append(left.astype(np.float32)[..., None])
            flat, lattice = thinned(coarse, lattice, self.factors[0])
        held = lattice.context_index
        values = self.scaling.to_model(flat[:, held])
        context = FunctionBatch(
            coords=torch.from_numpy(lattice.coords[held].astype(np.float32))[None],
            values=values[..., None],
            observed=torch.isfinite(values),
        )
        return FunctionBatch(
            coords=coords,
            covariates=torch.from_numpy(np.concatenate(covariates, axis=-1)),
            base=self.scaling.to_model(base)[..., None],
            context=context,
        )

    def _context(self, fields: Floats, times: NDArray[Any], lattice: Lattice, chance: Chance) -> Known:
        """What is known of fields in training."""
        rng = chance.common
        if self.background is None:
            coarse, where = coarsened(fields, lattice, self.factors, rng, means=self.kind == "means")
            return Known(self._noisy(coarse, chance), where)
        drawn = np.random.default_rng((_SETS, int(rng.integers(self.background.num_sets))))
        at = drawn_places(lattice, self.factors, drawn)
        values: Floats = fields.reshape(len(fields), -1)[:, at].astype(np.float64)
        values = self._noisy(values, chance)
        places = (lattice.points[0][at], lattice.points[1][at])
        parts = self.background.part_of(times)
        found = self.background.analyse(values, places, noise=self.noise, without=parts)
        return Known(found.fields, self.background.lattice, found.spread)

    def _noisy(self, known: Floats, chance: Chance) -> Floats:
        """With errors of its own for every field [B, ...]."""
        if not self.noise:
            return known
        errors = [own.normal(0.0, self.noise, each.shape) for each, own in zip(known, chance.own, strict=True)]
        return known + np.stack(errors)

    def within(self, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which places lie where the background is known, or a coarse cell beside it."""
        assert self.background is not None
        grid = self.background.lattice
        margin = np.rad2deg(grid.spacing_rad) * self.factors[1]
        kept = (latitude <= grid.latitude[0] + margin) & (latitude >= grid.latitude[-1] - margin)
        if not grid.periodic:
            middle = (grid.longitude[0] + grid.longitude[-1]) / 2
            away = np.abs((longitude - middle + 180.0) % 360.0 - 180.0)
            kept &= away <= (grid.longitude[-1] - grid.longitude[0]) / 2 + margin
        return np.flatnonzero(kept)


_SETS = 11  # seed of the sets of points that training takes turns with
