"""A command as a Ray job: its files are uploaded, it runs on the cluster, its log comes back, and its exit code."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.launch.command import has_password, is_secret, line
from infra.launch.package import Package, write_package
from pipelines.training.token import MODE, PATH, VALUE, ensure_private_token, is_private, token_file

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PASSED = ("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
STOPPED, FAILED = 143, 1
# After a SIGTERM a run saves its state; Ray would kill it after three seconds.
_SAVING_S = "120"


def environment(asked: Sequence[str]) -> dict[str, str]:
    """What a job finds in its environment: NAME=VALUE, or NAME for the value that it has here.

    Ray shows a job's environment to all who may see the job, so a secret has no place in it.

    Raises:
        ValueError: If a variable is secret, or has no value here.
    """
    found = {name: os.environ[name] for name in PASSED if os.environ.get(name)}
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals and name not in os.environ:
            raise ValueError(
                f"--env {name} asks for the value that {name} has here, and it has none: give {name}=VALUE"
            )
        found[name] = value if equals else os.environ[name]
    for name, value in found.items():
        if is_secret(name) or has_password(value):
            raise ValueError(
                f"{name} is secret, and Ray shows a job's environment to everybody who may see the job: set it where "
                "the cluster's nodes start (a Kubernetes Secret, a role, the environment of `ray start`)"
            )
    return {"RAY_JOB_STOP_WAIT_TIME_S": _SAVING_S, **found}


def entrypoint(command: Sequence[str], *, launch: str, folder: str | None, python: str) -> str:
    """The line that a cluster's shell runs."""
    where = [] if folder is None else ["--folder", folder]
    return line([python, "-m", "infra.launch.again", "--id", launch, *where, "--", *command])


@contextmanager
def connected(address: str, token: Path | None = None) -> Iterator[JobSubmissionClient]:
    """A client of the Jobs API that gives the cluster's token.

    Args:
        address: The API's, e.g. http://127.0.0.1:8265.
        token: The file with the token; by default the one that Ray looks for.

    Raises:
        ValueError: If the address is none, others can read the token, or the cluster does not take it.
        OSError: If the cluster cannot be reached, or fails.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--address expects the Jobs API's URL, e.g. http://127.0.0.1:8265, got {address!r}")
    path = token or token_file()
    if not path.is_file() and not (token is None and os.environ.get(VALUE)):
        raise ValueError(f"there is no token in {path}: the cluster's is asked for, give its file with --token-file")
    if token is None:
        ensure_private_token()
    elif not is_private(path):
        raise ValueError(f"others can read the token in {path}: chmod 600 {path}")
    with _environment(token):
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        try:
            yield JobSubmissionClient(address)
        except AuthenticationError as error:
            raise ValueError(f"{address} does not take the token in {path} (401): give the cluster's own") from error
        except RuntimeError as error:  # whatever it answers otherwise
            raise _explained(address, str(error)) from error


@contextmanager
def packed(package: Package) -> Iterator[Path]:
    """A package as a file, for as long as a block lasts.

    Raises:
        ValueError: If it is larger than Ray takes.
    """
    with tempfile.TemporaryDirectory(prefix="vamoh-") as folder:
        archive = Path(folder) / "package.zip"
        write_package(package, archive)
        yield archive


def submit(client: JobSubmissionClient, archive: Path, command: str, *, name: str, variables: Mapping[str, str]) -> str:
    """Upload a package, and start a command in it.

    Returns:
        The job's id.
    """
    given: dict[str, Any] = {"working_dir": str(archive), "env_vars": dict(variables)}
    return str(client.submit_job(entrypoint=command, submission_id=name, runtime_env=given))


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> int:
    """Write a job's log as it grows, until the job has ended.

    Returns:
        The exit code of its command.
    """

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            write(text)

    asyncio.run(tail())
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(0.5)
    if str(info.status) == "STOPPED":
        return STOPPED
    if str(info.status) == "SUCCEEDED":
        return 0
    return abs(info.driver_exit_code or FAILED)


def describe(client: JobSubmissionClient, job: str) -> dict[str, Any]:
    """What is known of a job."""
    info = client.get_job_info(job)
    ended = info.end_time or int(1000 * time.time())
    return {
        "job": job,
        "status": str(info.status),
        "seconds": None if info.start_time is None else (ended - info.start_time) / 1000,
        "exit_code": info.driver_exit_code,
        "message": " ".join((info.message or "").split()),
        "command": info.entrypoint,
    }


@contextmanager
def _environment(token: Path | None) -> Iterator[None]:
    """Have Ray's client ask with this token, at the address that it is given and no other."""
    changed = {MODE: "token", "RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
    if token is not None:
        changed |= {PATH: str(token), VALUE: None}
    before = {name: os.environ.get(name) for name in changed}
    try:
        _set(changed)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _explained(address: str, said: str) -> Exception:
    if "401" in said or "403" in said:
        return ValueError(f"{address} does not take the token (401): give the cluster's own with --token-file")
    if "404" in said and "does not exist" in said:
        return ValueError(f"there is no such job at {address}")
    return OSError(f"{address} answers: {' '.join(said.split())[:300]}")
