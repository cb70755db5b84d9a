r"""Statistics of a field in one pass over its Dask blocks; they travel in the store and in every checkpoint.

With a weight w_i for each observed value (the cosine of its latitude: the area that it stands for),

    mean = sum_i w_i y_i / sum_i w_i        std^2 = sum_i w_i (y_i - mean)^2 / sum_i w_i

Blocks are summed apart and merged pairwise, in float64:

    S = S_a + S_b + (mean_b - mean_a)^2 W_a W_b / (W_a + W_b)

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, TypeVar

import dask
import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

Numbers = TypeVar("Numbers")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is known of a field's values, in its own units.

    Attributes:
        mean: area-weighted mean of the observed values.
        std: area-weighted standard deviation of the observed values.
        minimum: the smallest observed value.
        maximum: the largest observed value.
        count: how many values are observed.
        missing: how many are not (NaN).
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    count: int
    missing: int

    def normalize(self, values: Numbers) -> Numbers:
        """Bring values (a number, array or tensor) to mean 0 and standard deviation 1.

        >>> Statistics(mean=280.0, std=10.0, minimum=250.0, maximum=310.0, count=2, missing=0).normalize(300.0)
        2.0
        """
        shifted: Any = values
        return (shifted - self.mean) / self.std

    def denormalize(self, values: Numbers) -> Numbers:
        """Bring normalized values back to the field's own units."""
        scaled: Any = values
        return scaled * self.std + self.mean

    def to_json(self) -> str:
        """Write as JSON; what is not finite is null."""
        plain = {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Statistics:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {key: math.nan if value is None else value for key, value in json.loads(text).items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over some of a field's values, to be merged with those over the others.

    Attributes:
        weight: sum of the weights of the observed values.
        mean: their weighted mean.
        squares: weighted sum of squared deviations from that mean.
        minimum: the smallest observed value, inf if there is none.
        maximum: the largest observed value, -inf if there is none.
        count: how many are observed.
        missing: how many are not.
    """

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    count: int = 0
    missing: int = 0

    def merge(self, other: Moments) -> Moments:
        """Give the moments of both sets of values together."""
        weight = self.weight + other.weight
        step = other.mean - self.mean
        share = other.weight / weight if weight > 0.0 else 0.0
        return Moments(
            weight=weight,
            mean=self.mean + step * share,
            squares=self.squares + other.squares + step**2 * self.weight * share,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            count=self.count + other.count,
            missing=self.missing + other.missing,
        )

    def statistics(self) -> Statistics:
        """Give mean, standard deviation and range; NaN where nothing was observed."""
        seen = self.weight > 0.0
        return Statistics(
            mean=self.mean if seen else math.nan,
            std=math.sqrt(self.squares / self.weight) if seen else math.nan,
            minimum=self.minimum if self.count else math.nan,
            maximum=self.maximum if self.count else math.nan,
            count=self.count,
            missing=self.missing,
        )


def area_weights(field: xr.DataArray) -> NDArray[np.float64]:
    """Give the weight of each value of one sample, broadcastable to it: cos(latitude), or 1 without a latitude.

    Args:
        field: (sample, *grid).

    Returns:
        One axis for each axis of the grid; size 1 where the weight does not depend on it.
    """
    grid = field.dims[1:]
    if "latitude" not in grid:
        return np.ones((1,) * len(grid))
    # A pole row stands for no area, but its values are observed: clipped only against rounding below zero.
    weights = np.cos(np.deg2rad(field["latitude"].values.astype(np.float64))).clip(min=0.0)
    return weights.reshape([-1 if dim == "latitude" else 1 for dim in grid])


def block_moments(block: NDArray[Any], weights: NDArray[np.float64]) -> Moments:
    """Sum over one block of whole samples, one sample at a time so that float64 copies stay small.

    Args:
        block: (sample, *grid).
        weights: broadcastable to one sample.
    """
    spread = np.broadcast_to(weights, block.shape[1:])
    return reduce(Moments.merge, (_sample_moments(sample, spread) for sample in block), Moments())


def _sample_moments(sample: NDArray[Any], weights: NDArray[np.float64]) -> Moments:
    observed = ~np.isnan(sample)
    count = int(np.count_nonzero(observed))
    if count == 0:
        return Moments(missing=sample.size)
    complete = count == sample.size
    values = (sample if complete else sample[observed]).astype(np.float64).ravel()
    seen = (weights if complete else weights[observed]).ravel()
    weight = float(seen.sum())
    mean = float(seen @ values) / weight if weight > 0.0 else 0.0
    return Moments(
        weight=weight,
        mean=mean,
        squares=float(seen @ (values - mean) ** 2),
        minimum=float(values.min()),
        maximum=float(values.max()),
        count=count,
        missing=sample.size - count,
    )


def statistics(field: xr.DataArray) -> Statistics:
    """Take the statistics of a field in one pass over its blocks.

    Args:
        field: (sample, *grid), Dask or NumPy; NaN where unobserved; weighted by the cosine of `latitude` if it has one.

    Returns:
        Statistics in the field's own units.
    """
    weights = area_weights(field)
    blocks = dask.array.asarray(field.data).rechunk({axis: -1 for axis in range(1, field.ndim)}).to_delayed().ravel()
    partial = dask.compute(*(dask.delayed(block_moments)(block, weights) for block in blocks))
    return reduce(Moments.merge, partial, Moments()).statistics()
