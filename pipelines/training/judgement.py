"""Whether a model's members are as wide as its errors, by the distributions that they are drawn from.

No member is drawn: the quantiles of each place's distribution, stretched and calibrated as members are, give the CRPS
of 32 equal steps, its spread, and whether the truth lies in the central 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.data.store import Store
from pipelines.data.stream import Index
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.leverage import Predicted, predictions, stretched
from pipelines.training.validation import ensemble_crps, read_samples
from vamoh import VAMoH

LEVELS, NODES = 32, 15
SURE = 0.9
JUDGED_POINTS = 8000  # of a field: all, or so many drawn by area


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What held-out samples say of members.

    Attributes:
        coverage_90: Of the central 90 %.
        spread_skill: The members' standard deviation over the error of their mean.
        crps: Kelvin.
    """

    coverage_90: float
    spread_skill: float
    crps: float


def judge(checkpoint: Checkpoint, model: VAMoH, store: Store, held: Index) -> Judgement:
    """Compare members with held-out samples.

    Args:
        checkpoint: With the laws of members.
        model: Its model.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.
    """
    return mean_of([sums_of(checkpoint, model, store, held)], checkpoint.plan.scaling.scale)


def mean_of(sums: Iterable[Tensor], scale: float) -> Judgement:
    """The judgement of samples whose sums these are, with values in units of `scale` kelvin."""
    total = torch.stack(list(sums)).sum(dim=0)
    inside, spread, error, crps = (total[:4] / total[4].clamp_min(1e-12)).tolist()
    return Judgement(
        coverage_90=inside, spread_skill=math.sqrt(spread / error) if error else math.inf, crps=crps * scale
    )


@torch.no_grad()
def sums_of(checkpoint: Checkpoint, model: VAMoH, store: Store, held: Index) -> Tensor:
    """Sums over samples [5], float64: inside, variance, squared error, CRPS, and how much was seen, by area."""
    plan = checkpoint.plan
    parts = predictions(
        model,
        read_samples(store, held),
        plan.downscaling,
        plan.lattice,
        leverage=checkpoint.leverage,
        seed=plan.config.seed,
    )
    area = plan.lattice.area
    sums = torch.zeros(5, dtype=torch.float64)
    for number, part in enumerate(parts):
        if len(area) <= JUDGED_POINTS:
            sums += _sums(checkpoint, part) @ torch.from_numpy(area)
            continue
        rng = np.random.default_rng((plan.config.seed, number))
        index = torch.from_numpy(rng.choice(len(area), JUDGED_POINTS, p=area))
        sums += _sums(checkpoint, part.at(index)).mean(dim=-1)
    return sums


def _sums(checkpoint: Checkpoint, part: Predicted) -> Tensor:
    """The same for every place, [5, N], summed over a few samples."""
    law, map_of = checkpoint.leverage, checkpoint.calibration
    wide = 1.0 if checkpoint.random_field is None else checkpoint.random_field.spread
    stretch = torch.ones_like(part.values) if law is None else part.stretched_by(law)

    def given(scores: Tensor) -> Tensor:
        return wide * scores if map_of is None else map_of(wide * scores)

    def at(scores: Tensor) -> Tensor:
        """Quantiles [n, B, N] at scores [n]."""
        asked = [torch.full_like(part.values, float(score))[..., None] for score in given(scores)]
        return torch.stack([stretched(part.mixture, part.mixture.at_score(each), stretch)[..., 0] for each in asked])

    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(NODES))
    weights = (weights / weights.sum())[:, None, None]
    drawn = at(nodes).double()
    mean = (weights * drawn).sum(dim=0)
    variance = (weights * (drawn - mean) ** 2).sum(dim=0)
    level = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    crps = ensemble_crps(at(torch.special.ndtri(level)).double(), part.values.double())
    edge = given(torch.special.ndtri(torch.tensor([(1 + SURE) / 2], dtype=torch.float64)))
    inside = (part.scores(stretch).abs() <= edge).double()
    error = (part.values.double() - mean) ** 2
    each = torch.stack([inside, variance, error, crps, torch.ones_like(crps)])
    return torch.where(part.seen, each, 0.0).sum(dim=1)
