"""The sphere has no seam, its poles are points, and the sun stands where it stands."""

from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from pipelines.data.climate import open_source
from pipelines.data.sphere import Lattice, east_north_by_km, sun_covariates, unit_vectors
from pipelines.products.baselines import bilinear
from pipelines.products.skill import area_weights


@pytest.fixture(scope="module")
def world(era5_sample: Path) -> xr.DataArray:
    """Three real fields of the globe at 4 degrees, poles included."""
    return open_source(era5_sample, every=4).isel(time=slice(0, 3)).compute()


@pytest.fixture(scope="module")
def region(world: xr.DataArray) -> xr.DataArray:
    """A part of them in the northern hemisphere."""
    return world.isel(latitude=slice(4, 15), longitude=slice(20, 37))


def at(lattice: Lattice, field: xr.DataArray, latitude: object, longitude: object) -> np.ndarray:
    places = np.broadcast_arrays(np.asarray(latitude, float), np.asarray(longitude, float))
    values = field.values.reshape(field.sizes["time"], -1).astype(float)
    return lattice.interpolate(values, *map(np.ravel, places))


@pytest.mark.parametrize("which", ["world", "region"])
def test_interpolation_is_the_bilinear_baseline_inside_the_lattice(which, request) -> None:
    field = request.getfixturevalue(which)
    lattice = Lattice.of(field)
    latitude = np.linspace(lattice.latitude[0], lattice.latitude[-1], 23)
    longitude = np.linspace(lattice.longitude[0], lattice.longitude[-1], 31)
    fine = Lattice(latitude=latitude, longitude=longitude)
    ours = lattice.interpolate(field.values.reshape(3, -1).astype(float), *fine.points)
    theirs = bilinear(field, latitude, longitude).values.reshape(3, -1)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_interpolation_gives_the_values_back_at_the_points_themselves(world, region) -> None:
    for field in (world, region):
        lattice = Lattice.of(field)
        np.testing.assert_allclose(at(lattice, field, *lattice.points), field.values.reshape(3, -1), atol=1e-4)


def test_longitude_has_no_seam(world) -> None:
    lattice, latitude = Lattice.of(world), np.linspace(-90, 90, 37)
    for longitude in (-170.3, -0.7, 0.0, 123.4, 358.9):
        turned = [at(lattice, world, latitude, longitude + turn) for turn in (-360, 0, 360)]
        np.testing.assert_allclose(turned[0], turned[1], atol=1e-9)
        np.testing.assert_allclose(turned[2], turned[1], atol=1e-9)
    across = at(lattice, world, latitude, 0.0), at(lattice, world, latitude, -1e-7), at(lattice, world, latitude, 1e-7)
    np.testing.assert_allclose(across[1], across[0], atol=1e-5)
    np.testing.assert_allclose(across[2], across[0], atol=1e-5)


def test_a_region_is_found_in_either_longitude_convention(region) -> None:
    lattice = Lattice.of(region)
    longitude = lattice.longitude[3] + np.array([0.0, 1.3, 7.9])
    np.testing.assert_allclose(
        at(lattice, region, 60.0, longitude - 360), at(lattice, region, 60.0, longitude), atol=1e-9
    )


@pytest.mark.parametrize("polar_rows", ["constant", "noisy"])
def test_a_pole_is_one_point(world, polar_rows) -> None:
    lattice, field = Lattice.of(world), world.copy(deep=True)
    if polar_rows == "noisy":
        field[:, [0, -1]] += np.random.default_rng(0).normal(size=(3, 2, field.sizes["longitude"])).astype(np.float32)
    for pole in (90.0, -90.0):
        assert np.ptp(at(lattice, field, pole, np.linspace(-180, 360, 50)), axis=1).max() < 1e-9
        assert len(np.unique(unit_vectors(np.full(9, pole), np.linspace(0, 320, 9)), axis=0)) == 1
    assert np.count_nonzero(np.abs(lattice.points[0][lattice.context_index]) == 90) == 2


def test_a_lattice_without_pole_rows_is_continuous_across_the_pole(world) -> None:
    field = world.isel(latitude=slice(1, -1))
    lattice = Lattice.of(field)
    for pole in (90.0, -90.0):
        near = at(lattice, field, np.sign(pole) * (90 - 1e-7), np.linspace(0, 360, 40))
        assert np.ptp(near, axis=1).max() < 1e-4
        np.testing.assert_allclose(near[:, :1], at(lattice, field, pole, 17.0), atol=1e-4)
        edge = lattice.latitude[0 if pole > 0 else -1]
        beside = at(lattice, field, edge + np.sign(pole) * 1e-7, lattice.longitude)
        np.testing.assert_allclose(beside, at(lattice, field, edge, lattice.longitude), atol=1e-4)


def test_missing_corners_are_left_out_and_the_nearest_value_stands_in_where_all_are(region) -> None:
    lattice, field = Lattice.of(region), region.copy(deep=True)
    field[0, 4, 6] = np.nan
    field[1, 2:8, 2:10] = np.nan
    middle = (lattice.latitude[4] + lattice.latitude[5]) / 2, (lattice.longitude[6] + lattice.longitude[7]) / 2
    values = at(lattice, field, *middle)[:, 0]
    corners = field.values[0, 4:6, 6:8].astype(float)
    assert values[0] == pytest.approx(np.nanmean(corners), abs=1e-4)
    assert values[1] in field.values[1]
    there = at(lattice, field, *lattice.points)
    seen = np.isfinite(field.values.reshape(3, -1))
    assert np.isfinite(there).all() and not seen.all()
    np.testing.assert_allclose(there[seen], field.values.reshape(3, -1)[seen], atol=1e-4)


def test_nowhere_at_all_is_no_value_of_each_field(region) -> None:
    assert at(Lattice.of(region), region, np.zeros(0), np.zeros(0)).shape == (3, 0)


def test_two_longitude_conventions_give_the_same_unit_vectors_bit_for_bit() -> None:
    longitude = np.concatenate([np.arange(-180.0, 180.0, 0.25), [-1e-9, -1e-16, 0.1, 359.9999999 - 360]])
    latitude = np.full(longitude.shape, 51.3)
    east = unit_vectors(latitude, longitude)
    for turned in (longitude + 360, longitude - 360, np.mod(longitude, 360.0)):
        np.testing.assert_array_equal(unit_vectors(latitude, turned), east)
    np.testing.assert_array_equal(east[-4], unit_vectors(latitude[:1], np.zeros(1))[0])
    np.testing.assert_allclose(np.linalg.norm(east, axis=-1), 1, atol=1e-12)


def test_unit_vectors_point_where_they_say() -> None:
    latitude, longitude = np.array([0.0, 0.0, 90.0, -90.0, 45.0]), np.array([0.0, 90.0, 12.0, 250.0, 180.0])
    half = np.sqrt(0.5)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [-half, 0, half]]
    np.testing.assert_allclose(unit_vectors(latitude, longitude), expected, atol=1e-12)


def test_areas_sum_to_one_and_are_those_that_scores_are_weighted_with(world, region) -> None:
    for field in (world, region, world.isel(latitude=slice(1, -1)), region.isel(latitude=[3])):
        lattice = Lattice.of(field)
        assert lattice.area.sum() == pytest.approx(1, abs=1e-12)
        rows = lattice.area.reshape(lattice.shape)
        assert np.ptp(rows, axis=1).max() == 0
        theirs = area_weights(lattice.latitude).values
        np.testing.assert_allclose(rows[:, 0] / rows[:, 0].mean(), theirs, rtol=1e-9)


def test_a_context_is_no_denser_along_a_row_than_rows_are_apart(world) -> None:
    lattice = Lattice.of(world)
    latitude, longitude = (axis[lattice.context_index] for axis in lattice.points)
    for row in np.unique(latitude[np.abs(latitude) < 89]):
        apart = np.diff(longitude[latitude == row]).min() * np.cos(np.deg2rad(row))
        assert apart > 0.4 * 4
    assert np.count_nonzero(latitude == 2) == 90


def test_the_sun_stands_at_the_zenith_over_the_equator_at_greenwich_on_an_equinox_noon() -> None:
    times = np.array(["2019-03-20T12", "2019-09-23T12", "2019-03-20T18", "2019-03-20T00"], "datetime64[ns]")
    zenith = sun_covariates(times, np.zeros(2), np.array([0.0, 180.0]))[..., 0]
    np.testing.assert_allclose(zenith[:, 0], [1, 1, 0, -1], atol=0.01)
    np.testing.assert_allclose(zenith[:, 1], [-1, -1, 0, 1], atol=0.01)


def test_the_sun_stands_over_the_tropics_at_the_solstices_and_rises_in_the_east() -> None:
    times = np.array(["2019-06-21T12", "2019-12-22T12"], "datetime64[ns]")
    zenith = sun_covariates(times, np.array([23.44, -23.44, 90.0]), np.zeros(3))[..., 0]
    assert zenith[0, 0] == pytest.approx(1, abs=0.002)
    assert zenith[1, 1] == pytest.approx(1, abs=0.002)
    assert zenith[0, 2] == pytest.approx(np.sin(np.deg2rad(23.44)), abs=0.002)
    morning, evening = sun_covariates(times[:1], np.zeros(2), np.array([-60.0, 60.0]))[0, :, 1]
    assert morning > 0 > evening


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_sun_covariates_have_no_seam_no_pole_and_no_new_year(calendar) -> None:
    last = 30 if calendar == "360_day" else 31
    times = np.array([
        cftime.datetime(2001, 12, last, 23, 59, calendar=calendar), cftime.datetime(2002, 1, 1, calendar=calendar)
    ])  # fmt: skip
    longitude = np.linspace(-180, 360, 20)
    for pole in (90.0, -90.0):
        assert np.ptp(sun_covariates(times, np.full(20, pole), longitude), axis=1).max() < 1e-6
    latitude = np.linspace(-89, 89, 20)
    there, again = (sun_covariates(times, latitude, longitude + turn) for turn in (0, 360))
    np.testing.assert_allclose(there, again, atol=1e-6)
    np.testing.assert_allclose(there[0], there[1], atol=0.01)
    assert np.abs(there).max() <= 1


def test_a_coarse_lattice_of_the_globe_has_no_seam_whatever_the_factor(world) -> None:
    lattice = Lattice.of(world)
    coarse = lattice.every(7, (2, 5))
    assert coarse.periodic and 360.0 - np.ptp(coarse.longitude) > 1.2 * 7
    field = np.cos(np.deg2rad(coarse.points[1]))[None]
    east = np.array([coarse.longitude[0] - 1e-6, coarse.longitude[0]])
    low, high = coarse.interpolate(field, np.zeros(2), east)[0]
    assert low == pytest.approx(high, abs=1e-6)


def test_a_gradient_by_kilometre_is_the_change_over_a_kilometre() -> None:
    latitude, longitude = np.array([50.0, -12.0, 89.0, 0.0]), np.array([-3.0, 200.0, 10.0, 359.9])
    direction = np.array([0.3, -1.2, 0.7])

    def field(latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
        return unit_vectors(latitude_deg, longitude_deg) @ direction

    place = unit_vectors(latitude, longitude)
    tangent = direction - (place @ direction)[:, None] * place
    found = east_north_by_km(tangent, latitude, longitude)
    step = np.rad2deg(1 / 6371.0)  # a kilometre
    east = (field(latitude, longitude + step / np.cos(np.deg2rad(latitude))) - field(latitude, longitude)) / 1.0
    north = field(latitude + step, longitude) - field(latitude, longitude)
    np.testing.assert_allclose(found, np.stack([east, north], axis=-1), rtol=2e-2, atol=1e-6)
