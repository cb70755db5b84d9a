"""What a cluster runs: the command, going on where an earlier attempt of the same launch stopped."""

import json
from pathlib import Path

import pytest

from infra.launch import again

WORDS = ["train", "era5", "--store", "/s", "--name", "a"]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch) -> list[list[str]]:
    """The commands that would have been run, in an empty folder."""
    found: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("infra.cli.main", lambda words: found.append(list(words)) or 0)
    return found


def checkpoint(name: str = "a") -> None:
    folder = Path("runs", name, "last")
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")


def test_the_first_attempt_is_the_command_itself(ran: list[list[str]]) -> None:
    assert again.main(["--id", "one", "--", *WORDS]) == 0
    assert ran == [WORDS]


def test_another_attempt_goes_on_from_the_checkpoint(ran: list[list[str]]) -> None:
    again.main(["--id", "one", "--", *WORDS])
    checkpoint()
    again.main(["--id", "one", "--", *WORDS])
    again.main(["--id", "one", "--", *WORDS, "--resume"])
    assert ran == [WORDS, [*WORDS, "--resume"], [*WORDS, "--resume"]]


def test_another_launch_does_not_go_on_with_a_run_by_accident(ran: list[list[str]]) -> None:
    again.main(["--id", "one", "--", *WORDS])
    checkpoint()
    again.main(["--id", "two", "--", *WORDS])
    assert ran == [WORDS, WORDS]
    assert Path("runs", ".launches", "a").read_text() == "one"


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(ran: list[list[str]], monkeypatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr("pipelines.training.tracking.Tracking.finish", lambda self, status: ended.append(status))
    again.main(["--id", "one", "--", *WORDS])
    Path("runs", "a").mkdir()
    Path("runs", "a", "run.json").write_text(json.dumps({"tracking_uri": "sqlite:///m.db", "run_id": "1"}))
    again.main(["--id", "one", "--", *WORDS])
    assert ran == [WORDS, WORDS]
    assert ended == ["KILLED"] and not Path("runs", "a").exists()


def test_a_sweep_goes_on_from_its_record(ran: list[list[str]]) -> None:
    words = ["tune", "wide", "--store", "/s", "--name", "a"]
    again.main(["--id", "one", "--", *words])
    Path("runs", "a").mkdir()
    Path("runs", "a", "sweep.json").write_text("{}")
    again.main(["--id", "one", "--", *words])
    assert ran == [words, [*words, "--resume"]]


def test_files_that_a_command_names_are_found_from_the_shared_folder(ran: list[list[str]], tmp_path: Path) -> None:
    for name in ("mine.yaml", "orography.nc"):
        (tmp_path / name).touch()
    words = ["train", "mine.yaml", "--store", "/s", "--static=orography.nc", "--set", "a=b", "--name", "a"]
    again.main(["--id", "one", "--folder", str(tmp_path / "shared"), "--", *words])
    assert ran == [["train", f"{tmp_path}/mine.yaml", "--store", "/s", f"--static={tmp_path}/orography.nc", *words[5:]]]
    assert Path.cwd() == tmp_path / "shared"
