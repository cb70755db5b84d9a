"""The model card: what a model learned from, how good it is, what it is for and what not, and where it came from.

Facts are plain values, for `vamoh models show --json`; the same facts as Markdown lie beside the weights as README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.data.domain import kind_of
from pipelines.data.fields import steps
from pipelines.data.sphere import EARTH_RADIUS_KM
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh.systems import Model

Facts = dict[str, Any]
# What a card tells, section by section, by the names of the facts.
SECTIONS = {
    "Model": (
        "model", "version", "aliases", "created", "description", "system", "task", "variable", "units", "parameters",
    ),
    "Data": (
        "store", "source", "license", "data_fingerprint", "grid", "region", "statics", "trained_from", "trained_to",
        "train", "validation", "test",
    ),
    "Resolutions": ("grid_degrees", "context_every", "context_kind", "input_degrees"),
    "Calibration": ("calibration", "random_field", "calibrated_from", "calibrated_on"),
    "Provenance": ("run_id", "git_sha", "config_hash", "seed", "epochs", "promotion", "versions"),
}  # fmt: skip


def facts_of(checkpoint: Checkpoint, network: Model) -> Facts:
    """What a checkpoint knows of itself."""
    plan = checkpoint.plan
    context, split = plan.config.context, plan.config.split
    every = None if context is None else context.every
    fitted, law = checkpoint.calibration, checkpoint.random_field
    return {
        "description": plan.config.description,
        "system": system_of(plan.spec).name,
        "task": _task(plan, network),
        "variable": plan.variable,
        "units": "K",
        "parameters": sum(p.numel() for p in network.parameters()),
        "grid": " x ".join(map(str, plan.geometry.shape)),
        **kind_of(plan.spec.domain).about(plan.geometry),
        "context_every": list(every) if isinstance(every, tuple) else every,
        "context_kind": None if context is None else context.kind,
        "statics": [each.name for each in plan.statics] or None,
        "input_degrees": None
        if context is None
        else [steps(plan.lattice, factor) for factor in sorted({*context.factors})],
        "trained_from": plan.trained_from,
        "trained_to": plan.trained_to,
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
        "data_fingerprint": plan.fingerprint,
        "seed": plan.config.seed,
        "epochs": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "calibration": None
        if fitted is None
        else {"kind": "conformal", "fields": fitted.fields, "from": fitted.first, "to": fitted.last},
        "random_field": None
        if law is None
        else {"hours": law.time_scale, "km": [EARTH_RADIUS_KM * length for length in law.lengths]},
        "versions": checkpoint.versions,
        "limits": limits(plan),
    }


def limits(plan: Plan) -> list[str]:
    """What the model is not for, a sentence each."""
    context, where = plan.config.context, kind_of(plan.spec.domain).where(plan.geometry)
    found = [
        f"It learned from {plan.trained_from} to {plan.trained_to}; what is unlike them is extrapolation.",
        f"It learned from {where}: nothing local is known elsewhere.",
    ]
    if context is None:
        infers = "reconstructs, completes and " if system_of(plan.spec).ways else ""
        unable = "it does not downscale" if infers else "it infers none, and does not downscale"
        return [*found, f"It {infers}samples whole functions; {unable}."]
    low, high = (steps(plan.lattice, factor) for factor in context.factors)
    inputs = low if low == high else f"{low} to {high}"
    return [
        *found,
        f"It was taught on input of {inputs} degrees; other input is a warning in what it writes.",
        f"Its truth has {steps(plan.lattice, 1)} degrees: on much finer grids it interpolates smoothly.",
    ]


def _task(plan: Plan, network: Model) -> str:
    """What the model does."""
    if network.local is not None:
        return "downscaling"
    return f"whole functions: samples{', completions' if system_of(plan.spec).ways else ''}"


def as_markdown(facts: Mapping[str, Any]) -> str:
    """The card as a page."""
    title = " ".join(str(facts[key]) for key in ("model", "version") if facts.get(key))
    lines = [f"# {title or 'Model card'}", ""]
    for section, names in SECTIONS.items():
        told = [f"- {name.replace('_', ' ')}: {_text(facts[name])}" for name in names if facts.get(name) is not None]
        lines += [f"## {section}", "", *told, ""] if told else []
    lines += ["## Scores", "", *_scores(facts), ""]
    return "\n".join([*lines, "## Limits", "", *(f"- {sentence}" for sentence in facts["limits"]), ""])


def _scores(facts: Mapping[str, Any]) -> list[str]:
    """On the validation samples, and every evaluation that was kept."""
    own = {key: value for key, value in facts["metrics"].items() if key.startswith("validation_")}
    lines = [f"- {key.replace('_', ' ')}: {_text(value)}" for key, value in own.items()]
    for evaluation in facts.get("evaluations", ()):
        metrics = metrics_of(evaluation)
        lines += ["", f"{heading(evaluation)}:", "", f"| | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        lines += [
            f"| {name} | {' | '.join(_text(scores.get(metric, '')) for metric in metrics)} |"
            for name, scores in evaluation["scores"].items()
        ]
    return lines


def metrics_of(evaluation: Mapping[str, Any]) -> list[str]:
    """The metrics of an evaluation, in the order of its systems."""
    return list(dict.fromkeys(metric for scores in evaluation["scores"].values() for metric in scores))


def heading(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation is of."""
    asked = [f"{key} {evaluation[key]}" for key in ("factor", "every", "members") if evaluation.get(key) is not None]
    span = f"{evaluation.get('split')}, {evaluation.get('from')} to {evaluation.get('to')}"
    return ", ".join([f"Area-weighted scores on {evaluation.get('store')} ({span})", *asked, str(evaluation["units"])])


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
