"""Registered models: a checkpoint under a name, with versions and aliases, and the way from a MODEL to its checkpoint.

MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, an MLflow run id, or a checkpoint folder. A name's first version
becomes `champion`, later ones `challenger`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.training.checkpoint import Checkpoint, load_checkpoint
from pipelines.training.tracking import client, tracking_uri
from vamoh import VAMoH

CHAMPION, CHALLENGER = "champion", "challenger"
PAST = "past_champions"
ARTIFACT = "checkpoint"
_URI = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))?$")
_RUN = re.compile(r"^[0-9a-f]{32}$")


def check_name(name: str) -> None:
    """Refuse a name that no model can have.

    Raises:
        ValueError: If there is anything but letters, digits, '-', '_' and '.' in it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"a model's name is letters, digits, '-', '_' and '.', got {name!r}")


def register_version(name: str, run_id: str, scores: dict[str, float]) -> str:
    """Register the best checkpoint of a run (its artifact) and give it its alias; returns the version.

    Args:
        name: The registered model's.
        run_id: The run whose artifact it is.
        scores: Kept as tags of the version.
    """
    check_name(name)
    mlflow = client()
    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    run = mlflow.get_run(run_id)
    source = f"{run.info.artifact_uri}/{ARTIFACT}"
    tags = {key: f"{value:.6g}" for key, value in scores.items()}
    version = mlflow.create_model_version(name, source, run_id, tags=tags)
    alias = CHALLENGER if CHAMPION in mlflow.get_registered_model(name).aliases else CHAMPION
    mlflow.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def version_uri(name: str, version: str) -> str:
    """MODEL of a version."""
    return f"models:/{name}/{version}"


def champion_of(name: str) -> str | None:
    """The champion's version, None where there is no champion.

    Raises:
        ValueError: If there is no such name.
    """
    try:
        found = client().get_registered_model(name).aliases.get(CHAMPION)
    except MlflowException as error:
        raise ValueError(f"there is no model {name!r} in {_place()}: {_known(client())}") from error
    return None if found is None else str(found)


def promote(name: str, version: str, record: Mapping[str, Any] | None = None) -> None:
    """Make a version the champion, and remember which was before it.

    Args:
        name, version: Of the registered model.
        record: Why; kept as the version's tag `promotion`.

    Raises:
        ValueError: If there is no such version.
    """
    mlflow, before = client(), champion_of(name)
    _version(version_uri(name, version))
    past = [each for each in _past(name) if each != version]
    _remember(name, past if before in (None, version) else [*(each for each in past if each != before), str(before)])
    mlflow.set_registered_model_alias(name, CHAMPION, version)
    if str(mlflow.get_registered_model(name).aliases.get(CHALLENGER)) == version:
        mlflow.delete_registered_model_alias(name, CHALLENGER)
    if record is not None:
        mlflow.set_model_version_tag(name, version, "promotion", json.dumps(record))


def rollback(name: str) -> str:
    """Make the champion before this one the champion again; returns its version.

    Raises:
        ValueError: If there was none before.
    """
    before, past = champion_of(name), _past(name)
    if not past:
        raise ValueError(f"{name!r} had no champion before version {before}: there is nothing to go back to")
    client().set_registered_model_alias(name, CHAMPION, past[-1])
    _remember(name, past[:-1])
    return past[-1]


def _past(name: str) -> list[str]:
    """Versions that were champions, the latest last."""
    return list(json.loads(client().get_registered_model(name).tags.get(PAST, "[]")))


def _remember(name: str, versions: list[str]) -> None:
    client().set_registered_model_tag(name, PAST, json.dumps(versions))


def resolve(model: str) -> tuple[Path, dict[str, str]]:
    """The checkpoint folder of a MODEL, fetched if it lies elsewhere, and where it came from.

    Raises:
        ValueError: If the text names no model that exists.
        FileNotFoundError: If a folder is meant and is not there.
    """
    if model.startswith("models:"):
        version = _version(model)
        origin = {"model": version.name, "version": str(version.version), "run_id": str(version.run_id)}
        return _fetch(version.source), origin
    path = Path(model)
    if path.is_dir():
        return path, {"model": path.name}
    if _RUN.match(model):
        try:
            run = client().get_run(model)
        except MlflowException as error:
            raise ValueError(f"there is no run {model} in {_place()}") from error
        return _fetch(f"{run.info.artifact_uri}/{ARTIFACT}"), {"run_id": model}
    raise ValueError(
        f"there is no model {model!r}: expected models:/NAME@ALIAS, an MLflow run id or a checkpoint folder"
    )


def load_model(model: str) -> tuple[Checkpoint, VAMoH, dict[str, str]]:
    """The checkpoint of a MODEL, the model itself ready to be used, and where it came from."""
    folder, origin = resolve(model)
    checkpoint, network = load_checkpoint(folder)
    return checkpoint, network, origin


def list_models() -> list[dict[str, Any]]:
    """Every version of every registered model, newest first within a name."""
    mlflow, rows = client(), []
    for registered in mlflow.search_registered_models():
        aliases: dict[str, list[str]] = {}
        for alias, number in registered.aliases.items():
            aliases.setdefault(str(number), []).append(alias)
        versions = mlflow.search_model_versions(f"name='{registered.name}'")
        for version in sorted(versions, key=lambda v: -int(v.version)):
            rows.append(_row(version, aliases.get(str(version.version), [])))
    return rows


def show_model(model: str) -> dict[str, Any]:
    """What is known of a MODEL: where it came from, its data, its shape and its scores."""
    checkpoint, network, origin = load_model(f"models:/{model}@{CHAMPION}" if _is_name(model) else model)
    plan = checkpoint.plan
    every = None if plan.config.context is None else plan.config.context.every
    return {
        **origin,
        "description": plan.config.description,
        "variable": plan.variable,
        "parameters": sum(p.numel() for p in network.parameters()),
        "grid": f"{plan.lattice.shape[0]} x {plan.lattice.shape[1]}",
        "region": [
            float(plan.lattice.longitude[0]),
            float(plan.lattice.latitude[-1]),
            float(plan.lattice.longitude[-1]),
            float(plan.lattice.latitude[0]),
        ],
        "context_every": list(every) if isinstance(every, tuple) else every,
        "trained_from": plan.trained_from,
        "trained_to": plan.trained_to,
        "data_fingerprint": plan.fingerprint,
        "epochs": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "versions": checkpoint.versions,
    }


def _is_name(model: str) -> bool:
    return not model.startswith("models:") and not Path(model).exists() and not _RUN.match(model)


def _version(uri: str) -> Any:  # noqa: ANN401 - MLflow's ModelVersion
    match = _URI.match(uri)
    if match is None:
        raise ValueError(f"expected models:/NAME@ALIAS or models:/NAME/VERSION, got {uri!r}")
    mlflow, name = client(), match["name"]
    try:
        if match["version"]:
            return mlflow.get_model_version(name, match["version"])
        return mlflow.get_model_version_by_alias(name, match["alias"] or CHAMPION)
    except MlflowException as error:
        raise ValueError(f"there is no model {uri!r} in {_place()}: {_known(mlflow)}") from error


def _known(mlflow: MlflowClient) -> str:
    names = [model.name for model in mlflow.search_registered_models()]
    return f"it has {', '.join(names)}" if names else "no model is registered there yet (vamoh train --register NAME)"


def _place() -> str:
    """The tracking store, without any password that stands in its address."""
    return re.sub(r"//[^/@]*@", "//", tracking_uri())


def _row(version: Any, aliases: list[str]) -> dict[str, Any]:  # noqa: ANN401 - MLflow's ModelVersion
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": sorted(aliases),
        "run_id": version.run_id,
        "created": int(version.creation_timestamp),
        "scores": {key: float(value) for key, value in version.tags.items() if key.startswith("validation_")},
    }


def _fetch(source: str) -> Path:
    parsed = urlparse(source)
    if parsed.scheme in {"", "file"}:
        return Path(unquote(parsed.path))
    folder = tempfile.mkdtemp(prefix="vamoh-model-")
    try:
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=tracking_uri())
        )
    except MlflowException as error:
        raise ValueError(f"the model's checkpoint cannot be fetched from {source}: {error}") from error
