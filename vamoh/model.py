"""VAMoH: encode a function, decode it anywhere, sample one, bound its evidence. Glue; the mathematics lies beside.

Classic and downscaling are one model. With a context the prior is p(z | context), the field is the interpolated context
plus a residual, and each component's mean is a local read-out plus what its generator adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vamoh.batch import FunctionBatch
from vamoh.elbo import ElboTerms, exact_posterior, gaussian_log_prob, mixture_terms
from vamoh.encodings import FeatureGrids, FourierFeatures
from vamoh.flows import Prior
from vamoh.gating import Gating
from vamoh.generators import GeneratorShape
from vamoh.hypernetwork import Hypernetworks
from vamoh.likelihoods import Family, Mixture
from vamoh.local import LocalReadout, LocalTerms
from vamoh.pointconv import SetEncoder
from vamoh.precision import at_least_float32
from vamoh.spec import EncoderSpec, ModelSpec


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
            summary = spec.encoder.channels[-1]
            features = self.fourier.num_features + spec.covariates
            self.context_encoder: SetEncoder | None = None
            self.local: LocalReadout | None = None
            if spec.local is not None and spec.context_encoder is not None:
                self.context_encoder = self._set_encoder(spec.context_encoder)
                width = spec.context_encoder.channels[-1]
                self.prior_head = nn.Linear(width, 2 * spec.latent)
                grids = self._grids(spec, support, vertices)
                self.local = LocalReadout(spec, self.family.num_outputs, grids, generator=generator)
                summary += width
                features += spec.local.features * spec.channels + spec.local.location_features
            self.posterior_head = nn.Linear(summary, 2 * spec.latent)
            self.prior = Prior(spec.latent, spec.flow_depth, generator=generator)
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
                self.gating_posterior = Gating(features + spec.channels, spec.latent, *gate, bounded=spec.compat)

    def _set_encoder(self, spec: EncoderSpec) -> SetEncoder:
        return SetEncoder(
            self.spec.num_axes,
            self.spec.channels,
            self.fourier,
            centres=spec.centres,
            channels=spec.channels,
            neighbours=spec.neighbours,
            kernel_widths=spec.kernel_widths,
        )

    def _grids(self, spec: ModelSpec, support: Tensor | None, vertices: tuple[int, ...] | None) -> FeatureGrids:
        assert spec.local is not None
        width = LocalReadout.width(spec, self.family.num_outputs)
        if vertices is not None:
            return FeatureGrids(spec.domain, spec.local.resolutions, width, vertices)
        if support is None:
            raise ValueError("a model with a local read-out needs `support`: points that cover the training region")
        return FeatureGrids.around(spec.domain, spec.local.resolutions, width, support)

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

    def decode(self, latent: Tensor, query: FunctionBatch) -> Mixture:
        """p(y | x, z) at the points of `query`: latent [B, Z] -> a mixture over [B, N, C]."""
        return self._decode(latent, query, *self._place(query))

    def _place(self, query: FunctionBatch) -> tuple[Tensor, LocalTerms | None]:
        """What does not depend on the latent: the points' features [B or 1, N, F], and the local terms."""
        if (self.local is None) != (query.context is None):
            wanted, came = ("a context", "none") if query.context is None else ("no context", "one")
            raise ValueError(f"this model reads {wanted}, and the batch has {came}")
        covariates = 0 if query.covariates is None else query.covariates.shape[-1]
        if covariates != self.spec.covariates:
            raise ValueError(f"this model is told {self.spec.covariates} covariates at every point, got {covariates}")
        local = None if self.local is None else self.local(query)
        parts = [self.fourier(query.coords)]
        parts += [] if query.covariates is None else [query.covariates]
        parts += [] if local is None else [local.features]
        rows = max(len(part) for part in parts)
        return torch.cat([part.expand(rows, -1, -1) for part in parts], dim=-1), local

    def _decode(self, latent: Tensor, query: FunctionBatch, features: Tensor, local: LocalTerms | None) -> Mixture:
        outputs = self.generators(self.hypernetworks(latent), features)  # [B, K, N, outputs]
        if local is not None:
            outputs = outputs + local.offset.transpose(1, 2)
            shift = local.readout if query.base is None else local.readout + query.base
            outputs = outputs + nn.functional.pad(shift, (0, outputs.shape[-1] - self.spec.channels))[:, None]
        logits = at_least_float32(self.gating(features, latent))
        return Mixture(logits, self.family(outputs))

    def sample(self, noise: Tensor, query: FunctionBatch) -> Mixture:
        """Functions from the prior: standard normal noise [B, Z] -> the mixture at the points of `query`."""
        context = self.prior_given(self.summarise(query.context))
        return self.decode(self.prior.transform(noise, context), query)

    def members(self, noise: Tensor, query: FunctionBatch) -> Iterator[Mixture]:
        """As `sample` for each of M draws, noise [M, B, Z]; what does not depend on the latent is computed once."""
        context = self.prior_given(self.summarise(query.context))
        features, local = self._place(query)
        for drawn in noise:
            yield self._decode(self.prior.transform(drawn, context), query, features, local)

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
        num_total: Tensor | int | None = None,
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
            num_total: Points of the whole functions, observed or not, [B] or one number, where `batch` holds a random
                subset of them: likelihood and KL of the components are rescaled by num_total / N, so that for a given
                latent they keep their expectation.
            kl_samples: Latents for KL(q(z) || p(z)), the first shared with the likelihood.
            predictive: Also estimate E_{p(z | context)}[log p(Y | X, z)].
            noise: [kl_samples + 1, B, Z], standard normal, instead of draws from `generator`; the last is the prior's.
            learn_prior: False takes N(0, I) for the prior, the first stage of the paper's schedule.
            learn_gate: False takes a uniform prior of the components, likewise.

        Differs: the KL of z is reparametrised and counts q's entropy; the public one does neither.
        """
        assert batch.values is not None
        summary = self.summarise(batch.context)
        mean, log_scale = self.posterior(batch, summary)
        given = self.prior_given(summary)
        if noise is None:
            noise = torch.randn(kl_samples + 1, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        latents = mean + log_scale.exp() * noise[:-1]
        zero = torch.zeros_like(latents)
        log_prior = self.prior.log_prob(latents, given) if learn_prior else gaussian_log_prob(latents, zero, zero)
        kl_z = gaussian_log_prob(latents, mean, log_scale) - log_prior
        used = batch.mask.sum(dim=-1)
        whole = batch.num_points if num_total is None else num_total
        rescale = torch.as_tensor(whole, dtype=mean.dtype, device=mean.device).view(-1) / batch.num_points

        features, local = self._place(batch)
        mixture = self._decode(latents[0], batch, features, local)
        log_prob = mixture.component_log_prob(batch.values)
        log_weights = mixture.log_weights
        if not learn_gate:
            log_weights = torch.full_like(log_weights, -math.log(self.spec.components))
        if self.spec.component_posterior == "network":
            rows = max(len(features), len(batch.values))
            modelled = batch.values if batch.base is None else batch.values - batch.base
            seen = torch.cat([features.expand(rows, -1, -1), modelled.expand(rows, -1, -1)], dim=-1)
            logits = at_least_float32(self.gating_posterior(seen, latents[0]))
            log_posterior = torch.log_softmax(logits, dim=-1)
        else:
            log_posterior = exact_posterior(log_prob, log_weights)
        reconstruction, kl_c = mixture_terms(log_prob, log_weights, log_posterior, batch.mask, rescale)

        ahead = None
        if predictive:
            mixture = self._decode(self.prior.transform(noise[-1], given), batch, features, local)
            log_likelihood = mixture.log_prob(batch.values)
            ahead = torch.where(batch.mask, log_likelihood, 0.0).sum(dim=-1) * rescale
        penalty = torch.zeros_like(kl_c)
        if local is not None:
            penalty = penalty + local.penalty * used * rescale
        return ElboTerms(
            reconstruction=reconstruction,
            kl_z=kl_z.mean(dim=0),
            kl_c=kl_c,
            predictive=ahead,
            local_penalty=penalty,
        )
