"""What a run tells MLflow: parameters once, metrics by the epoch in one call, tags, artifacts, a truthful status.

The driver makes the database, the experiment and the run; workers are told the run's id. Without MLFLOW_TRACKING_URI
the database is SQLite in the working directory's `mlruns/`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds of imports that a worker's first step need not wait for
    from mlflow import MlflowClient

EXPERIMENT = "vamoh"
LONGEST_VALUE = 500


def tracking_uri() -> str:
    """Where runs are kept: MLFLOW_TRACKING_URI, else SQLite in `mlruns/` of the working directory."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    folder = Path("mlruns").absolute()
    folder.mkdir(exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def client(uri: str | None = None) -> MlflowClient:
    """A client of the tracking store."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri or tracking_uri())


class Tracking:
    """One run, from a driver or a worker that knows its id.

    Args:
        uri: The tracking store.
        run_id: The run.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id

    @cached_property
    def _client(self) -> MlflowClient:
        return client(self.uri)

    @classmethod
    def start(cls, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Tracking:
        """Make the database, the experiment and a run where they are missing."""
        from mlflow.entities import Param, RunTag

        uri = tracking_uri()
        mlflow = client(uri)
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            place = None if os.environ.get("MLFLOW_TRACKING_URI") else Path("mlruns/artifacts").absolute().as_uri()
            identity = mlflow.create_experiment(EXPERIMENT, artifact_location=place)
        else:
            identity = experiment.experiment_id
        run = mlflow.create_run(identity, run_name=name)
        mlflow.log_batch(
            run.info.run_id,
            params=[Param(key, str(value)[:LONGEST_VALUE]) for key, value in params.items()],
            tags=[RunTag(key, str(value)) for key, value in tags.items()],
        )
        return cls(uri, run.info.run_id)

    def log(self, metrics: Mapping[str, float], step: int, timestamp: int) -> None:
        """Metrics of one epoch, in one call; told again with the same timestamp (ms), they are kept once."""
        from mlflow.entities import Metric

        self._client.log_batch(
            self.run_id, metrics=[Metric(key, value, timestamp, step) for key, value in metrics.items()]
        )

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    def resume(self) -> None:
        """Say that an ended run goes on."""
        self._client.update_run(self.run_id, status="RUNNING")


def git_revision() -> str:
    """The revision of the code that runs, "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as `a.b: value`.

    >>> flatten({"model": {"latent": 3}, "seed": 0})
    {'model.latent': 3, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
