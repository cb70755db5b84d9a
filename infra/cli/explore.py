"""`vamoh explore`: models in a browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import Overwrite, examples

NEEDED = ("panel", "bokeh", "plotly")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "vamoh explore models:/t2m@champion --store uk.zarr",
            "vamoh explore runs/uk/best --store uk.zarr --export page.html",
            "vamoh explore --address 0.0.0.0 --password-file ~/.vamoh-password",
        )
    )(explore)


def explore(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As elsewhere; without it one of the registry's is shown.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="STORE", help="Fields or shapes to look at.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = 5006,
    address: Annotated[
        str, typer.Option("--address", help="Where to listen; other machines are let in with a password only.")
    ] = "127.0.0.1",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="FILE", help="Ask for the password in this file.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", metavar="HOST:PORT", help="Of a proxy or a tunnel before it; repeatable."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE.html", help="Write a page that needs no server, and end.")
    ] = None,
    overwrite: Overwrite = False,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
) -> None:
    """See models in a browser: downscale, imagine, complete, compare."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"the explorer needs {', '.join(missing)}: pip install 'vamoh[explore]'")
    if export is not None:
        from infra.explorer.export import export_page

        export_page(model, store, export, overwrite=overwrite)
        typer.echo(f"written to {export}")
        return
    from infra.explorer.serve import serve

    serve(
        model,
        store,
        port=port,
        address=address,
        password_file=password_file,
        also_from=origin or (),
        show=show,
        say=lambda url: typer.echo(f"vamoh explorer: {url}  (Ctrl-C ends it)"),
    )
