"""`vamoh sample` and `vamoh complete`: functions that a classic model makes, and completes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import JsonFlag, Model, OutputPath, Overwrite, Seed, examples

if TYPE_CHECKING:
    import xarray as xr

Resolution = Annotated[
    float | None,
    typer.Option("--resolution", metavar="R", help="Degrees, or voxels or pixels along the longest edge."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples(
            "vamoh sample models:/chairs@champion chairs.ply --number 4 --resolution 128",
            "vamoh sample models:/fields@champion fields.nc --number 10",
            "vamoh sample models:/fields@champion way.nc --between 0,3 --number 21",
        )
    )(sample)
    app.command(
        epilog=examples(
            "vamoh complete models:/chairs@champion half.npz whole.npz --number 4",
            "vamoh complete models:/fields@champion gaps.nc filled.nc --reconstruct",
        )
    )(complete)


def sample(
    model: Model,
    output: OutputPath,
    number: Annotated[int, typer.Option("--number", min=1, help="How many.")] = 8,
    resolution: Resolution = None,
    between: Annotated[
        str,
        typer.Option(
            "--between", metavar="A,B[,SHARE]", help="The way from sample A to sample B, or one place on it, 0 to 1."
        ),
    ] = "",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Draw new functions from a model: fields, shapes or pictures, at any resolution."""
    way = _way(between, number) if between else None
    from pipelines.products import generate

    domain = generate.check_output(model, output, overwrite=overwrite)
    if way is None:
        made = generate.sample(model, number=number, resolution=resolution, seed=seed)
    else:
        made = generate.between(model, *way, resolution=resolution, seed=seed)
    generate.write(made, output, domain, overwrite=overwrite)
    _say(made, output, as_json)


def complete(
    model: Model,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What was seen; NaN or a mask marks what is missing.")],
    output: OutputPath,
    number: Annotated[int, typer.Option("--number", min=1, help="Completions of each item.")] = 4,
    resolution: Resolution = None,
    reconstruct: Annotated[
        bool, typer.Option("--reconstruct", help="The model's own value everywhere; else what was seen is kept.")
    ] = False,
    refine: Annotated[
        int | None,
        typer.Option(
            "--refine", min=0, help="Steps that infer each item: 60 that improve VAMoH's answer, 3 of Functa."
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Complete functions of which a part was seen."""
    from pipelines.products import generate

    domain = generate.check_output(model, output, overwrite=overwrite)
    made = generate.complete(
        model, input, number=number, resolution=resolution, reconstruct=reconstruct, refine=refine, seed=seed
    )
    generate.write(made, output, domain, overwrite=overwrite)
    _say(made, output, as_json)


def _way(text: str, number: int) -> tuple[int, int, list[float]]:
    """Read `--between`: two samples, and how far to go from the first to the second.

    >>> _way("0,3", 3), _way("1,2,0.25", 8)
    ((0, 3, [0.0, 0.5, 1.0]), (1, 2, [0.25]))

    Raises:
        ValueError: If it is no such thing.
    """
    words = text.split(",")
    try:
        first, second = int(words[0]), int(words[1])
        shares = [float(word) for word in words[2:]] or [step / max(1, number - 1) for step in range(number)]
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"--between expects two samples such as 0,3, or a place as in 0,3,0.25; got {text!r}"
        ) from error
    return first, second, shares


def _say(made: xr.Dataset, output: Path, as_json: bool) -> None:
    from infra.cli.console import print_facts, print_json

    sizes = {str(dim): size for dim, size in made.sizes.items()}
    if as_json:
        told = {"output": str(output), "dims": sizes, "variables": [str(name) for name in made.data_vars]}
        print_json(told | ({"comment": made.attrs["comment"]} if "comment" in made.attrs else {}))
        return
    rows = [
        ("output", str(output)),
        ("dimensions", ", ".join(f"{dim} {size}" for dim, size in sizes.items())),
        ("variables", ", ".join(map(str, made.data_vars))),
    ]
    print_facts(rows + [("note", made.attrs[key]) for key in ("comment",) if key in made.attrs])
