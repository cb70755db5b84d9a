"""`vamoh launch`: the same command on another machine, or on many."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from infra.cli.options import examples

app = typer.Typer(
    help="Run a command on a cluster: of this machine, through Ray Jobs, in Slurm, in Kubernetes.",
    epilog=examples("vamoh launch local --nodes 2 -- train downscale --store uk.zarr --workers 2"),
    no_args_is_help=True,
)
# What follows `--` is the command's, whatever it looks like.
REST = {"allow_interspersed_args": False}

Command = Annotated[
    list[str] | None, typer.Argument(metavar="-- COMMAND...", help="A command of vamoh: train, tune, downscale, ...")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command(
    context_settings=REST,
    epilog=examples("vamoh launch local --nodes 2 -- train downscale --store uk.zarr --workers 2 --register t2m"),
)
def local(
    command: Command = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Of the Ray that is started.")] = 2,
    cpus: Annotated[
        int | None, typer.Option("--cpus-per-node", min=1, help="Processors of each; else its share of this machine's.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Start a Ray of several nodes on this machine, run a command in it, and end every process of it."""
    from infra.launch.command import checked, line
    from infra.launch.local import cpus_per_node, local_cluster

    words = understood(checked(command or []))
    if dry_run:
        typer.echo(f"{nodes} nodes with {cpus or cpus_per_node(nodes)} processors each, on 127.0.0.1; in them:")
        typer.echo(f"  vamoh {line(words)}")
        return
    with local_cluster(nodes, cpus=cpus) as cluster:
        typer.echo(f"vamoh: {nodes} nodes at {cluster.address}", err=True)
        os.environ.update(cluster.environment)
        code = _run(words)
    raise typer.Exit(code)


@app.command(
    context_settings=REST,
    epilog=examples(
        "vamoh launch slurm --nodes 2 --gpus-per-node 4 --time 8:00:00 -- train era5 --store era5.zarr --workers 8"
    ),
)
def slurm(
    time: Annotated[str, typer.Option("--time", help="The longest of one attempt, e.g. 8:00:00.")],
    command: Command = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Of the job.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus-per-node", min=0, help="Of each node.")] = 0,
    cpus: Annotated[int | None, typer.Option("--cpus-per-node", min=1, help="Of each node.")] = None,
    memory: Annotated[str | None, typer.Option("--memory-per-node", metavar="SIZE", help="e.g. 64G.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Where; else the cluster's own choice.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Who pays.")] = None,
    more: Annotated[
        list[str] | None, typer.Option("--sbatch", metavar="KEY=VALUE", help="A further option of sbatch; repeatable.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option("--setup", metavar="LINE", help="Shell before it, e.g. 'module load cuda'.")
    ] = None,
    warning: Annotated[int, typer.Option("--save-before", min=10, help="Seconds before the end; then it saves.")] = 120,
    python: Annotated[str | None, typer.Option("--python", help="The nodes' interpreter; else this one.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Submit a command to Slurm: one job, one task a node, queued again when it is preempted."""
    from infra.launch.command import checked, named
    from infra.launch.slurm import Allocation, batch_script, submit

    words = named(understood(checked(command or [])))
    launch = f"{words[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    allocation = Allocation(
        nodes=nodes,
        time=time,
        gpus_per_node=gpus,
        cpus_per_node=cpus,
        memory_per_node=memory,
        partition=partition,
        account=account,
        warning_s=warning,
        more=tuple(more or ()),
    )
    script = batch_script(words, allocation, launch=launch, python=python or sys.executable, setup=setup or ())
    if dry_run:
        typer.echo(script, nl=False)
        return
    number = submit(script)
    typer.echo(f"job {number}, log {launch}-{number}.log; squeue -j {number}, scancel {number}", err=True)
    typer.echo(number)


@app.command(
    context_settings=REST,
    epilog=examples(
        "vamoh launch kuberay --image ghcr.io/me/vamoh:1 --nodes 2 --gpus-per-node 1 --claim data --secret s3 --apply "
        "-- train era5 --store s3://us/e.zarr --workers 2"
    ),
)
def kuberay(
    image: Annotated[str, typer.Option("--image", help="With vamoh in it (infra/docker).")],
    command: Command = None,
    name: Annotated[str | None, typer.Option("--name", help="The RayJob's; else one is made up.")] = None,
    namespace: Annotated[str, typer.Option("--namespace")] = "default",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Pods that work.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus-per-node", min=0, help="Of each.")] = 0,
    cpus: Annotated[int, typer.Option("--cpus-per-node", min=1, help="Of each.")] = 4,
    memory: Annotated[str, typer.Option("--memory-per-node", metavar="SIZE", help="Of each.")] = "16Gi",
    claim: Annotated[
        str | None, typer.Option("--claim", metavar="PVC", help="Storage that all pods share, for runs/ and mlruns/.")
    ] = None,
    mount: Annotated[str, typer.Option("--mount", metavar="DIR", help="Where they see it.")] = "/shared",
    secrets: Annotated[
        list[str] | None, typer.Option("--secret", metavar="NAME", help="A Secret, for the environment; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Not secret; repeatable.")
    ] = None,
    tolerations: Annotated[
        list[str] | None, typer.Option("--toleration", metavar="KEY[=VALUE][:EFFECT]", help="Repeatable.")
    ] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further attempts; each goes on with the run.")] = 3,
    apply: Annotated[bool, typer.Option("--apply", help="Create it; else the manifest is printed.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a command as a RayJob of KubeRay, or create it."""
    from importlib.metadata import version

    import yaml

    from infra.launch import kuberay
    from infra.launch.command import checked, named

    words = named(understood(checked(command or [], far=True)))
    pods = kuberay.Pods(
        image=image,
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        claim=claim,
        mount=mount,
        secrets=tuple(secrets or ()),
        variables=tuple(env or ()),
        tolerations=tuple(tolerations or ()),
        retries=retries,
    )
    launch = name or f"{words[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    job = kuberay.manifest(words, pods, name=launch, namespace=namespace, ray_version=version("ray"))
    if apply and not dry_run:
        kuberay.apply(job)
        typer.echo(f"rayjob {launch} in {namespace}; kubectl -n {namespace} get rayjob {launch}", err=True)
    else:
        typer.echo(yaml.safe_dump(job, sort_keys=False), nl=False)


def understood(words: list[str]) -> list[str]:
    """Refuse a command whose options are wrong, before anything is started for it."""
    _click_command(words[0]).make_context(f"vamoh {words[0]}", words[1:])
    return words


def _click_command(name: str) -> Any:  # noqa: ANN401 - typer's own classes are private
    from infra.cli import app as vamoh

    return typer.main.get_command(vamoh).commands[name]  # type: ignore[attr-defined]


def _run(words: list[str]) -> int:
    """Run a command in this process, and return its exit code."""
    from infra.cli import app as vamoh

    code = vamoh(args=words, prog_name="vamoh", standalone_mode=False)
    return code if isinstance(code, int) else 0
