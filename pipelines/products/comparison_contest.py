"""What models of a kind of data are asked in a comparison, behind one Protocol; one module a kind answers to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.domain import Geometry, kind_of
from pipelines.data.store import Store
from pipelines.products.comparison_entry import Entry
from pipelines.products.comparison_metrics import Scores
from vamoh.model import Posterior

MOST_SAMPLES = 1_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """What all models are compared on.

    Attributes:
        truth: The functions that are scored (sample, *grid), in the store's units.
        training: Functions that were learned from, on the same grid; None where they are not known.
        geometry: Of both.
        members: Draws for a score of a distribution.
        factor: Every so many-th point along both axes is seen where a field is downscaled.
        seed: Of all draws.
    """

    truth: xr.DataArray
    training: xr.DataArray | None
    geometry: Geometry
    members: int
    factor: int
    seed: int

    @property
    def number(self) -> int:
        """Of new functions."""
        return min(len(self.truth), MOST_SAMPLES)

    def flat(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Functions as [n, N C]."""
        return np.asarray(values, np.float32).reshape(len(values), -1)


@dataclass
class Row:
    """What was measured of a model: scores by metric, and why others are missing."""

    scores: Scores = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class Contest(Protocol):
    """A kind of data, as models of it are compared.

    Attributes:
        metrics: What is measured beside the cost, in the table's order.
        told: Plain facts on how: what was hidden, on which features.
        units: Of the values.
    """

    metrics: Sequence[str]
    told: Mapping[str, str]
    units: str

    def seen(self, entry: Entry, found: Posterior) -> Scores:
        """Scores of reconstructions from what was inferred of whole functions (bits excepted)."""

    def unseen(self, entry: Entry) -> Scores:
        """Scores of what was not seen."""

    def new(self, entry: Entry) -> Row:
        """Scores of new functions."""

    def downscaled(self, entry: Entry) -> Scores:
        """Scores of a model that downscales."""

    def references(self) -> dict[str, Scores]:
        """What can be had without a model."""

    def figures(self, entries: Sequence[Entry]) -> list[tuple[str, str, Figure]]:
        """Title, caption and figure, for the page."""


CONTESTS: Mapping[str, tuple[str, str]] = {
    "sphere": ("pipelines.products.comparison_fields", "FieldContest"),
    "cube": ("pipelines.products.comparison_shapes", "ShapeContest"),
    "plane": ("pipelines.products.comparison_pictures", "PictureContest"),
}


def contest_of(
    store: Store,
    chosen: NDArray[np.int64],
    learned: NDArray[np.int64] | None,
    *,
    members: int,
    factor: int,
    seed: int,
) -> Contest:
    """The contest on some samples of a store.

    Args:
        store, chosen: The samples to score.
        learned: Those that were learned from; None where they are not known.
        members, factor, seed: See `Data`.
    """
    first = str(store.field.dims[0])
    data = Data(
        truth=store.field.isel({first: chosen}).load(),
        training=None if learned is None else store.field.isel({first: learned}).load(),
        geometry=kind_of(store.domain).geometry(store.field),
        members=members,
        factor=factor,
        seed=seed,
    )
    module, name = CONTESTS[store.domain]
    found: Contest = getattr(import_module(module), name)(data)
    return found
