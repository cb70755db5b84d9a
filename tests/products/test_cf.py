"""The output is CF, keeps the caller's conventions, and says where it comes from and what its model never saw."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.data.sphere import Lattice
from pipelines.products.downscale import downscale, downscale_file, write_output
from pipelines.products.ensemble import Downscaler

EVERYTHING = ("component", "entropy", "spread", "q05", "gradient")


def complaints(path: Path, *more: str) -> str:
    """What compliance-checker has to say, in a process of its own: its libraries and ecCodes do not share one."""
    pytest.importorskip("compliance_checker", reason="the package compliance-checker is not installed")
    checker = Path(sys.executable).parent / "compliance-checker"
    done = subprocess.run([checker, "--test", "cf:1.11", *more, path], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 and "All tests passed" in done.stdout else done.stdout + done.stderr


def test_a_file_passes_the_cf_checker(coarse, teller, trained, tmp_path) -> None:
    coarse.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    output = tmp_path / "out.nc"
    downscale_file(str(trained.checkpoint), str(tmp_path / "in.nc"), str(output), factor=3, members=2, also=EVERYTHING)
    assert complaints(output) == ""


def test_a_list_of_stations_passes_the_cf_checker(coarse, teller, tmp_path) -> None:
    where = tmp_path / "places.csv"
    where.write_text("name,latitude,longitude\nParis,48.9,2.4\nQuito,-0.2,-78.5\n")
    write_output(downscale(coarse, teller, points=where, members=2), tmp_path / "out.nc", overwrite=False)
    # not its advice on the order of dimensions, nor a check that trips over stations that have names
    skipped = ("check_dimension_order", "check_coordinate_variables_strict_monotonicity")
    assert complaints(tmp_path / "out.nc", *(f"--skip-checks={name}" for name in skipped)) == ""


def test_the_callers_names_and_calendar_pass_the_cf_checker(coarse, teller, tmp_path) -> None:
    own = coarse.isel(latitude=slice(None, None, -1)).rename(time="valid_time", latitude="lat", longitude="lon")
    own = own.assign_coords(valid_time=xr.date_range("2019-02-28", periods=3, calendar="360_day", use_cftime=True))
    result = downscale(own, teller, factor=2, members=2)
    write_output(result, tmp_path / "out.nc", overwrite=False)
    assert complaints(tmp_path / "out.nc") == ""


def test_the_result_says_where_it_comes_from(coarse, teller) -> None:
    origin = {"model": "t2m", "version": "3", "run_id": "0a" * 16}
    named = Downscaler(checkpoint=teller.checkpoint, model=teller.model, origin=origin)
    attrs = downscale(coarse, named, factor=3, members=2, seed=5, conserve=True).attrs
    known = f"weights {named.fingerprint}, trained on data {teller.checkpoint.plan.fingerprint[:12]}"
    assert f"model t2m 3 ({known}), 2 members, seed 5, points conserved" in attrs["history"]
    again = downscale(coarse.to_dataset(name="t2m").assign_attrs(history="2026-01-01 made"), teller, factor=3)
    assert again.attrs["history"].splitlines()[-1] == "2026-01-01 made", "the input's own stays"
    told = {key: attrs[key] for key in ("source", "model", "model_version", "model_run", "seed", "warnings")}
    assert told == {
        "source": "VAMoH t2m 3", "model": "t2m", "model_version": "3", "model_run": "0a" * 16, "seed": 5, "warnings": ""
    }  # fmt: skip
    assert attrs["model_data_fingerprint"] == teller.checkpoint.plan.fingerprint
    assert attrs["program"].startswith("vamoh ") and len(attrs["model_weights"]) == 16


def test_the_fingerprint_of_a_model_changes_with_its_weights(teller) -> None:
    import copy

    other = copy.deepcopy(teller.model)
    next(other.parameters()).data[0] += 1e-3
    changed = Downscaler(checkpoint=teller.checkpoint, model=other, origin={})
    assert changed.fingerprint != teller.fingerprint


# --- the caller's conventions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("northwards", [False, True])
@pytest.mark.parametrize("west", [-180, 0, 170, -190])
def test_a_box_across_a_seam_comes_back_in_the_callers_longitudes(coarse, teller, whole, west, northwards) -> None:
    """Across 180 degrees from 0..360 (168..204), and across 0 from either convention; written, chunk by chunk."""
    start = 168 if west in (0, -190) else 348
    turned = (coarse["longitude"].values - start) % 360 <= 36
    box = coarse.isel(longitude=np.flatnonzero(turned)[np.argsort((coarse["longitude"].values[turned] - start) % 360)])
    inside = np.sort((box["longitude"].values - start) % 360) + start
    ranged = {-180: inside - 360, 0: inside, 170: inside % 360, -190: inside - 360}[west]
    box = box.assign_coords(longitude=ranged)
    box = box.isel(latitude=slice(None, None, -1)) if northwards else box
    result = downscale(box, teller, factor=3, members=2)
    np.testing.assert_allclose(result["longitude"][::3], ranged)
    np.testing.assert_array_equal(result["latitude"][::3], box["latitude"])
    assert result["latitude"].attrs["units"] == "degrees_north"
    # the context of a box is not that of the globe: the places are the same ones, the values are near
    places = result["longitude"].values % 360
    same = whole.sel(longitude=places).sel(latitude=result["latitude"].values)
    middle = result["t2m"].values[..., 9:-9, 3:-3]
    assert np.corrcoef(middle.ravel(), same.values[..., 9:-9, 3:-3].ravel())[0, 1] > 0.99


# --- beyond the training -------------------------------------------------------------------------------------------


def test_a_grid_far_finer_than_the_trained_one_is_a_warning(coarse, teller) -> None:
    with pytest.warns(UserWarning, match=r"spacing of 1 degrees is more than 3 times finer than the 4 degrees"):
        result = downscale(coarse, teller, resolution=1, members=1)
    assert "smooth interpolation" in result.attrs["warnings"]
    assert downscale(coarse, teller, factor=9, members=1).attrs["warnings"] == ""


def test_an_input_of_another_spacing_than_the_trained_one_is_a_warning(truth, teller) -> None:
    with pytest.warns(UserWarning, match=r"points are 8 x 8 degrees apart, the model was trained on input of 12 deg"):
        result = downscale(truth[:1, ::2, ::2], teller, factor=2, members=1)
    assert "12 degrees" in result.attrs["warnings"]
    context = teller.checkpoint.plan.config.context.model_copy(update={"every": (2, 4)})
    config = teller.checkpoint.plan.config.model_copy(update={"context": context})
    plan = replace(teller.checkpoint.plan, config=config)
    general = Downscaler(checkpoint=replace(teller.checkpoint, plan=plan), model=teller.model, origin={})
    assert downscale(truth[:1, ::2, ::2], general, factor=2, members=1).attrs["warnings"] == ""


def test_every_doubt_is_told_and_a_list_of_places_has_no_spacing(truth, teller, tmp_path) -> None:
    trained = teller.checkpoint.plan.lattice
    part = Lattice(latitude=trained.latitude[5:20], longitude=trained.longitude[3:30])
    plan = replace(teller.checkpoint.plan, geometry=part)
    local = Downscaler(checkpoint=replace(teller.checkpoint, plan=plan), model=teller.model, origin={})
    with pytest.warns(UserWarning) as said:
        result = downscale(truth[:1, ::2, ::2], local, resolution=0.5, members=1)
    assert len(said) == 3 and result.attrs["warnings"] == " ".join(str(each.message) for each in said)
    where = tmp_path / "places.csv"
    where.write_text("latitude,longitude\n51.3,20\n51.3001,20\n")
    assert downscale(truth[:1, ::3, ::3], teller, points=where, members=1).attrs["warnings"] == ""
