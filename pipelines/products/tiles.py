"""A request cut into blocks of times and tiles of places, each computed by itself and only where it is touched.

The same blocks are the chunks of the lazy result and of what is written. In Dask's graph they are three symbolic
layers, whatever their number:

    members of a block of times  ->  their answer on a tile  ->  one variable of it
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from pipelines.data.scatter import Scatter, places_of
from pipelines.data.sphere import Lattice
from pipelines.products.conserve import Conserved, Kind
from pipelines.products.ensemble import Downscaler, Ensemble
from pipelines.products.slope import gradient
from pipelines.products.targets import Target
from pipelines.products.variables import DEFAULT, Answer, Variable, variables

CHUNK_VALUES = 2**22  # members x times x places of one chunk: 16 MB
TILE_POINTS = 2**16
BLOCK_TIMES = 16
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A chunk of the result: positions along time and along the target's dimensions."""

    times: slice
    places: tuple[slice, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is asked of a model.

    Attributes:
        teller: The model.
        field: The canonical input, (time, latitude, longitude) or (time, row, point), lazy or not.
        target: Where.
        members, seed: Of the ensemble.
        also: What is wanted beside the members.
        conserve: What of the input is to be reproduced: its values as means of cells, or at points.
    """

    teller: Downscaler
    field: xr.DataArray
    target: Target
    members: int
    seed: int
    also: tuple[str, ...] = DEFAULT
    conserve: Kind | None = None

    def __post_init__(self) -> None:
        assert self.variables  # what cannot be given is refused at once

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Those of the result, by their names."""
        return variables(str(self.field.name), self.also, self.members)

    @cached_property
    def given(self) -> Lattice | Scatter:
        """Where the input's values stand."""
        return places_of(self.field)

    @cached_property
    def lattice(self) -> Lattice:
        """The input's grid; of points, that of the training."""
        return self.given if isinstance(self.given, Lattice) else self.teller.checkpoint.plan.lattice

    @cached_property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the chunks along time and along each dimension of the target."""
        times = _even(self.field.sizes["time"], BLOCK_TIMES)
        points = max(1, min(TILE_POINTS, CHUNK_VALUES // (self.members * times[0])))
        if self.target.names is not None:
            return times, _even(len(self.target.latitude), points)
        rows, columns = len(self.target.latitude), len(self.target.longitude)
        wide = min(columns, max(int(points**0.5), points // rows))
        wide = _even(columns, max(1, wide))[0]
        return times, _even(rows, max(1, points // wide)), _even(columns, wide)

    @cached_property
    def blocks(self) -> list[Block]:
        """All of them, time by time."""
        spans = [list(_slices(sizes)) for sizes in self.chunks]
        return [Block(times=times, places=places) for times, *places in itertools.product(*spans)]  # type: ignore[arg-type]

    def dims(self, variable: Variable) -> tuple[str, ...]:
        """Of a variable."""
        return (*(("realization",) if variable.each_member else ()), "time", *self.target.dims)

    def ensemble(self, times: slice) -> Ensemble:
        """The members of a block of times."""
        return self._drawn(self.field[times].values, self.field["time"].values[times])

    def compute(self, ensemble: Ensemble, block: Block) -> dict[str, NDArray[Any]]:
        """Every variable on one block."""
        answer = self._answer(ensemble, *(np.arange(part.start, part.stop) for part in block.places))
        return {name: variable.of(answer) for name, variable in self.variables.items()}

    def lazily(self) -> xr.Dataset:
        """The result without attributes, to be computed where it is touched."""
        times, *spans = self.chunks
        key = tokenize(
            self.teller, self.members, self.seed, self.also, self.conserve, self.target.latitude, self.target.longitude,
            self.field.data, self.field["time"].values, self.given.latitude, self.given.longitude,
        )  # fmt: skip
        index, nothing = "trc"[: 1 + len(spans)], np.empty((0,) * (1 + len(spans)), dtype=object)
        fields = da.asarray(self.field.data).rechunk({0: times, 1: -1, 2: -1})
        drawn = da.blockwise(
            self._drawn, "t", fields, "tyx", _cut(self.field["time"].values, times), "t",
            name=f"members-{key}", concatenate=True, align_arrays=False, dtype=object, meta=np.empty(0, dtype=object),
        )  # fmt: skip
        positions = [(_cut(np.arange(sum(sizes)), sizes), name) for sizes, name in zip(spans, index[1:], strict=True)]
        answers = da.blockwise(
            self._answer, index, drawn, "t", *itertools.chain(*positions),
            name=f"answers-{key}", align_arrays=False, dtype=object, meta=nothing,
        )  # fmt: skip
        found = {}
        for name, variable in self.variables.items():
            lead: dict[str, Any] = {"new_axes": {"m": self.members}} if variable.each_member else {}
            data = da.blockwise(
                variable.of, f"m{index}" if lead else index, answers, index, name=f"{name}-{key}", align_arrays=False,
                dtype=variable.dtype, meta=np.empty((0,) * (len(index) + bool(lead)), variable.dtype), **lead,
            )  # fmt: skip
            found[name] = (self.dims(variable), data)
        coords = {"realization": np.arange(self.members), "time": self.field["time"], **self.target.coords}
        return xr.Dataset(found, coords=coords)

    def _drawn(self, fields: NDArray[np.floating], times: NDArray[Any]) -> Ensemble:
        return self.teller.ensemble(fields, self.given, times, members=self.members, seed=self.seed)

    def _answer(self, ensemble: Ensemble, *positions: NDArray[np.int64]) -> Answer:
        """The members on a tile, at these positions along each dimension of the target."""
        shape = tuple(len(each) for each in positions)
        conserved = Conserved.of(self.conserve, ensemble, self.target, positions)
        latitude, longitude = self._places(positions)
        values, weights = ensemble.at(latitude, longitude)
        values += conserved.correction(latitude, longitude) if conserved else 0.0
        slope = None
        if "gradient" in self.also:

            def member(latitude: Array, longitude: Array) -> NDArray[np.float32]:
                return ensemble.at(latitude, longitude)[0] + (
                    conserved.correction(latitude, longitude) if conserved else 0.0
                )

            slope = gradient(member, latitude, longitude, self.lattice).reshape(*values.shape[:2], *shape, 2)
        return Answer(
            values=values.reshape(*values.shape[:2], *shape),
            weights=weights.reshape(len(weights), *shape, -1),
            gradient=slope,
        )

    def _places(self, positions: tuple[NDArray[np.int64], ...]) -> tuple[Array, Array]:
        """Latitude and longitude [N] of a tile."""
        latitude, longitude = self.target.latitude[positions[0]], self.target.longitude[positions[-1]]
        if self.target.names is not None:
            return latitude, longitude
        rows, columns = np.meshgrid(latitude, longitude, indexing="ij")
        return rows.ravel(), columns.ravel()


def _even(count: int, largest: int) -> tuple[int, ...]:
    """Sizes of the fewest parts of at most `largest`, all alike but for the last.

    >>> _even(10, 4)
    (4, 4, 2)
    """
    size = -(-count // -(-count // largest))
    return tuple(min(size, count - first) for first in range(0, count, size))


def _slices(sizes: tuple[int, ...]) -> Iterator[slice]:
    stop = 0
    for size in sizes:
        start, stop = stop, stop + size
        yield slice(start, stop)


def _cut(values: NDArray[Any], sizes: tuple[int, ...]) -> da.Array:
    return da.from_array(values, chunks=(sizes,))
