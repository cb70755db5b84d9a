"""Registered models: a checkpoint under a name, with versions and aliases, and the way from a MODEL to its checkpoint.

MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, an MLflow run id, or a checkpoint folder. What changes a name's
versions and aliases stands in pipelines/training/champions.py.
"""

from __future__ import annotations

import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.training.card import Facts, facts_of
from pipelines.training.checkpoint import Checkpoint, load_checkpoint
from pipelines.training.tracking import client, tracking_uri
from vamoh.systems import Model

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTION, EVALUATION = "promotion", "evaluation."  # tags of a version
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


def as_model(text: str) -> str:
    """MODEL of a text that may also be a bare NAME, NAME@ALIAS or NAME/VERSION."""
    return text if text.startswith("models:") or Path(text).exists() or _RUN.match(text) else f"models:/{text}"


def resolve(model: str) -> tuple[Path, dict[str, str]]:
    """The checkpoint folder of a MODEL, fetched if it lies elsewhere, and where it came from.

    Raises:
        ValueError: If the text names no model that exists.
        FileNotFoundError: If a folder is meant and is not there.
    """
    if model.startswith("models:"):
        version = find_version(model)
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


def load_model(model: str) -> tuple[Checkpoint, Model, dict[str, str]]:
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


def show_model(model: str) -> Facts:
    """The facts of a MODEL's card; a bare NAME, NAME@ALIAS or NAME/VERSION is understood too."""
    checkpoint, network, origin = load_model(as_model(model))
    facts: Facts = {**origin, **facts_of(checkpoint, network)}
    mlflow = client()
    if "run_id" in origin:
        facts |= _told_by_run(mlflow, origin["run_id"])
    if "version" in origin:
        facts |= _told_by_version(mlflow, origin["model"], origin["version"])
    return facts


def _told_by_run(mlflow: MlflowClient, run_id: str) -> Facts:
    """Where the data came from, as training told its run."""
    try:
        tags = mlflow.get_run(run_id).data.tags
    except MlflowException:  # deleted since
        return {}
    names = {"store": "store", "data_source": "source", "data_license": "license"}
    same = ("git_sha", "config_hash", "calibrated_from", "calibrated_on")
    return {known: tags[tag] for tag, known in (names | {each: each for each in same}).items() if tag in tags}


def _told_by_version(mlflow: MlflowClient, name: str, number: str) -> Facts:
    """What became of it since: its aliases, its promotion, the evaluations that were kept."""
    version = mlflow.get_model_version(name, number)
    aliases = [alias for alias, at in mlflow.get_registered_model(name).aliases.items() if str(at) == number]
    facts: Facts = {
        "aliases": sorted(aliases),
        "created": f"{datetime.fromtimestamp(version.creation_timestamp / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "evaluations": [json.loads(version.tags[key]) for key in sorted(version.tags) if key.startswith(EVALUATION)],
    }
    if PROMOTION in version.tags:
        facts["promotion"] = json.loads(version.tags[PROMOTION])
    return facts


def find_version(uri: str) -> Any:  # noqa: ANN401 - MLflow's ModelVersion
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION names.

    Raises:
        ValueError: If there is none.
    """
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
