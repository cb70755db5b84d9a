"""What the fields of a region have in common, and with it a whole field from any set of points: optimal interpolation.

    x(p) = m(p) + sum_j g_j (y_j - m(p_j)),    (K + R) g = k,

for the points p_j nearest to p. K and k are covariances. Those of so few training fields are hardly known, so a share
of them is taken from what holds everywhere, s(p) s(q) exp(-(|p - q| / length)^power) with the standard deviations s of
each place; and those of a shift of unknown size are added, so that the gains sum to nearly one. R is the error of an
observation: none at its own place, and growing with the distance, because a covariance is worth less the further it
reaches. That is a ridge regression for every place and set.

Fields of one part of the training time are explained by those of the others: a model that learned from fields that had
explained themselves would trust them too much.

Source: Evensen, "The ensemble Kalman filter", Ocean Dynamics 53 (2003), optimal interpolation by an ensemble; Hamill
and Snyder, Monthly Weather Review 128 (2000), covariances in part of an ensemble, in part the same everywhere; Hunt et
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
from scipy.sparse import csr_array

from pipelines.data.covariances import (
    NEIGHBOURS,
    Array,
    Covariances,
    Everywhere,
    Observations,
    Points,
    fitted_correlation,
    mixed,
    modelled,
    sampled,
)
from pipelines.data.sphere import Lattice, unit_vectors
from pipelines.data.times import hours_since_1970

SHIFT = 100.0  # variance of the shift, in those of the fields
PARTS = 8  # of the training time, at most
LEAST_FIELDS = 4
MAX_FIELDS, MAX_VALUES = 256, 2**23
TRIED = (0.03, 0.06, 0.09, 0.12, 0.18, 0.25, 0.5, 1.0)  # observations' errors, in what bilinear interpolation misses
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)  # tried, of the covariances that hold everywhere
FITTED_PLACES, ASKED_PLACES = 2000, 1024
CACHE_BYTES = 256 * 2**20
_AT_A_TIME = 512


class Analysis(NamedTuple):
    """Whole fields, and how far off they may be.

    Attributes:
        fields: [T, n, m] kelvin, NaN throughout where nothing was observed.
        spread: [T, n, m] kelvin, standard deviation of what is left to know.
        strange: [T, n, m], the mean square of what was observed around a place, in units of its covariance, one where
            nothing was; None if it was not asked for.
    """

    fields: Array
    spread: Array
    strange: Array | None = None


class _Gains(NamedTuple):
    """How n observations are read at N places.

    Attributes:
        mean: [n] kelvin, of the observations.
        near: [N, J] neighbours.
        gains: [N, J].
        left: [N] kelvin, what is left to know.
    """

    mean: Array
    near: NDArray[np.int32]
    gains: NDArray[np.float32]
    left: NDArray[np.float32]

    def of(self, anomalies: Array) -> Array:
        """What anomalies [T, n] say of the places [T, N]."""
        starts = np.arange(0, self.near.size + 1, self.near.shape[1], dtype=np.int32)
        rows = csr_array((self.gains.ravel(), self.near.ravel(), starts), shape=(len(self.near), anomalies.shape[1]))
        found: Array = rows @ np.ascontiguousarray(anomalies.T)
        return found.T


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """Training fields as statistics.

    Attributes:
        lattice: [P] points, of the training grid.
        fields: [S, P] float32 kelvin.
        starts: Hours since 1970 at which every part of the training time begins, and the last one ends.
        part: [S], the part of each field.
        noise: Standard deviation of an observation's error at a short distance, kelvin.
        share: Of the covariances that hold everywhere.
        everywhere: Their correlation.
    """

    lattice: Lattice
    fields: NDArray[np.float32]
    starts: tuple[float, ...]
    part: NDArray[np.int64]
    noise: float = 0.1
    share: float = 0.0
    everywhere: Everywhere = Everywhere(0.1, 1.0)
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
        if len(fields) < LEAST_FIELDS:
            raise ValueError(
                f"what fields have in common is learned from at least {LEAST_FIELDS} training samples, got "
                f"{len(fields)}: give more, or set context.base=interpolation with context.kind points"
            )
        flat = fields.reshape(len(fields), -1).astype(np.float32)
        seen = np.isfinite(flat)
        if not seen.all():
            total = np.where(seen, flat, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
            flat = np.where(seen, flat, np.where(seen.any(axis=0), total, np.nanmean(flat)))
        num_parts = min(PARTS, len(flat))
        part = np.arange(len(flat)) * num_parts // len(flat)
        hours = hours_since_1970(times)
        starts = (*(float(hours[part == each].min()) for each in range(num_parts)), float(hours.max()))
        return cls(lattice=lattice, fields=flat, starts=starts, part=part)

    def to_json(self) -> dict[str, Any]:
        """All but the fields and their grid."""
        return {
            "starts": list(self.starts),
            "part": self.part.tolist(),
            "noise": self.noise,
            "share": self.share,
            "everywhere": self.everywhere._asdict(),
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any], fields: NDArray[np.float32], lattice: Lattice) -> Background:
        """Read what `to_json` wrote."""
        return cls(
            lattice=lattice,
            fields=fields,
            starts=tuple(tree["starts"]),
            part=np.asarray(tree["part"], dtype=np.int64),
            noise=tree["noise"],
            share=tree["share"],
            everywhere=Everywhere(**tree["everywhere"]),
        )

    def part_of(self, times: NDArray[Any]) -> NDArray[np.int64]:
        """The part of the training time [T] that each time belongs to, -1 of times that lie far from all of it."""
        hours, starts = hours_since_1970(times), np.array(self.starts)
        part = np.searchsorted(starts[1:-1], hours, side="right")
        margin = (starts[-1] - starts[0]) / self.num_parts
        return np.where((hours < starts[0] - margin) | (hours > starts[-1] + margin), -1, part)

    def analyse(
        self,
        values: NDArray[np.floating],
        places: Observations,
        *,
        noise: float = 0.0,
        without: NDArray[Any] | None = None,
        strange_every: int = 0,
    ) -> Analysis:
        """Whole fields from what was observed of them.

        Args:
            values: [T, n] kelvin, NaN where missing.
            places: Where, n.
            noise: Of the observations themselves, kelvin.
            without: [T], for each field the part of the training time that is not asked; -1 for none.
            strange_every: Also say how strange the fields are: at every so many-th row and column, and between them.
        """
        order = places.order  # of equally near ones the same are taken, in whatever order they come
        values, places = values[:, order], places.of(order)
        found = np.full((len(values), self.fields.shape[1]), np.nan)
        spread, part = np.full_like(found, np.nan), self.lattice.every(max(strange_every, 1))
        strange = np.ones((len(values), len(part.coords)))
        for background, rows in self._asked(without, len(values)):
            for here, seen in _alike(np.isfinite(values[rows])):
                here = rows[here]
                read = background._read(places.of(seen), noise)
                anomalies = values[np.ix_(here, seen)] - read.mean
                found[here] = background._mean + read.of(anomalies)
                spread[here] = read.left
                if strange_every:
                    strange[here] = background._strange(anomalies, places.of(seen), noise, strange_every)
        shape = (len(values), *self.lattice.shape)
        between = part.interpolate(strange, *self.lattice.points).reshape(shape) if strange_every else None
        return Analysis(found.reshape(shape), spread.reshape(shape), between)

    def tuned(self, sets: list[Observations], rng: np.random.Generator, scale: float) -> tuple[Background, float]:
        """Choose the errors of observations and the share of what holds everywhere.

        Each part of the time is explained by the others from sets of points.

        Args:
            sets: Where observations are.
            rng: Draws where the result is compared.
            scale: What bilinear interpolation misses, kelvin.

        Returns:
            The background, and the root mean square of what it misses, kelvin.
        """
        places = min(len(self.lattice.coords), FITTED_PLACES)
        drawn = rng.choice(len(self.lattice.coords), places, replace=False, p=self.lattice.area)
        asked = drawn[: ASKED_PLACES // len(sets)]
        fitted = replace(self, everywhere=fitted_correlation([self._at(each) for each in sets], self._points(drawn)))
        missed = np.zeros((len(SHARES), len(TRIED)))
        for part, background in enumerate(fitted._others):
            truth, target = self.fields[self.part == part], background._points(asked)
            for each in sets:
                observed = background._at(each)
                anomalies = each.seen(truth, self.lattice) - observed.mean
                some = sampled(observed, target, background._shift)
                alike = modelled(observed, target, background._shift, fitted.everywhere)
                for row, share in enumerate(SHARES):
                    known = mixed(some, alike, share)
                    for column, error in enumerate(TRIED):
                        gains = known.gains(error * scale, 0.0)
                        wrong = (anomalies[:, known.near] * gains).sum(axis=-1) + target.mean - truth[:, asked]
                        missed[row, column] += float((wrong**2).mean()) / len(sets)
        row, column = (int(place) for place in np.unravel_index(missed.argmin(), missed.shape))
        best = replace(fitted, share=SHARES[row], noise=TRIED[column] * scale)
        return best, float(np.sqrt(missed[row, column] / self.num_parts))

    @property
    def num_parts(self) -> int:
        """Parts of the training time."""
        return len(self.starts) - 1

    @cached_property
    def _others(self) -> tuple[Background, ...]:
        """Without each part of the time."""
        kept = [self.part != part for part in range(self.num_parts)]
        return tuple(
            replace(self, fields=self.fields[rows], part=self.part[rows], _kept=OrderedDict()) for rows in kept
        )

    def _asked(self, without: NDArray[Any] | None, count: int) -> Iterator[tuple[Background, NDArray[np.int64]]]:
        """Backgrounds with the rows that are asked of them."""
        if without is None:
            yield self, np.arange(count)
            return
        for part in np.unique(without):
            yield self if part < 0 else self._others[part], np.flatnonzero(without == part)

    @cached_property
    def _mean(self) -> Array:
        return self.fields.mean(axis=0, dtype=np.float64)

    @cached_property
    def _whole(self) -> Points:
        return self._points(np.arange(self.fields.shape[1]))

    def _points(self, index: NDArray[np.int64]) -> Points:
        mean = self._mean[index]
        return Points(self.lattice.coords[index], mean, self.fields[:, index] - mean.astype(np.float32))

    def _at(self, places: Observations) -> Points:
        found = places.seen(self.fields, self.lattice)
        mean = found.mean(axis=0)
        coords = unit_vectors(places.latitude, places.longitude)
        return Points(coords, mean, (found - mean).astype(np.float32))

    def _read(self, places: Observations, noise: float) -> _Gains:
        """How observations at these places are read all over the lattice; what was used last is kept."""
        key = (*places.key, noise, self.noise, self.share, self.everywhere)
        made = self._kept.pop(key, None)
        if made is None:
            made = self._solve(self._at(places), self._whole, noise)
        self._kept[key] = made  # the last one used stands at the end
        while len(self._kept) > 1 and len(self._kept) * sum(part.nbytes for part in made) > CACHE_BYTES / PARTS:
            self._kept.popitem(last=False)
        return made

    def _solve(self, observed: Points, target: Points, noise: float) -> _Gains:
        """Of observations at some places for others."""
        parts = []
        for known in self._covariances(observed, target):
            gains = known.gains(self.noise, noise)
            left = np.sqrt(np.maximum(known.own - (gains * known.cross).sum(axis=1), 0.0))
            parts.append((known.near.astype(np.int32), gains.astype(np.float32), left.astype(np.float32)))
        return _Gains(observed.mean, *(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _covariances(self, observed: Points, target: Points) -> Iterator[Covariances]:
        """Of some target places after the other."""
        for first in range(0, len(target.coords), _AT_A_TIME):
            here = target.part(slice(first, first + _AT_A_TIME))
            known = sampled(observed, here, self._shift)
            if self.share:
                known = mixed(known, modelled(observed, here, self._shift, self.everywhere), self.share)
            yield known

    def _strange(self, anomalies: Array, places: Observations, noise: float, every: int) -> Array:
        """How strange observations [T, n] less their mean are, at every so many-th row and column [T, N]."""
        rows, columns = self.lattice.shape
        index = np.arange(rows * columns).reshape(rows, columns)[::every, ::every].ravel()
        parts = self._covariances(self._at(places), self._points(index))
        return np.concatenate([each.strange(anomalies, self.noise, noise) for each in parts], axis=1)

    @cached_property
    def _shift(self) -> float:
        """Variance of the shift, kelvin squared."""
        return SHIFT * float(self.fields.var(axis=0, dtype=np.float64).mean()) + 1e-12

    @cached_property
    def num_sets(self) -> int:
        """Sets of points that training takes turns with: few enough that how they are read is kept."""
        kept = CACHE_BYTES // PARTS // (self.fields.shape[1] * (NEIGHBOURS * 8 + 4))
        return int(np.clip(kept, 8, 64))


def _alike(seen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """The rows of seen [T, n] in groups that are equal, with what is seen in each; none of which nothing is."""
    if (seen == seen[:1]).all():  # mostly; the search is slow
        patterns, which = seen[:1], np.zeros(len(seen), np.int64)
    else:
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        if pattern.any():
            yield np.flatnonzero(which.ravel() == number), pattern


def spaced_fields(count: int, points: int) -> NDArray[np.int64]:
    """Which of `count` training fields of so many points are kept as statistics: all, or as many evenly spaced ones."""
    kept = max(LEAST_FIELDS, min(count, MAX_FIELDS, MAX_VALUES // points))
    return np.unique(np.linspace(0, count - 1, min(kept, count)).round().astype(np.int64))
