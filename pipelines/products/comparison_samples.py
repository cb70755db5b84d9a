"""Whether new functions are like true ones as a whole: the energy distance, spectra, and features of fields.

    spectra    sqrt(mean over wavelengths of (10 log10 (P_made / P_true))^2), dB

Source: Gray and Markel, "Distance measures for speech processing", IEEE TASSP 1976 (the log-spectral distance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipelines.products.linear_pictures import principal_axes
from pipelines.products.spectra import zonal_spectrum
from pipelines.training.energy import energy_distance

Floats = NDArray[np.floating]
COMPONENTS = 32
STATED = f"{COMPONENTS} principal components of the training fields, weighted by area, divided by their spread"
_LEAST = 1e-30


def energy(made: Floats, truth: Floats, area: Floats) -> float:
    """The energy distance between two sets of functions, in the unit of their values.

    Args:
        made: [n, N] or [n, N, C].
        truth: [m, N] or [m, N, C]; a value that is NaN is left out.
        area: [N], the share of the domain that each point stands for.
    """
    one, other = (torch.from_numpy(each.reshape(len(each), len(area), -1)) for each in (made, truth))
    return energy_distance(one, torch.nan_to_num(other), torch.from_numpy(area), torch.isfinite(other).all(dim=-1))


def log_spectral_distance(made: xr.DataArray, truth: xr.DataArray) -> float:
    """Between the zonal spectra of fields (sample, latitude, longitude), dB; both averaged over their samples.

    Raises:
        ValueError: If the grid has no spectrum.
    """
    powers = [np.maximum(zonal_spectrum(each).values, _LEAST) for each in (made, truth)]
    return float(np.sqrt(np.mean((10 * np.log10(powers[0] / powers[1])) ** 2)))


@dataclass(frozen=True)
class FieldFeatures:
    """What fields are compared by: how much of each leading pattern of the training fields is in them.

    Attributes:
        mean: [N].
        axes: [components, N], orthonormal in the area's measure.
        weight: [N], square roots of the areas.
        spread: Root mean square distance of the training fields from their mean.
    """

    mean: Floats
    axes: Floats
    weight: Floats
    spread: float

    @classmethod
    def of(cls, training: Floats, area: Floats) -> FieldFeatures:
        """Fit to training fields [m, N] on places with these areas [N], which sum to one."""
        mean, weight = np.nan_to_num(np.nanmean(training, axis=0)), np.sqrt(area)
        flat = np.nan_to_num(training - mean) * weight
        axes, _ = principal_axes(flat, COMPONENTS)
        return cls(mean, axes, weight, float(np.sqrt((flat**2).sum(axis=1).mean())) or 1.0)

    def __call__(self, fields: Floats) -> Floats:
        """[n, N] -> [n, components]."""
        return np.asarray(np.nan_to_num(fields - self.mean) * self.weight @ self.axes.T / self.spread)
