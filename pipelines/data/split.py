"""Which samples train, validate and test: contiguous in time, because neighbouring hours are nearly the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.times import hours_since_1970, label, span_slice

Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Positions along the sample axis, sorted; disjoint.

    Attributes:
        train, validation, test: [n] positions each.
    """

    train: Index
    validation: Index
    test: Index

    def named(self, name: str) -> Index:
        """The positions of one part.

        Raises:
            ValueError: If there is no such part, or it is empty.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in parts:
            raise ValueError(f"a split is train, validation, test or all, got {name!r}")
        if not len(parts[name]):
            raise ValueError(f"the {name} split is empty: change `split` in the config, or use another split")
        return parts[name]


def split_samples(
    times: NDArray[Any],
    *,
    test: float | str,
    train: str | None,
    validation: float,
    blocks: int,
    gap_hours: float,
) -> Split:
    """Split samples along time.

    Args:
        times: [T] strictly increasing dates.
        test: A fraction taken from the end, or a span (both days included).
        train: A span, or None for all that is left and at least `gap_hours` away from the test span.
        validation: The fraction of the training samples that is held out, in `blocks` blocks spread over them.
        blocks: How many blocks.
        gap_hours: Between training and test samples.

    Raises:
        ValueError: If nothing is left to train on, or train and test overlap.
    """
    everything = np.arange(len(times))
    if isinstance(test, str):
        held = everything[span_slice(times, test)]
        if not len(held):
            raise ValueError(f"the test span {test} holds no sample: the store covers {_span(times)}")
    else:
        held = everything[len(times) - round(test * len(times)) :]
    rest = everything[span_slice(times, train)] if train is not None else np.setdiff1d(everything, held)
    if np.intersect1d(rest, held).size:
        raise ValueError("the training and test spans overlap: change split.train or split.test")
    if train is None and len(held):
        hours = hours_since_1970(times)
        rest = rest[(hours[rest] <= hours[held[0]] - gap_hours) | (hours[rest] >= hours[held[-1]] + gap_hours)]
    if not len(rest):
        raise ValueError(
            f"no sample is left to train on: the store covers {_span(times)}; change `split` in the config"
        )
    each = round(validation * len(rest) / blocks)
    if validation and len(rest) > blocks:
        each = max(1, each)
    each = min(each, (len(rest) - 1) // blocks)  # something is left to train on
    middles = (np.arange(blocks) + 0.5) * len(rest) / blocks
    chosen = np.unique(np.concatenate([np.arange(each) + int(m - each / 2) for m in middles]).astype(np.int64))
    return Split(train=np.delete(rest, chosen), validation=rest[chosen], test=held)


def _span(times: NDArray[Any]) -> str:
    return f"{label(times[0])} to {label(times[-1])}, {len(times)} samples"
