"""The law of a member's random field, fitted to the ranks of the truth in the model's own distributions.

Where y(x) is the truth and F the model's distribution there, s(x) = Phi^-1(F(y(x))) is the score that a member's field
would need to be the truth. Its correlation with distance is fitted by a mixture of Gaussian kernels (non-negative least
squares), its correlation with the next sample gives the time scale, its standard deviation says whether the model is
too sure of itself. Tails weigh much in that, so members are given the spread with which they score best (CRPS) instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from pipelines.data.batches import Framing
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.data.stream import Index, Samples
from pipelines.data.times import hours_since_1970
from pipelines.training.checkpoint import load_checkpoint, save_checkpoint
from pipelines.training.validation import ensemble_crps, predict, read_samples
from vamoh import VAMoH
from vamoh.random_field import RandomField, normal_cdf

Array = NDArray[np.float64]
PAIRS_PER_BIN, BINS, LARGEST_SPREAD = 4000, 24, 1.5
SPREADS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
SPREAD_POINTS, SPREAD_LEVELS = 2000, 16
FITTED_FIELDS = 64


def fit_members(folder: Path, store: Store, held: Index) -> None:
    """Add the law of members to a checkpoint.

    Args:
        folder: The checkpoint's.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.
    """
    checkpoint, model = load_checkpoint(folder)
    held = held[np.linspace(0, len(held) - 1, min(FITTED_FIELDS, len(held))).round().astype(int)]
    framing, lattice, seed = checkpoint.plan.framing, checkpoint.plan.lattice, checkpoint.plan.config.seed
    scores, hours = normal_scores(model, read_samples(store, held), framing, lattice, seed=seed)
    law = replace(
        fit_random_field(scores, hours, lattice, seed=seed),
        spread=fit_spread(model, read_samples(store, held), framing, lattice, seed=seed),
    )
    save_checkpoint(folder, replace(checkpoint, random_field=law), model)


@torch.no_grad()
def normal_scores(
    model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int
) -> tuple[Array, Array]:
    """Scores [T, N] of whole fields, NaN where unobserved, and their times [T] in hours."""
    framing = replace(framing, points=0)
    scores, times = [], []
    for number, part in enumerate(samples):
        batch = framing.training(part.fields, part.times, lattice, np.random.default_rng((seed, number))).batch
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator)
        level = predict(model, batch, noise).cdf(batch.values)[..., 0].double().clamp(1e-6, 1 - 1e-6)
        score = torch.special.ndtri(level)
        scores.append(torch.where(batch.mask, score, torch.nan).numpy())
        times.append(part.times)
    return np.concatenate(scores), hours_since_1970(np.concatenate(times))


@torch.no_grad()
def fit_spread(model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int) -> float:
    """The spread of `SPREADS` with the least CRPS, over points drawn by area from each field."""
    sampled = replace(framing, points=min(SPREAD_POINTS, len(lattice.coords)))
    standard = torch.special.ndtri((torch.arange(SPREAD_LEVELS) + 0.5) / SPREAD_LEVELS)
    sums = torch.zeros(len(SPREADS), dtype=torch.float64)
    for number, part in enumerate(samples):
        batch = sampled.training(part.fields, part.times, lattice, np.random.default_rng((seed, number))).batch
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator)
        mixture = predict(model, batch, noise)
        for place, spread in enumerate(SPREADS):
            levels = normal_cdf(spread * standard)
            members = torch.stack([mixture.quantile(torch.full_like(batch.values, float(v))) for v in levels])
            crps = ensemble_crps(members, batch.values)[..., 0]
            sums[place] += torch.where(batch.mask, crps, 0.0).sum().double()
    return SPREADS[int(sums.argmin())]


def fit_random_field(scores: Array, hours: Array, lattice: Lattice, *, seed: int) -> RandomField:
    """The law whose correlations are those of the scores.

    Args:
        scores: [T, N].
        hours: [T], ascending.
        lattice: Where the N points are.
        seed: Of the pairs that are compared.
    """
    spread = np.sqrt(_mean_over_area(scores**2, lattice))
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
        time_scale=_time_scale(scores, hours, lattice),
        spread=float(np.clip(spread, 1 / LARGEST_SPREAD, LARGEST_SPREAD)),
    )


def _correlogram(scores: Array, lattice: Lattice, seed: int) -> tuple[Array, Array, Array]:
    """Mean distance, correlation and number of pairs in bins of distance."""
    rng, coords = np.random.default_rng(seed), lattice.coords
    first = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    second = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    near = cKDTree(coords).query(coords[first], k=min(24, len(coords)))[1]
    second = np.where(
        rng.random(len(first)) < 0.5, near[np.arange(len(first)), rng.integers(near.shape[1], size=len(first))], second
    )
    distance = np.linalg.norm(coords[first] - coords[second], axis=1)
    edges = np.geomspace(0.5 * lattice.spacing_rad, max(distance.max(), lattice.spacing_rad), BINS + 1)
    variance = _mean_over_area(scores**2, lattice)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = np.flatnonzero((distance > low) & (distance <= high))[:PAIRS_PER_BIN]
        product = scores[:, first[chosen]] * scores[:, second[chosen]]
        if np.isfinite(product).any():
            rows.append((distance[chosen].mean(), np.nanmean(product) / variance, len(chosen)))
    if not rows:
        return np.array([lattice.spacing_rad]), np.array([0.0]), np.array([1.0])
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _mean_over_area(values: Array, lattice: Lattice) -> float:
    """The mean of [T, N] over what is not NaN, weighted by area."""
    seen = np.isfinite(values)
    return float((np.where(seen, values, 0.0) * lattice.area).sum() / (seen * lattice.area).sum())


def _time_scale(scores: Array, hours: Array, lattice: Lattice) -> float:
    """tau of exp(-dt^2 / 2 tau^2) from neighbouring samples; a member goes on through at least a quarter of a step."""
    steps = np.diff(hours)
    if not len(steps):
        return 1.0
    usual = np.median(steps)
    pairs = np.flatnonzero(np.abs(steps - usual) < 0.5 * usual)
    correlation = _mean_over_area(scores[pairs] * scores[pairs + 1], lattice) / _mean_over_area(scores**2, lattice)
    if not correlation > 1e-3:
        return float(0.25 * usual)
    return float(usual / np.sqrt(-2 * np.log(min(float(correlation), 0.9999))))
