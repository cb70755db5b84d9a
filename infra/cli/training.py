"""`vamoh train`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
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
            "vamoh train era5 --store s3://bucket/era5.zarr --workers 2:16 --name spot",
        )
    )(train)


def train(
    config: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="See `vamoh config show`.")],
    store: StorePath,
    settings: Settings = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers",
            metavar="N|MIN:MAX",
            help="Ray workers; 0 trains in this process, a range follows the nodes that come and go.",
        ),
    ] = "0",
    name: Annotated[str | None, typer.Option("--name", help="Of the run; else one is made up.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run of this name stopped.")] = False,
    register: Annotated[
        str | None, typer.Option("--register", metavar="NAME", help="Register the best checkpoint as this model.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Go on without the samples of damaged chunks, and count them.")
    ] = False,
    max_failures: Annotated[
        int, typer.Option("--max-failures", min=-1, help="Lost workers after which it gives up; -1 for never.")
    ] = 8,
    static: Annotated[
        list[str] | None,
        typer.Option("--static", metavar="FILE", help="A field that does not change (orography); may be repeated."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit the members' intervals to the validation split (conformal).")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model on a store, and keep the best checkpoint."""
    from infra.cli.console import number, print_facts, print_json
    from pipelines.config import load_config

    loaded, number_of_workers = load_config(config, settings or ()), parse_workers(workers)
    from pipelines.training.train import train as train_on

    with Reporter() as reporter:
        try:
            result = train_on(
                loaded,
                store,
                workers=number_of_workers,
                name=name,
                resume=resume,
                register=register,
                skip_corrupt=skip_corrupt,
                max_failures=max_failures,
                calibrated=calibrate,
                statics=static or (),
                progress=reporter,
                illustrate=_pictures,
            )
        except KeyboardInterrupt as stop:
            if str(stop):
                reporter.say(f"vamoh: {stop}")
            raise
    if as_json:
        print_json(result)
        return
    rows = [("run", result.name), ("checkpoint", str(result.checkpoint)), ("run id", result.run_id)]
    if register is not None:
        rows.append(("model", f"models:/{register}/{result.model_version}"))
    print_facts(rows + [(label, number(result.metrics[key])) for key, label in _NOTED.items() if key in result.metrics])


def _pictures(checkpoint: Path, store: str) -> list[Path]:
    """Draw what was learned; what draws is imported now, not before the first step."""
    from pipelines.products.pictures import training_pictures

    return training_pictures(checkpoint, store)


def parse_workers(text: str) -> int | tuple[int, int]:
    """Read a number of workers, or a range.

    >>> parse_workers("2"), parse_workers("1:4")
    (2, (1, 4))

    Raises:
        ValueError: If it is neither.
    """
    numbers = text.split(":")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ValueError(f"--workers expects a number or a range MIN:MAX, e.g. 2 or 1:4, got {text!r}")
    first, *rest = map(int, numbers)
    return (first, rest[0]) if rest else first


class Reporter:
    """A bar while a model is trained, and lines before and after it."""

    def __init__(self) -> None:
        self._bar = ExitStack()
        self._update: Update | None = None
        self._warned = ""

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

        if now.warning not in ("", self._warned):
            typer.echo(f"vamoh: warning: {now.warning}", err=True)
        self._warned = now.warning
        if self._update is None:
            self._update = self._bar.enter_context(progress("training", "steps"))
        metrics = [f"{label} {number(now.metrics[key])}" for key, label in _NOTED.items() if key in now.metrics]
        self._update(now.step, now.steps, f"epoch {now.epoch}/{now.epochs} {', '.join(metrics)}".strip())
