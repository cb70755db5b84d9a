"""VAMoH: encode a function, decode it anywhere, sample one, bound its evidence. Glue; the mathematics lies beside.

Classic and downscaling are one model. With a context the prior is p(z | context), the field is what is made of the
context beforehand plus a residual, and each component's mean is a local read-out plus what its generator adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from vamoh.batch import FunctionBatch
from vamoh.derivatives import differentiable, mean_gradient, tangent
from vamoh.elbo import ElboTerms, exact_posterior, gaussian_log_prob, log_shares, mixture_terms
from vamoh.encodings import FeatureGrids, FourierFeatures, even_places, places_within
from vamoh.features import Features
from vamoh.flows import Prior
from vamoh.gating import Gating
from vamoh.generators import GeneratorShape
from vamoh.hypernetwork import Hypernetworks
from vamoh.likelihoods import Family, Mixture
from vamoh.local import LocalReadout
from vamoh.placed import Placed
from vamoh.pointconv import SetEncoder
from vamoh.precision import at_least_float32
from vamoh.spec import EncoderSpec, ModelSpec

POINTS = 40_000  # decoded at a time where no gradient is asked for


class Posterior(NamedTuple):
    """q(z | X, Y), or the Gaussian below the flow of p(z | context): a diagonal Gaussian, [B, Z] each."""

    mean: Tensor
    log_scale: Tensor


class VAMoH(nn.Module):
    """The model.

    Args:
        spec: Its shape.
        support: [n, D], points that cover the training region at the training grid's spacing or finer; feature grids
            exist around them. Not needed by the classic model, nor where `vertices` is given.
        vertices: Vertices of each level of the feature grids (a checkpoint's, whose tables are loaded next).
        seed: Of the Fourier features and the initial parameters.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        support: Tensor | None = None,
        vertices: tuple[int, ...] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear draws from the global generator
            self.fourier = FourierFeatures(
                spec.num_axes, spec.fourier_frequencies, spec.fourier_std, generator=generator
            )
            self.family = Family(spec.likelihood, spec.channels)
            self.encoder = self._set_encoder(spec.encoder)
            summary = self.encoder.num_outputs
            features = self.fourier.num_features + spec.covariates
            self.context_encoder: SetEncoder | None = None
            self.local: LocalReadout | None = None
            self.location: FeatureGrids | None = None
            if spec.local is not None and spec.context_encoder is not None:
                self.context_encoder = self._set_encoder(spec.context_encoder)
                width = self.context_encoder.num_outputs
                self.prior_head = nn.Linear(width, 2 * spec.latent)
                wanted = LocalReadout.width(spec, self.family.num_outputs)
                grids = FeatureGrids.made(spec.domain, spec.local.resolutions, wanted, support, vertices)
                self.local = LocalReadout(spec, self.family.num_outputs, grids, generator=generator)
                summary += width
                features += spec.local.features * spec.channels + spec.local.location_features
            if spec.location is not None:
                width = spec.location.features
                self.location = FeatureGrids.made(spec.domain, spec.location.resolutions, width, support, vertices)
                features += width
            self.posterior_head = nn.Linear(summary, 2 * spec.latent)
            self.prior = Prior(spec.latent, spec.flow_depth, correlated=spec.fitted_prior, generator=generator)
            self.generators = GeneratorShape((features, *spec.generator, self.family.num_outputs))
            self.hypernetworks = Hypernetworks(
                spec.latent,
                spec.hypernetwork,
                self.generators.initial(spec.components, generator=generator),
                generator=generator,
            )
            gate = (spec.gating, spec.components)
            self.gating = Gating(features, spec.latent, *gate, bounded=spec.compat)
            if spec.component_posterior == "network":
                self.gating_posterior = Gating(
                    features, spec.latent, *gate, num_values=spec.channels, bounded=spec.compat
                )

    def _set_encoder(self, spec: EncoderSpec) -> SetEncoder:
        places: Tensor | None = None
        if spec.places:
            count = spec.centres[-1]
            places = even_places(self.spec.domain, count) if spec.region is None else places_within(spec.region, count)
        return SetEncoder(spec, self.spec.channels, self.fourier, places, linear=self.spec.compat)

    @property
    def grids(self) -> FeatureGrids | None:
        """The feature grids, of a model that has some."""
        return self.location if self.local is None else self.local.grids

    # --- what is inferred -------------------------------------------------------------------------------------------

    def summarise(self, context: FunctionBatch | None) -> Tensor | None:
        """The context's summary [B, S], blind to a shift of its values; None without a context."""
        if context is None:
            return None
        assert self.context_encoder is not None and context.values is not None
        seen = context.mask[..., None]
        level = (context.values * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp_min(1)
        anomaly = torch.where(seen, (context.values - level) / self.spec.context_scale, 0.0)
        return self.context_encoder(context.coords, anomaly, context.mask)

    def posterior(self, batch: FunctionBatch, summary: Tensor | None = None) -> Posterior:
        """q(z | X, Y): infer the latent of the functions in `batch` from what was observed of them."""
        if batch.values is None:
            raise ValueError("a posterior needs values: this batch has coordinates only")
        values = batch.values if batch.base is None else batch.values - batch.base
        encoded = self.encoder(batch.coords, values, batch.mask)
        if batch.context is not None:
            summary = self.summarise(batch.context) if summary is None else summary
            assert summary is not None
            encoded = torch.cat([encoded, summary.expand(len(encoded), -1)], dim=-1)
        mean, log_scale = at_least_float32(self.posterior_head(encoded)).chunk(2, dim=-1)
        return Posterior(mean, log_scale.clamp(-8, 4))

    def prior_given(self, summary: Tensor | None) -> Posterior | None:
        """Shift and log scale of the Gaussian below the prior's flow, from a context's summary."""
        if summary is None:
            return None
        mean, log_scale = at_least_float32(self.prior_head(summary)).chunk(2, dim=-1)
        return Posterior(mean, log_scale.clamp(-4, 4))

    # --- what is generated ------------------------------------------------------------------------------------------

    def latents(self, noise: Tensor) -> Tensor:
        """Standard normal noise [..., Z] -> draws of p(z), of a model without a context."""
        return self.prior.transform(noise)

    @overload
    def decode(self, latent: Tensor, query: FunctionBatch, *, gradient: Literal[False] = False) -> Mixture: ...

    @overload
    def decode(self, latent: Tensor, query: FunctionBatch, *, gradient: Literal[True]) -> tuple[Mixture, Tensor]: ...

    def decode(
        self, latent: Tensor, query: FunctionBatch, *, gradient: bool = False
    ) -> Mixture | tuple[Mixture, Tensor]:
        """p(y | x, z) at the points of `query`: latent [B, Z] -> a mixture over [B, N, C].

        Without gradients any number of points is decoded in bounded memory beside the answer's own.

        Args:
            latent: [B, Z].
            query: Where. With `gradient`, a model with a context needs `base` and `covariates` that were computed from
                `query.coords`, and these to require gradients, so that what they contribute is counted.
            gradient: Also give the exact derivative of the mixture's mean with respect to the coordinates [B, N, C, D]:
                in the domain's own units, on the sphere tangent to it and by radian. Neither is then part of a graph.
        """
        if gradient:
            with torch.enable_grad():
                asked = differentiable(query, max(len(latent), query.batch_size))
                outputs, logits = self._evaluate(latent, self.place(asked))
                slope = mean_gradient(self._mixture(outputs, logits).mean, asked.coords)
            slope = tangent(slope, query.coords) if self.spec.domain == "sphere" else slope
            return self._mixture(outputs.detach(), logits.detach()), slope
        if torch.is_grad_enabled() or query.num_points <= POINTS:
            return self.mixture(latent, self.place(query))
        parts = (query.at(slice(first, first + POINTS)) for first in range(0, query.num_points, POINTS))
        rows, done = max(len(latent), query.batch_size), 0
        outputs = latent.new_empty(rows, self.spec.components, query.num_points, self.family.num_outputs)
        logits = latent.new_empty(rows, query.num_points, self.spec.components)
        for part in parts:
            here = slice(done, done + part.num_points)
            outputs[:, :, here], logits[:, here] = self._evaluate(latent, self.place(part))
            done += part.num_points
        return self._mixture(outputs, logits)

    def place(self, query: FunctionBatch) -> Placed:
        """What the points of `query` contribute whatever the latent is; see `mixture`.

        Raises:
            ValueError: If the batch has a context and the model reads none or the other way round, or it has other
                covariates than the model is told.
        """
        if (self.local is None) != (query.context is None):
            wanted, came = ("a context", "none") if query.context is None else ("no context", "one")
            raise ValueError(f"this model reads {wanted}, and the batch has {came}")
        covariates = 0 if query.covariates is None else query.covariates.shape[-1]
        if covariates != self.spec.covariates:
            raise ValueError(f"this model is told {self.spec.covariates} covariates at every point, got {covariates}")
        local = None if self.local is None else self.local(query)
        parts = [self.fourier(query.coords)]
        parts += [] if query.covariates is None else [query.covariates]
        parts += [] if self.location is None else [self.location(query.coords)]
        parts += [] if local is None else [local.shared, local.location]
        features = Features.of(parts)
        if local is None:
            return Placed(features, None, None)
        shift = (local.readout if query.base is None else local.readout + query.base).transpose(1, 2)
        shift = nn.functional.pad(shift, (0, 0, 0, self.family.num_outputs - self.spec.channels))
        added = local.offset.permute(0, 2, 3, 1).contiguous() + shift[:, None]
        return Placed(features, added.transpose(2, 3), local)  # in the generators' order: points last

    def mixture(self, latent: Tensor, placed: Placed, *, networks: Tensor | None = None) -> Mixture:
        """p(y | x, z) at places that are known already.

        Args:
            latent: [B, Z].
            placed: What `place` gave for the points, of B functions or of one for all.
            networks: [K, B, P], what `hypernetworks` makes of `latent`, where it is asked more than once.

        Returns:
            A mixture over [B, N, C].
        """
        return self._mixture(*self._evaluate(latent, placed, networks))

    def _evaluate(self, latent: Tensor, placed: Placed, networks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the generators give [B, K, N, outputs], and the gate's logits [B, N, K]."""
        outputs = self.generators(self.hypernetworks(latent) if networks is None else networks, placed.features)
        outputs = outputs if placed.added is None else outputs + placed.added
        return outputs, self.gating(placed.features, latent)

    def _mixture(self, outputs: Tensor, logits: Tensor) -> Mixture:
        return Mixture(at_least_float32(logits), self.family(outputs))

    def sample(self, noise: Tensor, query: FunctionBatch) -> Mixture:
        """Functions from the prior: standard normal noise [B, Z] -> the mixture at the points of `query`."""
        context = self.prior_given(self.summarise(query.context))
        return self.decode(self.prior.transform(noise, context), query)

    def members(self, noise: Tensor, query: FunctionBatch) -> Iterator[Mixture]:
        """As `sample` for each of M draws, noise [M, B, Z]; what does not depend on the latent is computed once."""
        context = self.prior_given(self.summarise(query.context))
        placed = self.place(query)
        for drawn in noise:
            yield self.mixture(self.prior.transform(drawn, context), placed)

    def complete(self, batch: FunctionBatch, query: FunctionBatch, noise: Tensor) -> Mixture:
        """Functions that agree with what was observed in `batch`, at the points of `query`; noise [B, Z]."""
        mean, log_scale = self.posterior(batch)
        return self.decode(mean + log_scale.exp() * noise, query)

    # --- what is learned --------------------------------------------------------------------------------------------

    def elbo(
        self,
        batch: FunctionBatch,
        *,
        generator: torch.Generator | None = None,
        at: Tensor | None = None,
        num_total: Tensor | int | None = None,
        rescale: Tensor | None = None,
        shown: Tensor | None = None,
        places: Tensor | None = None,
        kl_samples: int = 1,
        predictive: bool = False,
        noise: Tensor | None = None,
        learn_prior: bool = True,
        learn_gate: bool = True,
    ) -> ElboTerms:
        """The bound, by one reparametrised latent for the likelihood and `kl_samples` for the KL.

        Args:
            batch: Functions with values.
            generator: Of the noise.
            at: [n] or [B, n], a random part of the points: the encoder reads all of `batch`, and the likelihood and the
                KL of the components are estimated at these, so that the bound and its gradient keep their expectation:
                uniformly drawn, and rescaled by N / n, or with `rescale`.
            num_total: Points of the whole functions, observed or not, [B] or one number, where `batch` itself holds a
                random subset of them: rescaled likewise, for a given latent.
            rescale: [B or 1, n], where each point of `at` counts for as many: 1 / (n p_i) if it was drawn with
                probability p_i, with replacement.
            shown: [B or 1, N] bool, what the encoder sees of what was observed: a bound too, for it holds for any q.
            places: [B or 1, n, D], where the scored values are asked for: each is of a cell, not of its middle alone.
            kl_samples: Latents for KL(q(z) || p(z)), the first shared with the likelihood.
            predictive: Also estimate E_{p(z | context)}[log p(Y | X, z)].
            noise: [kl_samples + 1, B, Z], standard normal, instead of draws from `generator`; the last is the prior's.
            learn_prior: False takes N(0, I) for the prior, the first stage of the paper's schedule.
            learn_gate: False takes a uniform prior of the components, likewise.

        Differs: the KL of z is reparametrised and counts q's entropy; the public one does neither.
        """
        assert batch.values is not None
        summary = self.summarise(batch.context)
        seen = batch if shown is None else replace(batch, observed=batch.mask & shown)
        mean, log_scale = self.posterior(seen, summary)
        given = self.prior_given(summary)
        if noise is None:
            noise = torch.randn(kl_samples + 1, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        latents = mean + log_scale.exp() * noise[:-1]
        zero = torch.zeros_like(latents)
        log_prior = self.prior.log_prob(latents, given) if learn_prior else gaussian_log_prob(latents, zero, zero)
        kl_z = gaussian_log_prob(latents, mean, log_scale) - log_prior
        scored = batch if at is None else batch.at(at)
        scored = scored if places is None else replace(scored, coords=places)
        assert scored.values is not None
        if rescale is None:
            whole = batch.num_points if num_total is None else num_total
            rescale = torch.as_tensor(whole, dtype=mean.dtype, device=mean.device).view(-1, 1) / scored.num_points

        placed = self.place(scored)
        mixture = self.mixture(latents[0], placed)
        log_prob = mixture.component_log_prob(scored.values)
        log_weights = mixture.log_weights
        if not learn_gate:
            log_weights = torch.full_like(log_weights, -math.log(self.spec.components))
        if self.spec.component_posterior == "network":
            modelled = scored.values if scored.base is None else scored.values - scored.base
            logits = at_least_float32(self.gating_posterior(placed.features, latents[0], modelled))
            log_posterior = log_shares(logits)
        else:
            log_posterior = exact_posterior(log_prob, log_weights)
        reconstruction, kl_c = mixture_terms(log_prob, log_weights, log_posterior, scored.mask, rescale)

        ahead = None
        if predictive:
            mixture = self.mixture(self.prior.transform(noise[-1], given), placed)
            log_likelihood = mixture.log_prob(scored.values)
            ahead = (torch.where(scored.mask, log_likelihood, 0.0) * rescale).sum(dim=-1)
        penalty = torch.zeros_like(kl_c)
        if placed.local is not None:
            penalty = penalty + placed.local.penalty * (scored.mask * rescale).sum(dim=-1)
        return ElboTerms(
            reconstruction=reconstruction,
            kl_z=kl_z.mean(dim=0),
            kl_c=kl_c,
            predictive=ahead,
            local_penalty=penalty,
        )
