"""Options that several commands share, and how their text is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Region = tuple[float, float, float, float]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
RegionText = Annotated[
    str | None,
    typer.Option("--region", metavar="W,S,E,N", help="Degrees, either longitude convention; W > E crosses the seam."),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, an MLflow run id, or a checkpoint folder.")
]
StorePath = Annotated[str, typer.Option("--store", metavar="STORE", help="What `vamoh data climate` wrote.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. context.every=4; repeatable.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the members; equal seeds give equal members.")]
Variable = Annotated[str, typer.Option("--variable", help="The temperature's name in the source.")]
Time = Annotated[
    str | None, typer.Option("--time", metavar="FROM:TO", help="Days included, e.g. 2019-03-01:2019-03-24, or 2019-03.")
]
Units = Annotated[str | None, typer.Option("--units", help="Of the values, where the source does not say, e.g. K.")]
OutputPath = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write.")]


def examples(*lines: str) -> str:
    """Write the examples that stand below a command's help."""
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines])


def parse_region(text: str | None) -> Region | None:
    """Read W,S,E,N in degrees.

    >>> parse_region("-10,50,2,58")
    (-10.0, 50.0, 2.0, 58.0)

    Raises:
        ValueError: if it is not four numbers.
    """
    if text is None:
        return None
    try:
        west, south, east, north = (float(bound) for bound in text.split(","))
    except ValueError as error:
        raise ValueError(f"--region expects four numbers W,S,E,N in degrees, e.g. -10,50,2,58, got {text!r}") from error
    return west, south, east, north


def parse_levels(texts: list[str] | None) -> float | str | dict[str, float | str] | None:
    """Read where to cut further dimensions: one value, or NAME=VALUE for each of several.

    >>> parse_levels(["1000"]), parse_levels(["level=850", "number=0"])
    (1000.0, {'level': 850.0, 'number': 0.0})

    Raises:
        ValueError: if several values are given without names.
    """
    if not texts:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return _number(texts[0])
    named = [text.partition("=") for text in texts]
    nameless = [text for text, parts in zip(texts, named, strict=True) if not all(parts)]
    if nameless:
        raise ValueError(f"--level given several times expects DIMENSION=VALUE each time, got {nameless[0]!r}")
    return {name: _number(value) for name, _, value in named}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
