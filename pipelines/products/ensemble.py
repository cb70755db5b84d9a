"""A model that is ready to be asked for members at any places.

A member is one function of place and time: its latent noise and its random field are drawn from (seed, member) alone,
and everything else is a function of the place. So it agrees with itself on every grid, in every tile and in any
chunking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.sphere import Lattice
from pipelines.data.times import hours_since_1970, label
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.registry import load_model
from vamoh import VAMoH
from vamoh.random_field import RandomField


@dataclass(frozen=True, kw_only=True, eq=False)
class Downscaler:
    """A model that is ready to be asked.

    Attributes:
        checkpoint: What is known of it.
        model: The network.
        origin: Name, version and run, for the provenance.
    """

    checkpoint: Checkpoint
    model: VAMoH
    origin: Mapping[str, str]

    @classmethod
    def of(cls, model: str) -> Downscaler:
        """Load a MODEL.

        Raises:
            ValueError: If there is none, or it has no context to downscale from.
        """
        checkpoint, network, origin = load_model(model)
        if network.local is None:
            raise ValueError(f"{model} is a classic model of whole fields: downscaling needs one of preset `downscale`")
        return cls(checkpoint=checkpoint, model=network.eval(), origin=origin)

    @property
    def law(self) -> RandomField:
        """The spatial law of members; uncorrelated beyond a grid cell where none was fitted."""
        fitted = self.checkpoint.random_field
        spacing = self.checkpoint.plan.lattice.spacing_rad
        return fitted or RandomField(lengths=(spacing,), weights=(1.0,), time_scale=1.0)

    @torch.no_grad()
    def ensemble(
        self,
        coarse: NDArray[np.floating],
        lattice: Lattice,
        times: NDArray[Any],
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
        *,
        members: int,
        seed: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Members and the component that explains each place.

        Args:
            coarse: [T, n, m] kelvin, NaN where missing.
            lattice: Of the coarse field.
            times: [T].
            latitude, longitude: [N] degrees.
            members: M.
            seed: Of the members.

        Returns:
            members [M, T, N] in kelvin and the most probable component [T, N].
        """
        plan = self.checkpoint.plan
        empty = ~np.isfinite(coarse).any(axis=(1, 2))
        if empty.any():
            raise ValueError(f"the input has no value at all at {label(times[empty][0])}: leave that time out")
        query = plan.framing.query((latitude, longitude), times, coarse=coarse, lattice=lattice)
        drawn = [draw_member(seed, number, plan.spec.latent) for number in range(members)]
        noise = torch.stack([each.noise for each in drawn])[:, None].expand(-1, len(times), -1)
        fields = self.law.sample(
            query.coords[0], torch.from_numpy(hours_since_1970(times)), [each.field for each in drawn]
        )
        values, weights = [], torch.zeros(())
        for field, mixture in zip(fields, self.model.members(noise, query), strict=True):
            values.append(plan.scaling.to_kelvin(mixture.at_score(field[..., None])[..., 0]))
            weights = weights + mixture.log_weights.exp()
        return np.stack(values).astype(np.float32), weights.argmax(dim=-1).numpy().astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class Member:
    """What is drawn for one member.

    Attributes:
        noise: [Z], standard normal.
        field: Seed and sign of its random field.
    """

    noise: torch.Tensor
    field: tuple[int, int]


def draw_member(seed: int, number: int, latent: int) -> Member:
    """The draw of one member: a function of (seed, number); odd ones mirror the even one before."""
    sign = -1 if number % 2 else 1
    pair = int(np.random.SeedSequence([seed, number // 2]).generate_state(1, np.uint64)[0] >> 1)
    noise = torch.randn(latent, generator=torch.Generator().manual_seed(pair))
    return Member(noise=sign * noise, field=(pair ^ 1, sign))
