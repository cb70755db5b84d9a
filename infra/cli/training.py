"""`vamoh train`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import JsonFlag, Settings, StorePath, examples

if TYPE_CHECKING:
    from infra.cli.console import Update
    from pipelines.training.loop import Progress

# What is worth a word while training goes on; MLflow has everything.
_NOTED = {"validation_rmse": "rmse", "validation_crps": "crps", "elbo": "elbo", "loss": "loss"}


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
    from infra.cli.console import number, print_facts, print_json
    from pipelines.config import load_config

    loaded = load_config(config, settings or ())
    from pipelines.products.pictures import training_pictures
    from pipelines.training.train import train as train_on

    with Reporter() as reporter:
        result = train_on(
            loaded,
            store,
            workers=workers,
            name=name,
            resume=resume,
            register=register,
            progress=reporter,
            illustrate=training_pictures,
        )
    if as_json:
        print_json(result)
        return
    rows = [("run", result.name), ("checkpoint", str(result.checkpoint)), ("run id", result.run_id)]
    if register is not None:
        rows.append(("model", f"models:/{register}/{result.model_version}"))
    print_facts(rows + [(label, number(result.metrics[key])) for key, label in _NOTED.items() if key in result.metrics])


class Reporter:
    """A bar while a model is trained, and lines before and after it."""

    def __init__(self) -> None:
        self._bar = ExitStack()
        self._update: Update | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """End the bar, if there is one, and write a line."""
        self._bar.close()
        typer.echo(line, err=True)

    def __call__(self, now: Progress) -> None:
        """Show how far training is."""
        from infra.cli.console import number, progress

        if self._update is None:
            self._update = self._bar.enter_context(progress("training", "steps"))
        metrics = [f"{label} {number(now.metrics[key])}" for key, label in _NOTED.items() if key in now.metrics]
        self._update(now.step, now.steps, f"epoch {now.epoch}/{now.epochs} {', '.join(metrics)}".strip())
