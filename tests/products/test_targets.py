"""Where a field is asked for: every way of saying it, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.sphere import Lattice
from pipelines.products import targets
from pipelines.products.targets import Target

GLOBE = Lattice(latitude=np.arange(90.0, -91, -10), longitude=np.arange(0.0, 360, 10))
ISLES = Lattice(latitude=np.arange(58.0, 49, -1), longitude=np.arange(-10.0, 3))


def test_a_factor_divides_every_cell_and_keeps_the_points() -> None:
    fine = targets.finer(ISLES, 4)
    assert fine.latitude.shape == (33,) and fine.longitude.shape == (49,)
    np.testing.assert_array_equal(fine.latitude[::4], ISLES.latitude)
    np.testing.assert_array_equal(fine.longitude[::4], ISLES.longitude)
    assert targets.finer(ISLES, 1).latitude.tolist() == ISLES.latitude.tolist()


def test_a_factor_goes_round_the_globe_without_a_double_meridian() -> None:
    fine = targets.finer(GLOBE, 2)
    assert fine.longitude.shape == (72,) and fine.longitude[-1] == 355 and fine.latitude.shape == (37,)


@pytest.mark.parametrize("factor", [0, -1])
def test_a_factor_below_one_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match="--factor must be a whole number of at least 1"):
        targets.finer(ISLES, factor)


def test_a_resolution_covers_the_extent_from_the_north_west() -> None:
    grid = targets.at_resolution(ISLES, 0.1)
    assert grid.latitude.shape == (81,) and grid.longitude.shape == (121,)
    assert (grid.latitude[0], grid.latitude[-1]) == (58.0, 50.0)
    assert (grid.longitude[0], grid.longitude[-1]) == (-10.0, 2.0)
    rough = targets.at_resolution(ISLES, 0.7)
    assert rough.latitude[-1] >= 50.0 and rough.longitude[-1] <= 2.0


def test_a_resolution_goes_round_the_globe() -> None:
    grid = targets.at_resolution(GLOBE, 0.25)
    assert grid.longitude.shape == (1440,) and grid.latitude.shape == (721,)
    uneven = targets.at_resolution(GLOBE, 7.0)
    assert uneven.longitude[-1] <= 353.0


@pytest.mark.parametrize("degrees", [0.0, -1.0, 91.0, float("nan")])
def test_a_resolution_that_is_none_is_refused(degrees: float) -> None:
    with pytest.raises(ValueError, match="--resolution must be above 0"):
        targets.at_resolution(ISLES, degrees)


def test_a_resolution_over_a_region_begins_at_the_regions_corner() -> None:
    grid = targets.at_resolution(GLOBE, 0.5, (-3.2, 10, 4, 20.1))
    assert grid.latitude[0] == 20.1 and grid.latitude[-1] == 10.1
    assert grid.longitude[0] % 360 == pytest.approx(356.8) and np.ptp(grid.longitude) == pytest.approx(7.0)
    part = targets.at_resolution(ISLES, 0.5, (-30, 55, -5, 80))
    assert (part.latitude[0], part.longitude[0], part.longitude[-1]) == (58.0, -10.0, -5.0)


def test_a_region_away_from_the_input_is_refused() -> None:
    with pytest.raises(ValueError, match="does not meet the input's extent"):
        targets.at_resolution(ISLES, 0.5, (40, 50, 60, 58))
    with pytest.raises(ValueError, match="holds no point of the target"):
        targets.within(targets.finer(ISLES, 1), (40, 50, 60, 58))


@pytest.mark.parametrize("west", [-30, 330])
def test_a_region_is_written_as_it_was_asked_for(west: float) -> None:
    part = targets.within(targets.finer(GLOBE, 1), (west, 20, 40, 60))
    assert part.longitude.tolist() == [west + step for step in range(0, 71, 10)]
    assert part.latitude.tolist() == [60, 50, 40, 30, 20]


def test_a_region_across_the_date_line_is_one_piece() -> None:
    part = targets.within(targets.finer(GLOBE, 1), (170, -10, -170, 10))
    assert part.longitude.tolist() == [170, 180, 190]


def test_a_region_keeps_the_stations_inside_with_their_names() -> None:
    places = Target(latitude=np.array([51.0, 10.0]), longitude=np.array([359.0, 0.0]), names=("a", "b"))
    part = targets.within(places, (-5, 50, 5, 55))
    assert part.names == ("a",) and part.longitude.tolist() == [359.0]


def test_the_grid_of_a_data_set_is_taken_in_any_order_of_its_latitudes() -> None:
    field = xr.DataArray(np.zeros((2, 3)), dims=("lat", "lon"), coords={"lat": [1.0, 2.0], "lon": [5.0, 6.0, 7.0]})
    for source in (field, field.to_dataset(name="orography")):
        grid = targets.like(source)
        assert grid.latitude.tolist() == [2, 1] and grid.longitude.tolist() == [5, 6, 7]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_stations_come_from_a_csv_with_the_usual_columns(tmp_path: Path) -> None:
    text = "\ufeffName,Lat,LON,height\nKew,51.48,-0.29,6\nOban,56.42,-5.47,4\n"
    places = targets.stations(write(tmp_path / "a.csv", text))
    assert places.names == ("Kew", "Oban")
    assert places.latitude.tolist() == [51.48, 56.42] and places.longitude.tolist() == [-0.29, -5.47]
    bare = targets.stations(write(tmp_path / "b.csv", "latitude,longitude\n1,2\n3,4\n"))
    assert bare.names == ("1", "2") and bare.dims == ("station",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no station"),
        ("latitude,longitude\n", "holds no station"),
        ("north,longitude\n1,2\n", "needs the columns latitude and longitude, it has north, longitude"),
        ("latitude,longitude\n1,2\n3,east\n", "line 3: latitude and longitude must be numbers"),
        ("latitude,longitude\n1\n", "line 2: latitude and longitude must be numbers"),
        ("latitude,longitude\n91,0\n", "line 2: no place on Earth has latitude 91"),
        ("latitude,longitude\nnan,0\n", "line 2: no place on Earth"),
        ("latitude,longitude\n0,361\n", "line 2: no place on Earth"),
    ],
)
def test_a_faulty_station_list_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        targets.stations(write(tmp_path / "stations.csv", text))


def test_a_missing_station_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no station list"):
        targets.stations(tmp_path / "none.csv")


def test_a_binary_station_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    path.write_bytes(b"\xff\xfe\x00latitude")
    with pytest.raises(ValueError, match="is not a text file"):
        targets.stations(path)


def test_places_up_to_a_coarse_cell_outside_are_allowed_and_no_more() -> None:
    def at(latitude: float, longitude: float) -> Target:
        return Target(latitude=np.array([latitude]), longitude=np.array([longitude]), names=("x",))

    for place in ((59.0, 0.0), (49.0, 363.0), (52.0, 349.0)):
        targets.check_inside(at(*place), ISLES)
    for place in ((59.1, 0.0), (48.9, 0.0)):
        with pytest.raises(ValueError, match="the target reaches latitude"):
            targets.check_inside(at(*place), ISLES)
    for place in ((52.0, 3.1), (52.0, -11.1), (52.0, 180.0)):
        with pytest.raises(ValueError, match="the target reaches longitude"):
            targets.check_inside(at(*place), ISLES)
    targets.check_inside(at(-90.0, 123.4), GLOBE)
