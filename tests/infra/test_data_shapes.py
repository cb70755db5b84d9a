"""`vamoh data shapes`, as people and programs see it."""

import json
from pathlib import Path

import numpy as np
import pytest

from infra.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cube as a mesh, and a file that is none."""
    root = tmp_path / "meshes"
    root.mkdir()
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["f " + " ".join(str(i + 1) for i in face) for face in faces]
    (root / "cube.obj").write_text("\n".join(lines))
    (root / "broken.stl").write_bytes(b"solid nothing")
    return root


def test_what_was_made_and_what_could_not_be_read_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "shapes", str(folder), str(tmp_path / "a.zarr"), "--resolution", "16"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2, 1 unreadable" in said and "16 x 16 x 16" in said
    assert "unreadable: broken: it " in said
    assert main(["data", "shapes", str(folder), str(tmp_path / "b.zarr"), "--resolution", "16", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["found"] == 2 and answer["unreadable"][0]["name"] == "broken"
    assert answer["dims"] == {"shape": 1, "x": 16, "y": 16, "z": 16}
    assert answer["statistics"]["mean"] == pytest.approx((14 / 16) ** 3)
    assert main(["data", "inspect", str(tmp_path / "a.zarr")]) == 0


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "shapes", str(tmp_path / "none"), str(tmp_path / "a.zarr")]) == 2
    assert "there is nothing at" in capsys.readouterr().err
    (folder / "cube.obj").unlink()
    assert main(["data", "shapes", str(folder), str(tmp_path / "a.zarr")]) == 2
    assert "none of 1 files can be read; the first is broken" in capsys.readouterr().err
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    assert main(["data", "shapes", str(tmp_path / "flat.npy"), str(tmp_path / "a.zarr")]) == 2
    assert "expected (n, x, y, z)" in capsys.readouterr().err
