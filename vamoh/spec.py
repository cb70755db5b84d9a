"""ModelSpec: everything that determines the shape of a model, as plain values. A checkpoint keeps one.

What a user chooses stands in a preset; what the data determine (domain, channels, covariates, the resolutions of the
feature grids, scales) is filled in when training starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vamoh.likelihoods import BOUNDED, LikelihoodName

DomainName = Literal["sphere", "cube", "plane"]
STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A PointConv set encoder.

    Attributes:
        centres: Points of each layer, finest first.
        channels: Features of each layer.
        neighbours: Points that each centre gathers, a layer each.
        kernel_widths: Layers of WeightNet.
        pooled: Points that a layer's centres are averaged onto before the next layer, a layer each; 0 for none.
        places: The last layer's centres are fixed places all over the domain, or (on the sphere) all over the "region"
            of the training data, whose features stand side by side; otherwise they are sampled from the points, and
            averaged.
        region: West, south, east, north in degrees. From the data, where `places` asks for it.
        balanced: Layers start such that each keeps the scale of what it is given (He et al., 2015). As torch starts
            them, each gives on about a tenth: a new encoder of five layers tells no function from another.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    centres: tuple[int, ...] = (1024, 256, 64, 32, 16)
    channels: tuple[int, ...] = (32, 64, 256, 512, 32)
    neighbours: tuple[int, ...] = (9, 9, 9, 9, 9)
    kernel_widths: tuple[int, ...] = (16, 16, 16, 16)
    pooled: tuple[int, ...] = ()
    places: bool | Literal["region"] = False
    region: tuple[float, float, float, float] | None = None
    balanced: bool = False

    def __post_init__(self) -> None:
        if not len(self.centres) == len(self.channels) == len(self.neighbours) > 0:
            raise ValueError(
                "an encoder needs as many centres as channels and neighbours, at least one of each, got "
                f"{len(self.centres)}, {len(self.channels)} and {len(self.neighbours)}"
            )


@dataclass(frozen=True, kw_only=True)
class LocalSpec:
    """The local read-out of a context, and the learned location beside it.

    Attributes:
        neighbours: Nearest context points that a place reads, J.
        kernels: WeightNet's outputs, R: how many shapes a local kernel is a combination of.
        kernel_widths: WeightNet's hidden layers.
        features: Read-outs that feed the generators and the gate, Q.
        location_features: Learned location features that feed them, G.
        reach: Distance, in context cells, over which the kernel's penalty grows by e.
        penalty: Strength of the kernel's penalty, as a ridge's: in samples, so that it weighs less the more there are.
        scale_penalty: Likewise, of how far a place's log scales may go from those of the whole region.
        levels: Levels of the feature grids, each twice as fine as the one before.
        finest: Cell of the finest level in units of the training grid's spacing.
        resolutions: Cells along an edge of the cube, a level each. From the data.
        spacing: The training grid's spacing in radians (sphere) or coordinate units. From the data.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    neighbours: int = 25
    kernels: int = 24
    kernel_widths: tuple[int, ...] = (32, 32)
    features: int = 8
    location_features: int = 8
    reach: float = 0.7
    penalty: float = 2.0
    scale_penalty: float = 20.0
    levels: int = 5
    finest: float = 0.7
    resolutions: tuple[int, ...] = ()
    spacing: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LocationSpec:
    """Learned location of a model without a context: feature grids beside the Fourier features.

    Attributes:
        features: That every place has of its own.
        levels: Of the grids, each twice as fine as the one before.
        finest: Cell of the finest level in units of the training grid's spacing.
        resolutions: Cells along an edge of the cube, a level each. From the data.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    features: int = 32
    levels: int = 5
    finest: float = 1.0
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a VAMoH.

    Attributes:
        system: What tells it from its peers' (vamoh/systems.py).
        latent: Z. components: K. flow_depth: L, 0 for a Gaussian prior.
        fourier_frequencies, fourier_std: Random Fourier features shared by encoder, generators and gates.
        encoder: The encoder of q(z | X, Y).
        hypernetwork: Hidden widths of each hypernetwork.
        generator: Hidden widths of each generator.
        gating: Hidden widths of the gating networks.
        component_posterior: q(c | x, y, z) by a "network" (the paper's), or "exact" (Bayes' rule: a tighter bound).
        compat: The public code's choices where they are choices (bounded gates, linear WeightNets).
        likelihood: Family of the components.
        location: Learned location of the classic model; None for Fourier features alone.
        fitted_prior: When training has ended, the Gaussian below the flow is fitted to the latents of the training
            functions, with all of its covariances.
        local: The local read-out; None for the classic model, which has no context.
        context_encoder: The encoder of p(z | context); None for the classic model.
        domain, channels, covariates, context_scale: From the data. context_scale is the spread of a context's values
            in model units.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    even_points: ClassVar[bool] = False
    system: Literal["vamoh"] = "vamoh"
    latent: int = 32
    components: int = 3
    flow_depth: int = 10
    fourier_frequencies: int = 128
    fourier_std: float = 2.0
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    hypernetwork: tuple[int, ...] = (256, 512)
    generator: tuple[int, ...] = (64, 64, 64)
    gating: tuple[int, ...] = (32, 32)
    component_posterior: Literal["network", "exact"] = "network"
    compat: bool = False
    likelihood: LikelihoodName = "normal"
    location: LocationSpec | None = None
    fitted_prior: bool = False
    local: LocalSpec | None = None
    context_encoder: EncoderSpec | None = None
    domain: DomainName = "sphere"
    channels: int = 1
    covariates: int = 0
    context_scale: float = 1.0

    def __post_init__(self) -> None:
        if (self.local is None) != (self.context_encoder is None):
            raise ValueError("`local` and `context_encoder` come together: a model either has a context or has none")
        if self.local is not None and self.likelihood != "normal":
            raise ValueError(f"a context is added to the mean of a normal likelihood, got {self.likelihood!r}")
        if self.local is not None and (self.location is not None or self.fitted_prior):
            raise ValueError("`location` and `fitted_prior` are of the classic model: with `local`, leave them out")
        for name in ("latent", "components", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.gating:
            raise ValueError("gating needs at least one hidden width, got none")
        if self.flow_depth < 0:
            raise ValueError(f"flow_depth must be 0 (a Gaussian prior) or more, got {self.flow_depth}")

    @property
    def num_axes(self) -> int:
        """D."""
        return {"sphere": 3, "cube": 3, "plane": 2}[self.domain]

    @property
    def bounded(self) -> bool:
        """Whether the likelihood knows no values but those within [0, 1]."""
        return self.likelihood in BOUNDED

    @property
    def unit_interval(self) -> bool:
        """Whether training values are scaled to [0, 1]; else by their mean and standard deviation."""
        return self.bounded
