"""Downscaling is lazy, its files hold all or nothing, and a notebook reaches it through the package."""

import contextlib
import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr

import pipelines
from pipelines.data.store import open_store
from pipelines.products import tiles
from pipelines.products.downscale import downscale, downscale_file

CLOSE = {"rtol": 0.0, "atol": 1e-4}  # kelvin


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many points each computed block had."""
    sizes: list[int] = []
    original = tiles.Job._answer

    def counted(job, ensemble, *positions):  # noqa: ANN002, ANN202
        answer = original(job, ensemble, *positions)
        sizes.append(answer.values[0].size)
        return answer

    monkeypatch.setattr(tiles.Job, "_answer", counted)
    monkeypatch.setattr(tiles, "TILE_POINTS", 900)
    monkeypatch.setattr(tiles, "BLOCK_TIMES", 1)
    return sizes


def test_nothing_is_computed_before_it_is_touched_and_only_what_is_touched(coarse, teller, asked) -> None:
    result = downscale(coarse, teller, factor=3, members=2)
    assert asked == [] and dask.is_dask_collection(result["t2m"])
    result["t2m"][:, 0, :10, :10].compute()
    assert asked == [23 * 30]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_read_back_as_they_were_computed(coarse, trained, whole, tmp_path, suffix) -> None:
    coarse.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    seen: list[tuple[int, int]] = []
    output = tmp_path / f"out{suffix}"
    told = downscale_file(
        str(trained.checkpoint),
        str(tmp_path / "in.nc"),
        str(output),
        factor=3,
        members=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert told["sizes"]["realization"] == told["members"] == 2 and seen == [(1, 1)]
    with xr.open_dataset(output, engine="zarr" if suffix == ".zarr" else "h5netcdf") as back:
        np.testing.assert_allclose(back["t2m"], whole, **CLOSE)
        np.testing.assert_array_equal(back["time"], whole["time"])
        assert back["t2m"].attrs["units"] == "K" and back.attrs["Conventions"] == "CF-1.11"
        assert back["component"].dtype == np.int8


def test_an_existing_output_is_refused_unless_it_may_be_replaced(coarse, trained, tmp_path) -> None:
    coarse.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    arguments = (str(trained.checkpoint), str(tmp_path / "in.nc"), str(tmp_path / "out.nc"))
    (tmp_path / "out.nc").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        downscale_file(*arguments, factor=1, members=1)
    assert (tmp_path / "out.nc").read_text() == "precious"
    downscale_file(*arguments, factor=1, members=1, overwrite=True)
    assert (tmp_path / "out.nc").read_bytes()[:4] != b"prec"
    with pytest.raises(ValueError, match=r"must end in \.nc or \.zarr"):
        downscale_file(*arguments[:2], str(tmp_path / "out.tif"), factor=1)


def test_the_notebook_call_takes_a_registered_model(trained, coarse, whole) -> None:
    with contextlib.chdir(trained.folder):
        result = pipelines.downscale(coarse, "models:/tiny@champion", factor=3, members=2)
        assert pipelines.show_model("tiny")["data_fingerprint"] == open_store(trained.store).fingerprint
    np.testing.assert_allclose(result["t2m"], whole, **CLOSE)
    assert result.attrs["source"] == "VAMoH tiny 1" and result.attrs["model_run"] == trained.run_id


def test_the_public_names_are_handed_on_without_a_heavy_import() -> None:
    light = "import sys, pipelines; assert not {'torch', 'xarray', 'mlflow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)
    assert pipelines.downscale is downscale
    assert all(callable(getattr(pipelines, name)) for name in pipelines.__all__)
    with pytest.raises(AttributeError, match="no attribute 'downscal'"):
        pipelines.downscal  # noqa: B018
