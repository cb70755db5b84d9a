"""Block means are the means over cells, wherever the blocks begin."""

import numpy as np
import pytest

from pipelines.data.means import block_means
from pipelines.data.sphere import Lattice

UK = Lattice(latitude=np.arange(58.0, 49.9, -0.5), longitude=np.arange(-10.0, 2.1, 0.5))
GLOBE = Lattice(latitude=np.arange(88.0, -88.1, -4.0), longitude=np.arange(0.0, 360.0, 4.0))


@pytest.mark.parametrize(("factor", "offset"), [(2, (0, 0)), (3, (2, 1)), (4, (0, 3))])
def test_a_block_has_the_mean_over_its_points_weighted_by_area_at_their_centre(factor, offset) -> None:
    values = np.random.default_rng(1).normal(280, 5, size=(3, *UK.shape))
    means, where = block_means(values, UK, factor, offset)
    assert where.shape == tuple((size - first) // factor for size, first in zip(UK.shape, offset, strict=True))
    for row, column in ((0, 0), (1, 2), (where.shape[0] - 1, where.shape[1] - 1)):
        rows = slice(offset[0] + factor * row, offset[0] + factor * (row + 1))
        columns = slice(offset[1] + factor * column, offset[1] + factor * (column + 1))
        weight = np.cos(np.deg2rad(UK.latitude[rows]))[:, None]
        expected = (values[:, rows, columns] * weight).sum(axis=(1, 2)) / (weight.sum() * factor)
        np.testing.assert_allclose(means[:, row, column], expected, rtol=1e-6)
        assert where.latitude[row] == pytest.approx(UK.latitude[rows].mean())
        assert where.longitude[column] == pytest.approx(UK.longitude[columns].mean())


@pytest.mark.parametrize("offset", [(0, 0), (0, 2)])
def test_round_the_globe_blocks_go_on_past_the_seam(offset) -> None:
    values = np.random.default_rng(1).normal(280, 5, size=(2, *GLOBE.shape))
    means, where = block_means(values, GLOBE, 3, offset)
    assert where.shape == (15, 30)
    assert where.periodic
    whole = (values * GLOBE.area.reshape(GLOBE.shape)).sum(axis=(1, 2))
    area = GLOBE.area.reshape(15, 3, 90).sum(axis=1).sum(axis=1)[:, None] / 30
    np.testing.assert_allclose((means * area).sum(axis=(1, 2)), whole, rtol=1e-12)
    last = values[:, :3, [88, 89, 0] if offset[1] == 1 else np.arange(offset[1] + 87, offset[1] + 90) % 90]
    weight = GLOBE.area.reshape(GLOBE.shape)[:3, :3]
    np.testing.assert_allclose(means[:, 0, -1], (last * weight).sum(axis=(1, 2)) / weight.sum(), rtol=1e-12)


def test_a_mean_is_of_what_is_known_and_is_unknown_where_less_than_half_is() -> None:
    values = np.full((1, *UK.shape), 280.0)
    values[0, 0, 0] = np.nan
    values[0, 2:4, 2:4] = [[np.nan, np.nan], [np.nan, 290.0]]
    means, _ = block_means(values, UK, 2)
    assert means[0, 0, 0] == pytest.approx(280.0)
    assert np.isnan(means[0, 1, 1])
    assert np.isfinite(means).sum() == means.size - 1
