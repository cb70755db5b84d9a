"""The gate before a model becomes the champion: it must beat the one that is, on hours that neither learned from.

Both models are given the same coarse fields and asked for the store's grid. Three numbers are compared, each smaller is
better: the CRPS of the members; the size of the mean error of their mean; and how far the members' power spectrum is
from the truth's, mean |log ratio| over the wavelengths above 3 cells. Hours are not independent, so what could be
chance is told by a bootstrap of blocks of time, drawn for both models alike.

A challenger passes if its CRPS is lower beyond chance and neither of the others is higher beyond chance.

Source: Kuensch 1989, "The jackknife and the bootstrap for general stationary observations" (moving blocks).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.store import Store, open_store
from pipelines.products import skill
from pipelines.products.ensemble import Downscaler
from pipelines.products.evaluate import default_factor, members_of, samples_of
from pipelines.products.spectra import zonal_spectrum
from pipelines.training.registry import CHAMPION, champion_of, load_model, promote, version_uri

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
    """

    passed: bool
    reason: str
    compared: dict[str, Compared]

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


def pass_gate(name: str, version: str, store: str, *, members: int = 32, seed: int = 0, force: bool = False) -> Verdict:
    """Compare a version with the champion and make it the champion if it passes, or if it is forced; both are recorded.

    Args:
        name, version: Of the registered model.
        store: A store with hours that neither learned from.
        members, seed: Of the ensembles.
        force: Promote it whatever the comparison says.

    Raises:
        ValueError: If there is no such version, or nothing to compare on.
    """
    champion = champion_of(name)
    if champion == version:
        raise ValueError(f"version {version} of {name!r} is the champion already")
    verdict = (
        Verdict(passed=True, reason="there was no champion", compared={})
        if champion is None
        else judge(version_uri(name, version), version_uri(name, champion), store, members=members, seed=seed)
    )
    if verdict.passed or force:
        promote(name, version, {"forced": force and not verdict.passed, "store": store, **verdict.to_dict()})
    return verdict


def force_past_gate(name: str, version: str) -> Verdict:
    """Make a version the champion without a comparison; that is recorded."""
    verdict = Verdict(passed=False, reason="forced without a comparison", compared={})
    promote(name, version, {"forced": True, "store": None, **verdict.to_dict()})
    return verdict


def judge(challenger: str, champion: str, store: str, *, members: int, seed: int) -> Verdict:
    """Compare two MODELs on the hours of a store that neither learned from."""
    opened, tellers = open_store(store), []
    for model in (challenger, champion):
        checkpoint, network, origin = load_model(model)
        if network.local is None:
            raise ValueError(f"{model} reconstructs fields, it does not downscale: promote it with --force")
        tellers.append(Downscaler(checkpoint=checkpoint, model=network, origin=origin))
    truth = opened.field.isel(time=_unseen(opened, tellers)).load()
    coarse_every = default_factor(tellers[1].checkpoint.plan)
    coarse = truth[:, ::coarse_every, ::coarse_every]
    losses = [losses_of(members_of(each, coarse, truth, members=members, seed=seed), truth) for each in tellers]
    return verdict_of(*losses, block=block_length(truth["time"].values), seed=seed)


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


def _unseen(opened: Store, tellers: list[Downscaler]) -> NDArray[np.int64]:
    """Samples that are no model's to learn from."""
    parts = [samples_of(opened, teller.checkpoint.plan, "test") for teller in tellers]
    both = np.intersect1d(parts[0], parts[1])
    if len(both) < 2:
        raise ValueError(
            f"{opened.path!r} has {len(both)} samples that neither {CHAMPION} nor challenger learned from: comparing "
            "them needs more, or --force"
        )
    return both
