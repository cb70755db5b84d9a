"""The members' laws of a model that is trained already, fitted again on held-out samples: `vamoh models calibrate`.

The network stays as it is, and so does the checkpoint that it is read from: what is fitted is written as another one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from pipelines.data.atomic import refuse_existing
from pipelines.data.domain import kind_of
from pipelines.data.store import Store, open_store
from pipelines.data.stream import Index
from pipelines.data.times import span_slice
from pipelines.training.calibrate import check_calibration, fit_conformal
from pipelines.training.champions import register_version
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipelines.training.judgement import Judgement, judge, mean_of, sums_of
from pipelines.training.members import training_leverage, with_members
from pipelines.training.plan import Plan, split_of
from pipelines.training.registry import ARTIFACT, as_model, resolve, version_uri
from pipelines.training.tracking import Tracking, client, flatten, git_revision
from vamoh import VAMoH

LEAST_HALF = 9  # fields that a conformal map is sure of 90 % with
KEPT_TAGS = ("store", "data_source", "data_license", "data_fingerprint", "config_hash", "seed")
FITTED_FROM, FITTED_ON = "calibrated_from", "calibrated_on"  # tags of the run of a version that was fitted again
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """What came of it.

    Attributes:
        model: The new version, or the new checkpoint's folder.
        fitted_from: The model that it was fitted from.
        fields: Samples that it was fitted on.
        first, last: Their times.
        out_of_sample: Whether `after` judges each half of them by the laws fitted on the other.
        before, after: What they say of members before and after.
    """

    model: str
    fitted_from: str
    fields: int
    first: str
    last: str
    out_of_sample: bool
    before: Judgement
    after: Judgement


def recalibrate(
    model: str,
    store: str,
    *,
    split: str = "validation",
    time: str | None = None,
    conformal: bool = True,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Recalibrated:
    """Fit the members' laws of a model again.

    Args:
        model: MODEL, or a registered name.
        store: Of the samples: the one that it was trained on, or another one of the same grid.
        split: "validation" or "test" of the training store; "all" of another one.
        time: A span of the store's samples instead.
        conformal: Also fit the conformal layer; otherwise the new checkpoint has none.
        output: Write the checkpoint to this folder. By default a registered model gets a new version, and a folder
            gets a folder beside it, NAME-calibrated.
        overwrite: Replace what is there.
        progress: Called with what is done, and of how much.

    Raises:
        ValueError: If the model has no context, the store does not suit it, the samples are too few, or it learned
            from some of them.
        FileExistsError: If the output exists.
    """
    uri = as_model(model)
    folder, origin = resolve(uri)
    name = origin["model"] if "version" in origin and output is None else None
    target = _target(folder, origin, output) if name is None else None
    if target is not None:
        if target.resolve() == folder.resolve():
            raise ValueError(f"{target} is the checkpoint that is fitted again, and it stays: choose another --output")
        refuse_existing(target, overwrite=overwrite)
    checkpoint, network = load_checkpoint(folder)
    if not isinstance(network, VAMoH) or network.local is None:
        raise ValueError(f"{model} is a classic model of whole fields: only members that downscale are calibrated")
    opened, plan = open_store(store), checkpoint.plan
    held = held_out(opened, plan, split=split, time=time)
    if conformal:
        check_calibration(held, remedy="choose more with --split or --time, or fit the law alone with --law-only")
    before, after, out_of_sample, fitted = _fitted(checkpoint, network, opened, held, conformal, progress)
    label, times = kind_of(opened.domain).label, opened.field[opened.field.dims[0]].values[held]
    first, last = label(times[0]), label(times[-1])
    source = version_uri(origin["model"], origin["version"]) if "version" in origin else model
    if target is not None:
        save_checkpoint(target, fitted, network)
        made = str(target)
    else:
        assert name is not None
        told = {FITTED_FROM: source, FITTED_ON: f"{len(held)} fields of {opened.path}, {first} to {last}"}
        made = version_uri(name, _registered(name, origin["run_id"], fitted, network, told))
    return Recalibrated(
        model=made,
        fitted_from=source,
        fields=len(held),
        first=first,
        last=last,
        out_of_sample=out_of_sample,
        before=before,
        after=after,
    )


def held_out(opened: Store, plan: Plan, *, split: str = "validation", time: str | None = None) -> Index:
    """Positions in a store of samples that a model did not learn from.

    Raises:
        ValueError: If there are none, it learned from some of them, or the store is of another kind or grid.
    """
    kind = kind_of(opened.domain)
    if opened.domain != plan.spec.domain:
        raise ValueError(f"the model is of functions on the {plan.spec.domain}, {opened.path!r} of the {opened.domain}")
    if opened.variable != plan.variable:
        raise ValueError(f"the model is of {plan.variable}, {opened.path!r} holds {opened.variable}")
    if kind.geometry(opened.field).to_json() != plan.geometry.to_json():
        raise ValueError(
            f"{opened.path!r} has another grid than the {' x '.join(map(str, plan.geometry.shape))} points that the "
            "model was trained on: its laws are fitted on a store of the same grid"
        )
    times = opened.field[opened.field.dims[0]].values
    own = opened.fingerprint == plan.fingerprint
    if time is not None:
        chosen = np.arange(len(times))[span_slice(times, time)]
        if not len(chosen):
            raise ValueError(f"{opened.path!r} has no sample in {time}")
    elif own and split != "all":
        chosen = split_of(plan.config, opened).named(split)
    elif split == "all":
        chosen = np.arange(len(times))
    else:
        raise ValueError(
            f"{opened.path!r} is not the store that the model was trained on: it has no {split} split, choose its "
            "samples with --time or --split all"
        )
    unseen = kind.unseen(opened.field, plan.trained_from, plan.trained_to)
    learned = split_of(plan.config, opened).train if own else np.setdiff1d(np.arange(len(times)), unseen)
    known = len(np.intersect1d(chosen, learned))
    if known:
        raise ValueError(
            f"the model was trained on {known} of these {len(chosen)} samples, or among them in time "
            f"({plan.trained_from} to {plan.trained_to}): choose others with --split or --time"
        )
    return chosen


def _target(folder: Path, origin: dict[str, str], output: Path | None) -> Path:
    """Where the new checkpoint is written."""
    if output is not None:
        return output
    if "run_id" in origin:
        raise ValueError("a run has no name to register a version under: say where to write it with --output FOLDER")
    return folder.with_name(f"{folder.name}-calibrated")


def _fitted(
    checkpoint: Checkpoint, network: VAMoH, opened: Store, held: Index, conformal: bool, progress: Progress
) -> tuple[Judgement, Judgement, bool, Checkpoint]:
    """What samples say of members before and after, whether after is out of sample, and the new checkpoint.

    Each half of the samples, of neighbouring times, is judged by what is fitted on the other one.
    """
    halves = np.array_split(held, 2) if len(held) >= 2 * LEAST_HALF else []
    total = 2 + len(halves)
    progress(0, total)
    before = judge(checkpoint, network, opened, held)
    progress(1, total)
    own = opened.fingerprint == checkpoint.plan.fingerprint
    if checkpoint.leverage is None:
        if not own:
            raise ValueError(
                "the model does not know what is usual in its training samples: calibrate it once on the store that it "
                "was trained on"
            )
        checkpoint = replace(checkpoint, leverage=training_leverage(checkpoint, network, opened))

    def fit(samples: Index) -> Checkpoint:
        fitted = with_members(checkpoint, network, opened, samples)
        if not conformal:
            return fitted
        layer = fit_conformal(fitted, network, opened, samples)
        return replace(fitted, calibration=layer)

    fitted = fit(held)
    sums = []
    for number, half in enumerate(halves):
        progress(2 + number, total)
        sums.append(sums_of(fit(halves[1 - number]), network, opened, half))
    if sums:
        after = mean_of(sums, checkpoint.plan.scaling.scale)
    else:
        after = judge(fitted, network, opened, held)
    progress(total, total)
    return before, after, bool(sums), fitted


def _registered(name: str, run_id: str, fitted: Checkpoint, network: VAMoH, told: dict[str, str]) -> str:
    """Register the checkpoint as a version of a name, by a run of its own; returns the version."""
    try:
        known = client().get_run(run_id).data.tags
    except MlflowException:  # deleted since
        known = {}
    tags = {key: known[key] for key in KEPT_TAGS if key in known} | {"git_sha": git_revision()} | told
    try:
        tracking = Tracking.start(f"{name}-calibrated", flatten(fitted.plan.config.model_dump(mode="json")), tags)
        status = "FAILED"
        try:
            with tempfile.TemporaryDirectory(prefix="vamoh-calibrated-") as place:
                save_checkpoint(Path(place, ARTIFACT), fitted, network)
                tracking.artifact(Path(place, ARTIFACT), ARTIFACT)
            version = register_version(name, tracking.run_id, fitted.metrics)
            status = "FINISHED"
        finally:
            tracking.finish(status)
    except MlflowException as error:
        raise OSError(f"MLflow cannot be reached, or refuses: {' '.join(str(error).split())[:200]}") from error
    return version
