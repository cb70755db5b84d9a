"""How much wider members have to be than the residuals of training say: fitted on held-out times.

A model's residuals on times that it learned from are too small, and smallest where the weather was most unlike the
rest. So held-out times are explained by the other parts of the training time alone (`pipelines/data/background.py`),
and the three numbers that make a variance of how strange the state is and of what the model says
(`vamoh/leverage.py`) are those with the best scaled CRPS there, every place counting by its standard deviation.

How much a model knows of one day's variance beyond what is usual at a place is not asked of held-out times: its
network learned the hours beside them, and a day that was learned by heart is known by its neighbours too. Fitted there
it is 0.5; in weeks of which nothing was learned 0.2 to 0.35, and what is promised with 0.5 holds too little of the
truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import Normal

from pipelines.data.batches import Framing
from pipelines.data.domain import Chance
from pipelines.data.sphere import Lattice
from pipelines.data.stream import Samples
from pipelines.training.validation import predict
from vamoh import VAMoH
from vamoh.leverage import Leverage
from vamoh.likelihoods import Mixture

FITTED_POINTS = 2000
LOG_RANGE = (-8.0, 8.0)
LEAST_EXPONENT = 0.5  # and at most one: loud places may be held for less loud, not for louder
TRUST = 0.25  # in what a model says of a place's variance beyond what is usual there


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What a model says of a few held-out fields.

    Attributes:
        mixture: Over [B, N, 1].
        values: [B, N], the truth in the model's units.
        seen: [B, N], where there is one.
        leverage: [B, N], how far the states lie from those of training.
        usual: [N], the usual variance; None where nothing is.
        times: [B].
    """

    mixture: Mixture
    values: Tensor
    seen: Tensor
    leverage: Tensor
    usual: Tensor | None
    times: NDArray[Any]

    def at(self, index: Tensor) -> Predicted:
        """The same of some places [n]; components must be normal."""
        mean, scale = (part[:, :, index] for part in (self.mixture.components.mean, self.mixture.components.stddev))
        return Predicted(
            mixture=Mixture(self.mixture.logits[:, index], Normal(mean, scale, validate_args=False)),
            values=self.values[:, index],
            seen=self.seen[:, index],
            leverage=self.leverage[:, index],
            usual=None if self.usual is None else self.usual[index],
            times=self.times,
        )

    def stretched_by(self, law: Leverage) -> Tensor:
        """What a law multiplies deviations from the mean by, [B, N]."""
        return law.factor(self.leverage, self.mixture.variance[..., 0], self.usual)

    def deviation(self, stretch: Tensor) -> Tensor:
        """Standard deviations [B, N] of the stretched distributions."""
        return stretch * self.mixture.variance[..., 0].sqrt()

    def scores(self, stretch: Tensor) -> Tensor:
        """Phi^-1(F(y)) [B, N], float64, of the distributions with deviations from their means stretched; NaN unseen."""
        level = self.mixture.cdf(unstretched(self.mixture, self.values, stretch)[..., None])[..., 0].double()
        return torch.where(self.seen, torch.special.ndtri(level.clamp(1e-6, 1 - 1e-6)), torch.nan)


def stretched(mixture: Mixture, values: Tensor, stretch: Tensor) -> Tensor:
    """Deviations of `values` [..., N, 1] from the mixture's mean, times `stretch` [..., N]."""
    mean = mixture.mean
    return mean + stretch[..., None] * (values - mean)


def unstretched(mixture: Mixture, values: Tensor, stretch: Tensor) -> Tensor:
    """Where `values` [B, N] lie in a mixture whose deviations are not stretched yet, [B, N]."""
    mean = mixture.mean[..., 0]
    return mean + (values - mean) / stretch


@torch.no_grad()
def usual_variance(
    model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int
) -> Tensor | None:
    """The mean over training times of what the model says of each place's variance, [P].

    None where the context does not always lie in the same places: there the variance follows them.

    Args:
        model: Which says it.
        samples: Of training.
        framing: How they were framed.
        lattice: Of the store.
        seed: Of the latents.
    """
    if framing.kind == "scattered" or framing.factors[0] != framing.factors[1]:
        return None
    parts = predictions(model, samples, framing, lattice, leverage=None, seed=seed)
    return torch.cat([part.mixture.variance[..., 0].double() for part in parts]).mean(dim=0).float()


@torch.no_grad()
def predictions(
    model: VAMoH,
    samples: Iterable[Samples],
    framing: Framing,
    lattice: Lattice,
    *,
    leverage: Leverage | None,
    seed: int,
) -> Iterator[Predicted]:
    """What a model says of whole fields, a few at a time, by one latent each."""
    for number, part in enumerate(samples):
        chance = Chance.of(seed, number, part.position)
        batch, strange = framing.held_out(part.fields, part.times, lattice, chance)
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator)
        yield Predicted(
            mixture=predict(model, batch, noise),
            values=batch.values[..., 0],
            seen=batch.mask.expand(len(part.fields), -1),
            leverage=strange,
            usual=None if leverage is None else leverage.usual,
            times=part.times,
        )


def fit_leverage(predicted: Iterable[Predicted], area: NDArray[np.float64], *, seed: int) -> Leverage:
    """The law with the best scaled CRPS, over points drawn by area from each field.

    The CRPS itself is ruled by the places that vary most and hardly minds an ensemble that is too sure; the log score
    is ruled by the tails. E|X - y| / E|X - X'| + log(E|X - X'|) / 2 has neither fault, but all places are alike to it:
    those that are next to certain, as at the very points of the context, would have as much to say as those that make
    up the ensemble's spread in kelvin. So each counts by the standard deviation that the model gave it before any
    stretch, on which the law has no influence: the score stays proper.

    Source: Bolin and Wallin, "Local scale invariance and robustness of proper scoring rules" (2023).
    """
    parts = [_drawn(each, area, np.random.default_rng((seed, number))) for number, each in enumerate(predicted)]
    weights, means, scales, values, leverage, usual = (torch.cat(each).double() for each in zip(*parts, strict=True))
    centre = (weights * means).sum(dim=-1)
    between = means[:, :, None] - means[:, None]
    both = (scales[:, :, None] ** 2 + scales[:, None] ** 2).sqrt()
    apart = _distance(between.flatten(1), both.flatten(1), (weights[:, :, None] * weights[:, None]).flatten(1))
    variance = (weights * (scales**2 + (means - centre[:, None]) ** 2)).sum(dim=-1)
    counts = variance.sqrt() / variance.sqrt().sum()
    typical, middle = leverage.mean().clamp_min(1e-12), variance.median()
    known = bool(usual.isfinite().all())

    def law(free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        constant, growth, exponent = free.exp()
        return constant, growth / typical, exponent

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.from_numpy(free).requires_grad_()
        constant, growth, exponent = law(at)
        stretch = (constant + growth * leverage).sqrt()
        if known:
            stretch = stretch * (usual / middle) ** ((exponent - TRUST) / 2) * (variance / middle) ** ((TRUST - 1) / 2)
        else:
            stretch = stretch * (variance / middle) ** ((exponent - 1) / 2)
        inside = (centre + (values - centre) / stretch)[:, None]
        score = (counts * (_distance(means - inside, scales, weights) / apart + 0.5 * stretch.log())).sum()
        (slope,) = torch.autograd.grad(score, at)
        return float(score.detach()), slope.numpy()

    start = np.array([0.0, -2.0, 0.0])
    bounds = [LOG_RANGE, LOG_RANGE, (math.log(LEAST_EXPONENT), 0.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    constant, growth, exponent = law(torch.from_numpy(found))
    return Leverage(
        constant=float(constant),
        growth=float(growth) if float(leverage.max()) > 0 else 0.0,
        exponent=float(exponent),
        typical=float(middle),
        trust=TRUST if known else float(exponent),
    )


def _distance(mean: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    """E|X| of a mixture of normals, all [P, K] -> [P]."""
    standard = mean / scale
    folded = scale * math.sqrt(2 / math.pi) * torch.exp(-0.5 * standard**2)
    return (weights * (folded + mean * torch.erf(standard * math.sqrt(0.5)))).sum(dim=-1)


def _drawn(each: Predicted, area: NDArray[np.float64], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Weights, means and scales [P, K], values, leverage and usual variance (else NaN) [P] of some observed points."""
    size = min(FITTED_POINTS, len(area))
    at = torch.from_numpy(rng.choice(len(area), size, replace=False, p=area))
    seen = each.seen[:, at]
    mixture = each.mixture
    components = (mixture.components.mean, mixture.components.stddev)  # [B, K, N, 1]
    share = mixture.log_weights.exp()[:, at][seen]
    return (
        share,
        *(part[:, :, at, 0].transpose(1, 2)[seen] for part in components),
        each.values[:, at][seen],
        each.leverage[:, at][seen],
        (torch.full(seen.shape, torch.nan) if each.usual is None else each.usual[at].expand(seen.shape))[seen],
    )
