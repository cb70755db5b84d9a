"""A model's card says what it learned from, how good it is and what it is not for; the artifact says the same."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli import main
from pipelines.data.store import open_store
from pipelines.training.champions import keep_evaluation, promote, register_version
from pipelines.training.registry import resolve, show_model


@pytest.fixture
def card(trained, tmp_path: Path) -> Iterator[str]:
    """The name of a model with two versions, the second promoted over the first."""
    with contextlib.chdir(trained.folder):
        name = f"card-{tmp_path.name}"
        for number in ("1", "2"):
            assert register_version(name, trained.run_id, {"validation_rmse": 1.0}) == number
        promote(name, "2", {"forced": True, "reason": "for a test"})
        yield name


def test_the_card_tells_data_resolutions_limits_and_provenance(card, trained, capsys) -> None:
    assert main(["models", "show", card]) == 0
    told = capsys.readouterr().out
    for line in (
        "version      2", "aliases      champion", "variable     t2m", "license           unknown", "46 x 90",
        "0, -90, 356, 90", "trained from", "grid degrees   4", "context every  3", "input degrees  12",
        "validation rmse", "It learned from the globe", "Its truth has 4 degrees", trained.run_id,
        "for a test",
    ):  # fmt: skip
        assert line in told, told
    assert main(["models", "show", card, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    opened = open_store(trained.store)
    assert (facts["store"], facts["source"], facts["license"]) == (opened.path, opened.source, opened.license)
    assert facts["promotion"]["forced"] is True and facts["aliases"] == ["champion"]


@pytest.mark.parametrize(("asked", "version"), [("", "2"), ("@champion", "2"), ("/1", "1"), ("models:", "1")])
def test_a_version_is_named_in_any_way(card, asked, version) -> None:
    model = f"models:/{card}/1" if asked == "models:" else f"{card}{asked}"
    assert show_model(model)["version"] == version


def test_what_is_not_there_is_refused_with_what_is(card, capsys) -> None:
    assert main(["models", "show", f"{card}@nobody"]) == 2
    assert f"there is no model 'models:/{card}@nobody'" in capsys.readouterr().err
    assert main(["models", "show", f"{card}/9"]) == 2
    assert card in capsys.readouterr().err


def test_an_evaluation_that_is_kept_is_in_the_card_and_in_its_artifact(card, trained, capsys) -> None:
    model = f"models:/{card}@champion"
    scores = {"vamoh": {"rmse": 0.8125, "crps": 0.375}, "bilinear": {"rmse": 1.75, "mae": 0.9375}}
    result = {
        "store": trained.store, "fingerprint": "f" * 64, "split": "test", "from": "2026-03-30", "to": "2026-03-31",
        "units": "K", "factor": 3, "every": 1, "members": 2, "scores": scores,
    }  # fmt: skip
    keep_evaluation(model, result)
    keep_evaluation(model, result)  # in place of itself
    (kept,) = show_model(card)["evaluations"]
    assert kept["scores"]["vamoh"]["rmse"] == result["scores"]["vamoh"]["rmse"]
    assert main(["models", "show", card]) == 0
    told = capsys.readouterr().out
    page = (resolve(model)[0] / "README.md").read_text()
    assert page.startswith(f"# {card} 2\n") and "| vamoh |" in page and "## Limits" in page
    for system, scores in result["scores"].items():
        assert system in told and f"{scores['rmse']:.4g}" in told
        assert f"| {system} | " in page
    with pytest.raises(ValueError, match="are kept with registered models"):
        keep_evaluation(str(trained.checkpoint), result)


def test_a_checkpoint_folder_has_a_card_too_without_what_only_the_registry_knows(trained) -> None:
    facts = show_model(str(trained.checkpoint))
    assert facts["context_every"] == 3 and len(facts["limits"]) == 4 and "license" not in facts


def test_the_card_of_a_classic_model_says_that_it_does_not_downscale(classic, capsys) -> None:
    with contextlib.chdir(classic.folder):
        assert main(["models", "show", "classic"]) == 0
    told = capsys.readouterr().out
    assert "it does not downscale" in told and "input degrees" not in told
