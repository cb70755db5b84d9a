"""`vamoh evaluate`, `vamoh downscale` and `vamoh demo`: what a model is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.options import (
    JsonFlag,
    Model,
    OutputPath,
    Overwrite,
    RegionText,
    Seed,
    StorePath,
    Time,
    Units,
    Variable,
    examples,
    parse_region,
)

_TABLES = {"scores": "area-weighted", "scores_unweighted": "unweighted"}
_SHOWN_BELOW = {"scales", "reliability", "curve"}

Members = Annotated[int, typer.Option("--members", min=1, help="Of the ensemble.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples(
            "vamoh evaluate models:/t2m@champion --store uk.zarr",
            "vamoh evaluate models:/t2m@champion --store uk.zarr --factor 2 --json scores.json",
            "vamoh evaluate models:/t2m@champion --store uk.zarr --curve 2,4,8 --attention 150 --report scores.html",
        )
    )(evaluate)
    app.command(
        epilog=examples(
            "vamoh downscale models:/t2m@champion coarse.nc fine.nc --factor 4 --members 20",
            "vamoh downscale models:/t2m@champion coarse.nc fine.zarr --resolution 0.1 --also spread,q05 --conserve",
            "vamoh downscale models:/t2m@champion coarse.nc stations.nc --points stations.csv",
            "vamoh downscale models:/any@champion towns.csv fine.nc --resolution 0.25 --units K --time 2019-03-01T06",
        )
    )(downscale)
    app.command(epilog=examples("vamoh demo"))(demo)


def evaluate(
    model: Model,
    store: StorePath,
    split: Annotated[str, typer.Option("--split", help="train, validation, test or all.")] = "test",
    factor: Annotated[int | None, typer.Option("--factor", min=1, help="Finer than the coarse field.")] = None,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Ask for, and score, every n-th point only: another resolution.")
    ] = 1,
    members: Members = 32,
    seed: Seed = 0,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="STORE", help="The training store, if STORE is another; baselines learn there."
        ),
    ] = None,
    attention: Annotated[
        float,
        typer.Option(
            "--attention", metavar="SECONDS", min=0, help="Also train a window-attention super-resolver for so long."
        ),
    ] = 0.0,
    curve: Annotated[
        str, typer.Option("--curve", metavar="FACTORS", help="Skill over resolution, such as 2,3,4,6,8.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page: maps, spectra, ranks, the curve.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the scores as JSON, - for stdout.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the scores with the registered model, for its card.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score a model against the truth, beside the baselines."""
    from infra.cli.console import print_json, to_json
    from pipelines.data.atomic import refuse_existing, written_beside

    to_file = json is not None and str(json) != "-"
    if json is not None and to_file:
        refuse_existing(json, overwrite=overwrite)
    if report is not None:
        refuse_existing(report, overwrite=overwrite)
    factors = _whole_numbers(curve, "--curve")
    from pipelines.products.evaluate import evaluate as evaluate_on

    if keep:
        from pipelines.training.registry import find_version

        find_version(model)  # refused before the work, not after it
    result = evaluate_on(
        model,
        store,
        split=split,
        factor=factor,
        every=every,
        members=members,
        seed=seed,
        reference=reference,
        attention=attention,
        curve=factors,
        report=report,
    )
    if keep:
        from pipelines.training.champions import keep_evaluation

        keep_evaluation(model, result)
    if json is not None and to_file:
        with written_beside(json, overwrite=overwrite) as beside:
            beside.write_text(to_json(result) + "\n")
    elif json is not None:
        print_json(result)
        return
    _print_scores(result)


def downscale(
    model: Model,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="The coarse field: NetCDF, GRIB, Zarr, a URL, or a CSV of stations.")
    ],
    output: OutputPath,
    factor: Annotated[int | None, typer.Option("--factor", min=1, help="So many times finer than the input.")] = None,
    resolution: Annotated[float | None, typer.Option("--resolution", metavar="DEG", help="Degrees.")] = None,
    like: Annotated[str | None, typer.Option("--like", metavar="FILE", help="Onto the grid of this file.")] = None,
    points: Annotated[
        str | None, typer.Option("--points", metavar="CSV", help="At a list with columns latitude, longitude.")
    ] = None,
    members: Members = 8,
    region: RegionText = None,
    seed: Seed = 0,
    also: Annotated[
        str,
        typer.Option(
            "--also", metavar="NAMES", help="Beside the members: component, entropy, spread, gradient, q05, q95, ..."
        ),
    ] = "component",
    conserve: Annotated[
        bool, typer.Option("--conserve", help="Reproduce the input: its cell means, or its values at its points.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Ray workers; 0 takes the cores of this machine.")
    ] = 0,
    variable: Variable = "t2m",
    units: Units = None,
    time: Time = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a fine ensemble from a coarse field; a run that was stopped goes on when it is given again."""
    targets = {"--factor": factor, "--resolution": resolution, "--like": like, "--points": points}
    given = [name for name, value in targets.items() if value is not None]
    if len(given) != 1:
        came = " and ".join(given) if given else "none"
        raise ValueError(f"say where the field is wanted with one of {', '.join(targets)}; got {came}")
    box = parse_region(region)
    from infra.cli.console import print_json, progress
    from pipelines.data.atomic import refuse_existing

    refuse_existing(output, overwrite=overwrite)
    from pipelines.products.downscale import downscale_file

    with progress("downscaling", "blocks") as update:
        summary = downscale_file(
            model,
            input,
            str(output),
            factor=factor,
            resolution=resolution,
            like=like,
            points=points,
            members=members,
            region=box,
            seed=seed,
            also=tuple(word.strip() for word in also.split(",") if word.strip()),
            conserve=conserve,
            workers=workers,
            variable=variable,
            units=units,
            time=time,
            overwrite=overwrite,
            progress=update,
            say=lambda line: typer.echo(f"vamoh: {line}", err=True),
        )
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


def demo(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the results go.")] = Path("demo"),
    as_json: JsonFlag = False,
) -> None:
    """Train on genuine ERA5, downscale it, score it and write a report: the whole way in a few minutes."""
    from infra.cli.console import print_json
    from infra.cli.training import Reporter
    from pipelines.products.demo import run_demo

    with Reporter() as reporter:
        result = run_demo(output, say=reporter.say, progress=reporter)
    if as_json:
        print_json(result)
    else:
        _print_scores(result)


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Read such as 2,3,4.

    Raises:
        ValueError: If a part is no whole number of at least 2.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) >= 2 for word in words):
        raise ValueError(f"{option} expects whole numbers of at least 2 such as 2,4,8, got {text!r}")
    return tuple(map(int, words))


def _print_scores(result: dict[str, Any]) -> None:
    """Print the systems' scores as tables, below what else is known."""
    from infra.cli.console import number, print_facts, print_table

    _print_summary(result)
    for key, systems in result.items():
        if not _is_table(systems) or key in _SHOWN_BELOW:
            continue
        metrics = list(dict.fromkeys(metric for scores in systems.values() for metric in scores))
        rows = [[name, *(number(scores.get(metric, "")) for metric in metrics)] for name, scores in systems.items()]
        if rows:
            typer.echo()
            print_table([_TABLES.get(key, key.replace("_", " ")), *metrics], rows)
    if result.get("scales") or result.get("reliability"):
        from infra.cli.console import brief
        from pipelines.products.diagnosis import summary

        typer.echo()
        print_facts([(name, brief(line)) for name, line in summary(result).items()])
    if result.get("curve"):
        systems = list(result["curve"][0]["rmse"])
        rows = [
            [
                f"{row['input_km']:.0f} to {row['output_km']:.0f} km" + ("" if row["trained"] else ", not trained on"),
                *(number(row["rmse"][name]) for name in systems),
            ]
            for row in result["curve"]
        ]
        typer.echo()
        print_table(["rmse over resolution", *systems], rows)


def _is_table(value: object) -> bool:
    """Whether it is scores by system and metric."""
    return isinstance(value, dict) and bool(value) and all(isinstance(row, dict) for row in value.values())


def _print_summary(summary: dict[str, Any]) -> None:
    """Print what a command says of its result, without the tables in it."""
    from infra.cli.console import brief, print_facts

    shown = {key: value for key, value in summary.items() if key not in _SHOWN_BELOW and not _is_table(value)}
    texts = {key.replace("_", " "): brief(value) for key, value in shown.items()}
    print_facts([(key, text) for key, text in texts.items() if text])
