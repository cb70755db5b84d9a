"""`vamoh launch job`, and what becomes of one: `status`, `logs`, `stop`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.launch import REST, Command, DryRun, understood
from infra.cli.options import JsonFlag, examples

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Address = Annotated[str, typer.Option("--address", help="Of Ray's Jobs API, e.g. http://127.0.0.1:8265.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="As `vamoh launch job` said it.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="The cluster's token; else RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        context_settings=REST,
        epilog=examples(
            "vamoh launch job --address http://head:8265 --shared /data/ann -- train era5 --store s3://us/e.zarr",
            "vamoh launch status JOB --address http://head:8265",
        ),
    )(job)
    app.command(epilog=examples("vamoh launch status JOB --address http://head:8265"))(status)
    app.command(epilog=examples("vamoh launch logs JOB --address http://head:8265 --follow"))(logs)
    app.command(epilog=examples("vamoh launch stop JOB --address http://head:8265"))(stop)


def job(
    address: Address,
    command: Command = None,
    shared: Annotated[
        str | None,
        typer.Option("--shared", metavar="DIR", help="There, a folder that all nodes see: for runs/, mlruns/."),
    ] = None,
    folder: Annotated[Path, typer.Option("--working-dir", help="What travels, without history and data.")] = Path("."),
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="What stays too.")] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="PATTERN", help="What travels nevertheless, e.g. *.nc.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME[=VALUE]", help="For the job's environment; no secrets.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The job's id; else one is made up.")] = None,
    python: Annotated[str, typer.Option("--python", help="The cluster's interpreter.")] = "python",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the log to the end.")] = True,
    token: TokenFile = None,
    dry_run: DryRun = False,
) -> None:
    """Run a command on a cluster through Ray's Jobs API."""
    from infra.launch import job as jobs
    from infra.launch.command import checked, named
    from infra.launch.package import collect, megabytes

    words = named(understood(checked(command or [], far=True)))
    launch = name or f"{words[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    variables = jobs.environment(env or ())
    package = collect(folder, exclude=exclude or (), include=include or ())
    entrypoint = jobs.entrypoint(words, launch=launch, folder=shared, python=python)
    if dry_run:
        with jobs.packed(package) as archive:
            size = megabytes(archive.stat().st_size)
        typer.echo(f"{len(package.files)} files, {megabytes(package.bytes)}, packed {size}, to {address}:")
        for file in package.files:
            typer.echo(f"  {file}")
        typer.echo(f"job {launch}:\n  {entrypoint}")
        for variable, value in variables.items():
            typer.echo(f"  {variable}={value}")
        return
    with jobs.connected(address, token) as client:
        with jobs.packed(package) as archive:
            typer.echo(f"vamoh: {len(package.files)} files, packed {megabytes(archive.stat().st_size)}", err=True)
            launch = jobs.submit(client, archive, entrypoint, name=launch, variables=variables)
        typer.echo(f"vamoh: job {launch}", err=True)
        if not wait:
            typer.echo(launch)
            return
        code = _follow(client, launch, address)
    raise typer.Exit(code)


def status(job: JobId, address: Address, token: TokenFile = None, as_json: JsonFlag = False) -> None:
    """Say how a job is."""
    from infra.cli.console import print_facts, print_json
    from infra.launch.job import connected, describe

    with connected(address, token) as client:
        told = describe(client, job)
    if as_json:
        print_json(told)
    else:
        print_facts([(key.replace("_", " "), str(value)) for key, value in told.items() if value not in (None, "")])


def logs(
    job: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the job ends; its exit code is returned.")
    ] = False,
    token: TokenFile = None,
) -> None:
    """Print what a job has written."""
    from infra.launch.job import connected

    with connected(address, token) as client:
        if not follow:
            typer.echo(client.get_job_logs(job), nl=False)
            return
        code = _follow(client, job, address)
    raise typer.Exit(code)


def stop(job: JobId, address: Address, token: TokenFile = None) -> None:
    """Have a job save its run, and end."""
    from infra.launch.job import connected

    with connected(address, token) as client:
        stopping = client.stop_job(job)
    typer.echo(f"job {job} {'is told to save and end' if stopping else 'has ended already'}")


def _follow(client: JobSubmissionClient, job: str, address: str) -> int:
    from infra.launch.job import follow

    try:
        return follow(client, job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        where = f"{job} --address {address}"
        typer.echo(f"vamoh: the job goes on: vamoh launch logs -f {where}, or vamoh launch stop {where}", err=True)
        raise
