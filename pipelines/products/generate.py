"""New functions from the prior, and completions of those that were seen in part: `sample` and `complete`.

A function that is made is what the mixture's mean is for one latent; realizations differ by their latents. Nothing here
knows a kind of data: `ProductKind` does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.domain import Geometry, kind_of
from pipelines.products.inference import STEPS, inferred
from pipelines.products.kinds import Ask, Generated, ProductKind, products_of
from pipelines.training.plan import Plan
from pipelines.training.registry import load_model
from vamoh import FunctionBatch, VAMoH

POINTS = 1 << 16  # asked for at a time
COMMON = (".nc", ".zarr", ".npz", ".png")


def sample(model: str, *, number: int = 8, resolution: float | None = None, seed: int = 0) -> xr.Dataset:
    """Draw new functions from a classic model's prior.

    Args:
        model: MODEL, as everywhere.
        number: How many; the first ones are the same however many there are.
        resolution: Degrees, voxels or pixels along the longest edge; that of the training data by default.
        seed: Of the draws.

    Returns:
        Values (sample, *grid), and at every place the most probable component.

    Raises:
        ValueError: If the model downscales, or there is no such resolution.
    """
    network, plan, origin = _classic(model)
    kind = products_of(plan.spec.domain)
    geometry = plan.geometry if resolution is None else kind.at(plan.geometry, resolution)
    latents = network.prior.transform(_noise(number, plan.spec.latent, seed))
    made = [kind.evaluated(_asking(network, plan, latent), geometry) for latent in latents]
    named = kind.named(_generated(np.stack(made)[:, None], geometry, None), plan)
    named = named.isel(realization=0, drop=True)
    return named.assign_attrs(_provenance(origin, plan, f"{number} samples, seed {seed}"))


def complete(
    model: str,
    source: str | xr.DataArray,
    *,
    number: int = 4,
    resolution: float | None = None,
    reconstruct: bool = False,
    refine: int = STEPS,
    seed: int = 0,
) -> xr.Dataset:
    """Complete functions of which a part was seen.

    Args:
        model: MODEL, as everywhere.
        source: A file, or an array (item, *grid), NaN where nothing was seen.
        number: Completions of each.
        resolution: See `sample`; that of the source by default.
        reconstruct: Give the model's own value everywhere; else what was seen is kept.
        refine: Steps by which the encoder's answer is improved for each item; 0 for that alone.
        seed: Of the draws.

    Returns:
        Values (item, realization, *grid), and at every place the most probable component.

    Raises:
        ValueError: If the model downscales, or the source does not suit it, or nothing was seen of an item.
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
    noise = _noise(number, plan.spec.latent, seed)
    rows = [
        [kind.evaluated(_asking(network, plan, middle + width.exp() * each), geometry) for each in noise]
        for middle, width in zip(mean, log_scale, strict=True)
    ]
    made = np.array(rows, dtype=np.float32)
    if not reconstruct:
        at = np.arange(len(given.coords)) if resolution is None else given.index_of(geometry.coords)
        kept = seen[:, at] & (at >= 0)
        values = field.values.reshape(len(items), len(given.coords), -1)[:, at]
        made[..., :-1] = np.where(kept[:, None, :, None], values[:, None], made[..., :-1])
    named = kind.named(_generated(made, geometry, items), plan)
    told = f"{number} {'reconstructions' if reconstruct else 'completions'} of each, seed {seed}"
    return named.assign_attrs(_provenance(origin, plan, told))


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
    framing, kind = plan.whole.entire, kind_of(plan.spec.domain)
    return framing.training(
        field.values, field[field.dims[0]].values, kind.geometry(field), np.random.default_rng()
    ).batch


def _classic(model: str) -> tuple[VAMoH, Plan, dict[str, str]]:
    checkpoint, network, origin = load_model(model)
    if network.local is not None:
        raise ValueError(f"{model} downscales: it has no functions of its own to give; use `vamoh downscale`")
    return network, checkpoint.plan, origin


def _noise(number: int, latent: int, seed: int) -> torch.Tensor:
    """Standard normal [number, Z], each row a function of the seed and its own number."""
    rows = [np.random.default_rng((seed, each)).standard_normal(latent) for each in range(number)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _asking(network: VAMoH, plan: Plan, latent: torch.Tensor) -> Ask:
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


def _provenance(origin: dict[str, str], plan: Plan, told: str) -> dict[str, str]:
    model = f"{origin.get('model', '')} {origin.get('version', '')}".strip()
    return {
        "source": f"VAMoH {model}".strip(),
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} vamoh {version('vamoh')}: {told}",
        "references": "https://arxiv.org/abs/2302.06223",
        "model_data_fingerprint": plan.fingerprint,
    }
