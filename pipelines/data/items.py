"""What shapes and pictures have in common as kinds of data: samples are items with names, values fill a box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.data.domain import Chance, Drawn, Floats, Geometry, evenly
from pipelines.data.split import Split, split_named

MARK = "split"  # a store's coordinate along its samples that says what each is for: train, validation or test


class Items:
    """See `DataKind`; what is particular to shapes and to pictures stands with them."""

    def geometry_from_json(self, tree: Mapping[str, Any]) -> Box:
        """The box of a checkpoint."""
        return Box.from_json(tree)

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
        """As the store marks its items, else at random by the seed; `blocks` and `gap_hours` are of times.

        Raises:
            ValueError: If a span of time is given, or nothing is left to train on.
        """
        marks = field[MARK].values if MARK in field.coords else None
        return split_named(marks, field.shape[0], test=test, train=train, validation=validation, seed=seed)

    def draw(self, values: Floats, geometry: Geometry, count: int, chance: Chance) -> Drawn:
        """Uniformly."""
        return evenly(values, geometry, count, chance)

    def unseen(self, field: xr.DataArray, first: str, last: str) -> NDArray[np.int64]:
        """All: names do not say what was seen."""
        return np.arange(field.shape[0])

    def about(self, geometry: Box) -> dict[str, Any]:
        """Nothing more than the shape."""
        return {}

    def where(self, geometry: Box) -> str:
        """The box."""
        return f"a box of {' x '.join(map(str, geometry.shape))} cells"

    def label(self, sample: Any) -> str:  # noqa: ANN401 - text or a number
        """Its name."""
        return str(sample)
