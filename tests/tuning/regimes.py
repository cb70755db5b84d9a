"""Stores of functions whose law is known: three regimes, and clusters of functions. What a sweep should find in them.

**Three regimes.** Each point of a field belongs to one of three air masses. Each air mass has its own level and
gradient, which differ a little from field to field, and patches of a few grid cells with sharp edges that are elsewhere
in every field say where it is. No latent of a few numbers can tell the patches, so at each point of a field one of
three laws holds, and which is left to chance:

    y(x) = level_c + a_c p_c(x) + noise,   c = c(x) in {1, 2, 3}

A mixture with fewer components has to call one broad law what is two.

**Clusters.** A field is 280 K and a mixture of three smooth patterns, whose coefficients lie close to one of four
points, the corners of a simplex: four kinds of weather, nothing in between.

    y(x) = 280 + 20 sum_j u_j p_j(x) + noise,   u ~ 1/4 sum_k N(v_k, spread^2 I),   v = 0, e_1, e_2, e_3

A generator that is linear in its latent can only put the clusters into the latent itself, where a Gaussian prior has to
cover what lies between them, and a flow does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from pipelines.data.domain import Chance
from pipelines.data.store import Store, write_store
from pipelines.data.whole import query
from pipelines.training.plan import Plan, split_of
from vamoh import VAMoH

Array = NDArray[np.float64]
REGIMES_SPACE, CLUSTERS_SPACE = (Path(__file__).with_name(f"{name}.yaml") for name in ("regimes", "clusters"))
LEVELS_K, NOISE_K = (260.0, 280.0, 300.0), 0.7
_CORNERS = np.concatenate([np.zeros((1, 3)), np.eye(3)])
AMPLITUDE_K, SPREAD, CLUSTER_NOISE_K = 20.0, 0.04, 1.5


class Made(NamedTuple):
    """A store and what it was made from.

    Attributes:
        store: Of temperature fields on the sphere.
        truth: The regime of every point [T, n, m], or the coefficients of every field [T, 3].
    """

    store: Store
    truth: Array


def write_regimes(path: Path, *, num: int = 240, shape: tuple[int, int] = (10, 20), seed: int = 0) -> Made:
    """Fields of three air masses in patches."""
    rng = np.random.default_rng(seed)
    patterns = _patterns(shape)
    amplitudes = 8 * (1 + 0.3 * rng.standard_normal((num, 3)))
    laws = np.array(LEVELS_K)[:, None, None] + amplitudes[:, :, None, None] * patterns
    rough = rng.standard_normal((num, 3, *shape))
    smooth = gaussian_filter(rough, sigma=(0, 0, 1, 1), mode=("nearest", "nearest", "nearest", "wrap"))
    regime = smooth.argmax(axis=1)
    fields = np.take_along_axis(laws, regime[:, None], axis=1)[:, 0] + NOISE_K * rng.standard_normal((num, *shape))
    return Made(_written(fields, path), regime)


def write_clusters(path: Path, *, num: int = 400, shape: tuple[int, int] = (4, 8), seed: int = 0) -> Made:
    """Fields of four kinds."""
    rng = np.random.default_rng(seed)
    coefficients = _CORNERS[rng.integers(0, 4, num)] + SPREAD * rng.standard_normal((num, 3))
    fields = 280 + AMPLITUDE_K * np.einsum("tj,jnm->tnm", coefficients, _patterns(shape))
    return Made(_written(fields + CLUSTER_NOISE_K * rng.standard_normal(fields.shape), path), coefficients)


def _places(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Cell centres: latitude [n], north first, and longitude [m], degrees."""
    rows, columns = shape
    return 90 - (np.arange(rows) + 0.5) * 180 / rows, np.arange(columns) * 360 / columns


def _patterns(shape: tuple[int, int]) -> Array:
    """Smooth patterns [3, n, m]: the coordinates of the unit sphere."""
    north, east = np.meshgrid(*map(np.deg2rad, _places(shape)), indexing="ij")
    return np.stack([np.sin(north), np.cos(north) * np.cos(east), np.cos(north) * np.sin(east)])


def _written(fields: Array, path: Path) -> Store:
    latitude, longitude = _places(fields.shape[1:])
    field = xr.DataArray(
        fields.astype(np.float32),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": pd.date_range("2001-01-01", periods=len(fields), freq="6h").to_numpy().astype("datetime64[ns]"),
            "latitude": latitude,
            "longitude": longitude,
        },
        name="t2m",
        attrs={"units": "K"},
    )
    return write_store(field, path, source="an analytic law", license="MIT")


def share_of_a_kind(plan: Plan, model: VAMoH, made: Made, *, num: int = 4000, within: float = 0.25) -> float:
    """The share of functions drawn from a model whose coefficients lie so near to a corner; corners are 1 apart."""
    noise = torch.randn(num, model.spec.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fields = plan.scaling.to_kelvin(model.sample(noise, query(plan.geometry)).mean[..., 0])
    patterns = AMPLITUDE_K * _patterns(plan.lattice.shape).reshape(3, -1)
    coefficients = np.linalg.lstsq(patterns.T, (fields - 280).T, rcond=None)[0].T
    distance = np.linalg.norm(coefficients[:, None] - _CORNERS, axis=-1).min(axis=1)
    return float((distance < within).mean())


def share_recognised(plan: Plan, model: VAMoH, made: Made) -> float:
    """The share of the validation fields' points whose component is their regime, components being named at best."""
    held = split_of(plan.config, made.store).validation
    field = made.store.field.isel(time=held)
    batch = plan.framing.training(field.values, field["time"].values, plan.lattice, Chance.of(0, 0, held)).batch
    assert batch.values is not None
    with torch.no_grad():
        mixture = model.decode(model.posterior(batch).mean, batch)
        found = (mixture.component_log_prob(batch.values) + mixture.log_weights).argmax(dim=-1).numpy()
    together = np.zeros((model.spec.components, 3))
    np.add.at(together, (found.ravel(), made.truth[held].ravel().astype(int)), 1)
    named = linear_sum_assignment(-together)
    return float(together[named].sum() / together.sum())
