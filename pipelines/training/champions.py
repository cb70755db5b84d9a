"""Which version of a model is the champion: registering, promoting, going back, and what is kept of why.

A name's first version becomes `champion`, later ones `challenger`. A version is a checkpoint's folder that MLflow can
load and serve, with its card as README.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from pipelines.training.card import as_markdown
from pipelines.training.packaging import CARD, write_package
from pipelines.training.registry import (
    ARTIFACT,
    CHALLENGER,
    CHAMPION,
    EVALUATION,
    PROMOTION,
    champion_of,
    check_name,
    find_version,
    show_model,
    version_uri,
)
from pipelines.training.tracking import client, tracking_uri

PAST = "past_champions"


def register_version(name: str, run_id: str, scores: dict[str, float]) -> str:
    """Register the best checkpoint of a run (its artifact) and give it its alias; returns the version.

    What MLflow needs to load and serve it, and its card, are put beside the checkpoint.

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
    source = f"{mlflow.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
    tags = {key: f"{value:.6g}" for key, value in scores.items()}
    with tempfile.TemporaryDirectory(prefix="vamoh-package-") as folder, _alone(name):
        write_package(Path(folder, "package"), card="")
        mlflow.log_artifacts(run_id, str(Path(folder, "package")), ARTIFACT)
        version = str(mlflow.create_model_version(name, source, run_id, tags=tags).version)
        alias = CHALLENGER if CHAMPION in mlflow.get_registered_model(name).aliases else CHAMPION
        mlflow.set_registered_model_alias(name, alias, version)
    write_card(name, version)
    return version


def promote(name: str, version: str, record: Mapping[str, Any] | None = None, *, instead_of: str | None = "") -> None:
    """Make a version the champion, and remember which was before it.

    Args:
        name, version: Of the registered model.
        record: Why; kept with the time as the version's tag `promotion`.
        instead_of: The champion that it was compared with (None for none); "" for whichever there is.

    Raises:
        ValueError: If there is no such version, or another one became the champion meanwhile.
    """
    mlflow = client()
    find_version(version_uri(name, version))
    with _alone(name):
        before = champion_of(name)
        if instead_of not in ("", before):
            raise ValueError(
                f"version {before} of {name!r} became the champion while version {version} was compared with "
                f"{f'version {instead_of}' if instead_of else 'none'}: compare it again"
            )
        past = [each for each in _past(name) if each != version]
        _remember(
            name, past if before in (None, version) else [*(each for each in past if each != before), str(before)]
        )
        mlflow.set_registered_model_alias(name, CHAMPION, version)
        if str(mlflow.get_registered_model(name).aliases.get(CHALLENGER)) == version:
            mlflow.delete_registered_model_alias(name, CHALLENGER)
        if record is not None:
            _record(name, version, dict(record))
    write_card(name, version)


def rollback(name: str) -> str:
    """Make the champion before this one the champion again; returns its version.

    Versions that were deleted since are passed over.

    Raises:
        ValueError: If there was none before.
    """
    mlflow = client()
    with _alone(name):
        before, past = champion_of(name), _past(name)
        known = {str(each.version) for each in mlflow.search_model_versions(f"name='{name}'")}
        past = [each for each in past if each in known]
        if not past:
            raise ValueError(f"{name!r} had no champion before version {before}: there is nothing to go back to")
        mlflow.set_registered_model_alias(name, CHAMPION, past[-1])
        _remember(name, past[:-1])
        _record(name, past[-1], {"reason": f"rolled back from version {before}"})
    write_card(name, past[-1])
    return past[-1]


def keep_evaluation(model: str, result: Mapping[str, Any]) -> None:
    """Keep the scores of a registered model with it, in place of those of the same samples asked for the same.

    Args:
        model: MODEL, of the registry.
        result: What `evaluate` gives.

    Raises:
        ValueError: If MODEL is not registered.
    """
    if not model.startswith("models:"):
        raise ValueError(
            f"scores are kept with registered models, models:/NAME@ALIAS or models:/NAME/VERSION, not {model!r}"
        )
    version = find_version(model)
    same = [str(result.get(key)) for key in ("fingerprint", "split", "factor", "every", "members")]
    key = EVALUATION + hashlib.sha256("/".join(same).encode()).hexdigest()[:12]
    client().set_model_version_tag(version.name, str(version.version), key, json.dumps(result))
    write_card(version.name, str(version.version))


def write_card(name: str, version: str) -> None:
    """Bring the card beside a version's weights up to date."""
    uri = version_uri(name, version)
    found = find_version(uri)
    if not found.run_id:  # of another program: it has no folder of ours
        return
    with tempfile.TemporaryDirectory(prefix="vamoh-card-") as folder:
        card = Path(folder, CARD)
        card.write_text(as_markdown(show_model(uri)))
        client().log_artifact(found.run_id, str(card), ARTIFACT)


def _past(name: str) -> list[str]:
    """Versions that were champions, the latest last."""
    return list(json.loads(client().get_registered_model(name).tags.get(PAST, "[]")))


def _remember(name: str, versions: list[str]) -> None:
    client().set_registered_model_tag(name, PAST, json.dumps(versions))


def _record(name: str, version: str, why: dict[str, Any]) -> None:
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    client().set_model_version_tag(name, version, PROMOTION, json.dumps({"at": at, **why}))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep others on this machine from changing a name's aliases meanwhile; MLflow has no transactions."""
    held = hashlib.sha256(f"{os.getuid()} {tracking_uri()} {name}".encode()).hexdigest()[:16]
    with Path(tempfile.gettempdir(), f"vamoh-{held}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when it is closed, whatever ends this process
        yield
