"""`--calibrate`, and members that are wider where the state is strange: on a model that was really trained."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.config import load_config
from pipelines.data.store import open_store
from pipelines.products.downscale import downscale
from pipelines.products.ensemble import Downscaler
from pipelines.training.calibrate import calibrate
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.leverage import TRUST, predictions
from pipelines.training.train import train
from pipelines.training.validation import read_samples

HELD = np.arange(12, 24)  # fields to calibrate on; which of them it learned from does not matter to what is tested


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained checkpoint, calibrated."""
    folder = tmp_path_factory.mktemp("calibrated") / "best"
    shutil.copytree(trained.checkpoint, folder)
    calibrate(folder, open_store(trained.store), HELD)
    return folder


@pytest.fixture(scope="module")
def sure(calibrated: Path) -> Downscaler:
    """The calibrated model, ready to be asked."""
    return Downscaler.of(str(calibrated))


def test_training_says_how_much_wider_members_are_where_the_state_is_strange(trained) -> None:
    checkpoint, _ = load_checkpoint(trained.checkpoint)
    assert checkpoint.random_field is not None and checkpoint.random_field.spread == 1
    assert checkpoint.leverage is not None and checkpoint.leverage.constant > 0 and checkpoint.leverage.growth >= 0
    assert checkpoint.leverage.usual.shape == (46 * 90,) and (checkpoint.leverage.usual > 0).all()
    assert checkpoint.leverage.trust == TRUST
    assert checkpoint.calibration is None


def test_the_layer_is_kept_in_the_checkpoint_as_json_and_safetensors(trained, calibrated) -> None:
    tree = json.loads((calibrated / "checkpoint.json").read_text())
    assert tree["calibration"]["fields"] == len(HELD) and tree["calibration"]["levels"][-1] == 0.9
    assert {path.suffix for path in calibrated.iterdir()} == {".json", ".safetensors"}
    before, after = load_checkpoint(trained.checkpoint), load_checkpoint(calibrated)
    assert after[0].random_field == before[0].random_field
    assert torch.equal(after[0].leverage.usual, before[0].leverage.usual)
    assert after[0].leverage.growth == before[0].leverage.growth
    for name, tensor in before[1].state_dict().items():
        assert torch.equal(tensor, after[1].state_dict()[name])
    assert Downscaler.of(str(calibrated)).fingerprint != Downscaler.of(str(trained.checkpoint)).fingerprint


def test_intervals_cover_the_fields_that_they_were_fitted_on(trained, sure) -> None:
    checkpoint, model = sure.checkpoint, sure.model
    plan, leverage, law = checkpoint.plan, checkpoint.leverage, checkpoint.calibration
    samples = read_samples(open_store(trained.store), HELD)
    area, inside = torch.from_numpy(plan.lattice.area), []
    for part in predictions(model, samples, plan.downscaling, plan.lattice, leverage=leverage, seed=plan.config.seed):
        scores = part.scores(part.stretched_by(leverage))
        radius = law(torch.special.ndtri(torch.tensor((1 + 0.9) / 2, dtype=torch.float64)))
        inside += ((scores.abs() <= radius).double() @ area).tolist()
    assert 0.9 * 13 / 12 <= np.mean(inside) < 0.9 * 13 / 12 + 1e-3  # as the correction for 12 fields wants it


def test_calibrated_members_are_functions_still(coarse, sure, tmp_path) -> None:
    whole = downscale(coarse, sure, factor=3, members=2)["t2m"].compute()
    finer = downscale(coarse, sure, resolution=2, members=2)["t2m"].compute()
    shared = finer.sel(latitude=whole["latitude"], longitude=whole["longitude"])
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-4)
    alone = downscale(coarse[1:2], sure, factor=3, members=2)["t2m"].compute()
    np.testing.assert_allclose(alone, whole[:, 1:2], rtol=0, atol=1e-4)
    west = coarse.assign_coords(longitude=(coarse["longitude"] + 180) % 360 - 180).sortby("longitude")
    turned = downscale(west, sure, factor=3, members=2)["t2m"].compute()
    turned = turned.assign_coords(longitude=turned["longitude"] % 360).sortby("longitude")
    np.testing.assert_allclose(turned, whole, rtol=0, atol=1e-4)
    for row in (0, -1):
        polar = whole[:, :, row].values
        np.testing.assert_allclose(polar, polar[..., :1].repeat(90, axis=-1), rtol=0, atol=1e-4)


def test_the_spread_of_members_is_what_the_law_says_at_every_place(coarse: xr.DataArray, teller: Downscaler) -> None:
    """Over many members: the spread of the predicted mixture, stretched by leverage and what is usual."""
    members = 2000
    latitude, longitude = np.array([52.3, -20.0, 3.0]), np.array([0.4, 131.0, 250.0])
    lattice = teller.checkpoint.plan.lattice.every(3)
    times = coarse["time"].values[:1]
    ensemble = teller.ensemble(coarse.values[:1], lattice, times, members=members, seed=3)
    found = ensemble.at(latitude, longitude)[0][:, 0].astype(np.float64)
    framing = teller.checkpoint.plan.downscaling
    known = framing.known(coarse.values[:1], lattice)
    query = framing.query((latitude, longitude), times, known)
    with torch.no_grad():
        leverage, usual = teller.leverage(known, latitude, longitude)
        mixtures = [teller.model.decode(ensemble.latents[:1, number], query) for number in range(50)]
    scale = teller.checkpoint.plan.scaling.scale
    means = np.array([each.mean[0, :, 0].numpy() for each in mixtures]) * scale
    law = teller.checkpoint.leverage
    within = [
        (law.factor(leverage, each.variance[..., 0], usual) ** 2 * each.variance[..., 0])[0].numpy()
        for each in mixtures
    ]
    expected = np.sqrt(np.mean(within, axis=0) * scale**2 + means.var(axis=0))
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=0.08)


def test_the_output_says_that_it_is_calibrated_and_on_what(coarse, sure, teller) -> None:
    assert downscale(coarse, teller, factor=1, members=1).attrs["calibration"] == ""
    said = downscale(coarse, sure, factor=1, members=1).attrs["calibration"]
    assert said.startswith("conformal, fitted on 12 held-out fields of 2026-03-")


def test_too_few_held_out_fields_are_refused_before_anything_is_trained(globe_store, tmp_path) -> None:
    with contextlib.chdir(tmp_path):
        with pytest.raises(ValueError, match="--calibrate needs at least 9 held-out fields.* has 3: raise"):
            train(load_config("downscale", ("split.gap_hours=0", "context.every=3")), globe_store, calibrated=True)
        with pytest.raises(ValueError, match="this config has no context"):
            train(load_config("era5"), globe_store, calibrated=True)
        assert not list(tmp_path.iterdir())
