"""A model in a comparison: what it can do, and what it makes of functions, in the store's units.

VAMoH           infers (by its encoder, or improved for each function), bounds the evidence, samples
... a context   downscales, and nothing else
Functa          infers (by so many steps of descent) and samples; its latent has no width, so there is no bound
GASP            samples
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.domain import Geometry, kind_of
from pipelines.data.whole import query
from pipelines.products.comparison_metrics import Need
from pipelines.products.ensemble import Downscaler
from pipelines.products.generate import batch_of
from pipelines.products.inference import inferred
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh import FunctionBatch, VAMoH
from vamoh.elbo import gaussian_log_prob
from vamoh.likelihoods import Binary, DiscretisedLogistic, Mixture
from vamoh.model import Posterior
from vamoh.peers.gasp import CANNOT_INFER
from vamoh.systems import Model

Floats = NDArray[np.floating]
DRAWS = 2  # of the latent, for the bound
_DECODED = 2_000_000  # places times components times functions at once

_NO_WIDTH = "infers one latent without a width, so that there is no bound of the evidence"
_READS_COARSE = "downscales: it answers for coarse fields, and has no functions of its own to infer or to draw"
_WHOLE = "makes whole functions: members of this kind are those of a model that downscales"


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A model, and one way of asking it.

    Attributes:
        label: Its name in the table.
        system: Which it is.
        checkpoint, network, origin: The model.
        refusals: What it cannot do, and why.
        steps: Of the way in which it infers, as its `System` counts them.
    """

    label: str
    system: str
    checkpoint: Checkpoint
    network: Model
    origin: Mapping[str, str]
    refusals: Mapping[Need, str]
    steps: int = 0

    @property
    def plan(self) -> Plan:
        """What the model was made for."""
        return self.checkpoint.plan

    @property
    def downscales(self) -> bool:
        """Whether it has a context."""
        return self.network.local is not None

    @property
    def teller(self) -> Downscaler:
        """The model, ready to downscale."""
        assert isinstance(self.network, VAMoH)
        return Downscaler(checkpoint=self.checkpoint, model=self.network, origin=self.origin)

    def can(self, need: Need) -> bool:
        """Whether it can do so."""
        return need not in self.refusals

    # --- what is inferred -------------------------------------------------------------------------------------------

    def batch(self, field: xr.DataArray) -> FunctionBatch:
        """Functions (sample, *grid), NaN where they were not seen, as the model is given them."""
        return batch_of(self.plan, field)

    def posterior(self, batch: FunctionBatch, geometry: Geometry, seed: int = 0) -> Posterior:
        """What the model makes of what was seen."""
        return inferred(self.network, self.plan, batch, geometry, steps=self.steps, seed=seed)

    def inferred(self, field: xr.DataArray, seed: int = 0) -> Posterior:
        """Likewise, of functions in the store's units."""
        return self.posterior(self.batch(field), kind_of(self.plan.spec.domain).geometry(field), seed)

    # --- what is generated ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def mixtures(self, latents: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Mixture]]:
        """The distributions of functions of latents [n, Z] at all places, some rows at a time."""
        where = query(geometry)
        for part in _parts(len(latents), geometry, self.network):
            yield part, self.network.decode(latents[part], where)

    def values(self, latents: Tensor, geometry: Geometry) -> Floats:
        """Their means [n, N, C], in the store's units, float32."""
        return self._joined(mixture.mean for _, mixture in self.mixtures(latents, geometry))

    def members(self, found: Posterior, geometry: Geometry, count: int, seed: int) -> Floats:
        """Draws of functions [M, n, N, C]: each of another latent, and at its own level of the distribution there."""
        made = []
        for member, latents in enumerate(draws(found, count, seed)):
            level = (member + 0.5) / count
            parts = (
                mixture.quantile(torch.full_like(mixture.mean, level))
                for _, mixture in self.mixtures(latents, geometry)
            )
            made.append(self._joined(parts))
        return np.stack(made)

    @torch.no_grad()
    def sampled(self, number: int, geometry: Geometry, seed: int) -> Floats:
        """New functions [number, N, C], in the store's units."""
        noise = torch.randn(number, self.plan.spec.latent, generator=torch.Generator().manual_seed(seed))
        where = query(geometry)
        return self._joined(
            self.network.sample(noise[part], where).mean for part in _parts(number, geometry, self.network)
        )

    def _joined(self, parts: Iterator[Tensor]) -> Floats:
        return np.concatenate([self.plan.scaling.to_kelvin(part).astype(np.float32) for part in parts])

    # --- what it costs to say ---------------------------------------------------------------------------------------

    def bits(self, field: xr.DataArray, found: Posterior) -> float:
        """Bits for each stored value, given the latents' means."""
        return -float(np.mean(self._log_prob(field, found.mean))) / math.log(2)

    def bits_bound(self, field: xr.DataArray, found: Posterior, seed: int) -> float:
        """Bits for each stored value, the latent's own share included: minus the bound."""
        assert isinstance(self.network, VAMoH)
        count = np.isfinite(field.values).sum() / len(field)
        bounds = []
        for latents in draws(found, DRAWS, seed):
            with torch.no_grad():
                ratio = self.network.prior.log_prob(latents, None) - gaussian_log_prob(latents, *found)
            bounds.append(np.mean(self._log_prob(field, latents)) + float(ratio.mean()) / count)
        return -float(np.mean(bounds)) / math.log(2)

    def _log_prob(self, field: xr.DataArray, latents: Tensor) -> Floats:
        """Nats for each stored value [values], NaN left out; of a density by one unit of the store's."""
        batch = self.batch(field)
        geometry = kind_of(self.plan.spec.domain).geometry(field)
        assert batch.values is not None
        channels, found = batch.values.shape[-1], []
        mask = batch.mask.expand(len(latents), -1)
        for part, mixture in self.mixtures(latents, geometry):
            nats = mixture.log_prob(batch.values[part]) / channels
            if not isinstance(mixture.components, Binary | DiscretisedLogistic):
                nats = nats - math.log(self.plan.scaling.scale)
            found.append(nats[mask[part]].double().numpy())
        return np.concatenate(found)


def draws(found: Posterior, count: int, seed: int) -> Iterator[Tensor]:
    """So many latents [n, Z] of each function."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield found.mean + found.log_scale.exp() * torch.randn(found.mean.shape, generator=generator)


def entries(label: str, checkpoint: Checkpoint, network: Model, origin: Mapping[str, str]) -> list[Entry]:
    """The ways of asking a model, a row of the table each: the first is the one that its system does best.

    Args:
        label: The model's name in the table.
        checkpoint, network, origin: The model.
    """
    name = checkpoint.plan.spec.system
    ways = system_of(checkpoint.plan.spec).ways
    first = Entry(label=label, system=name, checkpoint=checkpoint, network=network, origin=origin, refusals={})
    if network.local is not None:
        return [replace(first, refusals=dict.fromkeys(("infer", "bound", "sample"), _READS_COARSE))]
    refusals: dict[Need, str] = {"members": _WHOLE}
    if not ways:
        refusals |= dict.fromkeys(("infer", "downscale", "bound", "invert"), CANNOT_INFER)
        return [replace(first, refusals=refusals)]
    if name != "vamoh":
        refusals["bound"] = _NO_WIDTH
    found = []
    for way, steps in ways.items():
        _, comma, how = way.partition(",")
        found.append(replace(first, label=label + comma + how, refusals=refusals, steps=steps))
    return found


def _at_once(geometry: Geometry, network: Model) -> int:
    return max(1, _DECODED // (network.spec.components * len(geometry.coords)))


def _parts(count: int, geometry: Geometry, network: Model) -> Iterator[slice]:
    size = _at_once(geometry, network)
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
