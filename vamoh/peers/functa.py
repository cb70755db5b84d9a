"""Functa: functions as modulations of one network, which a few steps of gradient descent fit to what was observed.

    z_0 = 0,   z_{t+1} = z_t - a * grad_z L(z_t),   L(z) = mean over what was observed of (f(x; A z + c) - y)^2

with f a SIREN (siren.py), A z + c the shifts of all its layers, and a learned rate for every modulation. What is shared
(f, A, c, a) is learned through the steps, so that few of them suffice: E[L(z_T)] is what training lowers.

Source: Dupont, Kim, Eslami, Rezende and Rosenbaum, "From data to functa: your data point is a function and you can
    treat it like one", ICML 2022; Zintgraf et al., CAVIA, ICML 2019 (what is fitted starts at zero, and nothing else
    is); Li et al., "Meta-SGD", 2017 (learned rates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vamoh.batch import FunctionBatch
from vamoh.blocks import blocks
from vamoh.flows import Prior
from vamoh.likelihoods import Mixture
from vamoh.model import Posterior
from vamoh.peers.predictive import PeerLikelihood, predictive
from vamoh.peers.siren import Siren
from vamoh.spec import STRICT, DomainName


@dataclass(frozen=True, kw_only=True)
class FunctaSpec:
    """The shape of a Functa; the defaults are the paper's.

    Attributes:
        system: What tells it from the others.
        latent: Z, modulations of a function.
        width, depth: Of the SIREN; `depth` counts all of its linear layers.
        w0: Frequency of its sines.
        steps: Steps of gradient descent in training, and by default in inference.
        rates: Between which the learned rates are drawn at the start.
        highest_rate: Beyond which none is used; nor is one below zero.
        flow_depth: Planar layers of the prior over modulations; 0 for a Gaussian.
        likelihood: What its function says of a value; its scale is fitted to what is missed of training data.
        domain, channels: From the data.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    local: ClassVar[None] = None
    components: ClassVar[int] = 1
    unit_interval: ClassVar[bool] = True
    even_points: ClassVar[bool] = False
    system: Literal["functa"] = "functa"
    latent: int = 128
    width: int = 512
    depth: int = 15
    w0: float = 30.0
    steps: int = 3
    rates: tuple[float, float] = (0.005, 0.1)
    highest_rate: float = 1.0
    flow_depth: int = 0
    likelihood: PeerLikelihood = "normal"
    domain: DomainName = "sphere"
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("latent", "width", "channels", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.depth < 2:
            raise ValueError(f"depth must be at least 2, a modulated layer and the last one, got {self.depth}")
        if self.flow_depth < 0:
            raise ValueError(f"flow_depth must be 0 (a Gaussian prior) or more, got {self.flow_depth}")

    @property
    def num_axes(self) -> int:
        """D."""
        return 2 if self.domain == "plane" else 3

    @property
    def bounded(self) -> bool:
        """Whether the likelihood knows no values but those within [0, 1]."""
        return self.likelihood != "normal"


class Functa(nn.Module):
    """The model.

    Args:
        spec: Its shape.
        seed: Of the initial parameters.

    Differs: unobserved points have no part in the fit, each function by its own mask; the prior is a Gaussian or a
        planar flow over standardised modulations, where the paper has a neural spline flow or a diffusion model.
    """

    local: ClassVar[None] = None
    latent_mean: Tensor
    latent_scale: Tensor
    value_scale: Tensor

    def __init__(self, spec: FunctaSpec, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        self.siren = Siren(spec.num_axes, spec.width, spec.depth, spec.channels, spec.w0, generator=generator)
        shifts = self.siren.num_modulated * spec.width
        initial = torch.randn(shifts, spec.latent, generator=generator) / math.sqrt(spec.latent)
        self.shift_weight = nn.Parameter(initial)
        self.shift_bias = nn.Parameter(torch.zeros(shifts))
        low, high = spec.rates
        self.rates = nn.Parameter(low + (high - low) * torch.rand(spec.latent, generator=generator))
        self.prior = Prior(spec.latent, spec.flow_depth, generator=generator).requires_grad_(False)  # fitted at the end
        self.register_buffer("latent_mean", torch.zeros(spec.latent))
        self.register_buffer("latent_scale", torch.ones(spec.latent))
        self.register_buffer("value_scale", torch.full((spec.channels,), 0.1))

    # --- what is generated ------------------------------------------------------------------------------------------

    def shifts(self, latent: Tensor) -> Tensor:
        """Modulations [B, Z] -> shifts [B, layers, width], a linear map."""
        flat = nn.functional.linear(latent, self.shift_weight, self.shift_bias)
        return flat.unflatten(1, (self.siren.num_modulated, self.spec.width))

    def values(self, latent: Tensor, query: FunctionBatch) -> Tensor:
        """The functions [B, Z] at the points of `query`: [B, N, C]; in bounded memory where gradients are off."""
        self._check(query)
        coords, shifts = self._coords(query), self.shifts(latent)
        if torch.is_grad_enabled():
            return self.siren(coords, shifts)
        functions, points = self._blocks(len(latent), query.num_points, coords.device)
        values = shifts.new_empty(len(latent), query.num_points, self.spec.channels)
        for row in range(0, len(latent), functions):
            rows = slice(row, row + functions)
            near = coords if len(coords) == 1 else coords[rows]
            for first in range(0, query.num_points, points):
                here = slice(first, first + points)
                values[rows, here] = self.siren(near[:, here], shifts[rows])
        return values

    def decode(self, latent: Tensor, query: FunctionBatch) -> Mixture:
        """The same as a mixture of one component about the function, as wide as what is missed of training data."""
        return predictive(self.values(latent, query), self.spec.likelihood, self.value_scale)

    def latents(self, noise: Tensor) -> Tensor:
        """Standard normal noise [..., Z] -> modulations from the prior."""
        return self.latent_mean + self.latent_scale * self.prior.transform(noise)

    def sample(self, noise: Tensor, query: FunctionBatch) -> Mixture:
        """Functions from the prior: standard normal noise [B, Z] -> a mixture at the points of `query`."""
        return self.decode(self.latents(noise), query)

    # --- what is inferred -------------------------------------------------------------------------------------------

    def infer(self, batch: FunctionBatch, *, steps: int | None = None) -> Tensor:
        """The modulations [B, Z] that `steps` steps fit to what was observed, outside of any graph.

        Where a function was not observed at all, its modulations are zero.
        """
        coords, values, weight = self._targets(batch)
        latent = self._start(batch)
        rows = range(0, len(latent), self._blocks(len(latent), batch.num_points, latent.device)[0])
        for _ in range(self.spec.steps if steps is None else steps):
            slope = torch.cat([self._slope(latent, coords, values, weight, row) for row in rows])
            latent = latent - self._rates().detach() * slope
        return latent

    def posterior(self, batch: FunctionBatch, *, steps: int | None = None) -> Posterior:
        """What is inferred [B, Z], as a distribution without any width."""
        latent = self.infer(batch, steps=steps)
        return Posterior(latent, torch.full_like(latent, -math.inf))

    def complete(self, batch: FunctionBatch, query: FunctionBatch, noise: Tensor | None = None) -> Mixture:
        """The functions fitted to what was observed in `batch`, at the points of `query`; all noise gives the same."""
        return self.decode(self.infer(batch), query)

    def _slope(self, latent: Tensor, coords: Tensor, values: Tensor, weight: Tensor, row: int) -> Tensor:
        """The loss's gradient [b, Z] for the functions of the block that begins at `row`, a block of points at a time.

        A sum over points: what of it is in memory at once has no influence, and a processor's cache holds a block.
        """
        size, points = self._blocks(len(latent), coords.shape[1], latent.device)
        rows = slice(row, row + size)
        coords = coords if len(coords) == 1 else coords[rows]
        with torch.enable_grad():
            given = latent[rows].detach().requires_grad_()
            shifts = self.shifts(given)
            cut = shifts.detach().requires_grad_()  # the linear map is gone back through once, not once a block
            total = torch.zeros_like(cut)
            for first in range(0, coords.shape[1], points):
                here = slice(first, first + points)
                error = self.siren(coords[:, here], cut) - values[rows, here]
                (slope,) = torch.autograd.grad((weight[rows, here] * error.square()).sum(), cut)
                total += slope
            (slope,) = torch.autograd.grad(shifts, given, total)
        return slope

    # --- what is learned --------------------------------------------------------------------------------------------

    def error(self, latent: Tensor, batch: FunctionBatch, rescale: Tensor | None = None) -> Tensor:
        """L(z) [B]: the mean squared error over each function's observed points and channels.

        Args:
            latent: [B, Z].
            batch: The functions.
            rescale: [B or 1, N], how many points each counts for where they were drawn unevenly.
        """
        coords, values, weight = self._targets(batch, rescale)
        return (weight * (self.siren(coords, self.shifts(latent)) - values).square()).sum(dim=(1, 2))

    def meta_loss(
        self,
        batch: FunctionBatch,
        *,
        steps: int | None = None,
        shown: Tensor | None = None,
        rescale: Tensor | None = None,
    ) -> Tensor:
        """L(z_T) [B], whose gradient goes through all steps, of second order.

        Args:
            batch: The functions.
            steps: T.
            shown: [B or 1, N] bool, what the steps see of what was observed.
            rescale: See `error`.
        """
        fitted = batch if shown is None else replace(batch, observed=batch.mask & shown)
        with torch.enable_grad():
            latent = self._start(batch).requires_grad_()
            for _ in range(self.spec.steps if steps is None else steps):
                (slope,) = torch.autograd.grad(self.error(latent, fitted, rescale).sum(), latent, create_graph=True)
                latent = latent - self._rates() * slope
            return self.error(latent, batch, rescale)

    @torch.no_grad()
    def standardise(self, latents: Tensor) -> None:
        """Keep the mean and scale of the modulations [n, Z] of a data set, in units of which the prior is learned.

        With a Gaussian prior that is all of the fit.
        """
        self.latent_mean.copy_(latents.mean(dim=0))
        self.latent_scale.copy_(latents.std(dim=0, correction=0).clamp_min(1e-6))

    def prior_log_prob(self, latent: Tensor) -> Tensor:
        """log p(z) [B] in nats; its mean over a data set's modulations is what a flow maximises."""
        standard = (latent - self.latent_mean) / self.latent_scale
        return self.prior.log_prob(standard) - self.latent_scale.log().sum()

    # ----------------------------------------------------------------------------------------------------------------

    def _rates(self) -> Tensor:
        return self.rates.clamp(0, self.spec.highest_rate)

    def _start(self, batch: FunctionBatch) -> Tensor:
        return self.rates.new_zeros(batch.batch_size, self.spec.latent)

    def _blocks(self, functions: int, points: int, device: torch.device) -> tuple[int, int]:
        return blocks(functions, points, self.spec.width, device)

    def _coords(self, batch: FunctionBatch) -> Tensor:
        """Unit vectors as they are; a box's places in [0, 1]^D, as in the public code."""
        return batch.coords if self.spec.domain == "sphere" else (batch.coords + 1) / 2

    def _targets(self, batch: FunctionBatch, rescale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates, values [B, N, C], and what each point's squared error counts for [B, N, 1]."""
        self._check(batch)
        if batch.values is None:
            raise ValueError("modulations are fitted to values: this batch has coordinates only")
        mask = batch.mask.expand(batch.batch_size, -1)[..., None].to(batch.values)
        mask = mask if rescale is None else mask * rescale[..., None]
        total = mask.sum(dim=1, keepdim=True)
        weight = mask / (torch.where(total > 0, total, 1) * self.spec.channels)
        return self._coords(batch), batch.values.expand(batch.batch_size, -1, -1), weight

    def _check(self, batch: FunctionBatch) -> None:
        if batch.context is not None or batch.covariates is not None:
            raise ValueError("Functa reads no context and no covariates: give it whole functions, as the classic model")
