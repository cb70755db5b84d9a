"""`--calibrate`: a conformal layer over a trained model, fitted on held-out fields and kept in its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pipelines.data.store import Store
from pipelines.data.stream import Index
from pipelines.data.times import label
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipelines.training.leverage import predictions
from pipelines.training.validation import read_samples
from vamoh import VAMoH
from vamoh.conformal import SURE, ConformalMap, conformal_map, most_probable


def check_calibration(held: Index, remedy: str = "") -> None:
    """Refuse to calibrate on too few fields, before a model is trained for it.

    Args:
        held: Their positions.
        remedy: What to do about it, where it is not a training's validation split.

    Raises:
        ValueError: If an interval of 90 % cannot be sure of itself.
    """
    if most_probable(len(held)) < SURE:
        needed = f"at least {round(SURE / (1 - SURE))} held-out fields for intervals of {SURE:.0%}"
        raise ValueError(
            f"a conformal layer needs {needed}, there are {len(held)}: {remedy}"
            if remedy
            else f"--calibrate needs {needed}, the validation split has {len(held)}: raise split.validation, or leave "
            "it out"
        )


def calibrate(folder: Path, store: Store, held: Index) -> ConformalMap:
    """Fit the conformal map of a checkpoint's scores, and keep it there.

    Args:
        folder: The checkpoint's, with its members' law fitted.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.

    Raises:
        ValueError: If they are too few, or the model has no context.
    """
    check_calibration(held)
    checkpoint, model = load_checkpoint(folder)
    assert isinstance(model, VAMoH)
    fitted = fit_conformal(checkpoint, model, store, held)
    save_checkpoint(folder, replace(checkpoint, calibration=fitted), model)
    return fitted


def fit_conformal(checkpoint: Checkpoint, model: VAMoH, store: Store, held: Index) -> ConformalMap:
    """The conformal map of the scores of held-out samples.

    Args:
        checkpoint: With the members' law.
        model: Its model.
        store: Of the samples.
        held: [n] positions of samples that it was not trained on.

    Raises:
        ValueError: If the model has no context.
    """
    plan, leverage = checkpoint.plan, checkpoint.leverage
    if leverage is None:
        raise ValueError("--calibrate is of members that downscale: this model has no context, or no law of members")
    parts = predictions(
        model, read_samples(store, held), plan.downscaling, plan.lattice, leverage=leverage, seed=plan.config.seed
    )
    scores = [field for part in parts for field in part.scores(part.stretched_by(leverage))]
    times = store.field[store.field.dims[0]].values[held]
    return conformal_map(scores, torch.from_numpy(plan.lattice.area), first=label(times[0]), last=label(times[-1]))
