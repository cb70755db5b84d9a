"""Checkpoints: a folder of safetensors and JSON that needs no outside file, written beside and renamed. Never pickle.

checkpoint.json         the plan (config, spec, scaling, geometry, data fingerprint), progress, metrics, versions
model.safetensors       the weights that are used (their moving average)
background.safetensors  only of a downscaling model: training fields
statics.safetensors     only of a model that is told fields that do not change
usual.safetensors       only of a downscaling model of one lattice whose members are fitted: usual variances
state.safetensors       only where training may go on: the raw weights and the optimiser's moments
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.config import parse_config
from pipelines.data.atomic import written_beside
from pipelines.data.background import Background
from pipelines.data.domain import Geometry, Scaling, kind_of
from pipelines.data.normalize import Statistics
from pipelines.data.sphere import Lattice
from pipelines.data.static import StaticField
from pipelines.training.plan import Plan
from vamoh import VAMoH
from vamoh.conformal import ConformalMap
from vamoh.leverage import Leverage
from vamoh.random_field import RandomField
from vamoh.systems import Model, new_model

FORMAT = 2
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, SafetensorError, OSError)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder holds beside the weights.

    Attributes:
        plan: The run.
        epoch: Epochs completed.
        metrics: Of the last validation.
        random_field: The spatial law of members, once it is fitted.
        leverage: How much wider they are where the state is unlike those of training, once it is fitted.
        calibration: The conformal map of their scores, where one was asked for.
        versions: Of the libraries that wrote it.
        best, stale: The best validation so far (its CRPS), and how many came after it, for a resumed run.
        stream: Where the stream of samples is, in the midst of an epoch too.
        sums: Of the loss, its terms and their weights, over the batches that the epoch has had.
    """

    plan: Plan
    epoch: int
    metrics: dict[str, float] = field(default_factory=dict)
    random_field: RandomField | None = None
    leverage: Leverage | None = None
    calibration: ConformalMap | None = None
    versions: dict[str, str] = field(default_factory=dict)
    best: float | None = None
    stale: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


class Snapshot(NamedTuple):
    """A checkpoint as it is written, copied from what goes on changing.

    Attributes:
        description: JSON values.
        files: Tensors by name, by the name of their file.
    """

    description: dict[str, Any]
    files: dict[str, dict[str, Tensor]]


def take_snapshot(
    checkpoint: Checkpoint, weights: Model, *, training: tuple[Model, torch.optim.Optimizer] | None = None
) -> Snapshot:
    """Copy to memory what a checkpoint holds.

    Args:
        checkpoint: The description.
        weights: The model whose weights are used.
        training: The raw model and its optimiser, where training may go on.
    """
    files = {"model.safetensors": _copied(weights.state_dict())}
    background = checkpoint.plan.background
    if background is not None:
        files["background.safetensors"] = {"fields": torch.from_numpy(background.fields)}
    if checkpoint.plan.statics:
        told = {f"static.{each.name}": torch.from_numpy(each.values) for each in checkpoint.plan.statics}
        files["statics.safetensors"] = told
    if checkpoint.leverage is not None and checkpoint.leverage.usual is not None:
        files["usual.safetensors"] = _copied({"usual": checkpoint.leverage.usual})
    if training is not None:
        model, optimizer = training
        raw = {f"weights.{key}": value for key, value in model.state_dict().items()}
        files["state.safetensors"] = _copied(raw | _moments(optimizer))
    return Snapshot(_describe(checkpoint, weights), files)


def write_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint; the folder holds the old one or the new one, never a part.

    Raises:
        OSError: If it cannot be written; then the old one is there, and nothing of the new.
    """
    try:
        with written_beside(folder, overwrite=True) as beside:
            beside.mkdir()
            for name, tensors in snapshot.files.items():
                save_file(tensors, beside / name)
            (beside / "checkpoint.json").write_text(json.dumps(snapshot.description, indent=1))
            for path in beside.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    except SafetensorError as error:  # how it tells of a full disk
        raise OSError(f"{folder} cannot be written: {' '.join(str(error).split())}") from error


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    weights: Model,
    *,
    training: tuple[Model, torch.optim.Optimizer] | None = None,
) -> None:
    """Write a checkpoint now: `take_snapshot` and `write_checkpoint`."""
    write_checkpoint(folder, take_snapshot(checkpoint, weights, training=training))


def load_checkpoint(folder: Path) -> tuple[Checkpoint, Model]:
    """Read a checkpoint: its description, and its model ready to be used.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, or of another format.
    """
    described = folder / "checkpoint.json"
    if not described.is_file():
        raise FileNotFoundError(
            f"{folder} holds no checkpoint: expected a folder with checkpoint.json and model.safetensors"
        )
    try:
        tree = json.loads(described.read_text())
        if not isinstance(tree, dict):
            raise ValueError("its checkpoint.json holds no description")
        if tree.get("format") != FORMAT:
            raise ValueError(
                f"it has format {tree.get('format')}, this program reads {FORMAT}: train it again, or use the version "
                "that wrote it"
            )
        fields = load_file(folder / "background.safetensors") if tree.get("background") else {}
        fields |= load_file(folder / "usual.safetensors") if (tree["leverage"] or {}).get("usual") else {}
        fields |= load_file(folder / "statics.safetensors") if tree.get("statics") else {}
        checkpoint, vertices = _read(tree, fields)
        model = new_model(checkpoint.plan.spec, vertices=vertices, seed=checkpoint.plan.config.seed)
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except _DAMAGE as error:
        raise _unreadable(folder, error) from error
    return checkpoint, model.eval()


def load_training(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> None:
    """Put the raw weights and the optimiser's moments back, in place.

    Raises:
        ValueError: If the checkpoint was written for use, not for going on, or is damaged.
    """
    path = folder / "state.safetensors"
    if not path.is_file():
        raise ValueError(f"the checkpoint {folder} holds no training state: resume from a run's `last` checkpoint")
    try:
        tensors = load_file(path)
        model.load_state_dict(
            {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
        )
        state = optimizer.state_dict()
        state["state"] = {}
        for key, value in tensors.items():
            if key.startswith("moments."):
                _, place, name = key.split(".")
                state["state"].setdefault(int(place), {})[name] = value
        optimizer.load_state_dict(state)
    except _DAMAGE as error:
        raise _unreadable(folder, error) from error


def recover(folder: Path) -> None:
    """Put back the checkpoint that a kill in the middle of `save_checkpoint` left aside, and remove what it left over.

    To be called when no process writes there.
    """
    for aside in folder.parent.glob(f"{folder.name}.old-*"):
        if folder.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(folder)
    for unfinished in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(unfinished)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for place, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"moments.{place}.{name}"] = torch.as_tensor(value)
    return tensors


def _describe(checkpoint: Checkpoint, model: Model) -> dict[str, Any]:
    plan, law = checkpoint.plan, checkpoint.leverage
    grids = model.grids if isinstance(model, VAMoH) else None
    return {
        "format": FORMAT,
        "config": plan.config.model_dump(mode="json"),
        "spec": asdict(plan.spec),
        "vertices": () if grids is None else tuple(len(table) for table in grids.tables),
        "scaling": asdict(plan.scaling),
        "statistics": plan.statistics.to_json(),
        **plan.geometry.to_json(),
        "variable": plan.variable,
        "fingerprint": plan.fingerprint,
        "trained_from": plan.trained_from,
        "trained_to": plan.trained_to,
        "background": None if plan.background is None else plan.background.to_json(),
        "statics": [each.to_json() for each in plan.statics],
        "epoch": checkpoint.epoch,
        "metrics": dict(checkpoint.metrics),
        "stream": dict(checkpoint.stream),
        "sums": dict(checkpoint.sums),
        "best": checkpoint.best,
        "stale": checkpoint.stale,
        "random_field": None if checkpoint.random_field is None else asdict(checkpoint.random_field),
        "leverage": None if law is None else asdict(replace(law, usual=None)) | {"usual": law.usual is not None},
        "calibration": None if checkpoint.calibration is None else asdict(checkpoint.calibration),
        "versions": checkpoint.versions,
    }


def _read(tree: dict[str, Any], fields: Mapping[str, Tensor]) -> tuple[Checkpoint, tuple[int, ...] | None]:
    # The spec is read through the config's own model section, so that it is validated the same way.
    spec = parse_config(tree["config"] | {"model": tree["spec"]}, "its spec").model
    geometry, about = kind_of(spec.domain).geometry_from_json(tree), tree.get("background")
    plan = Plan(
        config=parse_config(tree["config"], "its config"),
        spec=spec,
        scaling=Scaling(**tree["scaling"]),
        statistics=Statistics.from_json(tree["statistics"]),
        geometry=geometry,
        variable=tree["variable"],
        fingerprint=tree["fingerprint"],
        trained_from=tree["trained_from"],
        trained_to=tree["trained_to"],
        background=None if about is None else _background(about, fields["fields"], geometry),
        statics=tuple(
            StaticField.from_json(each, fields[f"static.{each['name']}"].numpy()) for each in tree.get("statics", ())
        ),
    )
    leverage: dict[str, Any] | None = tree["leverage"]
    calibration: dict[str, Any] | None = tree.get("calibration")
    if calibration is not None:
        calibration = calibration | {name: tuple(calibration[name]) for name in ("levels", "radii")}
    law: dict[str, Any] | None = tree["random_field"]
    if law is not None:
        law = law | {"lengths": tuple(law["lengths"]), "weights": tuple(law["weights"])}
    checkpoint = Checkpoint(
        plan=plan,
        epoch=tree["epoch"],
        metrics=tree["metrics"],
        random_field=None if law is None else RandomField(**law),
        leverage=None if leverage is None else Leverage(**leverage | {"usual": fields.get("usual")}),
        calibration=None if calibration is None else ConformalMap(**calibration),
        versions=tree["versions"],
        best=tree["best"],
        stale=tree.get("stale", 0),
        stream=tree.get("stream", {}),
        sums=tree.get("sums", {}),
    )
    return checkpoint, tuple(tree["vertices"]) or None


def _background(about: dict[str, Any], fields: Tensor, geometry: Geometry) -> Background:
    assert isinstance(geometry, Lattice)
    return Background.from_json(about, fields.numpy(), geometry)


def _unreadable(folder: Path, error: Exception) -> ValueError:
    said = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split("\n\t")[0].split())
    return ValueError(f"the checkpoint {folder} cannot be read: {said or type(error).__name__}")
