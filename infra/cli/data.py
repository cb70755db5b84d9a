"""`vamoh data`: from raw files to the store, and what a store holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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

if TYPE_CHECKING:
    from pipelines.data.store import Store

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


@app.command(
    epilog=examples(
        "vamoh data images faces/ faces.zarr --size 64",
        "vamoh data images 3dshapes.h5 scenes.zarr --number 50000",
        "vamoh data images polymnist digits.zarr",
    )
)
def images(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder of pictures, .npz, .npy, Shapes3D's HDF5, or polymnist.")
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder to make.")],
    size: Annotated[
        int | None, typer.Option("--size", help="Side in pixels; else 64 for a folder, the source's own for all else.")
    ] = None,
    number: Annotated[int | None, typer.Option("--number", help="Take so many, at random.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Keep the brightness only.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn at random.")] = 0,
    license: Annotated[str | None, typer.Option("--license", help="Under which the source is given.")] = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring pictures into a store. A run that was stopped goes on."""
    from infra.cli.console import progress
    from pipelines.data.images import ingest

    with progress("reading", "pictures") as update:
        made = ingest(source, store, size=size, number=number, grey=grey, seed=seed, license=license,
                      overwrite=overwrite, progress=update)  # fmt: skip
    _, height, width, channels = made.store.field.shape
    pixels = f"{height} x {width}, {'colour' if channels == 3 else 'grey'}"
    _say_made(made.store, made.found, made.unreadable, ("pictures", "size", pixels), as_json)


@app.command(
    epilog=examples(
        "vamoh data shapes ShapeNetCore.v2/ chairs.zarr --category chair --resolution 32 --up y",
        "vamoh data shapes meshes/ parts.zarr --test 20",
    )
)
def shapes(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder or .zip of .obj .off .ply .stl .glb .binvox .pt, a ShapeNet tree, or .npz, .npy.",
        ),
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder to make.")],
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Voxels along an edge; else 64 for files, the arrays' own.")
    ] = None,
    category: Annotated[str | None, typer.Option("--category", help="Only these, e.g. chair.")] = None,
    test: Annotated[int | None, typer.Option("--test", help="So many, each category's last, are for tests.")] = None,
    up: Annotated[
        Literal["x", "y", "z"], typer.Option("--up", help="The source's axis that points upwards, y in ShapeNet.")
    ] = "z",
    license: Annotated[str | None, typer.Option("--license", help="Under which the source is given.")] = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring shapes into a store, as solid voxels. A run that was stopped goes on."""
    from infra.cli.console import progress
    from pipelines.data.shapes import ingest

    with progress("voxelising", "shapes") as update:
        made = ingest(source, store, resolution=resolution, category=category, test=test, up=up, license=license,
                      overwrite=overwrite, progress=update)  # fmt: skip
    cells = " x ".join(map(str, made.store.field.shape[1:]))
    solid = f"{cells}, {made.store.statistics.mean:.1%} of them solid"
    _say_made(made.store, made.found, made.unreadable, ("shapes", "voxels", solid), as_json)


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


def _say_made(store: Store, found: int, unreadable: Sequence[Any], named: tuple[str, str, str], as_json: bool) -> None:
    """Say what was brought into a store, and what could not be read; `named` is what, and a line of its own."""
    from infra.cli.console import print_facts, print_json, print_lines

    if as_json:
        sizes = {str(dim): size for dim, size in store.field.sizes.items()}
        print_json({"store": store.path, "dims": sizes, "found": found, "unreadable": unreadable,
                    "statistics": store.statistics, "fingerprint": store.fingerprint, "source": store.source,
                    "license": store.license})  # fmt: skip
        return
    what, label, text = named
    print_facts(
        [
            ("store", store.path),
            (what, f"{store.field.shape[0]} of {found}, {len(unreadable)} unreadable"),
            (label, text),
            ("source", store.source),
            ("license", store.license),
            ("fingerprint", store.fingerprint),
        ]
    )
    for fault in unreadable:
        print_lines(f"unreadable: {fault.name}: {fault.reason}")
