"""`vamoh models`: what is registered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from infra.cli.options import JsonFlag, examples

app = typer.Typer(help="Look at registered models.")


@app.command("list", epilog=examples("vamoh models list"))
def list_(as_json: JsonFlag = False) -> None:
    """List every version of every registered model."""
    from infra.cli.console import number, print_json, print_table
    from pipelines.training.registry import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no model is registered: vamoh train PRESET --store STORE --register NAME registers one")
        return
    rows = [
        [
            row["name"],
            str(row["version"]),
            ", ".join(row["aliases"]),
            _date(row["created"]),
            *(number(row["scores"].get(f"validation_{metric}", "")) for metric in ("rmse", "crps")),
        ]
        for row in found
    ]
    print_table(["model", "version", "aliases", "created (UTC)", "rmse", "crps"], rows, num_texts=4)


@app.command(epilog=examples("vamoh models show t2m", "vamoh models show models:/t2m@champion"))
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, models:/NAME@ALIAS, a run id or a folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Show where a model came from, its data and its scores."""
    from infra.cli.console import brief, print_facts, print_json
    from pipelines.training.registry import show_model

    found = show_model(model)
    if as_json:
        print_json(found)
    else:
        print_facts([(key.replace("_", " "), brief(value)) for key, value in found.items() if value is not None])


def _date(milliseconds: int) -> str:
    """Write MLflow's time.

    >>> _date(1552003200000)
    '2019-03-08 00:00'
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
