"""`vamoh data`: from raw files to the store, and what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import (
    JsonFlag,
    Overwrite,
    RegionText,
    Time,
    Units,
    Variable,
    examples,
    parse_levels,
    parse_region,
)

app = typer.Typer(help="Make and look at stores of data.")


@app.command(
    epilog=examples(
        "vamoh data climate era5.grib uk.zarr --time 2019-03",
        "vamoh data climate 'tas_*.nc' europe.zarr --variable tas --region=-25,33,45,72",
    )
)
def climate(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="NetCDF, GRIB or Zarr: files, a glob, or URLs.")
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder to make.")],
    variable: Variable = "t2m",
    time: Time = None,
    region: RegionText = None,
    level: Annotated[
        list[str] | None,
        typer.Option("--level", metavar="VALUE", help="Where to cut a further dimension; NAME=VALUE for several."),
    ] = None,
    units: Units = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Keep every n-th point, from the north-west.")] = 1,
    license: Annotated[
        str | None, typer.Option("--license", help="Under which the source is given; else what it says itself.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a temperature field into a store."""
    from infra.cli.console import print_facts, print_json, progress
    from pipelines.data.climate import ingest

    with progress("writing", "samples") as update:
        made = ingest(
            source,
            store,
            variable=variable,
            time=time,
            region=parse_region(region),
            level=parse_levels(level),
            units=units,
            every=every,
            license=license,
            overwrite=overwrite,
            progress=update,
        )
    sizes = {str(dim): size for dim, size in made.field.sizes.items()}
    if as_json:
        print_json({"store": made.path, "variable": made.variable, "units": made.units, "dims": sizes,
                    "statistics": made.statistics, "fingerprint": made.fingerprint, "source": made.source,
                    "license": made.license})  # fmt: skip
        return
    found = made.statistics
    print_facts(
        [
            ("store", made.path),
            ("variable", f"{made.variable} ({made.units})"),
            ("dimensions", ", ".join(f"{dim} {size}" for dim, size in sizes.items())),
            ("mean, std", f"{found.mean:.3f}, {found.std:.3f} {made.units}"),
            ("fingerprint", made.fingerprint),
        ]
    )


@app.command(epilog=examples("vamoh data inspect uk.zarr"))
def inspect(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A folder or a URL.")], as_json: JsonFlag = False
) -> None:
    """Show what a store holds: grid, times, chunks, statistics, a map."""
    from infra.cli.console import print_facts, print_json, print_lines
    from pipelines.data import inspection

    found = inspection.inspect(store)
    if as_json:
        print_json(found.to_dict())
        return
    print_facts(found.rows())
    print_lines(found.sketch)


@app.command(epilog=examples("vamoh data tune uk.zarr", "vamoh data tune uk.zarr --apply"))
def tune(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A folder, or a URL, which is only measured.")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the store again in the best chunks; record the other settings in it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure which chunks, threads and queue stream a store best here.

    Chunks decide the order of samples: a training that is under way goes on with the chunks that it began with.
    """
    from infra.cli.console import number, print_facts, print_json, print_table, progress
    from pipelines.data import tune as tuning

    with progress("measuring", "passes") as update:
        found = tuning.tune(store, progress=update)
    if apply:
        with progress("writing", "samples") as update:
            tuning.apply(found, progress=update)
    if as_json:
        print_json({**found.to_dict(), "applied": apply})
        return
    rows = [
        (one.chunks, str(one.threads), str(one.prefetch), f"{one.mb_per_s:.0f}", _percent(one.wait))
        for one in found.measured
    ]
    print_table(("samples a chunk", "threads", "prefetch", "MB/s", "wait"), rows)
    best = found.best
    change = "the store's own" if not found.rewrites else "written" if apply else "--apply writes the store so"
    print_facts(
        [
            ("best chunks", f"{best.chunks} ({change})"),
            ("best threads", f"{best.threads}{' (recorded)' if apply else ''}"),
            ("best prefetch", f"{best.prefetch}{' (recorded)' if apply else ''}"),
            ("MB/s", number(round(best.mb_per_s))),
        ]
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
