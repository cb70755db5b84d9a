"""A model that is ready to be asked for members at any places.

A member is one function of place and time: its latent noise and its random field are drawn from (seed, member) alone,
and everything else is a function of the place. So it agrees with itself on every grid, in every tile and in any
chunking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.batches import Known
from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice
from pipelines.data.times import hours_since_1970, label
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.registry import load_model
from vamoh.members import Members
from vamoh.normal_mixture import NormalMixtures
from vamoh.random_field import DrawnFields, RandomField

# Asked for at a time: places, of which all members know the same; and of these as many as make so many values.
PLACES, VALUES, LEAST_PLACES = 8192, 10 * 2**14, 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Downscaler:
    """A model that is ready to be asked.

    Attributes:
        checkpoint: What is known of it.
        model: The network.
        origin: Name, version and run, for the provenance.
    """

    checkpoint: Checkpoint
    model: Any  # a VAMoH with a context; where a classic model is served, one of any system
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

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with anything that a member depends on."""
        known = self.checkpoint
        digest = hashlib.sha256(repr((self.law, known.plan.scaling, known.plan.spec)).encode())
        if known.leverage is not None:
            digest.update(repr(replace(known.leverage, usual=None)).encode())
            if known.leverage.usual is not None:
                digest.update(known.leverage.usual.numpy().tobytes())
        if known.calibration is not None:
            digest.update(repr(known.calibration).encode())
        if known.plan.background is not None:
            digest.update(repr(known.plan.background.to_json()).encode() + known.plan.background.fields.tobytes())
        for field in known.plan.statics:
            digest.update(repr((field.name, field.fingerprint, field.slope)).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __dask_tokenize__(self) -> str:
        return self.fingerprint

    @property
    def law(self) -> RandomField:
        """The spatial law of members; uncorrelated beyond a grid cell where none was fitted."""
        fitted = self.checkpoint.random_field
        spacing = self.checkpoint.plan.lattice.spacing_rad
        return fitted or RandomField(lengths=(spacing,), weights=(1.0,), time_scale=1.0)

    def given(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores that members get for those of their random fields."""
        calibration = self.checkpoint.calibration
        return scores if calibration is None else calibration(scores)

    def leverage(
        self, known: Known, latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """How far states are from those of training [T, N], and the usual variance [N], None where nothing is.

        Args:
            known: What the model is told of each time.
            latitude, longitude: [N] degrees.
        """
        plan, law, usual = self.checkpoint.plan, self.checkpoint.leverage, None
        if law is not None and law.usual is not None:
            there = plan.lattice.interpolate(law.usual[None].double().numpy(), latitude, longitude)[0]
            usual = torch.from_numpy(there.astype(np.float32))
        return plan.downscaling.strange_at((latitude, longitude), known), usual

    @torch.no_grad()
    def ensemble(
        self, coarse: NDArray[np.floating], lattice: Lattice | Scatter, times: NDArray[Any], *, members: int, seed: int
    ) -> Ensemble:
        """Draw the members of some times.

        Args:
            coarse: [T, n, m] kelvin (at points [T, 1, n]), NaN where missing.
            lattice: Of the coarse field.
            times: [T].
            members: M.
            seed: Of the members.

        Raises:
            ValueError: If a time has no value at all, or the model cannot be given points.
        """
        empty = ~np.isfinite(coarse).any(axis=(1, 2))
        if empty.any():
            raise ValueError(f"the input has no value at all at {label(times[empty][0])}: leave that time out")
        plan, model = self.checkpoint.plan, self.model
        drawn = [draw_member(seed, number, plan.spec.latent) for number in range(members)]
        known = plan.downscaling.known(coarse, lattice)
        given = model.prior_given(model.summarise(plan.downscaling.told(known)))
        noise = torch.stack([each.noise for each in drawn])
        latents = [model.prior.transform(each.expand(len(times), -1), given) for each in noise]
        return Ensemble(
            teller=self,
            coarse=coarse,
            lattice=lattice,
            known=known,
            times=times,
            latents=torch.stack(latents, dim=1),
            fields=[each.field for each in drawn],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The members of some times: functions of place.

    Attributes:
        teller: The model.
        coarse, lattice, times: What they are given: [T, n, m] kelvin.
        known: What the model is told of it.
        latents: [T, M, Z].
        fields: Seed and sign of each member's random field.
    """

    teller: Downscaler
    coarse: NDArray[np.floating]
    lattice: Lattice | Scatter
    known: Known
    times: NDArray[Any]
    latents: torch.Tensor
    fields: list[tuple[int, int]]

    @torch.no_grad()
    def at(
        self, latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Their values, and how probable each component is, the members' mean.

        Args:
            latitude, longitude: [N] degrees.

        Returns:
            [M, T, N] kelvin, and [T, N, K], summing to one.
        """
        num_times, members, count = len(self.times), len(self.fields), len(latitude)
        values = np.empty((members, num_times, count), np.float32)
        weights = np.empty((num_times, count, self.teller.model.spec.components), np.float32)
        for first in range(0, count, PLACES):
            here = slice(first, min(first + PLACES, count))
            self._ask((latitude[here], longitude[here]), values[..., here], weights[:, here])
        return values, weights

    @cached_property
    def _drawn(self) -> DrawnFields:
        hours = torch.from_numpy(hours_since_1970(self.times))
        drawn = self.teller.law.drawn(hours, self.fields, self.teller.model.spec.num_axes)
        return drawn._replace(amplitudes=drawn.amplitudes.float())

    @cached_property
    def _members(self) -> list[Members]:
        """Those of each time."""
        model = self.teller.model
        return [Members(model.generators, model.hypernetworks(each), model.gating, each) for each in self.latents]

    def _ask(
        self,
        places: tuple[NDArray[np.float64], NDArray[np.float64]],
        values: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> None:
        """Fill `values` [M, T, N] and `weights` [T, N, K] at a few places."""
        plan, model = self.teller.checkpoint.plan, self.teller.model
        query = plan.downscaling.query(places, self.times, self.known)
        placed = model.place(query)  # the same for all members: once
        assert placed.local is not None and placed.added is not None
        law, (strange, usual) = self.teller.checkpoint.leverage, self.teller.leverage(self.known, *places)
        found, shares = torch.from_numpy(values).transpose(0, 1), torch.from_numpy(weights).permute(2, 0, 1)
        for part in parts(query.num_points, len(self.times) * len(self.fields)):
            score = self.teller.given(self._drawn.at(query.coords[0, part])).transpose(0, 1)  # [T, M, N]
            mixtures = NormalMixtures.empty(model.spec.components, *score.shape)
            for time, several in enumerate(self._members):
                one = NormalMixtures(*(each[:, time] for each in mixtures))
                several.fill(one, placed.features.seen(time, part), placed.added[time, :, part])
            drawn = mixtures.at_score(score)
            if law is not None:
                expected, variance = mixtures.moments
                here = None if usual is None else usual[part]
                drawn = torch.lerp(expected, drawn, law.factor(strange[:, None, part], variance, here))
            plan.scaling.into_kelvin(drawn, found[..., part])
            shares[..., part] = mixtures.weights.mean(dim=2)


def parts(count: int, values: int) -> Iterator[slice]:
    """Parts of `count` places, at each of which there are so many values: about equal, and whole vectors of places.

    >>> list(parts(3000, 160))
    [slice(0, 1008, None), slice(1008, 2016, None), slice(2016, 3000, None)]
    """
    most = max(LEAST_PLACES, VALUES // values)
    size = -(-count // -(-count // most) // 16) * 16
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


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
