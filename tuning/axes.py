"""A searched key as an axis of a chart: where a value stands on it, and what is written there.

Positions are within [0, 1]: in the order of the file for a choice, along the range (or its logarithm) for numbers. A
conditional key has a place of its own, `ABSENT`, below the axis, for trials to which it does not apply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuning.dimension import Dimension
from tuning.record import SweepRecord
from tuning.wording import short_names, value_text

ABSENT = -0.14
NOT_APPLICABLE = "n/a"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched key.

    Attributes:
        key: As in the config.
        label: Its last part, where that names it.
        dimension: What was searched.
        conditional: Some trials have no value of it.
    """

    key: str
    label: str
    dimension: Dimension
    conditional: bool

    def position(self, values: Mapping[str, Any]) -> float:
        """Where a trial's value stands; rounding moves none beyond an end."""
        if self.key not in values:
            return ABSENT
        value, ends = values[self.key], self.dimension.ends
        if self.dimension.kind == "choice":
            choices = [_canonical(choice) for choice in ends]
            return choices.index(_canonical(value)) / (len(choices) - 1) if len(choices) > 1 else 0.5
        low, high = ends
        if low == high:
            return 0.5
        log = self.dimension.kind == "log"
        place = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return min(1.0, max(0.0, place))

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Positions and what is written there."""
        if self.dimension.kind == "choice":
            chosen = [(self.position({self.key: value}), value_text(value)) for value in self.dimension.ends]
        else:
            chosen = [(self.position({self.key: value}), value_text(value)) for value in self._round_values(most)]
        return [*([(ABSENT, NOT_APPLICABLE)] if self.conditional else []), *chosen]

    def cells(self, most: int = 10) -> list[tuple[float, float, str]]:
        """Intervals of positions that hold every value, first to last, and what each is called.

        Args:
            most: Single values have a cell each where there are no more of them; ranges are cut into six.
        """
        single = self._single_values(most)
        if single is not None:
            places = [self.position({self.key: value}) for value in single]
            edges = [
                -0.05,
                *((low + high) / 2 for low, high in zip(places[:-1], places[1:], strict=True)),
                1.05,
            ]
            names = [value_text(value) for value in single]
        else:
            edges = [-0.05, *(step / 6 for step in range(1, 6)), 1.05]
            names = self._interval_names()
        cells = list(zip(edges[:-1], edges[1:], names, strict=True))
        return [*([(2 * ABSENT, -0.05, NOT_APPLICABLE)] if self.conditional else []), *cells]

    def _single_values(self, most: int) -> list[Any] | None:
        if self.dimension.kind == "choice":
            return list(self.dimension.ends)
        if self.dimension.kind == "int" and self.dimension.ends[1] - self.dimension.ends[0] < most:
            return self.dimension.all()
        return None

    def _interval_names(self) -> list[str]:
        low, high = self.dimension.ends
        if self.dimension.kind == "int":
            # Position 1/6 lies between whole numbers, or on the upper one of a cell.
            starts = [low, *(math.ceil(low + (high - low) * step / 6) for step in range(1, 6)), high + 1]
            pairs = zip(starts[:-1], starts[1:], strict=True)
            return [f"{first}–{last - 1}" if last - 1 > first else f"{first}" for first, last in pairs]
        if self.dimension.kind == "log":
            bounds = [low * (high / low) ** (step / 6) for step in range(7)]
        else:
            bounds = [low + (high - low) * step / 6 for step in range(7)]
        return [f"{value_text(a)}–{value_text(b)}" for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def _round_values(self, most: int) -> list[Any]:
        """Values worth a tick on a range: both ends, and what is round between them."""
        low, high = self.dimension.ends
        if low == high:
            return [low]
        if self.dimension.kind == "log":
            tens = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
            inner = [ten for ten in tens if low * 1.5 < ten < high / 1.5][: most - 2]
        else:
            size = (high - low) / (most - 1)
            step = next(
                (unit for unit in (m * 10.0 ** math.floor(math.log10(size)) for m in (1, 2, 5)) if unit >= size),
                10 ** (math.floor(math.log10(size)) + 1),
            )
            step = max(1, round(step)) if self.dimension.kind == "int" else step
            first = math.floor(low / step) + 1
            inner = [step * number for number in range(first, math.ceil(high / step))]
            inner = [value for value in inner if low + 0.4 * step < value < high - 0.4 * step]
        return [low, *inner, high]


def axes_of(record: SweepRecord) -> list[Axis]:
    """The searched keys, in the order of the file."""
    search = record.space.get("search", {})
    names = short_names(list(search))
    return [
        Axis(
            key=key,
            label=names[key],
            dimension=Dimension.model_validate(tree),
            conditional=bool(tree.get("when")),
        )
        for key, tree in search.items()
    ]


def _canonical(value: Any) -> str:  # noqa: ANN401 - whatever a config holds
    return json.dumps(value, sort_keys=True)
