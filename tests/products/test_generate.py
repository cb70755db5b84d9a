"""Functions that a classic model makes and completes, at any resolution, in every common format."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pipelines
from infra.cli import main
from pipelines.data.store import open_store


@pytest.fixture
def half(globe_store: str) -> xr.DataArray:
    """Two fields of which the eastern half is missing."""
    field = open_store(globe_store).field[18:20].load()
    field[..., field.shape[2] // 2 :] = np.nan
    return field


def test_samples_are_functions_of_the_seed_and_their_number(classic) -> None:
    made = pipelines.sample(str(classic.checkpoint), number=3, seed=5)
    assert made["t2m"].dims == ("sample", "latitude", "longitude") and made["t2m"].attrs["units"] == "K"
    assert np.isfinite(made["t2m"]).all() and 150 < float(made["t2m"].min()) < float(made["t2m"].max()) < 350
    fewer = pipelines.sample(str(classic.checkpoint), number=2, seed=5)
    xr.testing.assert_equal(fewer["t2m"], made["t2m"][:2])
    assert not np.allclose(made["t2m"][0], made["t2m"][1])
    assert not np.allclose(pipelines.sample(str(classic.checkpoint), number=1)["t2m"][0], made["t2m"][0])


def test_a_sample_is_one_function_at_every_resolution(classic) -> None:
    coarse = pipelines.sample(str(classic.checkpoint), number=2)["t2m"]
    step = float(coarse["latitude"][0] - coarse["latitude"][1])
    fine = pipelines.sample(str(classic.checkpoint), number=2, resolution=step / 2)["t2m"]
    assert fine.shape[1] == 2 * coarse.shape[1] - 1
    np.testing.assert_allclose(fine.sel(latitude=coarse["latitude"], longitude=coarse["longitude"]), coarse, atol=2e-3)


def test_a_completion_keeps_what_was_seen_and_differs_from_others_elsewhere(classic, half) -> None:
    made = pipelines.complete(str(classic.checkpoint), half, number=3)
    assert made["t2m"].dims == ("time", "realization", "latitude", "longitude")
    seen = np.isfinite(half.values)
    for number in range(3):
        np.testing.assert_allclose(made["t2m"].values[:, number][seen], half.values[seen], atol=1e-4)
    spread = made["t2m"].std("realization").values
    assert np.isfinite(made["t2m"]).all() and (spread[~seen] > 0).any() and spread[seen].max() < 1e-4  # of float32
    again = pipelines.complete(str(classic.checkpoint), half, number=1, reconstruct=True)["t2m"].values[:, 0]
    assert np.abs(again[seen] - half.values[seen]).max() > 0.1


def test_nothing_seen_is_refused_by_name(classic, half) -> None:
    half[1] = np.nan
    with pytest.raises(ValueError, match=r"no value at all at 2026-03-.*: leave such times out"):
        pipelines.complete(str(classic.checkpoint), half)


def test_a_model_that_downscales_has_no_functions_of_its_own(trained) -> None:
    with pytest.raises(ValueError, match="use `vamoh downscale`"):
        pipelines.sample(str(trained.checkpoint))


@pytest.mark.parametrize("suffix", ["nc", "zarr", "npz", "png"])
def test_the_command_writes_every_common_format(classic, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"made.{suffix}"
    assert main(["sample", str(classic.checkpoint), str(output), "--number", "2"]) == 0
    expected = pipelines.sample(str(classic.checkpoint), number=2)["t2m"]
    match suffix:
        case "nc":
            np.testing.assert_allclose(xr.open_dataset(output)["t2m"], expected)
        case "zarr":
            np.testing.assert_allclose(xr.open_zarr(output, consolidated=False)["t2m"], expected)
        case "npz":
            with np.load(output) as arrays:
                assert list(arrays) == ["t2m"]
                np.testing.assert_allclose(arrays["t2m"], expected)
        case "png":
            assert output.read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []
    assert main(["sample", str(classic.checkpoint), str(output)]) == 2


def test_another_suffix_is_refused_before_any_work(classic, tmp_path: Path, capsys) -> None:
    assert main(["sample", str(classic.checkpoint), str(tmp_path / "made.gif")]) == 2
    assert "must be one of .nc .zarr .npz .png, got 'made.gif'" in capsys.readouterr().err


def test_a_file_with_gaps_is_completed_by_the_command(classic, half, tmp_path: Path) -> None:
    half.rename("t2m").to_netcdf(tmp_path / "gaps.nc")
    told = [str(classic.checkpoint), str(tmp_path / "gaps.nc"), str(tmp_path / "filled.nc")]
    assert main(["complete", *told, "--number", "2"]) == 0
    filled = xr.open_dataset(tmp_path / "filled.nc")["t2m"]
    assert np.isfinite(filled).all() and filled.sizes["realization"] == 2
