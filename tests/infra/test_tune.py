"""`vamoh tune` refuses in one sentence what cannot be searched, before anything is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MISTAKES = [
    ("tune widest --store b.zarr", "there is no sweep 'widest': they are mixture-depth, wide; or give a YAML file"),
    ("tune mine.yaml --store b.zarr", "there is no file mine.yaml"),
    ("tune wide", "Missing option '--store'"),
    ("tune wide --store b.zarr", "there is no store at 'b.zarr'"),
    ("tune wide --store b.zarr --resume", "--resume needs the --name of the sweep"),
    ("tune wide --store b.zarr --name a/b", "a sweep's name is letters, digits"),
    ("tune wide --store b.zarr --trials 0", "--trials"),
    ("tune mixture-depth --store b.zarr --trials 5", "is a grid, it has as many trials as combinations"),
    ("tune wide --store b.zarr --train nothing", "there is no preset 'nothing'"),
    ("tune wide --store b.zarr --set training.epoch=3", "unknown key 'training.epoch', did you mean 'epochs'?"),
    ("tune wide --store b.zarr --set training.epochs", "--set expects key=value such as training.epochs=20"),
    ("tune wide --store b.zarr --set training.beta=1", "training.beta is searched: it cannot be set too"),
    ("tune wide --store b.zarr --concurrent 0", "at least 1 trial must run at a time, got 0"),
    ("tune wide --store b.zarr --cpus-per-trial 0", "a trial needs at least 1 CPU, got 0"),
    ("tune wide --store b.zarr --gpus-per-trial 1.5", "a fraction of one, or whole ones, got 1.5"),
    ("tune wide --store b.zarr --workers 2 --gpus-per-trial 1", "leave out --cpus-per-trial and --gpus-per-trial"),
]


@pytest.mark.parametrize(("line", "answer"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_answered_in_one_line(line: str, answer: str, vamoh: Callable[..., Any], tmp_path: Path) -> None:
    ended = vamoh(*line.split())
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("vamoh: error: ") and ended.err.count("\n") == 1
    assert answer in ended.err
    assert list(tmp_path.iterdir()) == []
