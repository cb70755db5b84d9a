"""GASP: a hypernetwork draws a function's weights, and a discriminator tells sets of points from those of the data.

    z ~ N(0, I),   theta = h(z),   y = tanh(f(gamma(x); theta)),   D(X, Y) = sigmoid(PointConv layers)

    discriminator:  -log D(X, Y) - log(1 - D(X, f)) + r1 / 2 sum over points of |dD / dy|^2, the last on the data
    generator:      -log D(X, f)

There is no encoder: it samples functions, and cannot infer one from what was observed.

Source: Dupont, Teh and Doucet, "Generative models as distributions of functions", AISTATS 2022; Mescheder et al.,
    "Which training methods for GANs do actually converge?", ICML 2018 (the penalty R1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from vamoh.batch import FunctionBatch
from vamoh.encodings import FourierFeatures
from vamoh.features import Features
from vamoh.generators import GeneratorShape
from vamoh.hypernetwork import Hypernetworks
from vamoh.likelihoods import Mixture
from vamoh.peers.predictive import certain
from vamoh.pointconv import SetEncoder
from vamoh.spec import STRICT, DomainName, EncoderSpec

CANNOT_INFER = "GASP has no encoder: it samples functions, and cannot infer or complete one; VAMoH and Functa can"
UNRECTIFIED = 1 / 0.2  # the slope that undoes the encoder's LeakyReLU


@dataclass(frozen=True, kw_only=True)
class GaspSpec:
    """The shape of a GASP; the defaults are the paper's for temperature and for images.

    Attributes:
        system: What tells it from the others.
        latent: Z.
        fourier_frequencies, fourier_std: Random Fourier features.
        encoded: The generator reads them; otherwise the coordinates themselves, as for the paper's voxels.
        hypernetwork: Hidden widths of the hypernetwork.
        generator: Hidden widths of a generated network.
        discriminator: Its PointConv layers; the last has one centre and one channel, the score.
        r1: Weight of the gradient penalty.
        bounds: Between which values lie.
        domain, channels: From the data.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    local: ClassVar[None] = None
    components: ClassVar[int] = 1
    bounded: ClassVar[bool] = True
    unit_interval: ClassVar[bool] = True
    even_points: ClassVar[bool] = True  # where a discriminator sees them, places must tell nothing
    system: Literal["gasp"] = "gasp"
    latent: int = 64
    fourier_frequencies: int = 128
    fourier_std: float = 2.0
    encoded: bool = True
    hypernetwork: tuple[int, ...] = (256, 512)
    generator: tuple[int, ...] = (128, 128, 128)
    discriminator: EncoderSpec = field(
        default_factory=lambda: EncoderSpec(
            centres=(4096, 1024, 256, 64, 1),
            channels=(64, 128, 256, 512, 1),
            neighbours=(9, 9, 9, 9, 16),
            pooled=(1024, 256, 64, 16, 0),
        )
    )
    r1: float = 10.0
    bounds: tuple[float, float] = (0.0, 1.0)
    domain: DomainName = "sphere"
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("latent", "channels", "fourier_frequencies"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        ends = self.discriminator.centres[-1], self.discriminator.channels[-1]
        if ends != (1, 1) or self.discriminator.places:
            raise ValueError(
                "a discriminator ends in one sampled centre with one channel, the score, "
                f"got {ends[0]} with {ends[1]}{', at fixed places' if self.discriminator.places else ''}"
            )
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds must be a lower and a higher value, got {self.bounds}")

    @property
    def num_axes(self) -> int:
        """D."""
        return 2 if self.domain == "plane" else 3


@dataclass(frozen=True)
class DiscriminatorTerms:
    """What the discriminator lowers, for each function [B].

    Attributes:
        real: -log D(X, Y).
        fake: -log(1 - D(X, f)).
        penalty: R1, sum over observed points and channels of (dD / dy)^2 at the data.
        total: real + fake + r1 / 2 penalty.
    """

    real: Tensor
    fake: Tensor
    penalty: Tensor
    total: Tensor


class GASP(nn.Module):
    """The model.

    Args:
        spec: Its shape.
        seed: Of the Fourier features and the initial parameters.

    Differs: the discriminator is this program's set encoder, whose kernels see differences of Fourier features instead
        of offsets, and which leaves out what was not observed; it has no batch normalisation, so that a function's
        score and R1 do not depend on the functions beside it; instead its layers start balanced (`EncoderSpec`). The
        hypernetwork starts at well-scaled generators.
    """

    local: ClassVar[None] = None

    def __init__(self, spec: GaspSpec, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear draws from the global generator
            self.fourier = FourierFeatures(
                spec.num_axes, spec.fourier_frequencies, spec.fourier_std, generator=generator
            )
            width = self.fourier.num_features if spec.encoded else spec.num_axes
            self.generators = GeneratorShape((width, *spec.generator, spec.channels))
            initial = self.generators.initial(1, generator=generator)
            self.hypernetworks = Hypernetworks(spec.latent, spec.hypernetwork, initial, generator=generator)
            self.discriminator = SetEncoder(replace(spec.discriminator, balanced=True), spec.channels, self.fourier)

    # --- what is generated ------------------------------------------------------------------------------------------

    def latents(self, noise: Tensor) -> Tensor:
        """Standard normal noise: itself."""
        return noise

    def values(self, latent: Tensor, query: FunctionBatch) -> Tensor:
        """The functions of latents [B, Z] at the points of `query`: [B, N, C], within the bounds."""
        if query.context is not None or query.covariates is not None:
            raise ValueError("GASP reads no context and no covariates: give it whole functions, as the classic model")
        seen = self.fourier(query.coords) if self.spec.encoded else query.coords
        signed = self.generators(self.hypernetworks(latent), Features.of([seen]))[:, 0].tanh()
        low, high = self.spec.bounds
        return low + (high - low) * (signed + 1) / 2

    def decode(self, latent: Tensor, query: FunctionBatch) -> Mixture:
        """The same as a mixture of one component, which is certain of its values."""
        return certain(self.values(latent, query))

    def sample(self, noise: Tensor, query: FunctionBatch) -> Mixture:
        """Functions from the prior: standard normal noise [B, Z] -> a mixture at the points of `query`."""
        return self.decode(noise, query)

    def posterior(self, *_: object, **__: object) -> NoReturn:
        """Refused: see `CANNOT_INFER`."""
        raise ValueError(CANNOT_INFER)

    def complete(self, *_: object, **__: object) -> NoReturn:
        """Refused: see `CANNOT_INFER`."""
        raise ValueError(CANNOT_INFER)

    # --- what is learned --------------------------------------------------------------------------------------------

    def score(self, batch: FunctionBatch, values: Tensor, *, frozen: bool = False) -> Tensor:
        """log D / (1 - D) [B] of values [B, N, C] at the points of `batch` that were observed.

        Where `frozen`, no gradient goes to the discriminator: it is judged by, and does not learn.
        """
        low, high = self.spec.bounds
        signed = 2 * (values - low) / (high - low) - 1
        given = (batch.coords, signed, batch.mask)
        if frozen:
            weights = {name: each.detach() for name, each in self.discriminator.named_parameters()}
            encoded = torch.func.functional_call(self.discriminator, weights, given)
        else:
            encoded = self.discriminator(*given)
        return nn.functional.leaky_relu(encoded, UNRECTIFIED)[:, 0]  # a score is not rectified

    def penalty(self, batch: FunctionBatch) -> Tensor:
        """R1 [B]: the squared gradient of D with respect to the data's values; itself differentiable.

        Source: Dupont et al., Section 4.3: of the probability, as in the public code, with values in [-1, 1].
        """
        return self._judged(batch)[1]

    def _judged(self, batch: FunctionBatch) -> tuple[Tensor, Tensor]:
        """The data's score and its R1, by one pass."""
        if batch.values is None:
            raise ValueError("a discriminator judges values: this batch has coordinates only")
        with torch.enable_grad():
            values = batch.values.expand(batch.batch_size, -1, -1).detach().requires_grad_()
            score = self.score(batch, values)
            (slope,) = torch.autograd.grad(score.sigmoid().sum(), values, create_graph=True)
        half = (self.spec.bounds[1] - self.spec.bounds[0]) / 2  # a unit of [-1, 1] in a value's own
        return score, (half * slope).square().sum(dim=(1, 2))

    def discriminator_loss(self, batch: FunctionBatch, noise: Tensor) -> DiscriminatorTerms:
        """What the discriminator lowers: data against as many functions from noise [B, Z], at the same points."""
        score, penalty = self._judged(batch)
        with torch.no_grad():
            made = self.values(noise, FunctionBatch(coords=batch.coords))
        real = nn.functional.softplus(-score)
        fake = nn.functional.softplus(self.score(batch, made))
        return DiscriminatorTerms(real, fake, penalty, real + fake + self.spec.r1 / 2 * penalty)

    def generator_loss(self, batch: FunctionBatch, noise: Tensor) -> Tensor:
        """What the generator lowers [B]: -log D of functions from noise [B, Z], at the points of `batch`.

        No gradient goes to the discriminator, so that one pass back may be of both players' losses.
        """
        made = self.values(noise, FunctionBatch(coords=batch.coords))
        return nn.functional.softplus(-self.score(batch, made, frozen=True))
