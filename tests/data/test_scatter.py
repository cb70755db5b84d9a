"""Values at points are read from tables and data sets, and what is unclear is refused."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.scatter import Scatter, open_scatter, places_of

HOUR = "2019-03-01T06:00"


def write(folder: Path, text: str) -> Path:
    path = folder / "stations.csv"
    path.write_text(text)
    return path


def test_a_table_of_stations_at_one_time(tmp_path) -> None:
    path = write(tmp_path, "Name,Lat,Lon,T2M\nleeds,53.8,-1.5,8.5\nbrest,48.4,-4.5,\nyork,53.9,-1.1,8.1\n")
    field = open_scatter(path, "t2m", "degC", time=HOUR)
    assert field is not None and field.dims == ("time", "row", "point")
    np.testing.assert_allclose(field.values[0, 0], [281.65, np.nan, 281.25], rtol=1e-6)
    where = places_of(field)
    assert isinstance(where, Scatter)
    np.testing.assert_array_equal(where.latitude, [53.8, 48.4, 53.9])
    assert field["time"].values[0] == np.datetime64(HOUR)


def test_a_table_with_times_is_a_field_at_each_with_gaps_where_a_line_is_missing(tmp_path) -> None:
    lines = ["time,latitude,longitude,value", f"{HOUR}Z,53.8,-1.5,281", "2019-03-01T03:00,53.8,-1.5,280",
             f"{HOUR}Z,51.5,0,283"]  # fmt: skip
    path = write(tmp_path, "\n".join(lines))
    field = open_scatter(path, "t2m", "K", time=None)
    assert field is not None
    np.testing.assert_array_equal(field.values[:, 0], [[280, np.nan], [281, 283]])
    later = open_scatter(path, "t2m", "K", time=f"{HOUR}:")
    assert later is not None and later.sizes["time"] == 1


@pytest.mark.parametrize("times", [True, False])
def test_a_data_set_with_one_dimension_of_points(times) -> None:
    values = xr.DataArray(
        [[280.0, 281.0, np.nan], [282.0, 283.0, 284.0]],
        dims=("time", "station"),
        coords={"time": np.array(["2019-03-01T00", HOUR], "datetime64[ns]"), "lat": ("station", [50.0, 51.0, 52.0]),
                "lon": ("station", [359.0, 0.0, 1.0])},
        attrs={"units": "K"},
    )  # fmt: skip
    given = values if times else values[1].drop_vars("time")
    field = open_scatter(given.to_dataset(name="t2m"), "t2m", None, time=None if times else HOUR)
    assert field is not None
    np.testing.assert_array_equal(field.values[:, 0], values.values if times else values.values[1:])
    np.testing.assert_array_equal(field["longitude"], [359.0, 0.0, 1.0])


def test_a_grid_is_no_list_of_points() -> None:
    grid = xr.DataArray(np.full((2, 2), 280.0), dims=("lat", "lon"), coords={"lat": [50.0, 51.0], "lon": [0.0, 1.0]})
    assert open_scatter(grid.to_dataset(name="t2m"), "t2m", "K", time=HOUR) is None


def test_a_swath_whose_points_have_a_time_each_is_refused() -> None:
    stamps = np.array([HOUR, "2019-03-01T06:01"], "datetime64[ns]")
    coords = {"lat": ("obs", [50.0, 51.0]), "lon": ("obs", [0.0, 1.0]), "time": ("obs", stamps)}
    swath = xr.DataArray([280.0, 281.0], dims="obs", attrs={"units": "K"}, coords=coords)
    with pytest.raises(ValueError, match="a time each: keep those of one hour"):
        open_scatter(swath.to_dataset(name="t2m"), "t2m", None, time=None)


@pytest.mark.parametrize(
    ("text", "units", "time", "said"),
    [
        ("latitude,longitude,rain\n50,0,1\n", "K", HOUR, "needs the columns latitude, longitude and t2m"),
        ("latitude,longitude,t2m\n50,0,cold\n", "K", HOUR, "line 2: latitude, longitude and t2m must be numbers"),
        ("latitude,longitude,t2m\n50,0,280\n50,0,281\n", "K", HOUR, "line 3: the place 50, 0 stands there twice"),
        ("latitude,longitude,t2m\n95,0,280\n", "K", HOUR, "no place on Earth has latitude 95"),
        ("latitude,longitude,t2m\n50,0,280\n", None, HOUR, "has no units: say which they are"),
        ("latitude,longitude,t2m\n50,0,8\n", "K", HOUR, "they look like degC"),
        ("latitude,longitude,t2m\n50,0,280\n", "K", None, "has no time: say when it is for"),
        ("latitude,longitude,t2m\n50,0,\n", "K", HOUR, "has no value at all"),
        ("latitude,longitude,t2m,time\n50,0,280,noon\n", "K", None, "must be times such as"),
        ("", "K", HOUR, "it has nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_in_a_sentence(tmp_path, text, units, time, said) -> None:
    with pytest.raises(ValueError, match=said):
        open_scatter(write(tmp_path, text), "t2m", units, time=time)


def test_a_table_that_is_not_there_is_not_found(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.csv"):
        open_scatter(tmp_path / "none.csv", "t2m", "K", time=HOUR)
