"""New functions from the prior, and completions of those that were seen in part: `sample` and `complete`.

A function that is made is what the mixture's mean is for one latent; realizations differ by their latents. Nothing here
knows a kind of data: `ProductKind` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.domain import Geometry, kind_of
from pipelines.products.inference import inferred
from pipelines.products.kinds import Ask, Generated, ProductKind, products_of
from pipelines.training.plan import Plan
from pipelines.training.registry import load_model
from pipelines.training.systems import system_of
from vamoh import FunctionBatch
from vamoh.systems import Model

POINTS = 1 << 16  # asked for at a time
COMMON = (".nc", ".zarr", ".npz", ".png")
Progress = Callable[[int, int], None]  # (functions that are done, functions in all); what it raises ends the work


class Opened(NamedTuple):
    """A MODEL that is in memory already, and where it came from."""

    network: Model
    plan: Plan
    origin: Mapping[str, str]


def sample(
    model: str | Opened,
    *,
    number: int = 8,
    resolution: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Draw new functions from a classic model's prior.

    Args:
        model: MODEL, as everywhere, or one that is open.
        number: How many; the first ones are the same however many there are.
        resolution: Degrees, voxels or pixels along the longest edge; that of the training data by default.
        seed: Of the draws.
        progress: Told of each that is done.

    Returns:
        Values (sample, *grid), and at every place the most probable component.

    Raises:
        ValueError: If the model downscales, or there is no such resolution.
    """
    network, plan, origin = _classic(model)
    made = _drawn(network, plan, _noise(number, plan.spec.latent, seed), resolution, progress)
    return made.assign_attrs(_provenance(origin, plan, f"{number} samples, seed {seed}"))


def between(
    model: str | Opened,
    first: int,
    second: int,
    shares: Sequence[float],
    *,
    resolution: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The functions on the way from one sample to another.

    The way is along a great circle of the noise behind them (`on_circle`), so each function on it is as probable as a
    sample is; a straight line would lead through the middle of the prior, where there are none.

    Args:
        model: MODEL, as everywhere.
        first, second: Numbers of two samples that `sample` draws with this seed, from 0.
        shares: How far to go, 0 for the first one to 1 for the second.
        resolution, seed, progress: See `sample`.

    Returns:
        Values (sample, *grid) as `sample` gives them, with the `share` of each.

    Raises:
        ValueError: If the model downscales, or there is no such resolution or way.
    """
    if first < 0 or second < 0 or not all(0 <= share <= 1 for share in shares):
        raise ValueError("samples are numbered from 0, and the way between two of them goes from share 0 to share 1")
    network, plan, origin = _classic(model)
    noise = _noise(max(first, second) + 1, plan.spec.latent, seed)
    ends = noise[first], noise[second]
    way = torch.stack([ends[0] if first == second else on_circle(*ends, share) for share in shares])
    made = _drawn(network, plan, way, resolution, progress)
    made = made.assign_coords(share=(made[products_of(plan.spec.domain).values].dims[0], list(shares)))
    told = f"{len(shares)} functions from sample {first} to sample {second}, seed {seed}"
    return made.assign_attrs(_provenance(origin, plan, told))


def on_circle(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Noise [Z] on the way between two draws, at a share of it; of two independent standard normals, one more."""
    angle = share * math.pi / 2
    return math.cos(angle) * one + math.sin(angle) * other if 0 < share < 1 else (other if share else one)


def complete(
    model: str | Opened,
    source: str | xr.DataArray,
    *,
    number: int = 4,
    resolution: float | None = None,
    reconstruct: bool = False,
    refine: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Complete functions of which a part was seen.

    Args:
        model: MODEL, as everywhere.
        source: A file, or an array (item, *grid), NaN where nothing was seen.
        number: Completions of each; one of a system whose completions would all be alike, which the attribute
            `comment` says.
        resolution: See `sample`; that of the source by default.
        reconstruct: Give the model's own value everywhere; else what was seen is kept.
        refine: Steps by which each item is inferred (`inferred`); as the system does it best by default.
        seed: Of the draws.
        progress: Told of each that is done.

    Returns:
        Values (item, realization, *grid), and at every place the most probable component.

    Raises:
        ValueError: If the model downscales or cannot infer, the source does not suit it, or nothing was seen of an
            item.
    """
    network, plan, origin = _classic(model)
    kind, data = products_of(plan.spec.domain), kind_of(plan.spec.domain)
    field = kind.read(source, plan)
    if data.channels(field) != plan.spec.channels:
        raise ValueError(
            f"the model is of {plan.spec.channels} values at a place, the input has {data.channels(field)}"
        )
    given, items = data.geometry(field), field[field.dims[0]].values
    seen = np.isfinite(field.values).reshape(len(items), len(given.coords), -1).all(axis=-1)
    if not seen.any(axis=1).all():
        raise ValueError(f"nothing was seen of {data.label(items[~seen.any(axis=1)][0])}: leave it out, or use sample")
    geometry = given if resolution is None else kind.at(given, resolution)
    batch = batch_of(plan, field)
    mean, log_scale = inferred(network, plan, batch, given, steps=refine, seed=seed)
    alike = bool(torch.isneginf(log_scale).all())
    number = 1 if alike else number
    noise = _noise(number, plan.spec.latent, seed)
    latents = mean[:, None] + log_scale[:, None].exp() * noise
    made = _evaluated(network, plan, latents.flatten(0, 1), geometry, progress)
    made = made.reshape(len(items), number, *made.shape[1:])
    if not reconstruct:
        at = np.arange(len(given.coords)) if resolution is None else given.index_of(geometry.coords)
        kept = seen[:, at] & (at >= 0)
        values = field.values.reshape(len(items), len(given.coords), -1)[:, at]
        made[..., :-1] = np.where(kept[:, None, :, None], values[:, None], made[..., :-1])
    named = kind.named(_generated(made, geometry, items), plan)
    told = f"{number} {'reconstructions' if reconstruct else 'completions'} of each, seed {seed}"
    attributes = _provenance(origin, plan, told)
    if alike:
        attributes["comment"] = f"{system_of(plan.spec).name} gives one completion of each: all would be alike"
    return named.assign_attrs(attributes)


def write(dataset: xr.Dataset, path: Path, domain: str, *, overwrite: bool = False) -> None:
    """Write what was generated, by the file's suffix.

    Raises:
        ValueError: If no such file is written of this kind of data.
        FileExistsError: If it exists and is not to be replaced.
    """
    kind = products_of(domain)
    check_suffix(path, kind)
    with written_beside(path, overwrite=overwrite) as beside:
        match path.suffix:
            case ".nc":
                dataset.to_netcdf(beside, engine="h5netcdf")
            case ".zarr":
                dataset.to_zarr(beside, mode="w", zarr_format=3, consolidated=False)
            case ".npz":
                with beside.open("wb") as file:
                    np.savez_compressed(file, **{kind.values: dataset[kind.values].values})  # type: ignore[arg-type]
            case ".png":
                kind.figure(dataset).savefig(beside, format="png", dpi=110)
            case suffix:
                kind.writers[suffix](dataset, beside)


def check_output(model: str, path: Path, *, overwrite: bool) -> str:
    """Refuse what could not be written, before any work is done; gives the model's domain."""
    refuse_existing(path, overwrite=overwrite)
    _, plan, _ = _classic(model)
    check_suffix(path, products_of(plan.spec.domain))
    return plan.spec.domain


def check_suffix(path: Path, kind: ProductKind) -> None:
    """Refuse a file of another format.

    Raises:
        ValueError: Then.
    """
    known = [*COMMON, *kind.writers]
    if path.suffix not in known:
        raise ValueError(f"the output's suffix must be one of {' '.join(known)}, got {path.name!r}")


def batch_of(plan: Plan, field: xr.DataArray) -> FunctionBatch:
    """What a model is told of functions that were seen, NaN where they were not."""
    return plan.whole.all_of(field.values, kind_of(plan.spec.domain).geometry(field))


def _classic(model: str | Opened) -> Opened:
    if isinstance(model, Opened):
        opened = model
    else:
        checkpoint, network, origin = load_model(model)
        opened = Opened(network, checkpoint.plan, origin)
    if opened.network.local is not None:
        name = opened.origin.get("model", "the model") if isinstance(model, Opened) else model
        raise ValueError(f"{name} downscales: it has no functions of its own to give; use `vamoh downscale`")
    return opened


def _drawn(
    network: Model, plan: Plan, noise: torch.Tensor, resolution: float | None, progress: Progress | None
) -> xr.Dataset:
    """The functions of standard normal noise [number, Z]."""
    kind = products_of(plan.spec.domain)
    geometry = plan.geometry if resolution is None else kind.at(plan.geometry, resolution)
    made = _evaluated(network, plan, network.latents(noise), geometry, progress)
    return kind.named(_generated(made[:, None], geometry, None), plan).isel(realization=0, drop=True)


def _evaluated(
    network: Model, plan: Plan, latents: torch.Tensor, geometry: Geometry, progress: Progress | None
) -> NDArray[np.float32]:
    """Functions of latents [n, Z] on a geometry, [n, N, C + 1]."""
    kind, made = products_of(plan.spec.domain), []
    for done, latent in enumerate(latents, start=1):
        made.append(kind.evaluated(_asking(network, plan, latent), geometry))
        if progress is not None:
            progress(done, len(latents))
    return np.stack(made).astype(np.float32)


def _noise(number: int, latent: int, seed: int) -> torch.Tensor:
    """Standard normal [number, Z], each row a function of the seed and its own number."""
    rows = [np.random.default_rng((seed, each)).standard_normal(latent) for each in range(number)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _asking(network: Model, plan: Plan, latent: torch.Tensor) -> Ask:
    """A function of one latent [Z], at any places."""

    @torch.no_grad()
    def ask(coords: NDArray[np.floating]) -> NDArray[np.float32]:
        found = np.empty((len(coords), plan.spec.channels + 1), np.float32)
        for first in range(0, len(coords), POINTS):
            part = torch.from_numpy(coords[first : first + POINTS].astype(np.float32))[None]
            mixture = network.decode(latent[None], FunctionBatch(coords=part))
            found[first : first + POINTS, :-1] = plan.scaling.to_kelvin(mixture.mean[0])
            found[first : first + POINTS, -1] = mixture.logits[0].argmax(dim=-1)
        return found

    return ask


def _generated(made: NDArray[np.float32], geometry: Geometry, items: NDArray[np.generic] | None) -> Generated:
    return Generated(
        values=made[..., :-1],
        components=made[..., -1].astype(np.uint8),
        geometry=geometry,
        items=items,
    )


def _provenance(origin: Mapping[str, str], plan: Plan, told: str) -> dict[str, str]:
    model = f"{origin.get('model', '')} {origin.get('version', '')}".strip()
    return {
        "source": f"{system_of(plan.spec).name} {model}".strip(),
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} vamoh {version('vamoh')}: {told}",
        "references": "https://arxiv.org/abs/2302.06223",
        "model_data_fingerprint": plan.fingerprint,
    }
