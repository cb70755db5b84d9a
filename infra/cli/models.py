"""`vamoh models`: what is registered, and which of it is the champion."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.options import JsonFlag, Overwrite, StorePath, Time, examples

app = typer.Typer(help="Look at registered models, and choose the champion.")
REFUSED = 3


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


@app.command(epilog=examples("vamoh models show t2m", "vamoh models show t2m@challenger", "vamoh models show t2m/3"))
def show(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS, NAME/VERSION, models:/..., a run id or a folder."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Show a model's card: its data, its scores, its resolutions and limits, and where it came from."""
    from infra.cli.console import print_json
    from pipelines.training.registry import show_model

    found = show_model(model)
    if as_json:
        print_json(found)
    else:
        _print_card(found)


@app.command(epilog=examples("vamoh models promote t2m 3 --store uk.zarr", "vamoh models promote t2m 3 --force"))
def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model's name.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version that is to become champion.")],
    store: Annotated[
        str | None, typer.Option(metavar="STORE", help="Hours to compare on that neither learned from.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote it whatever the comparison says.")] = False,
    members: Annotated[int, typer.Option(min=2, metavar="M", help="Members of the ensembles.")] = 32,
    as_json: JsonFlag = False,
) -> None:
    """Make a version the champion if its CRPS beats the champion's beyond chance, and nothing else is worse."""
    from infra.cli.console import number, print_json, print_table
    from pipelines.products.gate import force_past_gate, pass_gate

    if store is None and not force:
        raise ValueError("name a --store with hours to compare on, or promote it without a comparison: --force")
    if store is None:
        verdict = force_past_gate(name, version)
    else:
        verdict = pass_gate(name, version, store, members=members, force=force)
    if as_json:
        print_json(verdict.to_dict())
    else:
        rows = [
            [key, number(each.challenger), number(each.champion), number(each.low), number(each.high)]
            for key, each in verdict.compared.items()
        ]
        if rows:
            print_table(["", f"version {version}", "champion", "5 %", "95 % of the difference"], rows, num_texts=1)
        for doubt in verdict.doubts:
            typer.echo(f"the challenger: {doubt}")
        done = "is the champion" if verdict.passed or force else "is not promoted"
        typer.echo(f"version {version} of {name} {done}: {verdict.reason}")
    if not (verdict.passed or force):
        raise typer.Exit(REFUSED)


@app.command(epilog=examples("vamoh models rollback t2m"))
def rollback(name: Annotated[str, typer.Argument(metavar="NAME", help="The registered model's name.")]) -> None:
    """Make the champion before this one the champion again."""
    from pipelines.training.champions import rollback as go_back

    typer.echo(f"version {go_back(name)} of {name} is the champion again")


@app.command(
    epilog=examples(
        "vamoh models calibrate t2m --store uk.zarr",
        "vamoh models calibrate t2m@challenger --store newer.zarr --time 2024-01:2024-06",
        "vamoh models calibrate runs/uk/best --store uk.zarr --output uk-calibrated",
    )
)
def calibrate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS, NAME/VERSION, models:/..., a run id or a folder."),
    ],
    store: StorePath,
    split: Annotated[
        str, typer.Option("--split", help="validation or test of the training store; all of another one.")
    ] = "validation",
    time: Time = None,
    law_only: Annotated[
        bool, typer.Option("--law-only", help="How wide members are and their scales, no conformal layer.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Write a checkpoint here, register nothing.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit how wide members are again, on fields that the model did not learn from; it is not trained again.

    A registered model gets a new version, a folder a new folder beside it; what there was stays.
    """
    from infra.cli.console import number, print_json, progress
    from pipelines.training.recalibrate import recalibrate

    with progress("calibrating", "passes") as update:
        done = recalibrate(
            model,
            store,
            split=split,
            time=time,
            conformal=not law_only,
            output=output,
            overwrite=overwrite,
            progress=update,
        )
    if as_json:
        print_json(asdict(done))
        return
    named = (("90 % interval covers", "coverage_90"), ("spread/skill", "spread_skill"), ("CRPS, K", "crps"))
    found = [f"{text} {number(getattr(done.before, key))} -> {number(getattr(done.after, key))}" for text, key in named]
    how = ", each half judged by what the other gave" if done.out_of_sample else ", judged by the same fields"
    typer.echo(f"{done.model}: {', '.join(found)} ({done.fields} fields of {done.first} to {done.last}{how})")


def _print_card(facts: dict[str, Any]) -> None:
    """Print the sections that have something to tell, the scores as tables, and the limits."""
    from infra.cli.console import brief, number, print_facts, print_table
    from pipelines.training.card import SECTIONS, heading, metrics_of

    for section, names in SECTIONS.items():
        rows = [(f"  {name.replace('_', ' ')}", brief(facts[name])) for name in names if facts.get(name) is not None]
        rows = [(name, text) for name, text in rows if text]
        if rows:
            typer.secho(section, bold=True)
            print_facts(rows)
    typer.secho("Scores", bold=True)
    own = {key: value for key, value in facts["metrics"].items() if key.startswith("validation_")}
    print_facts([(f"  {key.replace('_', ' ')}", number(value)) for key, value in own.items()])
    for evaluation in facts.get("evaluations", ()):
        metrics = metrics_of(evaluation)
        typer.echo(f"\n{heading(evaluation)}")
        scores = evaluation["scores"].items()
        print_table(["", *metrics], [[name, *(number(each.get(key, "")) for key in metrics)] for name, each in scores])
    typer.secho("Limits", bold=True)
    print_facts([("  -", sentence) for sentence in facts["limits"]])


def _date(milliseconds: int) -> str:
    """Write MLflow's time.

    >>> _date(1552003200000)
    '2019-03-08 00:00'
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
