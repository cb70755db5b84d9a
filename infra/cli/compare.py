"""`vamoh compare`: several models of one store, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.options import Overwrite, Seed, StorePath, examples

_DIRECTIONS = {"less": "less", "more": "more", "half": "near 0.5", "": ""}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "vamoh compare --store uk.zarr --models models:/uk@champion,models:/functa@champion",
            "vamoh compare --store chairs.zarr --models ours=runs/chairs/best,gasp=runs/gasp/best --report page.html",
        )
    )(compare)


def compare(
    store: StorePath,
    models: Annotated[
        str,
        typer.Option("--models", metavar="A,B,C", help="MODELs, or LABEL=MODEL; of any system, on this kind of data."),
    ],
    split: Annotated[str, typer.Option("--split", help="train, validation, test or all.")] = "test",
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="So many of the split, evenly spread; 0 for all.")
    ] = 0,
    members: Annotated[
        int, typer.Option("--members", min=1, help="Draws for scores of distributions; completions averaged.")
    ] = 8,
    factor: Annotated[
        int, typer.Option("--factor", min=2, help="Every so many-th point is seen where a field is downscaled.")
    ] = 4,
    seed: Seed = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON, - for stdout.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page: table, pictures.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare models: reconstruction, completion, downscaling, samples and cost, side by side."""
    from infra.cli.console import print_json, to_json
    from pipelines.data.atomic import refuse_existing, written_beside

    to_file = json is not None and str(json) != "-"
    if json is not None and to_file:
        refuse_existing(json, overwrite=overwrite)
    from pipelines.products.compare import compare as compare_on

    result = compare_on(
        store,
        [name.strip() for name in models.split(",") if name.strip()],
        split=split,
        samples=samples,
        members=members,
        factor=factor,
        seed=seed,
        report=report,
        overwrite=overwrite,
        say=lambda line: typer.echo(f"vamoh: {line}", err=True),
    )
    if json is not None and to_file:
        with written_beside(json, overwrite=overwrite) as beside:
            beside.write_text(to_json(result) + "\n")
    elif json is not None:
        print_json(result)
        return
    _print(result)


def _print(result: dict[str, Any]) -> None:
    """Print what was compared, the table, and below it the reasons of its dashes."""
    from infra.cli.console import brief, print_facts, print_table
    from pipelines.products.comparison_metrics import shown

    told = ("store", "split", "samples", "from", "to", "members", "seen_for_downscaling", "machine", "report")
    print_facts([(key.replace("_", " "), brief(result[key])) for key in told if result.get(key) is not None])
    rows = result["models"] | result["references"]
    columns = [*result["models"], *(f"({name})" for name in result["references"])]
    table = []
    for key, metric in result["metrics"].items():
        marked = [
            ("★ " if name in result["best"].get(key, ()) else "") + shown(scores.get(key))
            for name, scores in rows.items()
        ]
        table.append([metric["name"], metric["unit"], _DIRECTIONS[metric["better"]], *marked])
    typer.echo()
    print_table(["", "unit", "better", *columns], table, num_texts=3)
    typer.echo()
    typer.echo("★ the best model; in brackets what can be had without one.")
    for said in result["notes"]:
        typer.echo(said)
    names = {key: metric["name"] for key, metric in result["metrics"].items()}
    for gap in result["missing"]:
        typer.echo(f"– {', '.join(gap['models'])}: {gap['reason']} ({'; '.join(names[key] for key in gap['metrics'])})")
    if result["paper"] is not None:
        typer.echo(f"\nThe paper's figures for {result['paper']['data_set']}. {result['paper']['note']}")
        print_facts([(system, brief(figures)) for system, figures in result["paper"]["figures"].items()])
