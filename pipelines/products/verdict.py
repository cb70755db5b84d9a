"""Which of two models is better beyond chance, from what each lost in the same samples.

Hours are not independent, so what could be chance is told by a bootstrap of blocks of time, drawn for both models
alike. What is not finite is never better.

Source: Politis and Romano 1992, "A circular block-resampling procedure for stationary data".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.products import skill
from pipelines.products.spectra import zonal_spectrum

Array = NDArray[np.float64]
CONFIDENCE, BLOCK_HOURS, REPLICATES, CELLS = 0.95, 24.0, 1000, 3.0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One number of both models.

    Attributes:
        challenger, champion: Its values, kelvin (spectrum: mean absolute log ratio).
        low, high: 5th and 95th percentile of challenger minus champion over the replicates.
        better: Share of the replicates in which the challenger's is smaller.
    """

    challenger: float
    champion: float
    low: float
    high: float
    better: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: Whether the challenger may become champion.
        reason: A sentence.
        compared: By name: crps, bias, spectrum; empty where there is no champion yet.
        on: What they were compared on: the store, its fingerprint and time span, samples, factor, members, seed.
        doubts: What of it the challenger was not taught.
    """

    passed: bool
    reason: str
    compared: dict[str, Compared]
    on: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Losses:
    """What a model lost in each sample; its numbers are functions of the samples that are drawn.

    Attributes:
        crps, error: [T] kelvin, area means.
        power, truth: [T, W] power spectra of the members and of the truth.
    """

    crps: Array
    error: Array
    power: Array
    truth: Array

    def numbers(self, drawn: NDArray[np.int64]) -> dict[str, float]:
        """The three numbers over the samples `drawn`."""
        ratio = self.power[drawn].mean(axis=0) / self.truth[drawn].mean(axis=0)
        return {
            "crps": float(self.crps[drawn].mean()),
            "bias": float(abs(self.error[drawn].mean())),
            "spectrum": float(np.abs(np.log(ratio)).mean()),
        }


def verdict_of(challenger: Losses, champion: Losses, *, block: int, seed: int) -> Verdict:
    """What the losses of two models on the same samples say."""
    count = len(challenger.crps)
    whole = [each.numbers(np.arange(count)) for each in (challenger, champion)]
    rng, differences = np.random.default_rng(seed), []
    for _ in range(REPLICATES):
        drawn = draw_blocks(count, block, rng)
        ours, theirs = challenger.numbers(drawn), champion.numbers(drawn)
        differences.append([ours[key] - theirs[key] for key in ours])
    spread = np.array(differences)
    compared = {
        key: Compared(
            challenger=whole[0][key],
            champion=whole[1][key],
            low=float(np.quantile(spread[:, column], 1 - CONFIDENCE)),
            high=float(np.quantile(spread[:, column], CONFIDENCE)),
            better=float((spread[:, column] < 0).mean()),
        )
        for column, key in enumerate(whole[0])
    }
    unknown = [key for key, each in compared.items() if not np.isfinite([each.low, each.high]).all()]
    if unknown:
        reason = f"its {' and its '.join(unknown)} or the champion's is not finite"
        return Verdict(passed=False, reason=reason, compared=compared)
    if compared["crps"].high >= 0:
        return Verdict(passed=False, reason="its CRPS is not lower beyond chance", compared=compared)
    worse = [key for key in ("bias", "spectrum") if compared[key].low > 0]
    if worse:
        return Verdict(passed=False, reason=f"its {' and its '.join(worse)} is worse beyond chance", compared=compared)
    return Verdict(passed=True, reason="its CRPS is lower beyond chance, and nothing is worse", compared=compared)


def losses_of(ensemble: xr.DataArray, truth: xr.DataArray) -> Losses:
    """What members [realization, time, latitude, longitude] lose in each sample."""
    mean = ensemble.mean(skill.MEMBERS)
    crps = skill.crps_ensemble(ensemble, truth, keep=("time",))
    return Losses(
        crps=np.asarray(crps.values, np.float64),
        error=np.asarray(skill.bias(mean, truth, keep=("time",)).values, np.float64),
        power=np.stack([_power(ensemble.isel(time=number)) for number in range(truth.sizes["time"])]),
        truth=np.stack([_power(truth.isel(time=number)) for number in range(truth.sizes["time"])]),
    )


def draw_blocks(count: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` positions out of as many, in runs of `block` that begin anywhere (round the end)."""
    starts = rng.integers(count, size=-(-count // block))
    return ((starts[:, None] + np.arange(block)) % count).ravel()[:count]


def block_length(times: NDArray[Any]) -> int:
    """Samples of a day, so that neighbouring hours stay together; at most a quarter of all."""
    if len(times) < 2:
        return 1
    hours = np.median(np.diff(times).astype("timedelta64[s]").astype(float)) / 3600
    return int(np.clip(round(BLOCK_HOURS / hours), 1, max(1, len(times) // 4)))


def _power(field: xr.DataArray) -> Array:
    """Zonal power above 3 cells of the grid."""
    spectrum = zonal_spectrum(field, south=-90.0, north=90.0)
    resolved = spectrum["wavelength"].values >= CELLS / 2 * float(spectrum["wavelength"].values.min())
    return spectrum.values[resolved]
