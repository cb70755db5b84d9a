"""Conserved members reproduce their input, are continuous, and are the same functions in every tile."""

import numpy as np
import pytest
import xarray as xr

from pipelines.products import tiles
from pipelines.products.downscale import downscale

EXACT = {"rtol": 0.0, "atol": 1e-4}  # kelvin


@pytest.fixture
def means(coarse) -> xr.DataArray:
    """The same field, said to be means of cells."""
    return coarse.assign_attrs(cell_methods="area: mean time: point")


def edges(points: np.ndarray, *, polar: bool) -> np.ndarray:
    """Half-way between ascending points; round the globe the last is the first."""
    between = (points[1:] + points[:-1]) / 2
    ends = [2 * points[0] - between[0]], [2 * points[-1] - between[-1]]
    found = np.concatenate([ends[0], between, ends[1]])
    return np.clip(found, -90, 90) if polar else found


def shares(coarse: np.ndarray, fine: np.ndarray, *, polar: bool) -> np.ndarray:
    """Shares of fine boxes in coarse cells, one pair after the other."""
    cells, boxes = edges(coarse, polar=polar), edges(fine, polar=polar)
    matrix = np.zeros((len(coarse), len(fine)))
    for row, (low, high) in enumerate(zip(cells[:-1], cells[1:], strict=True)):
        for column, (start, stop) in enumerate(zip(boxes[:-1], boxes[1:], strict=True)):
            for turn in (0.0,) if polar else (-360.0, 0.0, 360.0):
                ends = np.array([max(low, start + turn), min(high, stop + turn), low, high])
                one, other, first, last = np.sin(np.deg2rad(ends)) if polar else ends
                matrix[row, column] += max(other - one, 0.0) / (last - first)
    return matrix


def cell_means(fine: xr.DataArray, coarse: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Means [M, T, n, m] over the cells of `coarse`, and which cells are covered."""
    ordered = fine.isel(latitude=slice(None, None, -1))
    north = shares(coarse["latitude"].values[::-1], ordered["latitude"].values, polar=True)
    east = shares(coarse["longitude"].values, ordered["longitude"].values, polar=False)
    covered = np.outer(north.sum(axis=1) > 0.999, east.sum(axis=1) > 0.999)
    return (north @ ordered.values.astype(float) @ east.T)[..., ::-1, :], covered[::-1]


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_the_means_over_the_cells_of_a_globe_are_the_input(means, teller, factor) -> None:
    plain = downscale(means, teller, factor=factor, members=2)["t2m"].compute()
    kept = downscale(means, teller, factor=factor, members=2, conserve=True)["t2m"].compute()
    found, covered = cell_means(kept, means)
    assert covered.all()
    np.testing.assert_allclose(found, np.broadcast_to(means, found.shape), **EXACT)
    before, _ = cell_means(plain, means)
    assert np.abs(before - means.values).max() > 0.5
    for row in (0, -1):
        assert np.ptp(kept[:, :, row].values, axis=-1).max() < 1e-4  # a pole is one place


def test_points_of_the_input_are_reproduced_where_nothing_says_that_it_is_means(coarse, teller) -> None:
    kept = downscale(coarse, teller, factor=3, members=2, conserve=True)
    assert kept.attrs["conserved"] == "points"
    np.testing.assert_allclose(kept["t2m"][:, :, ::3, ::3], np.broadcast_to(coarse, (2, *coarse.shape)), **EXACT)


def test_cells_that_the_output_does_not_cover_are_left_out_and_the_others_are_exact(means, teller) -> None:
    region = means.sel(latitude=slice(66, 18), longitude=slice(24, 96))
    kept = downscale(region, teller, factor=4, members=2, conserve=True)
    assert kept.attrs["conserved"] == "means"
    found, covered = cell_means(kept["t2m"].compute(), region)
    assert covered.sum() == (covered.shape[0] - 2) * (covered.shape[1] - 2)
    np.testing.assert_allclose(found[..., covered], np.broadcast_to(region, found.shape)[..., covered], **EXACT)


@pytest.mark.parametrize("kind", ["means", "points"])
def test_conserved_members_are_the_same_in_every_tile(coarse, teller, monkeypatch, kind) -> None:
    given = coarse.assign_attrs(cell_methods="area: mean") if kind == "means" else coarse
    whole = downscale(given, teller, factor=4, members=2, conserve=True)["t2m"].compute()
    monkeypatch.setattr(tiles, "TILE_POINTS", 400)
    parts = downscale(given, teller, factor=4, members=2, conserve=True)["t2m"]
    assert parts.data.npartitions > 10
    np.testing.assert_allclose(parts, whole, **EXACT)


@pytest.mark.parametrize("kind", ["means", "points"])
def test_the_correction_is_continuous_across_cells_the_seam_and_the_pole(coarse, teller, tmp_path, kind) -> None:
    given = coarse.assign_attrs(cell_methods="area: mean") if kind == "means" else coarse
    box = {"resolution": 0.25, "region": (-20, 30, 20, 60)}
    kept = downscale(given, teller, members=1, conserve=True, **box)["t2m"].compute()
    plain = downscale(given, teller, members=1, **box)["t2m"].compute()
    change = (kept - plain).values
    steps = [np.abs(np.diff(change, axis=axis)).max() for axis in (2, 3)]
    assert np.abs(change).max() > 1.0 if kind == "means" else np.abs(change).max() > 0.01
    assert max(steps) < 0.2 * np.abs(change).max()  # 48 points a cell


def test_gaps_in_the_input_ask_for_nothing(means, teller) -> None:
    means[0, 5, 7] = np.nan
    kept = downscale(means, teller, factor=4, members=2, conserve=True)["t2m"].compute()
    assert np.isfinite(kept).all()
    found, _ = cell_means(kept, means)
    seen = np.isfinite(means.values)
    np.testing.assert_allclose(found[:, seen], np.broadcast_to(means.values[seen], (2, seen.sum())), **EXACT)


def test_stations_reproduce_points_and_cannot_reproduce_means(coarse, means, teller, tmp_path) -> None:
    where = tmp_path / "places.csv"
    latitude, longitude = float(coarse["latitude"][4]), float(coarse["longitude"][9])
    where.write_text(f"latitude,longitude\n{latitude},{longitude}\n51.3,-0.1\n")
    kept = downscale(coarse, teller, points=where, members=2, conserve=True)["t2m"].compute()
    np.testing.assert_allclose(kept[..., 0], np.broadcast_to(coarse[:, 4, 9], (2, 3)), **EXACT)
    with pytest.raises(ValueError, match="leave out --conserve"):
        downscale(means, teller, points=where, members=2, conserve=True)
    with pytest.raises(ValueError, match="at least as fine as the input's cells"):
        downscale(means, teller, resolution=20, members=2, conserve=True)
