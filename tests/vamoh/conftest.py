"""Small models and sets of points of uneven shapes, all from one seed."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.likelihoods import LikelihoodName
from vamoh.spec import EncoderSpec, LocalSpec

TINY_ENCODER = EncoderSpec(centres=(5, 2), channels=(6, 4), neighbours=(4, 3), kernel_widths=(5, 3))
BUILD_SPEC = Callable[..., ModelSpec]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of reproducible numbers."""
    return torch.Generator().manual_seed(20230719)


@pytest.fixture
def places(generator: torch.Generator) -> Callable[[int], Tensor]:
    """Random unit vectors [n, 3], float64."""

    def draw(count: int) -> Tensor:
        directions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return directions / directions.norm(dim=-1, keepdim=True)

    return draw


@pytest.fixture
def classic() -> BUILD_SPEC:
    """A spec without a context: Z=4, K=3, L=2, C=3; keywords change it."""

    def build(likelihood: LikelihoodName = "normal", **changes: object) -> ModelSpec:
        spec = ModelSpec(
            latent=4,
            components=3,
            flow_depth=2,
            fourier_frequencies=5,
            encoder=TINY_ENCODER,
            hypernetwork=(6, 7),
            generator=(5, 4),
            gating=(6, 5),
            likelihood=likelihood,
            channels=3,
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    return build


@pytest.fixture
def downscaling(classic: BUILD_SPEC) -> BUILD_SPEC:
    """A spec with a context of two channels, and two covariates; keywords change it."""

    def build(likelihood: LikelihoodName = "normal", **changes: object) -> ModelSpec:
        local = LocalSpec(
            neighbours=9,
            kernels=4,
            kernel_widths=(6,),
            features=2,
            location_features=3,
            resolutions=(1, 3),
            spacing=0.2,
        )
        given = {"local": local, "context_encoder": TINY_ENCODER, "channels": 2, "covariates": 2, "context_scale": 2.0}
        return classic(likelihood, **{**given, **changes})

    return build


@pytest.fixture
def awake() -> Callable[[VAMoH], VAMoH]:
    """Move a model off its starting point, where tables and read-outs are zero, so that every part does something."""

    def wake(model: VAMoH) -> VAMoH:
        noise = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                draw = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
                parameter.add_(0.1 * draw.to(parameter))
        return model

    return wake


@pytest.fixture
def functions(places: Callable[[int], Tensor], generator: torch.Generator) -> Callable[..., FunctionBatch]:
    """B=2 functions at N=7 points, with gaps that differ in number; with a context of M=30 points where asked."""

    def build(channels: int = 3, *, context: bool = False, num_points: int = 7, batch: int = 2) -> FunctionBatch:
        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        observed = torch.ones(batch, num_points, dtype=torch.bool)
        observed[0, 1] = observed[-1, 3] = observed[-1, 4] = False
        given = FunctionBatch(
            coords=places(num_points)[None], values=draw(batch, num_points, channels), observed=observed
        )
        if not context:
            return given
        coarse = FunctionBatch(coords=places(30)[None], values=3 * draw(batch, 30, channels))
        return replace(
            given,
            covariates=draw(batch, num_points, 2),
            base=3 * draw(batch, num_points, channels),
            context=coarse,
        )

    return build
