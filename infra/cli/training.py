"""`vamoh train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import JsonFlag, Settings, StorePath, examples

if TYPE_CHECKING:
    from pipelines.training.loop import Progress


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "vamoh train downscale --store uk.zarr --set context.every=4 --register t2m",
            "vamoh train mine.yaml --store uk.zarr --workers 2 --name first --resume",
        )
    )(train)


def train(
    config: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="See `vamoh config show`.")],
    store: StorePath,
    settings: Settings = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Ray workers; 0 trains in this process.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Of the run; else one is made up.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run of this name stopped.")] = False,
    register: Annotated[
        str | None, typer.Option("--register", metavar="NAME", help="Register the best checkpoint as this model.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a model on a store, and keep the best checkpoint."""
    from infra.cli.console import number, print_facts, print_json, progress
    from pipelines.config import load_config

    loaded = load_config(config, settings or ())
    from pipelines.training.train import train as train_on

    with progress("training", "steps") as update:

        def report(now: Progress) -> None:
            metrics = ", ".join(f"{name} {number(value)}" for name, value in now.metrics.items())
            update(now.step, now.steps, f"epoch {now.epoch}/{now.epochs} {metrics}".strip())

        result = train_on(loaded, store, workers=workers, name=name, resume=resume, register=register, progress=report)
    if as_json:
        print_json(result)
        return
    rows = [("run", result.name), ("checkpoint", str(result.checkpoint)), ("run id", result.run_id)]
    if register is not None:
        rows.append(("model", f"models:/{register}/{result.model_version}"))
    print_facts(rows + [(metric, number(value)) for metric, value in result.metrics.items()])
