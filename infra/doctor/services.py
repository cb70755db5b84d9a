"""What lies around the nodes: MLflow, Ray's token, and what would be uploaded."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from infra.doctor.findings import Finding
from infra.launch.command import has_password
from infra.launch.package import LIMIT, collect, megabytes
from pipelines.training.token import MODE, VALUE, is_private, token_file

PATIENCE_S = 5.0


def mlflow() -> list[Finding]:
    """Whether MLflow's store can be reached, and has the schema that this MLflow writes."""
    name, given = "MLflow", os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith(("http://", "https://")):
        return [_server(name, given)]
    if given and not given.startswith("sqlite:///"):
        return [_database(name, given)]
    path = Path(given.removeprefix("sqlite:///")) if given else Path("mlruns", "mlflow.db")
    if not path.exists():
        return [Finding(name=name, state="ok", said=f"none yet: the first run makes {path}")]
    return [_database(name, given or f"sqlite:///{path.absolute()}")]


def token() -> Finding:
    """Whether Ray asks for a token, and whether only its owner can read it."""
    name, path = "token", token_file()
    if os.environ.get(MODE, "token") != "token":
        todo = f"unset {MODE}: whoever reaches Ray's ports could run code"
        return Finding(name=name, state="fail", said=f"{MODE} is {os.environ[MODE]!r}", todo=todo)
    if os.environ.get(VALUE):
        todo = (
            "keep it in a file, and name that with RAY_AUTH_TOKEN_PATH: a process's environment is inherited and logged"
        )
        return Finding(name=name, state="warn", said=f"it lies in {VALUE}", todo=todo)
    if not path.exists():
        return Finding(name=name, state="ok", said=f"none yet: the first Ray makes {path}")
    if not is_private(path):
        return Finding(name=name, state="fail", said=f"others can read {path}", todo=f"chmod 600 {path}")
    return Finding(name=name, state="ok", said=f"in {path}, for its owner alone")


def upload(folder: Path) -> Finding:
    """How much `vamoh launch job` would take along from here."""
    package = collect(folder)
    state, todo = "ok", ""
    if package.bytes > LIMIT:
        largest = max(package.files.values(), key=lambda path: path.stat().st_size)
        state, todo = "warn", f"before they are packed; leave files out with --exclude, {largest.name} is the largest"
    said = f"{len(package.files)} files, {megabytes(package.bytes)} of at most {megabytes(LIMIT)}"
    return Finding(name="upload", state="warn" if state == "warn" else "ok", said=said, todo=todo)


def _server(name: str, uri: str) -> Finding:
    from importlib.metadata import version

    import requests

    place = urlsplit(uri).netloc.rpartition("@")[2]
    if has_password(uri):
        todo = "give the user and the password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return Finding(name=name, state="fail", said=f"the address of {place} holds a password", todo=todo)
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{key}", "") for key in ("USERNAME", "PASSWORD"))
    try:
        told = requests.get(f"{uri.rstrip('/')}/version", timeout=PATIENCE_S, auth=(user, password) if user else None)
    except requests.RequestException as error:
        todo = "start it, or correct MLFLOW_TRACKING_URI"
        return Finding(name=name, state="fail", said=f"{place} does not answer ({type(error).__name__})", todo=todo)
    if told.status_code in (401, 403):
        todo = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return Finding(name=name, state="fail", said=f"{place} does not let us in ({told.status_code})", todo=todo)
    if not told.ok:
        return Finding(name=name, state="fail", said=f"{place} answers {told.status_code}", todo="look at its log")
    theirs, ours = told.text.strip(), version("mlflow")
    if theirs.split(".")[0] != ours.split(".")[0]:
        todo = "have one major version on both sides"
        return Finding(name=name, state="warn", said=f"{place} has MLflow {theirs}, here is {ours}", todo=todo)
    return Finding(name=name, state="ok", said=f"{place} answers, MLflow {theirs}")


def _database(name: str, uri: str) -> Finding:
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    place = uri if not has_password(uri) else uri.partition("://")[0]
    try:
        engine = create_engine(uri)
        with engine.connect():
            found = _get_schema_version(engine)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        todo = "correct MLFLOW_TRACKING_URI, or start the database"
        return Finding(name=name, state="fail", said=f"{place} cannot be read ({type(error).__name__})", todo=todo)
    newest = _get_latest_schema_revision()
    if found != newest:
        todo = f"mlflow db upgrade {place} (keep a copy first), or use the MLflow that wrote it"
        return Finding(
            name=name, state="fail", said=f"{place} has schema {found}, MLflow here writes {newest}", todo=todo
        )
    return Finding(name=name, state="ok", said=f"{place}, schema {found}")
