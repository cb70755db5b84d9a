"""A checkpoint is whole or not there, gives back what was saved bit for bit, and never runs what it holds."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.store import Store
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, load_training, recover, save_checkpoint
from pipelines.training.plan import Plan, make_plan
from pipelines.training.step import Objective, differentiate, draw, make_optimizer, take_step, vamoh_groups
from pipelines.training.validation import read_samples
from vamoh import VAMoH
from vamoh.random_field import RandomField


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.fixture
def trained(plan: Plan, store: Store) -> tuple[VAMoH, torch.optim.Optimizer]:
    """A model after two steps, with the optimiser that took them."""
    model = plan.new_model()
    optimizer = make_optimizer(vamoh_groups(model, plan.config.training))
    samples = next(iter(read_samples(store, np.arange(6))))
    for step in range(2):
        drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=step, latent=3, num=2)
        differentiate(Objective(model, plan.config.training, 18), drawn, at_a_time=0, epoch=0, step=step)
        take_step(model, optimizer, 1.0)
    return model, optimizer


@pytest.fixture
def saved(plan: Plan, trained: tuple[VAMoH, torch.optim.Optimizer], tmp_path: Path) -> Path:
    """A checkpoint that training may go on from."""
    law = RandomField(lengths=(0.1, 0.5), weights=(0.25, 0.75), time_scale=7.5, spread=1.1)
    checkpoint = Checkpoint(
        plan=plan,
        epoch=3,
        metrics={"validation_rmse": 0.1},
        random_field=law,
        versions={"torch": "2"},
        best=0.3,
        stale=2,
    )
    save_checkpoint(tmp_path / "last", checkpoint, trained[0], training=trained)
    return tmp_path / "last"


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match="the checkpoint .* cannot be read: .") as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("overrides", [(), ("context=null", "model.local=null", "model.context_encoder=null")], ids=str)
def test_a_checkpoint_round_trips_bit_for_bit(overrides, store: Store, tiny, tmp_path: Path) -> None:
    plan = make_plan(tiny(*overrides), store)
    model = plan.new_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    before = Checkpoint(plan=plan, epoch=1, metrics={"validation_rmse": 1 / 3}, best=float("inf"))
    save_checkpoint(tmp_path / "best", before, model)
    after, again = load_checkpoint(tmp_path / "best")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not again.training
    assert (after.plan.config, after.plan.spec, after.plan.scaling) == (plan.config, plan.spec, plan.scaling)
    assert after.plan.statistics == plan.statistics
    for axis in ("latitude", "longitude"):
        np.testing.assert_array_equal(getattr(after.plan.lattice, axis), getattr(plan.lattice, axis))
    rest = ("variable", "fingerprint", "trained_from", "trained_to")
    assert [getattr(after.plan, name) for name in rest] == [getattr(plan, name) for name in rest]
    assert replace(after, plan=plan) == before


def test_progress_and_the_law_of_members_come_back(saved: Path) -> None:
    checkpoint, _ = load_checkpoint(saved)
    assert (checkpoint.epoch, checkpoint.best, checkpoint.stale) == (3, 0.3, 2)
    assert checkpoint.random_field == RandomField(lengths=(0.1, 0.5), weights=(0.25, 0.75), time_scale=7.5, spread=1.1)


def test_the_optimiser_goes_on_where_it_was(saved: Path, plan: Plan, trained) -> None:
    model, optimizer = trained
    other = plan.new_model()
    again = make_optimizer(vamoh_groups(other, plan.config.training))
    load_training(saved, other, again)
    for each in (model, other):
        each.zero_grad()
        sum((parameter**2).sum() for parameter in each.parameters()).backward()
    optimizer.step()
    again.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: expected a folder with checkpoint.json"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_for_use_cannot_be_resumed_from(saved: Path, trained) -> None:
    (saved / "state.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no training state: resume from a run's `last` checkpoint"):
        load_training(saved, *trained)


@pytest.mark.parametrize("name", ["checkpoint.json", "model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 50, 0.5, 0.99])
def test_a_truncated_file_gives_one_clear_line(name, kept, saved: Path, trained) -> None:
    path = saved / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    if name == "state.safetensors":
        with pytest.raises(ValueError, match="the checkpoint .*last cannot be read: .") as caught:
            load_training(saved, *trained)
        assert "\n" not in str(caught.value)
    else:
        refusal(saved)


def test_any_part_of_the_description_that_is_wrong_gives_one_clear_line(saved: Path) -> None:
    path = saved / "checkpoint.json"
    tree = json.loads(path.read_text())
    for key in tree:
        for wrong in ("missing", None, 7, "x", [], {}, [[]], {"x": 1}):
            if key in {"stale", "metrics", "versions", "best", "epoch", "variable", "fingerprint"} or "trained" in key:
                continue  # words and numbers that nothing is built from
            changed = {**tree, key: wrong}
            if wrong == "missing":
                del changed[key]
            path.write_text(json.dumps(changed))
            try:
                load_checkpoint(saved)
            except ValueError as error:
                assert "\n" not in str(error)
                assert "cannot be read" in str(error)


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "{}", '{"format": 3}', "\x00\xff"])
def test_a_foreign_description_gives_one_clear_line(content, saved: Path) -> None:
    (saved / "checkpoint.json").write_bytes(content.encode("latin-1"))
    said = refusal(saved)
    if "format" in content:
        assert "it has format 3, this program reads 2" in said


def test_weights_of_another_model_give_one_clear_line(saved: Path, plan: Plan, store: Store, tiny) -> None:
    other = make_plan(tiny("model.latent=5"), store)
    save_checkpoint(saved.with_name("other"), Checkpoint(plan=other, epoch=0), other.new_model())
    (saved / "model.safetensors").write_bytes((saved.with_name("other") / "model.safetensors").read_bytes())
    refusal(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_planted_pickle_is_never_run(name, how, saved: Path, trained, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    if how == "pickle":
        (saved / name).write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save(Bomb(mark), saved / name)
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(saved)
        load_training(saved, *trained)
    assert not mark.exists()


def test_other_files_in_the_folder_are_never_opened(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for name in ("pytorch_model.bin", "model.pt", "data.pkl", "random_field.pkl", "sitecustomize.py", "__init__.py"):
        (saved / name).write_bytes(pickle.dumps(Bomb(mark)))
    load_checkpoint(saved)
    assert not mark.exists()


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from pipelines.data import atomic
from pipelines.training import checkpoint as module

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(tensors, path):
    Path(path).write_bytes(b"half of it")
    die()

def save(folder, moment):
    checkpoint, model = module.load_checkpoint(folder)
    rename, remove = os.rename, atomic._remove
    if moment == "weights":
        module.save_file = half
    elif moment == "description":
        Path.write_text = die
    elif moment == "swap":
        atomic._exchanged = lambda *_: False
        atomic.os.rename = lambda source, target: die() if ".tmp-" in str(source) else rename(source, target)
    elif moment == "cleaning":
        atomic._exchanged = lambda *_: False
        atomic._remove = lambda path: die() if ".old-" in path.name else remove(path)
    else:
        atomic._remove = lambda path: die() if path.exists() else remove(path)
    module.save_checkpoint(folder, replace(checkpoint, epoch=99), model)

for moment in sys.argv[2:]:
    child = os.fork()  # no threads run yet
    if not child:
        save(Path(sys.argv[1]) / moment / "last", moment)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, moment
"""


def test_kill_9_in_the_middle_of_a_write_leaves_a_whole_checkpoint_and_no_debris(saved: Path, tmp_path: Path) -> None:
    epochs = {"weights": 3, "description": 3, "swap": 3, "cleaning": 99, "exchange": 99}
    for moment in epochs:
        shutil.copytree(saved, tmp_path / moment / "last")
    subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), *epochs],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    for moment, epoch in epochs.items():
        folder = tmp_path / moment / "last"
        assert len(list(folder.parent.iterdir())) > 1, moment
        for _ in range(2):
            recover(folder)
            assert load_checkpoint(folder)[0].epoch == epoch, moment
            assert list(folder.parent.iterdir()) == [folder]


def test_a_full_disk_leaves_the_earlier_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoint, model = load_checkpoint(saved)
    monkeypatch.setattr("pipelines.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space left to write .*last"):
        save_checkpoint(saved, replace(checkpoint, epoch=99), model)
    assert load_checkpoint(saved)[0].epoch == 3
    assert list(saved.parent.iterdir()) == [saved]
