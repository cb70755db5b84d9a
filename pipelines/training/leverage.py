"""How much wider members have to be than the residuals of training say: fitted on held-out times.

A model's residuals on times that it learned from are too small, and smallest where the weather was most unlike the
rest, because there the kernel of a place was fitted to it. So the second moments of what places read of their context
are taken over the training times (`vamoh/leverage.py`), and the four numbers that make a variance of a leverage and of
what the model says are those with the best scaled CRPS on times that were held out, every place counting by its
standard deviation.

How much a model knows of one day's variance beyond what is usual at a place is not asked of held-out times: they lie
within hours of what was learned, and a day that was learned by heart is known by its neighbours too. Fitted there it is
0.5; in weeks of which nothing was learned 0.2 to 0.35, and what is promised with 0.5 holds too little of the truth.
For the same reason errors are a little larger there than on held-out times (`FARTHER`: a regression at every place errs
by so much more on a quarter of the training time than on every fourth day of it).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
from vamoh import FunctionBatch, VAMoH
from vamoh.leverage import Leverage, Stretch, packed_precision, pairs
from vamoh.likelihoods import Mixture
from vamoh.local import LocalTerms

MOST_PLACES = 120_000
FITTED_POINTS = 2000
LOG_RANGE = (-8.0, 8.0)
LEAST_EXPONENT = 0.5  # and at most one: loud places may be held for less loud, not for louder
LEAST_POWER = 0.2  # and at most one, a regression's own
TRUST = 0.25  # in what a model says of a place's variance beyond what is usual there
USUAL_FIELDS = 64
FARTHER = 1.08  # squared errors on days further from what was learned, over those on held-out ones


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What a model says of a few held-out fields.

    Attributes:
        mixture: Over [B, N, 1].
        values: [B, N], the truth in the model's units.
        seen: [B, N], where there is one.
        leverage: [B, N].
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

    def stretched_by(self, law: Stretch) -> Tensor:
        """What a law multiplies deviations from the mean by, [B, N]."""
        return law.stretch(self.leverage, self.mixture, self.usual)

    def deviation(self, stretch: Tensor) -> Tensor:
        """Standard deviations [B, N] of the stretched distributions."""
        return stretch * self.mixture.variance[..., 0].sqrt()

    def scores(self, stretch: Tensor) -> Tensor:
        """Phi^-1(F(y)) [B, N], float64, of the distributions with deviations from their means stretched; NaN unseen."""
        level = self.mixture.cdf(unstretched(self.mixture, self.values, stretch)[..., None])[..., 0].double()
        return torch.where(self.seen, torch.special.ndtri(level.clamp(1e-6, 1 - 1e-6)), torch.nan)


def farther(framing: Framing, *, near: bool) -> float:
    """How much larger squared errors are where members will be asked for than on held-out times.

    Args:
        framing: Of the model. A background explains each part of the training time by the others, as if it were far.
        near: Whether the held-out times lie among those of training.
    """
    return FARTHER if near and framing.background is None else 1.0


def stretched(mixture: Mixture, values: Tensor, stretch: Tensor) -> Tensor:
    """Deviations of `values` [..., N, 1] from the mixture's mean, times `stretch` [..., N]."""
    mean = mixture.mean
    return mean + stretch[..., None] * (values - mean)


def unstretched(mixture: Mixture, values: Tensor, stretch: Tensor) -> Tensor:
    """Where `values` [B, N] lie in a mixture whose deviations are not stretched yet, [B, N]."""
    mean = mixture.mean[..., 0]
    return mean + (values - mean) / stretch


def readouts(model: VAMoH, local: LocalTerms) -> Tensor:
    """The read-outs that have the same kernels everywhere, [B, N, Q]."""
    assert model.local is not None
    return local.features[..., : model.local.spec.features * model.spec.channels]


def corners(lattice: Lattice, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """What `Leverage.of` needs of places, on the lattice of its own."""
    index, weight = lattice.corners(latitude, longitude)
    return torch.from_numpy(index), torch.from_numpy(weight)


@torch.no_grad()
def fit_leverage(
    model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int
) -> Leverage | None:
    """The second moments of training times; None for a model without a context.

    Args:
        model: Whose read-outs.
        samples: Of training.
        framing: How they were framed.
        lattice: Of the store.
        seed: Of the coarsening.
    """
    if model.local is None:
        return None
    framing = framing.entire
    every = 1
    while len(lattice.coords) / every**2 > MOST_PLACES:
        every += 2  # odd, so that every place within a coarse cell has its turn
    rows, columns = (np.arange(0, size, every) for size in lattice.shape)
    chosen = torch.from_numpy((rows[:, None] * lattice.shape[1] + columns).ravel())
    total, count = torch.zeros(1, dtype=torch.float64), 0
    for number, part in enumerate(samples):
        batch = framing.training(part.fields, part.times, lattice, Chance.of(seed, number, part.position)).batch
        local = model.place(batch).local
        assert local is not None
        seen = readouts(model, local)[:, chosen].double()
        for field in seen:  # one at a time: their products are many
            total = total + pairs(field)
        count += len(seen)
    moments = total / max(count, 1)
    part_lattice = lattice.every(every)
    area = torch.from_numpy(part_lattice.area)
    precision = packed_precision(moments, area, count)
    return Leverage(precision=_with_poles(precision, part_lattice), every=every)


@torch.no_grad()
def with_usual(
    leverage: Leverage, model: VAMoH, samples: Iterable[Samples], framing: Framing, lattice: Lattice, *, seed: int
) -> Leverage:
    """With the mean over training times of what the model says of each place's variance.

    The same where the context does not always lie in the same places: there the variance follows them.

    Args:
        leverage: Of the model.
        model: Which says it.
        samples: Of training.
        framing: How they were framed.
        lattice: Of the store.
        seed: Of the latents.
    """
    if framing.kind == "scattered" or framing.factors[0] != framing.factors[1]:
        return leverage
    parts = predictions(model, samples, framing, lattice, leverage=None, seed=seed)
    said = torch.cat([part.mixture.variance[..., 0].double() for part in parts]).mean(dim=0)
    part_lattice = lattice.every(leverage.every)
    table = said.view(*lattice.shape)[:: leverage.every, :: leverage.every].reshape(-1, 1)
    return replace(leverage, usual=_with_poles(table, part_lattice)[:, 0].float())


def _with_poles(table: Tensor, lattice: Lattice) -> Tensor:
    """[n, C] with the means of the first and the last row, beyond which a pole may lie."""
    rows = table.view(*lattice.shape, -1)
    return torch.cat([table, torch.stack([rows[0].mean(dim=0), rows[-1].mean(dim=0)])])


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
    framing = framing.entire
    at = None if leverage is None else corners(lattice.every(leverage.every), *lattice.points)
    for number, part in enumerate(samples):
        batch = framing.training(part.fields, part.times, lattice, Chance.of(seed, number, part.position)).batch
        assert batch.values is not None
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(len(part.fields), model.spec.latent, generator=generator)
        yield Predicted(
            mixture=predict(model, batch, noise),
            values=batch.values[..., 0],
            seen=batch.mask.expand(len(part.fields), -1),
            leverage=_leverage(model, batch, leverage, at),
            usual=None if leverage is None or at is None else leverage.usual_at(*at),
            times=part.times,
        )


def _leverage(
    model: VAMoH, batch: FunctionBatch, leverage: Leverage | None, at: tuple[Tensor, Tensor] | None
) -> Tensor:
    assert batch.values is not None
    if leverage is None or at is None:
        return torch.zeros_like(batch.values[..., 0])
    local = model.place(batch).local
    assert local is not None
    return leverage.of(readouts(model, local), *at)


def fit_stretch(predicted: Iterable[Predicted], area: NDArray[np.float64], *, seed: int) -> Stretch:
    """The stretch with the best scaled CRPS, over points drawn by area from each field.

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

    def law(free: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        constant, growth, exponent, power = free.exp()
        return constant, growth / typical, exponent, power

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.from_numpy(free).requires_grad_()
        constant, growth, exponent, power = law(at)
        stretch = (constant + growth * leverage) ** (power / 2)
        if known:
            stretch = stretch * (usual / middle) ** ((exponent - TRUST) / 2) * (variance / middle) ** ((TRUST - 1) / 2)
        else:
            stretch = stretch * (variance / middle) ** ((exponent - 1) / 2)
        inside = (centre + (values - centre) / stretch)[:, None]
        score = (counts * (_distance(means - inside, scales, weights) / apart + 0.5 * stretch.log())).sum()
        (slope,) = torch.autograd.grad(score, at)
        return float(score.detach()), slope.numpy()

    start = np.array([0.0, -2.0, 0.0, 0.0])
    bounds = [LOG_RANGE, LOG_RANGE, (math.log(LEAST_EXPONENT), 0.0), (math.log(LEAST_POWER), 0.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    constant, growth, exponent, power = law(torch.from_numpy(found))
    return Stretch(
        constant=float(constant),
        growth=float(growth) if float(leverage.max()) > 0 else 0.0,
        exponent=float(exponent),
        typical=float(middle),
        power=float(power),
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
