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


def split_named(
    named: NDArray[Any] | None, count: int, *, test: float | str, train: str | None, validation: float, seed: int
) -> Split:
    """Split samples that have no order: as the data's own names say, else at random.

    Args:
        named: [count] "train", "validation" or "test", or None where the data do not say. Where none is called
            "validation", a part of "train" is drawn; likewise the test.
        count: Samples.
        test, validation: Fractions: of all the samples, and of those left to train on.
        train: None; only times have spans.
        seed: Of the draws.

    Raises:
        ValueError: If a span is given, a name is another one, or nothing is left to train on.
    """
    if train is not None or isinstance(test, str):
        raise ValueError("split.train and split.test are spans of time: these samples have none; give a fraction")
    names = np.full(count, "train", dtype=object) if named is None else np.asarray(named).astype(object)
    unknown = sorted(set(map(str, names)) - {"train", "validation", "test"})
    if unknown:
        raise ValueError(f"the coordinate `split` holds {unknown[0]!r}: train, validation and test are known")
    rng = np.random.default_rng([seed, 0x5117])  # the same draws whatever else the seed is used for
    rest = rng.permutation(np.flatnonzero(names == "train"))
    parts = {}
    for name, fraction in (("test", test), ("validation", validation)):
        held = np.flatnonzero(names == name)
        if not len(held):
            number = min(round(fraction * len(rest)), len(rest) - 1)
            held, rest = rest[: max(number, 0)], rest[max(number, 0) :]
        parts[name] = np.sort(held)
    if not len(rest):
        raise ValueError(f"no sample is left to train on: none of {count} is called 'train'")
    return Split(train=np.sort(rest), validation=parts["validation"], test=parts["test"])
