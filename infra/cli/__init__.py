"""The command line: `vamoh`, the outermost layer. Each command imports what it works with only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from infra.cli import (
    compare,
    config,
    data,
    doctor,
    explore,
    functions,
    jobs,
    launch,
    models,
    products,
    training,
    tuning,
)
from infra.cli.options import examples
from infra.cli.outcome import outcome_of

app = typer.Typer(
    name="vamoh",
    help="Train a generative model of functions on climate fields; downscale temperature to any resolution with it.",
    epilog=examples(
        "vamoh demo",
        "vamoh data climate era5.grib uk.zarr",
        "vamoh train downscale --store uk.zarr --register t2m",
        "vamoh downscale models:/t2m@champion coarse.nc fine.nc --factor 4",
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
jobs.add_to(launch.app)
app.add_typer(launch.app, name="launch")
training.add_to(app)
tuning.add_to(app)
products.add_to(app)
compare.add_to(app)
functions.add_to(app)
explore.add_to(app)
doctor.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `vamoh`; None takes those of this process.

    Returns:
        The exit code: 0 done, 2 a mistake in what was asked for, 3 a promotion that the gate refuses or something
        that the doctor finds failing, 1 a bug, 130 interrupted, 143 terminated; a launched command's own.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch on large pages: a training step is up to twice as fast
    given = list(sys.argv[1:] if arguments is None else arguments)
    kept, debug = _without_debug(given)
    return outcome_of(lambda: app(args=kept, prog_name="vamoh", standalone_mode=False), debug=debug)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and warnings; anywhere on the line.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"vamoh {installed('vamoh')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out, wherever it stands before a `--`.

    >>> _without_debug(["train", "era5", "--debug"])
    (['train', 'era5'], True)
    """
    stop = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:stop] if argument != "--debug"]
    return kept + arguments[stop:], len(kept) < stop
