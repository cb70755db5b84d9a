"""Gaussian random fields over coordinates and time: the u_m(x, t) that makes a member of an ensemble one function.

    g(x, t) = sum_f sqrt(w_f / F) (a_f(t) cos k_f.x + c_f(t) sin k_f.x),   a_f(t) = a_f cos v_f t + b_f sin v_f t,

with fixed random frequencies (k_f, v_f) and Gaussian amplitudes: exactly Gaussian of variance one at every place and
time, defined everywhere, with the covariance sum_s w_s exp(-|x - x'|^2 / 2 l_s^2) exp(-(t - t')^2 / 2 tau^2) up to
sampling of the frequencies. On the sphere |x - x'| is the chord, so there is no seam and no pole.

Source: Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vamoh import elementary, onednn

FREQUENCIES_PER_SCALE = 192
IN_CACHE = 256  # places at a time
CORNERS = 8  # of the lattice from which phases are counted, by unit of the coordinates


@dataclass(frozen=True, kw_only=True)
class RandomField:
    """The law of the field.

    Attributes:
        lengths: Correlation lengths l_s, in coordinate units (radians, for short distances on the sphere).
        weights: Share of the variance of each, summing to one.
        time_scale: tau, in the unit of the times that are asked for.
        spread: Standard deviation of the field: one for a model that is calibrated, more for one that is too sure.
    """

    lengths: tuple[float, ...]
    weights: tuple[float, ...]
    time_scale: float
    spread: float = 1.0

    def sample(self, coords: Tensor, times: Tensor, seeds: list[tuple[int, int]], *, frequency_seed: int = 0) -> Tensor:
        """Fields of several members at the same places and times.

        Args:
            coords: [N, D].
            times: [T], float64.
            seeds: A pair (seed, sign) for each of the M members; members of one seed and opposite signs mirror each
                other, so that their mean is that of the model to first order.
            frequency_seed: Of the frequencies, which all members share.

        Returns:
            [M, T, N] in the precision of `coords`.
        """
        return self.drawn(times, seeds, coords.shape[-1], frequency_seed=frequency_seed).at(coords)

    def drawn(
        self, times: Tensor, seeds: list[tuple[int, int]], num_axes: int, *, frequency_seed: int = 0
    ) -> DrawnFields:
        """What of `sample` does not depend on the places; the arguments are the same, and `num_axes` is D."""
        wave, rate, weight = self._frequencies(num_axes, frequency_seed)
        turn = times.double()[:, None] * rate  # [T, F]
        clock = torch.stack([turn.cos(), turn.sin()])  # [2, T, F]
        different = {seed: number for number, seed in enumerate(dict.fromkeys(seed for seed, _ in seeds))}
        amplitudes = []
        for seed in different:
            generator = torch.Generator().manual_seed(seed)
            amplitude = torch.randn(2, 2, 1, len(rate), generator=generator, dtype=torch.float64) * weight.sqrt()
            at_times = (amplitude * clock[:, None]).sum(dim=0)  # [2, T, F]
            amplitudes.append(self.spread * torch.cat([at_times[0], at_times[1]], dim=-1))
        which = torch.tensor([different[seed] for seed, _ in seeds])
        sign = torch.tensor([float(sign) for _, sign in seeds])
        return DrawnFields(torch.stack(amplitudes, dim=1), _from_corners(wave), which, sign)

    def _frequencies(self, num_axes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Wave vectors [F, D], rates [F] and shares of the variance [F]."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor(self.lengths, dtype=torch.float64).repeat_interleave(FREQUENCIES_PER_SCALE)
        shares = torch.tensor(self.weights, dtype=torch.float64).repeat_interleave(FREQUENCIES_PER_SCALE)
        wave = torch.randn(len(lengths), num_axes, generator=generator, dtype=torch.float64) / lengths[:, None]
        rate = torch.randn(len(lengths), generator=generator, dtype=torch.float64) / self.time_scale
        return wave, rate, shares / FREQUENCIES_PER_SCALE


def _from_corners(wave: Tensor) -> Tensor:
    """Wave vectors [F, D] -> what phases are made of, [F, 2 D]: of a corner in units of the lattice, and from there.

    Whole turns between corners are left out, so that phases stay small, and fit single precision, wherever a place is.
    """
    turns = wave / (2 * math.pi * CORNERS)
    return torch.cat([(turns - turns.round()) * (2 * math.pi), wave], dim=1)


class DrawnFields(NamedTuple):
    """The fields of some members at some times: functions of place.

    Attributes:
        amplitudes: [T, S, 2 F], of the cosines and of the sines, for each of the S seeds.
        wave: [F, 2 D], see `_from_corners`.
        which, sign: [M], each member's seed, and whether it mirrors it.
    """

    amplitudes: Tensor
    wave: Tensor
    which: Tensor
    sign: Tensor

    def at(self, coords: Tensor) -> Tensor:
        """Their values [M, T, N] at places [N, D], in the precision of `coords`."""
        amplitudes, wave = self.amplitudes.to(coords).flatten(0, 1), self.wave.to(coords)
        corner = (coords * CORNERS).round_()
        places = torch.cat([corner, coords - corner / CORNERS], dim=1)  # which is exact
        found = coords.new_empty(len(amplitudes), len(coords))
        pieces = max(1, -(-len(coords) // IN_CACHE))  # about equal: products of few columns are rounded in another way
        for here, there in zip(found.chunk(pieces, dim=1), places.chunk(pieces), strict=True):
            waves = coords.new_empty(2 * len(wave), len(there))
            cosines, phases = waves.split(len(wave))
            torch.mm(wave, there.T, out=phases)
            elementary.write("cos", phases, cosines)
            elementary.write("sin", phases, phases)
            here.copy_(onednn.linear(amplitudes, waves.T))
        members = found.view(*self.amplitudes.shape[:2], -1).index_select(1, self.which.to(coords.device))
        return members.mul_(self.sign.to(coords)[:, None]).transpose(0, 1)


def normal_cdf(value: Tensor) -> Tensor:
    """Phi, kept within (1e-6, 1 - 1e-6) so that quantiles are finite."""
    return (0.5 * torch.erfc(-value / math.sqrt(2))).clamp(1e-6, 1 - 1e-6)
