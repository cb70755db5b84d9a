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
IN_CACHE = 256  # places at a time
LARGEST_SCORE = 4.753424  # of the levels 1e-6 and 1 - 1e-6


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
        signed = []
        for seed, sign in seeds:
            generator = torch.Generator().manual_seed(seed)
            amplitude = torch.randn(2, 2, 1, len(rate), generator=generator, dtype=torch.float64) * weight.sqrt()
            at_times = (amplitude * clock[:, None]).sum(dim=0)  # [2, T, F]
            signed.append(sign * self.spread * torch.cat([at_times[0], at_times[1]], dim=-1))
        return DrawnFields(torch.stack(signed), wave / (2 * math.pi))

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
        amplitudes: [M, T, 2 F], of the cosines and of the sines.
        wave: [F, D] turns by unit of the coordinates.
    """

    amplitudes: Tensor
    wave: Tensor

    def at(self, coords: Tensor) -> Tensor:
        """Their values [M, T, N] at places [N, D], in the precision of `coords`."""
        amplitudes = self.amplitudes.to(coords).flatten(0, 1)
        found = torch.cat([amplitudes @ self._waves(part) for part in coords.split(IN_CACHE)], dim=-1)
        return found.unflatten(0, self.amplitudes.shape[:2])

    def _waves(self, coords: Tensor) -> Tensor:
        """Cosines and sines [2 F, N]."""
        count = len(self.wave)
        turns = self.wave.to(coords.device) @ coords.double().T  # [F, N]
        # whole turns are taken off in double precision, then a fraction of one fits the precision of the coordinates
        phase = turns.frac_().to(coords.dtype).mul_(2 * math.pi)
        waves = phase.new_empty(2 * count, len(coords))
        torch.cos(phase, out=waves[:count])
        torch.sin(phase, out=waves[count:])
        return waves


def normal_cdf(value: Tensor) -> Tensor:
    """Phi, kept within (1e-6, 1 - 1e-6) so that quantiles are finite."""
    return (0.5 * torch.erfc(-value / math.sqrt(2))).clamp(1e-6, 1 - 1e-6)
