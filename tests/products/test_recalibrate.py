"""`vamoh models calibrate`: members' laws fitted again, on a model that was really trained."""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.cli import main
from pipelines.data.store import open_store, write_store
from pipelines.products.downscale import downscale
from pipelines.products.ensemble import Downscaler
from pipelines.products.skill import coverage, scores_of, spread_skill_ratio
from pipelines.training.champions import register_version
from pipelines.training.checkpoint import load_checkpoint, save_checkpoint
from pipelines.training.judgement import judge
from pipelines.training.leverage import predictions, stretched
from pipelines.training.plan import split_of
from pipelines.training.recalibrate import recalibrate
from pipelines.training.registry import resolve, show_model
from pipelines.training.tracking import client
from pipelines.training.validation import read_samples


@pytest.fixture(scope="module")
def later(trained, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same fields, said to be a year later: a store that the model was not trained on."""
    field = open_store(trained.store).field.load()
    moved = field.assign_coords(time=field["time"] + np.timedelta64(365, "D"))
    return write_store(moved, tmp_path_factory.mktemp("later") / "later.zarr", source="s", license="l").path


@pytest.fixture(scope="module")
def wide(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkpoint with members three times too wide, made rough."""
    checkpoint, model = load_checkpoint(trained.checkpoint)
    law = checkpoint.leverage
    law = replace(law, constant=9 * law.constant, growth=9 * law.growth)
    rough = replace(checkpoint.random_field, lengths=(0.01,), weights=(1.0,))
    folder = tmp_path_factory.mktemp("wide") / "best"
    save_checkpoint(folder, replace(checkpoint, leverage=law, random_field=rough), model)
    return folder


@pytest.fixture
def named(trained, wide, tmp_path: Path) -> Iterator[str]:
    """A name whose first version, the champion, has those members."""
    with contextlib.chdir(trained.folder):
        name, mlflow = f"wide-{tmp_path.name}", client()
        run = mlflow.create_run(mlflow.get_run(trained.run_id).info.experiment_id, tags={"store": "of training"})
        mlflow.log_artifacts(run.info.run_id, str(wide), "checkpoint")
        assert register_version(name, run.info.run_id, {"validation_crps": 0.5}) == "1"
        yield name


def content(folder: Path) -> dict[str, str]:
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir() if each.is_file()}


def test_members_that_were_too_wide_are_as_wide_as_their_errors_again(trained, wide, tmp_path) -> None:
    before = content(wide)
    done = recalibrate(str(wide), trained.store, split="test", conformal=False, output=tmp_path / "mended")
    assert done.before.spread_skill > 2 and 0.8 < done.after.spread_skill < 1.25
    assert done.after.crps < done.before.crps
    assert done.before.coverage_90 > 0.97 and 0.8 < done.after.coverage_90 < 0.97
    assert content(wide) == before
    old, mended = load_checkpoint(wide), load_checkpoint(tmp_path / "mended")
    assert mended[0].random_field.lengths != (0.01,)
    assert torch.equal(mended[0].leverage.usual, old[0].leverage.usual)
    for name, tensor in old[1].state_dict().items():
        assert torch.equal(tensor, mended[1].state_dict()[name])
    assert replace(mended[0], random_field=None, leverage=None).metrics == old[0].metrics


def test_what_it_says_of_members_is_what_draws_of_their_distributions_say(trained, teller, truth) -> None:
    checkpoint, model, opened = teller.checkpoint, teller.model, open_store(trained.store)
    plan, law = checkpoint.plan, checkpoint.leverage
    test = split_of(plan.config, opened).test[:3]
    said = judge(checkpoint, model, opened, test)
    truth = truth[:3]
    parts = predictions(
        model, read_samples(opened, test), plan.downscaling, plan.lattice, leverage=law, seed=plan.config.seed
    )
    generator, drawn = torch.Generator().manual_seed(0), []
    for part in parts:
        stretch = part.stretched_by(law)
        scores = torch.randn(100, *part.values.shape, 1, generator=generator)
        drawn.append(torch.stack([stretched(part.mixture, part.mixture.at_score(each), stretch) for each in scores]))
    values = plan.scaling.to_kelvin(torch.cat(drawn, dim=1)[..., 0]).reshape(100, *truth.shape)
    ensemble = truth.expand_dims(realization=100).copy(data=values)
    np.testing.assert_array_equal(opened.field["time"].values[test], truth["time"].values)
    assert said.spread_skill == pytest.approx(float(spread_skill_ratio(ensemble, truth)), rel=0.02)
    assert said.coverage_90 == pytest.approx(float(coverage(ensemble, truth)), abs=0.01)
    assert said.crps == pytest.approx(scores_of(ensemble, truth)["crps"], rel=0.02)


def test_a_registered_model_gets_a_version_and_keeps_its_champion(named, later, capsys) -> None:
    champion, _ = resolve(f"models:/{named}@champion")
    before = content(champion)
    assert main(["models", "calibrate", named, "--store", later, "--split", "all"]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"models:/{named}/2: 90 % interval covers ") and "\n" not in line
    assert line.endswith(", each half judged by what the other gave)") and "24 fields of 2027-03-" in line
    assert resolve(f"models:/{named}@champion")[0] == champion and content(champion) == before
    card = show_model(f"{named}@challenger")
    assert card["version"] == "2" and card["store"] == "of training"
    assert card["calibrated_from"] == f"models:/{named}/1" and card["calibrated_on"].startswith("24 fields of ")
    assert card["calibration"]["fields"] == 24
    run = client().get_run(resolve(f"models:/{named}/2")[1]["run_id"])
    assert run.info.status == "FINISHED"


def test_the_new_checkpoint_downscales_with_the_new_spread(trained, wide, coarse, tmp_path, capsys) -> None:
    asked = ["models", "calibrate", str(wide), "--store", trained.store, "--split", "test", "--law-only", "--json"]
    assert main([*asked, "--output", str(tmp_path / "new")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == str(tmp_path / "new") and told["fields"] == 6 and told["out_of_sample"] is False
    spreads = [
        float(downscale(coarse, Downscaler.of(str(each)), factor=3, members=8)["t2m"].std("realization").mean())
        for each in (wide, tmp_path / "new")
    ]
    ratio = told["after"]["spread_skill"] / told["before"]["spread_skill"]
    assert math.log(spreads[1] / spreads[0]) == pytest.approx(math.log(ratio), abs=0.35)
    assert main([*asked, "--output", str(tmp_path / "new")]) == 2
    assert "exists already: choose another name, or say --overwrite" in capsys.readouterr().err


def test_a_folder_gets_a_folder_beside_it(trained, later, tmp_path) -> None:
    checkpoint, model = load_checkpoint(trained.checkpoint)
    save_checkpoint(tmp_path / "mine", checkpoint, model)
    times = open_store(later).field["time"].values.astype("datetime64[h]").astype(str)
    done = recalibrate(str(tmp_path / "mine"), later, split="all", time=f"{times[3]}:{times[9]}", conformal=False)
    assert done.model == str(tmp_path / "mine-calibrated") and done.fields == 7 and done.first.startswith(times[3])
    assert load_checkpoint(tmp_path / "mine-calibrated")[0].calibration is None


def test_what_cannot_be_calibrated_is_refused_in_a_sentence(trained, classic, later, tmp_path) -> None:
    mine, store = str(trained.checkpoint), trained.store
    with pytest.raises(ValueError, match="needs at least 9 held-out fields .* there are 6: choose more .* --law-only"):
        recalibrate(mine, store, split="test", output=tmp_path / "new")
    with pytest.raises(ValueError, match="was trained on .* of these 24 samples"):
        recalibrate(mine, store, split="all", output=tmp_path / "new")
    with pytest.raises(ValueError, match="was trained on .* of these 15 samples"):
        recalibrate(mine, store, split="train", output=tmp_path / "new")
    with pytest.raises(ValueError, match="it has no validation split, choose its samples with --time or --split all"):
        recalibrate(mine, later, output=tmp_path / "new")
    with pytest.raises(ValueError, match="has no sample in 1999"):
        recalibrate(mine, later, time="1999", output=tmp_path / "new")
    with pytest.raises(ValueError, match="is the checkpoint that is fitted again, and it stays"):
        recalibrate(mine, store, output=Path(mine), overwrite=True)
    with pytest.raises(ValueError, match="a classic model of whole fields"):
        recalibrate(str(classic.checkpoint), store, output=tmp_path / "new")
    field = open_store(store).field[:, ::2, ::2].load()
    thinned = write_store(field, tmp_path / "thin.zarr", source="s", license="l").path
    with pytest.raises(ValueError, match="has another grid than the 46 x 90 points"):
        recalibrate(mine, thinned, split="all", output=tmp_path / "new")
    with contextlib.chdir(trained.folder), pytest.raises(ValueError, match="a run has no name .* --output FOLDER"):
        recalibrate(trained.run_id, store)
    assert not (tmp_path / "new").exists()


def test_a_model_without_the_laws_is_calibrated_on_the_store_that_it_learned_from(trained, later, tmp_path) -> None:
    checkpoint, model = load_checkpoint(trained.checkpoint)
    save_checkpoint(tmp_path / "old", replace(checkpoint, leverage=None), model)
    with pytest.raises(ValueError, match="calibrate it once on the store that it was trained on"):
        recalibrate(str(tmp_path / "old"), later, split="all")
    done = recalibrate(str(tmp_path / "old"), trained.store, split="test", conformal=False)
    found = load_checkpoint(Path(done.model))[0].leverage
    torch.testing.assert_close(found.usual, checkpoint.leverage.usual)
