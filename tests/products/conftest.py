"""Real fields for the tests of products, in the layout that the stores have."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr


@pytest.fixture(scope="session")
def uk_hours(uk_grib: Path) -> xr.DataArray:
    """ERA5 2 m temperature over the British Isles, hourly in March 2019: (744, 33, 49), K."""
    with xr.open_dataset(uk_grib, engine="cfgrib", backend_kwargs={"indexpath": ""}) as dataset:
        field = dataset["t2m"].load()
    return field.drop_vars([name for name in field.coords if name not in field.dims])


@pytest.fixture(scope="session")
def globe(era5_sample: Path) -> xr.DataArray:
    """ERA5 2 m temperature of the globe at 1 degree, every 7-8 h: (24, 181, 360), K."""
    hours = xr.open_zarr(era5_sample, consolidated=False)["t2m"].load().rename(time_index="time")
    time = np.datetime64("1940-01-01", "ns") + pd.to_timedelta(hours["time"].values, unit="h").to_numpy()
    return hours.assign_coords(time=time).assign_attrs(units="K", long_name="2 m temperature")
