"""`vamoh doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import JsonFlag, examples

UNWELL = 3


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("vamoh doctor", "vamoh doctor --address head:6379 --shared /shared/me --json"))(doctor)


def doctor(
    address: Annotated[str | None, typer.Option("--address", help="Of a running Ray; else RAY_ADDRESS.")] = None,
    shared: Annotated[
        Path | None, typer.Option("--shared", metavar="DIR", help="Where runs/ will be; all nodes must see it.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look whether a run can work here, and on a Ray; ends with 3 if something fails."""
    from infra.cli.console import print_json
    from infra.doctor.examine import examine, ray_address

    found = examine(ray_address(address), shared)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            todo = f"; {each.todo}" if each.todo else ""
            typer.echo(f"{each.state:4}  {each.name:{width}}  {each.said}{todo}")
    if any(each.state == "fail" for each in found):
        raise typer.Exit(UNWELL)
