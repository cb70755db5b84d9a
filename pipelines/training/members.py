"""The law of a member's random field, fitted to the ranks of the truth in the model's own distributions.

Where y(x) is the truth and F the model's distribution there, s(x) = Phi^-1(F(y(x))) is the score that a member's field
would need to be the truth. Its correlation with distance is fitted by a mixture of Gaussian kernels (non-negative least
squares), its correlation with the next sample gives the time scale, and its standard deviation is the spread: above one
where the model is too sure of itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from pipelines.data.batches import Framing
from pipelines.data.sphere import Lattice
from pipelines.data.stream import Samples
from pipelines.training.step import predict
from vamoh import VAMoH
from vamoh.random_field import RandomField

Array = NDArray[np.float64]
PAIRS_PER_BIN, BINS, LARGEST_SPREAD = 4000, 24, 1.5


@torch.no_grad()
def normal_scores(model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int) -> tuple[Array, Array]:
    """Scores [T, N] of whole fields, NaN where unobserved, and their times [T] in hours since the first."""
    framing = Framing(scaling=framing.scaling, factors=framing.factors, points=0, bounded=framing.bounded)
    scores, times = [], []
    for number, part in enumerate(samples):
        batch, _ = framing.training(part.fields, part.times, lattice, np.random.default_rng((seed, number)))
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator)
        level = predict(model, batch, noise).cdf(batch.values)[..., 0].double().clamp(1e-6, 1 - 1e-6)
        score = torch.special.ndtri(level)
        scores.append(torch.where(batch.mask, score, torch.nan).numpy())
        times.append(part.times)
    stamps = np.concatenate(times)
    return np.concatenate(scores), np.array([_hours(stamp - stamps[0]) for stamp in stamps])


def fit_random_field(scores: Array, hours: Array, lattice: Lattice, *, seed: int) -> RandomField:
    """The law whose correlations are those of the scores.

    Args:
        scores: [T, N].
        hours: [T], ascending.
        lattice: Where the N points are.
        seed: Of the pairs that are compared.
    """
    spread = float(np.sqrt(np.nanmean(scores**2 * lattice.area) / np.mean(lattice.area)))
    distance, correlation, count = _correlogram(scores, lattice, seed)
    shortest = 0.5 * lattice.spacing_rad
    lengths = np.geomspace(shortest, 0.7, 16)
    kernels = np.exp(-(distance[:, None] ** 2) / (2 * lengths**2))
    root = np.sqrt(count)[:, None]
    # One heavy row says that at distance zero the correlation is one: the shares sum to one.
    design = np.vstack([kernels * root, np.full((1, len(lengths)), 1e3 * root.max())])
    weights, _ = nnls(design, np.append(correlation * root[:, 0], 1e3 * root.max()))
    kept = weights > 1e-3
    return RandomField(
        lengths=tuple(lengths[kept].tolist()),
        weights=tuple((weights[kept] / weights[kept].sum()).tolist()),
        time_scale=_time_scale(scores, hours),
        spread=float(np.clip(spread, 1 / LARGEST_SPREAD, LARGEST_SPREAD)),
    )


def _correlogram(scores: Array, lattice: Lattice, seed: int) -> tuple[Array, Array, Array]:
    """Mean distance, correlation and number of pairs in bins of distance."""
    rng, coords = np.random.default_rng(seed), lattice.coords
    first = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    second = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    near = cKDTree(coords).query(coords[first], k=min(24, len(coords)))[1]
    second = np.where(rng.random(len(first)) < 0.5, near[np.arange(len(first)), rng.integers(near.shape[1], size=len(first))], second)
    distance = np.linalg.norm(coords[first] - coords[second], axis=1)
    edges = np.geomspace(0.5 * lattice.spacing_rad, max(distance.max(), lattice.spacing_rad), BINS + 1)
    variance = np.nanmean(scores**2)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = np.flatnonzero((distance > low) & (distance <= high))[:PAIRS_PER_BIN]
        product = scores[:, first[chosen]] * scores[:, second[chosen]]
        if np.isfinite(product).any():
            rows.append((distance[chosen].mean(), np.nanmean(product) / variance, len(chosen)))
    if not rows:
        return np.array([lattice.spacing_rad]), np.array([0.0]), np.array([1.0])
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _time_scale(scores: Array, hours: Array) -> float:
    """tau of exp(-dt^2 / 2 tau^2) from neighbouring samples; a member goes on through at least a quarter of a step."""
    steps = np.diff(hours)
    if not len(steps):
        return 1.0
    usual = np.median(steps)
    pairs = np.flatnonzero(np.abs(steps - usual) < 0.5 * usual)
    correlation = np.nanmean(scores[pairs] * scores[pairs + 1]) / np.nanmean(scores**2)
    if not correlation > 1e-3:
        return float(0.25 * usual)
    return float(usual / np.sqrt(-2 * np.log(min(correlation, 0.9999))))


def _hours(step: object) -> float:
    return float(step / np.timedelta64(1, "s")) / 3600 if isinstance(step, np.timedelta64) else step.total_seconds() / 3600  # type: ignore[attr-defined]
