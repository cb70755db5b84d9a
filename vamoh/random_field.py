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

FREQUENCIES_PER_SCALE = 192
IN_CACHE = 512  # places at a time


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
        return DrawnFields(torch.stack(amplitudes, dim=1), wave / (2 * math.pi), which, sign)

    def _frequencies(self, num_axes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Wave vectors [F, D], rates [F] and shares of the variance [F]."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor(self.lengths, dtype=torch.float64).repeat_interleave(FREQUENCIES_PER_SCALE)
        shares = torch.tensor(self.weights, dtype=torch.float64).repeat_interleave(FREQUENCIES_PER_SCALE)
        wave = torch.randn(len(lengths), num_axes, generator=generator, dtype=torch.float64) / lengths[:, None]
        rate = torch.randn(len(lengths), generator=generator, dtype=torch.float64) / self.time_scale
        return wave, rate, shares / FREQUENCIES_PER_SCALE


class DrawnFields(NamedTuple):
    """The fields of some members at some times: functions of place.

    Attributes:
        amplitudes: [T, S, 2 F], of the cosines and of the sines, for each of the S seeds.
        wave: [F, D] turns by unit of the coordinates.
        which, sign: [M], each member's seed, and whether it mirrors it.
    """

    amplitudes: Tensor
    wave: Tensor
    which: Tensor
    sign: Tensor

    def at(self, coords: Tensor) -> Tensor:
        """Their values [M, T, N] at places [N, D], in the precision of `coords`."""
        amplitudes = self.amplitudes.to(coords).flatten(0, 1)
        found = coords.new_empty(len(amplitudes), len(coords))
        for first in range(0, len(coords), IN_CACHE):
            part = slice(first, first + IN_CACHE)
            torch.mm(amplitudes, self._waves(coords[part]), out=found[:, part])
        members = found.view(*self.amplitudes.shape[:2], -1).index_select(1, self.which.to(coords.device))
        return members.mul_(self.sign.to(coords)[:, None]).transpose(0, 1)

    def _waves(self, coords: Tensor) -> Tensor:
        """Cosines and sines [2 F, N]."""
        count = len(self.wave)
        turns = self.wave.to(coords.device) @ coords.double().T  # [F, N]
        # whole turns are taken off in double precision, then a fraction of one fits the precision of the coordinates
        # (the tangent of half the angle gives both, and costs less than both)
        tangent = turns.frac_().to(coords.dtype).mul_(math.pi).tan_()
        twice = (tangent * tangent).add_(1).reciprocal_().mul_(2)
        waves = tangent.new_empty(2 * count, len(coords))
        torch.sub(twice, 1, out=waves[:count])
        torch.mul(tangent, twice, out=waves[count:])
        return waves


def normal_cdf(value: Tensor) -> Tensor:
    """Phi, kept within (1e-6, 1 - 1e-6) so that quantiles are finite."""
    return (0.5 * torch.erfc(-value / math.sqrt(2))).clamp(1e-6, 1 - 1e-6)
