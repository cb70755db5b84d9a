"""What the fields of a region have in common, and with it a whole field from any set of points: optimal interpolation.

    x(p) = m(p) + sum_j g_j (y_j - m(p_j)),    (K + R) g = k,

for the points p_j nearest to p. K and k are covariances of training fields plus those of a shift of unknown size, so
that the gains sum to nearly one; R is the error of an observation, which grows with its distance from p, because a
covariance of so few fields is worth less the further it reaches. That is a ridge regression for every place and set.

Fields of one part of the training time are explained by those of the others: a model that learned from fields that had
explained themselves would trust them too much.

Source: Evensen, "The ensemble Kalman filter", Ocean Dynamics 53 (2003), optimal interpolation by an ensemble; Hunt et
al., Physica D 230 (2007), observations' errors that grow with distance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipelines.data.sphere import Lattice, unit_vectors
from pipelines.data.times import hours_since_1970

Array = NDArray[np.float64]
Places = tuple[Array, Array]
NEIGHBOURS = 25
REACH = 0.7  # distances between observations over which the error of one grows by e
SHIFT = 100.0  # variance of the shift, in those of the fields
PARTS = 4  # of the training time
MAX_FIELDS, MAX_VALUES = 256, 2**23
TRIED = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # observations' errors, in what bilinear interpolation misses
CACHE_BYTES = 256 * 2**20
_AT_A_TIME = 512


class Analysis(NamedTuple):
    """Whole fields, and how far off they may be.

    Attributes:
        fields: [T, n, m] kelvin, NaN throughout where nothing was observed.
        spread: [T, n, m] kelvin, standard deviation of what is left to know.
    """

    fields: Array
    spread: Array


class _Points(NamedTuple):
    """A set of places: unit vectors [n, 3], the mean there [n], the fields there less the mean [S, n]."""

    coords: Array
    mean: Array
    anomalies: NDArray[np.floating]


class _Gains(NamedTuple):
    """How observations are read at N places: neighbours [N, J], gains [N, J], what is left to know [N] in kelvin."""

    near: NDArray[np.int32]
    gains: NDArray[np.float32]
    left: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """Training fields as statistics.

    Attributes:
        lattice: [P] points, of the training grid.
        fields: [S, P] float32 kelvin.
        starts: Hours since 1970 at which the second and every later part of the training time begins.
        part: [S], the part of each field.
        noise: Standard deviation of an observation's error at the place itself, kelvin.
    """

    lattice: Lattice
    fields: NDArray[np.float32]
    starts: tuple[float, ...]
    part: NDArray[np.int64]
    noise: float = 0.1
    _kept: OrderedDict[tuple[Any, ...], _Gains] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: nothing that can be computed again."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"_kept": OrderedDict()}

    @classmethod
    def of(cls, fields: NDArray[np.floating], times: NDArray[Any], lattice: Lattice) -> Background:
        """Of training fields [S, n, m] in the order of time; what is missing is taken for the mean there.

        Raises:
            ValueError: If there are too few.
        """
        if len(fields) < PARTS:
            raise ValueError(f"context.kind scattered learns from at least {PARTS} training samples, got {len(fields)}")
        flat = fields.reshape(len(fields), -1).astype(np.float32)
        seen = np.isfinite(flat)
        if not seen.all():
            total = np.where(seen, flat, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
            flat = np.where(seen, flat, np.where(seen.any(axis=0), total, np.nanmean(flat)))
        part = np.arange(len(flat)) * PARTS // len(flat)
        hours = hours_since_1970(times)
        starts = tuple(float(hours[part == each].min()) for each in range(1, PARTS))
        return cls(lattice=lattice, fields=flat, starts=starts, part=part)

    def to_json(self) -> dict[str, Any]:
        """All but the fields and their grid."""
        return {"starts": list(self.starts), "part": self.part.tolist(), "noise": self.noise}

    @classmethod
    def from_json(cls, tree: dict[str, Any], fields: NDArray[np.float32], lattice: Lattice) -> Background:
        """Read what `to_json` wrote."""
        part = np.asarray(tree["part"], dtype=np.int64)
        return cls(lattice=lattice, fields=fields, starts=tuple(tree["starts"]), part=part, noise=tree["noise"])

    def part_of(self, times: NDArray[Any]) -> NDArray[np.int64]:
        """The part of the training time [T] that each time belongs to."""
        return np.searchsorted(np.array(self.starts), hours_since_1970(times), side="right")

    def analyse(
        self, values: NDArray[np.floating], places: Places, *, noise: float = 0.0, without: NDArray[Any] | None = None
    ) -> Analysis:
        """Whole fields from what was observed of them.

        Args:
            values: [T, n] kelvin, NaN where missing.
            places: Latitude and longitude in degrees, [n] each.
            noise: Of the observations, kelvin, beside the background's own.
            without: [T], for each field the part of the training time that is not asked.
        """
        found = np.full((len(values), self.fields.shape[1]), np.nan)
        spread = np.full_like(found, np.nan)
        noise = float(np.hypot(self.noise, noise))
        for background, rows in self._asked(without, len(values)):
            patterns, which = np.unique(np.isfinite(values[rows]), axis=0, return_inverse=True)
            for number, seen in enumerate(patterns):
                if not seen.any():
                    continue
                here, there = rows[which.ravel() == number], (places[0][seen], places[1][seen])
                index, gains, left = background._read(there, noise)
                anomalies = values[np.ix_(here, seen)] - self.lattice.interpolate(background._mean[None], *there)
                found[here] = np.einsum("tpj,pj->tp", anomalies.astype(np.float32)[:, index], gains) + background._mean
                spread[here] = left
        shape = (len(values), *self.lattice.shape)
        return Analysis(found.reshape(shape), spread.reshape(shape))

    def tuned(self, sets: list[Places], rng: np.random.Generator, scale: float) -> tuple[Background, float]:
        """Choose the error of an observation: each part of the time is explained by the others from sets of points.

        Args:
            sets: Where observations are.
            rng: Draws where the result is compared.
            scale: What bilinear interpolation misses, kelvin.

        Returns:
            The background, and the root mean square of what it misses, kelvin.
        """
        count = min(len(self.lattice.coords), _AT_A_TIME)
        asked = rng.choice(len(self.lattice.coords), count, replace=False, p=self.lattice.area)
        missed = np.zeros(len(TRIED))
        for part, background in enumerate(self._others):
            truth, target = self.fields[self.part == part], background._points(asked)
            for places in sets:
                observed = background._at(places)
                anomalies = self.lattice.interpolate(truth, *places) - observed.mean
                for number, share in enumerate(TRIED):
                    index, gains, _ = background._solve(observed, target, share * scale)
                    error = (anomalies[:, index] * gains).sum(axis=-1) + target.mean - truth[:, asked]
                    missed[number] += float((error**2).mean()) / len(sets) / PARTS
        best = int(missed.argmin())
        return replace(self, noise=TRIED[best] * scale), float(np.sqrt(missed[best]))

    @cached_property
    def _others(self) -> tuple[Background, ...]:
        """Without each part of the time."""
        kept = [self.part != part for part in range(PARTS)]
        return tuple(
            replace(self, fields=self.fields[rows], part=self.part[rows], _kept=OrderedDict()) for rows in kept
        )

    def _asked(self, without: NDArray[Any] | None, count: int) -> Iterator[tuple[Background, NDArray[np.int64]]]:
        """Backgrounds with the rows that are asked of them."""
        if without is None:
            yield self, np.arange(count)
            return
        for part in np.unique(without):
            yield self._others[part], np.flatnonzero(without == part)

    @cached_property
    def _mean(self) -> Array:
        return self.fields.mean(axis=0, dtype=np.float64)

    @cached_property
    def _whole(self) -> _Points:
        return self._points(np.arange(self.fields.shape[1]))

    def _points(self, index: NDArray[np.int64]) -> _Points:
        mean = self._mean[index]
        return _Points(self.lattice.coords[index], mean, self.fields[:, index] - mean.astype(np.float32))

    def _at(self, places: Places) -> _Points:
        found = self.lattice.interpolate(self.fields, *places)
        mean = found.mean(axis=0)
        return _Points(unit_vectors(*places), mean, (found - mean).astype(np.float32))

    def _read(self, places: Places, noise: float) -> _Gains:
        """How observations at these places are read all over the lattice; what was used last is kept."""
        key = (places[0].tobytes(), places[1].tobytes(), noise)
        made = self._kept.pop(key, None)
        if made is None:
            made = self._solve(self._at(places), self._whole, noise)
        self._kept[key] = made  # the last one used stands at the end
        while len(self._kept) > 1 and len(self._kept) * sum(part.nbytes for part in made) > CACHE_BYTES / PARTS:
            self._kept.popitem(last=False)
        return made

    def _solve(self, observed: _Points, target: _Points, noise: float) -> _Gains:
        """Of observations at some places for others."""
        near = min(NEIGHBOURS, len(observed.coords))
        distance, index = cKDTree(observed.coords).query(target.coords, k=np.arange(1, near + 1))
        apart = np.maximum(distance[:, -1:] * np.sqrt(np.pi / near), 1e-9)
        error = noise**2 * np.exp(np.minimum(distance / apart / REACH, 50.0))
        gains, left = np.empty_like(distance), np.empty(len(distance))
        shift = SHIFT * float((target.anomalies**2).mean(dtype=np.float64)) + 1e-12
        own, diagonal = np.arange(near), len(self.fields) - 1
        for first in range(0, len(index), _AT_A_TIME):
            here = slice(first, first + _AT_A_TIME)
            there = observed.anomalies.T[index[here]]  # [n, J, S]
            alone = target.anomalies.T[here]
            both = (there @ there.transpose(0, 2, 1)).astype(np.float64) / diagonal + shift
            cross = (there @ alone[..., None])[..., 0].astype(np.float64) / diagonal + shift
            both[:, own, own] += error[here]
            gains[here] = np.linalg.solve(both, cross[..., None])[..., 0]
            variance = (alone.astype(np.float64) ** 2).sum(axis=1) / diagonal + shift
            left[here] = np.sqrt(np.maximum(variance - (gains[here] * cross).sum(axis=1), 0.0))
        return _Gains(index.astype(np.int32), gains.astype(np.float32), left.astype(np.float32))

    @cached_property
    def num_sets(self) -> int:
        """Sets of points that training takes turns with: few enough that how they are read is kept."""
        kept = CACHE_BYTES // PARTS // (self.fields.shape[1] * (NEIGHBOURS * 8 + 4))
        return int(np.clip(kept, 8, 64))


def spaced_fields(count: int, points: int) -> NDArray[np.int64]:
    """Which of `count` training fields of so many points are kept as statistics: all, or as many evenly spaced ones."""
    kept = max(PARTS, min(count, MAX_FIELDS, MAX_VALUES // points))
    return np.unique(np.linspace(0, count - 1, min(kept, count)).round().astype(np.int64))
