"""Cells of a fine grid put together, each to the mean over its area: coarse fields as climate models write them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sphere import Lattice

Floats = NDArray[np.floating]
LEAST = 0.5  # share of a cell's area that must be known, or its mean is not


def block_means(
    fields: Floats, lattice: Lattice, factor: int, offset: tuple[int, int] = (0, 0)
) -> tuple[Floats, Lattice]:
    """Means over blocks of `factor` x `factor` points, weighted by the area that each point stands for.

    Args:
        fields: [B, n, m] on `lattice`, NaN where missing.
        lattice: The fine grid.
        factor: Points along a block's side.
        offset: Row and column of the first block's first point; round the globe, blocks go on past the seam.

    Returns:
        [B, n', m'] of whole blocks, and the grid of their centres.
    """
    latitude, longitude = lattice.latitude, lattice.longitude
    area = lattice.area.reshape(lattice.shape)
    if lattice.periodic:
        longitude = np.concatenate([longitude[offset[1] :], longitude[: offset[1]] + 360.0])
        fields, area = np.roll(fields, -offset[1], axis=-1), np.roll(area, -offset[1], axis=-1)
    else:
        fields, area, longitude = fields[..., offset[1] :], area[:, offset[1] :], longitude[offset[1] :]
    fields, area, latitude = fields[:, offset[0] :], area[offset[0] :], latitude[offset[0] :]
    rows, columns = len(latitude) // factor, len(longitude) // factor
    here = (slice(rows * factor), slice(columns * factor))
    shape = (rows, factor, columns, factor)
    weight = area[here].reshape(shape)
    values = fields[:, here[0], here[1]].reshape(len(fields), *shape)
    seen = np.isfinite(values)
    known = (weight * seen).sum(axis=(2, 4))
    total = (weight * np.where(seen, values, 0.0)).sum(axis=(2, 4))
    enough = known >= LEAST * weight.sum(axis=(1, 3)) - 1e-15
    means = np.divide(total, known, out=np.full(total.shape, np.nan), where=enough & (known > 0))
    centres = Lattice(
        latitude=latitude[here[0]].reshape(rows, factor).mean(axis=1),
        longitude=longitude[here[1]].reshape(columns, factor).mean(axis=1),
        closed=lattice.periodic and columns * factor == len(longitude),
    )
    return means.astype(fields.dtype), centres
