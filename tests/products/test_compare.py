"""Models of one store side by side: one that downscales, one that completes, one that fits, one that only draws."""

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pipelines
from infra.cli import main
from pipelines.config import load_config
from pipelines.data.shapes import ingest
from pipelines.data.store import open_store
from pipelines.products import compare as comparing
from pipelines.products import comparison_cost, skill
from pipelines.products.comparison_metrics import shown
from pipelines.products.evaluate import evaluate
from pipelines.products.field_products import reconstructed
from pipelines.training.checkpoint import Checkpoint, save_checkpoint
from pipelines.training.plan import make_plan
from pipelines.training.registry import load_model
from tests.products.tiny_peers import checkpoint_of
from vamoh.peers.gasp import CANNOT_INFER
from vamoh.systems import new_model


@pytest.fixture(scope="module")
def peers(globe_store: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Functa and GASP of the fields, before training."""
    folder, store = tmp_path_factory.mktemp("peers"), open_store(globe_store)
    return {name: checkpoint_of(f"{name}-fields", store, folder / name) for name in ("functa", "gasp")}


@pytest.fixture(scope="module")
def written(trained, classic, peers, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """The JSON and the page of four models, by the command."""
    folder = tmp_path_factory.mktemp("comparison")
    models = f"fine={trained.checkpoint},whole={classic.checkpoint},{peers['functa']},{peers['gasp']}"
    told = ["--json", str(folder / "table.json"), "--report", str(folder / "page.html")]
    given = ["compare", "--store", classic.store, "--models", models, "--members", "2", "--factor", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_cost, "MANY", 6)
        assert main([*given, *told]) == 0
    return json.loads((folder / "table.json").read_text()), (folder / "page.html").read_text()


def test_the_scores_are_those_of_the_arrays_themselves(written, classic, trained, truth: xr.DataArray) -> None:
    table, _ = written
    checkpoint, network, _ = load_model(str(classic.checkpoint))
    again = reconstructed(network, checkpoint.plan, truth)  # by the encoder alone
    alone = table["models"]["whole, the encoder alone"]
    assert alone["reconstruction_rmse"] == pytest.approx(float(skill.rmse(again, truth)), rel=1e-5)
    half = truth.copy(deep=True)
    half[..., 45:] = np.nan
    completed = reconstructed(network, checkpoint.plan, half)[..., 45:]
    assert alone["completion_rmse"] == pytest.approx(float(skill.rmse(completed, truth[..., 45:])), rel=1e-5)
    members = evaluate(str(trained.checkpoint), trained.store, members=2, factor=3)["scores"]["vamoh"]
    assert table["models"]["fine"]["downscaling_rmse"] == pytest.approx(members["rmse"], rel=1e-5)
    assert table["models"]["fine"]["downscaling_crps"] == pytest.approx(members["crps"], rel=1e-5)


def test_what_a_system_cannot_do_is_missing_with_its_reason(written) -> None:
    table, _ = written
    assert "reconstruction_rmse" not in table["models"]["gasp"] and table["models"]["gasp"]["energy"] > 0
    assert {"downscaling_rmse", "memory_mb", "inference_1_s"} <= set(table["models"]["fine"])
    assert "reconstruction_rmse" not in table["models"]["fine"]
    reasons = {
        (model, metric): gap["reason"]
        for gap in table["missing"]
        for model in gap["models"]
        for metric in gap["metrics"]
    }
    assert reasons["gasp", "reconstruction_rmse"] == CANNOT_INFER
    assert reasons["gasp", "inference_64_s"] == CANNOT_INFER
    assert "width" in reasons["functa", "bits_bound"] and "downscales" in reasons["fine", "recall"]
    assert "run is not known" in reasons["functa", "training_s"], "it was never trained"
    for name, row in table["models"].items():
        for key in table["metrics"]:
            assert (key in row) != ((name, key) in reasons), f"{name}, {key}: a number, or a reason"
    assert "not measured" not in {gap["reason"] for gap in table["missing"]}


def test_both_ways_of_asking_a_model_draw_the_same_functions(written) -> None:
    rows = written[0]["models"]
    assert list(rows) == ["fine", "whole", "whole, the encoder alone", "functa", "functa, 10 steps", "gasp"]
    for key in ("energy", "precision", "parameters", "training_s"):
        assert rows["whole"][key] == rows["whole, the encoder alone"][key]
    assert rows["whole"]["bits_bound"] < rows["whole, the encoder alone"]["bits_bound"], "it is improved for each"


def test_training_time_is_that_of_the_runs_folder(written, classic) -> None:
    lines = (classic.checkpoint.parent / "metrics.jsonl").read_text().splitlines()
    begun = (classic.checkpoint.parent / "run.json").stat().st_mtime
    ended = max(json.loads(lines[-1])["timestamp"] / 1000, (classic.checkpoint / "checkpoint.json").stat().st_mtime)
    seconds = ended - begun
    assert written[0]["models"]["whole"]["training_s"] == pytest.approx(seconds, abs=1e-3)


def test_a_registered_models_training_time_is_that_of_its_mlflow_run(classic, monkeypatch) -> None:
    monkeypatch.chdir(classic.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    label = comparing._label("models:/classic@champion")
    (entry, *_), _ = comparing._loaded(["models:/classic@champion"], open_store(classic.store))
    found = comparison_cost.training_seconds(entry)
    assert label == "classic@champion" and found is not None and 0 < found < 600


def test_the_page_needs_nothing_else_and_has_every_number(written) -> None:
    table, page = written
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "<script" not in page and "@import" not in page
    for row in (table["models"] | table["references"]).values():
        for value in row.values():
            assert escape(shown(value)).replace("-", "−") in page
    for metric in table["metrics"].values():
        assert escape(metric["name"]) in page and escape(metric["meaning"]) in page
    for gap in table["missing"]:
        assert escape(gap["reason"]) in page
    assert "not measured here" in page, "the paper's figures are marked as such: it is the paper's grid of ERA5"
    assert table["best"]["downscaling_rmse"] and "★" in page


def test_the_table_on_the_console_marks_the_best_and_says_why_there_are_dashes(classic, peers, capsys) -> None:
    given = ["compare", "--store", classic.store, "--models", f"{peers['gasp']},{peers['functa']}"]
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "★" in out and "Energy distance" in out and "K" in out and CANNOT_INFER in out
    assert "Members' spread" not in out, "a row that nobody has is left out"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{gasp},{gasp}", "two models are called gasp: name them"),
        ("{shape}", "is of functions on the cube, {store!r} of the sphere"),
        ("", "give --models A,B,C"),
        ("{gasp},{early}", "0 samples of {store!r} are test samples of all these models"),
        ("nothing/here", "there is no model 'nothing/here'"),
    ],
)
def test_mixtures_that_do_not_go_together_are_refused_in_a_sentence(
    models: str, said: str, classic, peers, chair, early, capsys
) -> None:
    named = {"gasp": peers["gasp"], "shape": chair[1], "early": early, "store": classic.store}
    assert main(["compare", "--store", classic.store, "--models", models.format(**named)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said.format(**named) in error[-1]


def test_models_of_different_splits_are_compared_on_what_is_held_out_of_both(
    peers: dict[str, str], globe_store: str, tmp_path: Path
) -> None:
    store = open_store(globe_store)
    config = load_config("gasp-fields", ("split.gap_hours=0", "split.test=0.1", "training.batch_size=4"))
    plan = make_plan(config, store)
    save_checkpoint(tmp_path / "less", Checkpoint(plan=plan, epoch=0), new_model(plan.spec, seed=0))
    result = pipelines.compare(globe_store, [peers["gasp"], str(tmp_path / "less")])
    assert result["samples"] == 2 and "different splits" in result["notes"][0]
    too_few = {gap["reason"] for gap in result["missing"] if "precision" in gap["metrics"]}
    assert too_few == {"2 functions are too few: a manifold is of 3 neighbours"}


def test_shapes_are_compared_by_how_they_overlap_and_by_distances(chair) -> None:
    store, gasp, functa = chair
    result = pipelines.compare(store, [functa, gasp], samples=5)
    assert (result["samples"], result["from"], result["to"]) == (5, "chair/000024", "chair/000029")
    assert result["references"]["training shapes"]["coverage"] > 0
    assert 0 <= result["models"]["functa"]["completion_iou"] <= 1
    assert "bits_bound" not in result["metrics"], "neither has a bound: there is no such row"
    truth = open_store(store).field[-6:].values > 0.5
    share = truth.mean()
    assert result["models"]["functa"]["bits"] > 0 and 0 < share < 1
    assert result["metrics"]["one_nn"]["better"] == "half" and result["metrics"]["mmd"]["unit"] == ""


@pytest.fixture(scope="module")
def early(globe_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A GASP that is tested on the first fields, which the others learned from."""
    store = open_store(globe_store)
    span = np.datetime_as_string(store.field["time"].values[[0, 4]], unit="D")
    settings = ("split.gap_hours=0", f"split.test={span[0]}:{span[1]}", "training.batch_size=4")
    plan = make_plan(load_config("gasp-fields", settings), store)
    folder = tmp_path_factory.mktemp("early") / "early"
    save_checkpoint(folder, Checkpoint(plan=plan, epoch=0), new_model(plan.spec, seed=0))
    return str(folder)


@pytest.fixture(scope="module")
def chair(chairs_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A store of 30 genuine chairs at 12^3, and a GASP and a Functa of them before training."""
    folder = tmp_path_factory.mktemp("chairs")
    with np.load(chairs_npz) as arrays:
        np.savez(folder / "chairs.npz", chair=arrays["train"][:30])
    store = ingest(folder / "chairs.npz", folder / "chairs.zarr", resolution=12, test=6).store
    made = [checkpoint_of(f"{name}-shapes", store, folder / name) for name in ("gasp", "functa")]
    return store.path, made[0], made[1]
