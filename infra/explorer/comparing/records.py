"""What MLflow keeps of runs, sweeps and registered models, read for the page. All of it is called in a thread."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from pipelines.training.registry import EVALUATION, list_models
from pipelines.training.tracking import EXPERIMENT, client, tracking_uri
from tuning.record import FILE, SweepRecord
from tuning.runs import PARENT, SWEEP

MOST_RUNS, ANSWER_S = 1000, 4.0
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run.

    Attributes:
        run_id, name, status: MLflow's.
        started: UTC.
        sweep: The sweep that it is a trial of; empty for none.
        metrics: The last value of each.
        domain: Where its functions live; empty where that is not known.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    sweep: str
    metrics: Mapping[str, float]
    domain: str

    @property
    def label(self) -> str:
        """How it stands in a list."""
        return f"{self.name}, {self.started:%Y-%m-%d %H:%M}, {self.status.lower()}, {self.run_id[:6]}"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one metric of a run was, by the epoch."""

    name: str
    epochs: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a registered model.

    Attributes:
        name, version, aliases, scores: As the registry has them.
        created: UTC.
        evaluations: What `vamoh evaluate --keep` kept with it.
    """

    name: str
    version: str
    aliases: Sequence[str]
    created: datetime
    scores: Mapping[str, float]
    evaluations: Sequence[Mapping[str, Any]]

    @property
    def label(self) -> str:
        """How it stands in a list."""
        return f"{self.name} version {self.version}"


def reading(read: Callable[P, T]) -> Callable[P, T]:
    """Turn what MLflow says into a sentence, without waiting minutes for a server that is away."""

    @wraps(read)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        with answering():
            return read(*args, **kwargs)

    return told


@contextmanager
def answering() -> Iterator[None]:
    """Ask MLflow something.

    Raises:
        ValueError: If there is none yet, or it refuses.
        OSError: If it does not answer.
    """
    check_there()
    try:
        yield
    except MlflowException as error:
        raise OSError(f"MLflow at {_place()} refuses: {' '.join(str(error).split())[:200]}") from error


def check_there() -> None:
    """Refuse a tracking store that is not there: a file that would have to be made, a server that does not answer.

    Raises:
        ValueError: If nothing was tracked here yet.
        OSError: If the server does not answer.
    """
    parts = urlsplit(tracking_uri())
    if parts.scheme == "sqlite" and not Path(parts.path[1:]).exists():
        raise ValueError(f"nothing is kept in {parts.path[1:]} yet: vamoh train and vamoh tune keep their runs there")
    if parts.scheme in ("http", "https"):
        try:
            urllib.request.urlopen(f"{tracking_uri().rstrip('/')}/health", timeout=ANSWER_S).close()
        except urllib.error.HTTPError:
            return  # somebody is there, perhaps one who wants a password, which MLflow's client has
        except (OSError, ValueError) as error:
            said = getattr(error, "reason", error)
            raise OSError(f"MLflow at {_place()} does not answer ({said}): is its server running?") from error


@reading
def runs() -> list[Run]:
    """All runs that are no sweep's own, the newest first."""
    return [each for each, parent in _all_runs() if parent or not each.sweep]


@reading
def sweeps() -> list[Run]:
    """The sweeps' own runs, the newest first."""
    return [each for each, parent in _all_runs() if each.sweep and not parent]


@reading
def curves(chosen: Sequence[Run], metric: str) -> list[Curve]:
    """A metric of runs, by the epoch; without those that have none."""
    mlflow, found = client(), []
    for run in chosen:
        history = sorted(mlflow.get_metric_history(run.run_id, metric), key=lambda point: (point.step, point.timestamp))
        last = {point.step: point.value for point in history}  # of an epoch that was told twice, the later
        if last:
            found.append(Curve(name=run.name, epochs=list(last), values=list(last.values())))
    return found


@reading
def sweep_record(sweep: Run) -> SweepRecord:
    """A sweep as it was.

    Raises:
        ValueError: If it has not ended yet: its record comes with its end.
    """
    local = Path("runs", sweep.sweep, FILE)
    with tempfile.TemporaryDirectory(prefix="vamoh-sweep-") as folder:
        try:
            path = Path(download_artifacts(run_id=sweep.run_id, artifact_path=FILE, dst_path=folder,
                                           tracking_uri=tracking_uri()))  # fmt: skip
        except (MlflowException, OSError):
            path = local  # a sweep that still runs keeps it in its folder
        if path.is_file():
            return SweepRecord.from_json(path)
    raise ValueError(f"the record of sweep {sweep.sweep} comes when it ends; its trials are among the runs")


@reading
def versions() -> list[Version]:
    """Every version of every registered model."""
    mlflow, found = client(), []
    for row in list_models():
        tags = mlflow.get_model_version(row["name"], row["version"]).tags
        found.append(
            Version(
                name=row["name"],
                version=row["version"],
                aliases=row["aliases"],
                created=datetime.fromtimestamp(row["created"] / 1000, UTC),
                scores=row["scores"],
                evaluations=[json.loads(tags[key]) for key in sorted(tags) if key.startswith(EVALUATION)],
            )
        )
    return found


def kept_curves(known: Sequence[Version]) -> dict[str, list[dict[str, Any]]]:
    """The curves of skill over resolution that are kept with versions, by what they are of."""
    return {
        f"{version.label}, {_called(evaluation)}": list(evaluation["curve"])
        for version in known
        for evaluation in version.evaluations
        if evaluation.get("curve")
    }


def _called(evaluation: Mapping[str, Any]) -> str:
    """An evaluation in a few words."""
    return (
        f"{evaluation.get('split')} of {Path(str(evaluation.get('store'))).name}, {evaluation.get('members')} members"
    )


def _all_runs() -> list[tuple[Run, str]]:
    """Runs with their parents' ids, the newest first."""
    mlflow = client()
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = mlflow.search_runs(
        [experiment.experiment_id], max_results=MOST_RUNS, order_by=["attributes.start_time DESC"]
    )
    return [
        (
            Run(
                run_id=each.info.run_id,
                name=each.info.run_name or each.info.run_id,
                status=each.info.status,
                started=datetime.fromtimestamp(each.info.start_time / 1000, UTC),
                sweep=each.data.tags.get(SWEEP, ""),
                metrics=dict(each.data.metrics),
                domain=each.data.params.get("model.domain", ""),
            ),
            each.data.tags.get(PARENT, ""),
        )
        for each in found
    ]


def _place() -> str:
    """The tracking store without a password."""
    parts = urlsplit(tracking_uri())
    return (
        f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else parts.path
    )
