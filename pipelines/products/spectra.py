"""How much of a field's variance lies at each scale: power spectra along circles of latitude.

Every row gets its spectral density over the wavenumber in cycles per kilometre, its own length taken into account,
is brought onto the wavenumbers that every row resolves, and the rows are averaged by area. The integral over the
wavenumber is the variance along longitude, so the unit is that of the field squared, times km.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.grid import goes_round
from pipelines.products.skill import area_weights

Array = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0
HALF = 0.5  # of the power of truth: more error than that, and a wave is not resolved
_TINY = 1e-30  # below any power, above zero, so that its logarithm exists


def zonal_spectrum(field: xr.DataArray, *, south: float = -60.0, north: float = 60.0) -> xr.DataArray:
    """Average power spectral density along longitude.

    Rows of a region, which do not close, lose their linear trend and are tapered by a Hann window. A row with a missing
    value is left out.

    Args:
        field: dims (..., latitude, longitude), evenly spaced in longitude; averaged over all other dims.
        south: the lowest latitude used, degrees. Near the poles a row is too short to resolve long waves.
        north: the highest latitude used, degrees.

    Returns:
        (wavelength,) in the field's unit squared times km, with `wavelength` in km, decreasing; NaN if no row is
        complete.

    Raises:
        ValueError: if no row lies between `south` and `north`, or rows have fewer than four points.

    """
    latitude = np.asarray(field["latitude"].values, np.float64)
    longitude = np.asarray(field["longitude"].values, np.float64)
    inside = (latitude >= south) & (latitude <= north) & (np.abs(latitude) < 89.0)
    if not inside.any():
        raise ValueError(
            f"the field's latitudes {latitude.min():g} to {latitude.max():g} have no row within {south:g} to {north:g} "
            "for a spectrum; pass other limits"
        )
    if longitude.size < 4:
        raise ValueError(f"a spectrum needs at least 4 longitudes, got {longitude.size}")
    rows = field.transpose(..., "latitude", "longitude").values.astype(np.float64)[..., inside, :]
    rows = rows.reshape(-1, *rows.shape[-2:])  # (samples, latitude, longitude)
    weights = area_weights(latitude).values[inside]
    spacing_km = EARTH_RADIUS_KM * np.deg2rad(np.diff(longitude).mean()) * np.cos(np.deg2rad(latitude[inside]))
    density = _density(rows, spacing_km, periodic=goes_round(longitude))  # (samples, latitude, waves)

    waves = np.arange(1, density.shape[-1] + 1)
    row_km = longitude.size * spacing_km
    longest = row_km.max()
    common = waves[waves >= longest / row_km.min() * (1 - 1e-9)] / longest  # cycles per km that every row resolves
    total, weight = np.zeros(common.size), 0.0
    for row, (length, area) in enumerate(zip(row_km, weights, strict=True)):
        complete = density[np.isfinite(density[:, row]).all(axis=-1), row]
        if complete.size:
            mean = np.log(np.maximum(complete.mean(axis=0), _TINY))
            total += area * len(complete) * np.exp(np.interp(np.log(common), np.log(waves / length), mean))
            weight += area * len(complete)
    power = total / weight if weight else np.full(common.size, np.nan)
    units = field.attrs.get("units")
    return xr.DataArray(
        power,
        dims="wavelength",
        coords={"wavelength": ("wavelength", 1 / common, {"units": "km", "long_name": "zonal wavelength"})},
        name="power",
        attrs={"long_name": "power spectral density", **({"units": f"{units}2 km"} if units else {})},
    )


def effective_resolution(error: xr.DataArray, truth: xr.DataArray) -> float:
    """The wavelength, km, down to which a field's error has less than half the power of truth.

    Power alone would credit detail in the wrong place: noise has it too.

    Args:
        error: `zonal_spectrum` of the field minus truth.
        truth: `zonal_spectrum` of truth.

    Returns:
        The shortest wavelength if all are resolved, infinity if not even the longest is; NaN where nothing is known.

    Source: Ballarotta et al. 2019, "On the resolutions of ocean altimetry maps", Section 3.
    """
    wavelength, ratio = truth["wavelength"].values, (error / truth).values
    if not np.isfinite(ratio).all():
        return float("nan")
    lost = np.flatnonzero(ratio >= HALF)
    if not lost.size:
        return float(wavelength.min())
    first = int(lost[0])  # wavelengths decrease
    if first == 0:
        return float("inf")
    between = np.log([ratio[first - 1], ratio[first]])
    along = (np.log(HALF) - between[0]) / (between[1] - between[0])
    ends = np.log(wavelength[[first - 1, first]])
    return float(np.exp(ends[0] + along * (ends[1] - ends[0])))


def _density(rows: Array, spacing_km: Array, *, periodic: bool) -> Array:
    """Spectral density (..., latitude, waves 1..N/2) per cycle per km; its sum over wavenumbers is the variance."""
    size = rows.shape[-1]
    if not periodic:
        position = np.linspace(-1.0, 1.0, size)
        rows = rows - rows.mean(axis=-1, keepdims=True)
        rows = rows - (rows @ position)[..., None] / (position @ position) * position
        window = np.hanning(size + 1)[:-1]
        rows = rows * window / np.sqrt(np.mean(window**2))
    power = np.abs(np.fft.rfft(rows, axis=-1)[..., 1:] / size) ** 2
    both_signs = np.full(power.shape[-1], 2.0)
    if size % 2 == 0:
        both_signs[-1] = 1.0  # the Nyquist wave has no partner
    return power * both_signs * (size * spacing_km)[:, None]
