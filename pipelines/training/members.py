"""The law of a member's random field, fitted to the ranks of the truth in the model's own distributions.

Where y(x) is the truth and F the model's distribution there, s(x) = Phi^-1(F(y(x))) is the score that a member's field
would need to be the truth. Its correlation with distance is fitted by a mixture of Gaussian kernels (non-negative least
squares), its correlation with the next sample gives the time scale. Pairs of places count by the product of their
standard deviations, so that members have the scales of the errors in kelvin, not those of the quiet places where next
to nothing is uncertain. How wide members are is fitted before (`pipelines/training/leverage.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from torch.distributions import Normal

from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.data.stream import Index
from pipelines.data.times import hours_since_1970
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipelines.training.leverage import Predicted, fit_leverage, predictions, usual_variance
from pipelines.training.plan import split_of
from pipelines.training.validation import read_samples
from vamoh import VAMoH
from vamoh.leverage import Leverage
from vamoh.random_field import RandomField

Array = NDArray[np.float64]
PAIRS_PER_BIN, BINS, LENGTHS, LARGEST_SPREAD = 4000, 24, 32, 1.5
FITTED_FIELDS, USUAL_FIELDS = 64, 64


def fit_members(folder: Path, store: Store, held: Index) -> None:
    """Add the law of members to a checkpoint.

    Args:
        folder: The checkpoint's.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.
    """
    checkpoint, model = load_checkpoint(folder)
    assert isinstance(model, VAMoH)
    leverage = training_leverage(checkpoint, model, store)
    save_checkpoint(folder, with_members(replace(checkpoint, leverage=leverage), model, store, held), model)


def training_leverage(checkpoint: Checkpoint, model: VAMoH, store: Store) -> Leverage:
    """What is usual in the training samples, which are in the store."""
    plan = checkpoint.plan
    learned = spaced(split_of(plan.config, store).train, USUAL_FIELDS)
    samples = read_samples(store, learned)
    return Leverage(usual=usual_variance(model, samples, plan.downscaling, plan.lattice, seed=plan.config.seed))


def with_members(checkpoint: Checkpoint, model: VAMoH, store: Store, held: Index) -> Checkpoint:
    """The checkpoint with the law of members that held-out samples follow, and without a conformal layer.

    Args:
        checkpoint: With what is usual in its training samples.
        model: Its model.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.
    """
    plan, leverage = checkpoint.plan, checkpoint.leverage
    lattice, seed = plan.lattice, plan.config.seed
    held = spaced(held, FITTED_FIELDS)

    def predicted() -> Iterator[Predicted]:
        return predictions(model, read_samples(store, held), plan.downscaling, lattice, leverage=leverage, seed=seed)

    normal = model.spec.likelihood == "normal"
    fitted = fit_leverage(predicted(), lattice.area, seed=seed) if normal else Leverage()
    scores, hours, weights = normal_scores(predicted(), fitted)
    law = fit_random_field(scores, hours, lattice, seed=seed, weights=weights)
    if leverage is not None:
        fitted = replace(fitted, usual=leverage.usual)
    return replace(checkpoint, random_field=replace(law, spread=1.0), leverage=fitted, calibration=None)


def spaced(index: Index, most: int) -> Index:
    """At most so many positions, evenly spaced, the first and the last among them."""
    return index[np.linspace(0, len(index) - 1, min(most, len(index))).round().astype(int)]


def normal_scores(predicted: Iterable[Predicted], law: Leverage) -> tuple[Array, Array, Array | None]:
    """Scores [T, N] of whole fields, NaN where unobserved, their times [T] in hours, and standard deviations [T, N].

    The last are None where the likelihood is not of normals, for whose range they would say little.
    """
    scores, times, deviations = [], [], []
    for part in predicted:
        stretch = part.stretched_by(law)
        scores.append(part.scores(stretch).numpy())
        times.append(part.times)
        if isinstance(part.mixture.components, Normal):
            deviations.append(part.deviation(stretch).double().numpy())
    weights = np.concatenate(deviations) if deviations else None
    return np.concatenate(scores), hours_since_1970(np.concatenate(times)), weights


def fit_random_field(
    scores: Array, hours: Array, lattice: Lattice, *, seed: int, weights: Array | None = None
) -> RandomField:
    """The law whose correlations are those of the scores.

    Args:
        scores: [T, N].
        hours: [T], ascending.
        lattice: Where the N points are.
        seed: Of the pairs that are compared.
        weights: [T, N], how much each score counts in the correlations with distance; all alike by default.
    """
    spread = np.sqrt(_mean_over_area(scores**2, lattice))
    distance, correlation, count = correlogram(
        scores, np.ones_like(scores) if weights is None else weights, lattice, seed
    )
    shortest = 0.5 * lattice.spacing_rad
    lengths = np.geomspace(shortest, 0.7, LENGTHS)
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


def correlogram(scores: Array, weights: Array, lattice: Lattice, seed: int) -> tuple[Array, Array, Array]:
    """Mean distance, correlation and number of pairs in bins of distance.

    Each bin's correlation is in units of the scores of its own pairs: scores are a little larger in one part of a
    region than in another, and so are the distances between neighbours; a variance of the whole would make of that a
    correlation below one at distance zero, and members rough.

    Args:
        scores: [T, N], NaN where unobserved.
        weights: [T, N], how much each counts.
        lattice: Where the N points are.
        seed: Of the pairs.
    """
    rng, coords = np.random.default_rng(seed), lattice.coords
    first = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    second = rng.choice(len(coords), 40 * PAIRS_PER_BIN, p=lattice.area)
    near = cKDTree(coords).query(coords[first], k=min(24, len(coords)))[1]
    second = np.where(
        rng.random(len(first)) < 0.5, near[np.arange(len(first)), rng.integers(near.shape[1], size=len(first))], second
    )
    distance = np.linalg.norm(coords[first] - coords[second], axis=1)
    edges = np.geomspace(0.5 * lattice.spacing_rad, max(distance.max(), lattice.spacing_rad), BINS + 1)
    weights = np.where(np.isfinite(scores), weights, 0.0)
    scores = np.where(np.isfinite(scores), scores, 0.0)
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = np.flatnonzero((distance > low) & (distance <= high))[:PAIRS_PER_BIN]
        here, there = scores[:, first[chosen]], scores[:, second[chosen]]
        weight = weights[:, first[chosen]] * weights[:, second[chosen]]
        variance = np.sqrt((weight * here**2).sum() * (weight * there**2).sum())
        if variance > 0:
            rows.append((distance[chosen].mean(), (weight * here * there).sum() / variance, len(chosen)))
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
