"""`vamoh tune`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.options import JsonFlag, Settings, StorePath, examples

if TYPE_CHECKING:
    from tuning.sweep import SweepResult


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "vamoh tune mixture-depth --store uk.zarr",
            "vamoh tune wide --store uk.zarr --trials 40 --set training.epochs=20 --name first --register t2m",
            "vamoh tune wide --store uk.zarr --trials 40 --set training.epochs=20 --name first --resume",
        )
    )(tune)


def tune(
    space: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="mixture-depth, wide, or a file of yours.")],
    store: StorePath,
    settings: Settings = None,
    around: Annotated[
        str | None, typer.Option("--train", metavar="PRESET|FILE.yaml", help="The training run to search around.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many; a grid has as many as it has.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials of each combination.")] = None,
    concurrent: Annotated[
        int | None, typer.Option(metavar="N", help="The most trials at a time; else as many as fit.")
    ] = None,
    cpus: Annotated[int, typer.Option("--cpus-per-trial", metavar="N", help="Of a trial; its threads.")] = 1,
    gpus: Annotated[
        float, typer.Option("--gpus-per-trial", metavar="G", help="Of a trial; 0.25 puts four on a GPU.")
    ] = 0.0,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Ray workers of each trial; 0 trains in its own process.")
    ] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Of the sweep; else one is made up.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the sweep of this name stopped.")] = False,
    register: Annotated[
        str | None, typer.Option("--register", metavar="NAME", help="The best trial's model; else named as the sweep.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Search training runs for the best, and keep it, what it was trained with and a report."""
    from infra.cli.console import brief, number, print_facts, print_json
    from tuning.room import Room
    from tuning.space import load_space

    if resume and name is None:
        raise ValueError("--resume needs the --name of the sweep that is to go on")
    room = Room(workers=workers, cpus=cpus, gpus=gpus, concurrent=concurrent)
    loaded = load_space(space, settings or (), train=around, trials=trials, seeds=seeds)
    from infra.cli.live import Live
    from tuning.sweep import tune as search

    try:
        with Live(loaded.total, loaded.metric) as live:
            result = search(loaded, store, name=name, resume=resume, room=room, register=register, show=live.show)
    except KeyboardInterrupt as stop:
        if str(stop):
            typer.echo(f"vamoh: {stop}", err=True)
        raise
    if as_json:
        print_json(_as_tree(result, loaded.metric))
        return
    best = result.best
    print_facts(
        [
            ("sweep", result.name),
            ("trials", ", ".join(f"{count} {state.lower()}" for state, count in result.states.items())),
            ("best trial", best.name),
            (loaded.metric.replace("_", " "), number(best.best)),
            *((key, brief(value)) for key, value in best.values.items()),
            ("config", str(result.config)),
            ("report", str(result.report)),
            ("run id", result.run_id),
            ("model", f"models:/{result.model}/{result.model_version}"),
        ]
    )


def _as_tree(result: SweepResult, metric: str) -> dict[str, Any]:
    """What a program may want to know; the record has the curves."""
    best = asdict(replace(result.best, curve=()))
    del best["curve"]
    return {**{key: value for key, value in vars(result).items() if key != "best"}, "metric": metric, "best": best}
