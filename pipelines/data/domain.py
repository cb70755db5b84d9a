"""What training must know of a kind of data, behind one Protocol; one module a kind answers to it.

Fields on the sphere, shapes in the cube and pictures in the plane are all functions: sets of places with values. What
is particular to each (where its values stand, how samples are split, what its numbers mean, which points are worth
scoring) stands in its own module, and nothing else asks which kind it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.normalize import Statistics
from pipelines.data.split import Split

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Between a store's units and the model's: model = (value - offset) / scale."""

    offset: float
    scale: float

    def to_model(self, values: Floats) -> Tensor:
        """The store's units -> the model's, float32."""
        return torch.from_numpy(((values - self.offset) / self.scale).astype(np.float32))

    def to_kelvin(self, values: Tensor) -> Floats:
        """The model's units -> the store's, float64 (float32 is too coarse to add a small number to 280 in)."""
        return values.detach().cpu().double().numpy() * self.scale + self.offset

    def into_kelvin(self, values: Tensor, found: Tensor) -> None:
        """As `to_kelvin` into float32 `found`, rounded once but for the last digits of the small number."""
        whole = float(np.float32(self.offset))
        torch.mul(values, self.scale, out=found).add_(self.offset - whole).add_(whole)


class Geometry(Protocol):
    """Where the values of a sample stand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""

    @property
    def coords(self) -> NDArray[np.float64]:
        """Of every point, [N, D], the last axis of the grid fastest."""

    @property
    def area(self) -> NDArray[np.float64]:
        """The share of the domain that each point stands for, [N], summing to one."""

    @property
    def cell(self) -> tuple[float, ...] | None:
        """Sides of the cell that each value is of, in units of the coordinates; None where values are of points."""

    def index_of(self, coords: NDArray[np.float64]) -> NDArray[np.int64]:
        """The point whose value holds at each of the places [n, D]; -1 where there is none."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""


@dataclass(frozen=True, eq=False)
class Chance:
    """Where a batch's draws come from, so that any number of workers draws the same for the same functions.

    Attributes:
        common: What is drawn for all functions of the batch at once.
        own: [B], what is drawn for each of them, whichever worker has it.
    """

    common: np.random.Generator
    own: Sequence[np.random.Generator]

    @classmethod
    def of(cls, seed: int, number: int, places: Iterable[int]) -> Chance:
        """By a seed, a batch's number, and the places of its functions in the store."""
        each = [np.random.default_rng((seed, number, int(place), _OWN)) for place in places]
        return cls(np.random.default_rng((seed, number)), each)


_OWN = 1  # the latents' noise of a function is drawn from (seed, number, place) alone

# Points [n] or [B, n] to score of functions [B, N, C], and how many points each counts for (None: N / n).
Drawn = tuple[NDArray[np.int64], NDArray[np.float32] | None]
Draw = Callable[[Floats, Geometry, int, Chance], Drawn]


class DataKind(Protocol):
    """A kind of data, as training sees it."""

    def geometry(self, field: xr.DataArray) -> Geometry:
        """Where the values of a store's array (sample, *grid) stand."""

    def geometry_from_json(self, tree: Mapping[str, Any]) -> Geometry:
        """Read what the geometry's `to_json` wrote."""

    def channels(self, field: xr.DataArray) -> int:
        """Values at a point."""

    def split(
        self,
        field: xr.DataArray,
        *,
        test: float | str,
        train: str | None,
        validation: float,
        blocks: int,
        gap_hours: float,
        seed: int,
    ) -> Split:
        """Which samples train, validate and test, as a config's `split` says.

        Raises:
            ValueError: If that does not suit the data, or leaves nothing to train on.
        """

    def scaling(self, numbers: Statistics, *, bounded: bool) -> Scaling:
        """To the model's units; `bounded` likelihoods want values within [0, 1]."""

    def draw(self, values: Floats, geometry: Geometry, count: int, chance: Chance) -> Drawn:
        """Points of functions [B, N, C] that a training step scores."""

    def unseen(self, field: xr.DataArray, first: str, last: str) -> NDArray[np.int64]:
        """The samples of another store that a model, trained from `first` to `last`, was not trained on."""

    def about(self, geometry: Any) -> dict[str, Any]:  # noqa: ANN401 - the kind's own
        """Facts for the model card."""

    def where(self, geometry: Any) -> str:  # noqa: ANN401
        """Where the values stand, for a sentence."""

    def label(self, sample: Any) -> str:  # noqa: ANN401 - a date or a name
        """How a sample is called."""


KINDS = {
    "sphere": ("pipelines.data.fields", "Fields"),
    "cube": ("pipelines.data.shapes", "Shapes"),
    "plane": ("pipelines.data.images", "Images"),
}


def kind_of(domain: str) -> DataKind:
    """The kind of data that lives on a domain."""
    module, name = KINDS[domain]
    found: DataKind = getattr(import_module(module), name)()
    return found


def evenly(values: Floats, geometry: Geometry, count: int, chance: Chance) -> Drawn:
    """Points that are drawn uniformly, without replacement, the same of every function."""
    return np.sort(chance.common.choice(len(geometry.coords), count, replace=False)), None
