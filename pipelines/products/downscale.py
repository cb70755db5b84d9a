"""A registered model and a coarse temperature field -> a CF data set at any resolution, lazily, member by member.

The target is cut into tiles and the times into blocks (pipelines/products/tiles.py); each is computed only where it is
touched, and a file is written block by block (pipelines/products/writing.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xarray as xr

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.climate import apply_conventions, open_field
from pipelines.data.conventions import Conventions
from pipelines.data.grid import Region
from pipelines.data.memory import keep_freed_memory
from pipelines.data.scatter import Scatter, open_scatter, places_of
from pipelines.data.sources import open_datasets
from pipelines.products import targets
from pipelines.products.conserve import check_conserved
from pipelines.products.description import described
from pipelines.products.doubts import cell_kind
from pipelines.products.ensemble import Downscaler
from pipelines.products.targets import Target
from pipelines.products.tiles import Job
from pipelines.products.variables import DEFAULT

Source = str | Path | xr.DataArray | xr.Dataset


class Asked(NamedTuple):
    """A request that can be computed.

    Attributes:
        job: In the order of the caller's axes.
        conventions: The caller's names.
    """

    job: Job
    conventions: Conventions

    def dataset(self) -> xr.Dataset:
        """The lazy result, which says what it is."""
        result = described(self.job.lazily(), self.job)
        # latitudes and longitudes are in the caller's order already
        return apply_conventions(result, replace(self.conventions, northwards=False, longitude_range="either"))


def downscale(
    coarse: Source,
    model: str | Downscaler,
    *,
    factor: int | None = None,
    resolution: float | None = None,
    like: Source | None = None,
    points: str | Path | None = None,
    members: int = 8,
    region: Region | None = None,
    seed: int = 0,
    also: Sequence[str] = DEFAULT,
    conserve: bool = False,
    variable: str = "t2m",
    units: str | None = None,
    time: str | None = None,
) -> xr.Dataset:
    """Downscale a temperature field.

    Args:
        coarse: A field on a latitude-longitude grid, points of the truth or means of its cells, whichever the model was
            trained on; NaN marks gaps. A file, a URL or an xarray object, in the caller's own conventions. Or, for a
            model of kind "scattered", values at a list of points: a CSV file, or a data set with one dimension of them.
        model: `models:/NAME@ALIAS`, an MLflow run id, a checkpoint folder, or a `Downscaler`.
        factor: Divide every cell of the input by this much along each side.
        resolution: Or: a grid of this many degrees.
        like: Or: the grid of this file or data set.
        points: Or: the stations of this CSV file.
        members: Of the ensemble.
        region: West, south, east, north: only there. The whole input is read all the same.
        seed: Of the members. Members 2 i and 2 i + 1 mirror each other.
        also: What is wanted beside the members: component, entropy, spread, gradient, q05 and other quantiles.
        conserve: Every member's means over the input's cells reproduce the input, where its `cell_methods` say that it
            is means over areas; else the members' values at the input's points do.
        variable, units, time: Of the input, where it does not say; see `vamoh data climate`.

    Returns:
        `variable(realization, time, latitude, longitude)` (or `station`) in kelvin and what is wanted beside it, in the
        caller's conventions; Dask arrays, computed where they are touched.

    Raises:
        ValueError: If not exactly one target is given, or the input does not suit the model or the target.
    """
    request: dict[str, Any] = {
        "factor": factor,
        "resolution": resolution,
        "like": like,
        "points": points,
        "members": members,
        "region": region,
        "seed": seed,
        "also": also,
        "conserve": conserve,
        "variable": variable,
        "units": units,
        "time": time,
    }
    return ask(coarse, model, **request).dataset()


def ask(
    coarse: Source,
    model: str | Downscaler,
    *,
    factor: int | None = None,
    resolution: float | None = None,
    like: Source | None = None,
    points: str | Path | None = None,
    members: int = 8,
    region: Region | None = None,
    seed: int = 0,
    also: Sequence[str] = DEFAULT,
    conserve: bool = False,
    variable: str = "t2m",
    units: str | None = None,
    time: str | None = None,
) -> Asked:
    """Check a request and open what it needs; the arguments are those of `downscale`."""
    wanted = [
        name
        for name, value in (("factor", factor), ("resolution", resolution), ("like", like), ("points", points))
        if value is not None
    ]
    if len(wanted) != 1:
        raise ValueError(f"give exactly one of factor, resolution, like and points, got {', '.join(wanted) or 'none'}")
    if members < 1:
        raise ValueError(f"members must be at least 1, got {members}")
    teller = Downscaler.of(model) if isinstance(model, str) else model
    source = coarse if isinstance(coarse, xr.Dataset | xr.DataArray) else str(coarse)
    scattered = open_scatter(source, variable, units, time=time)
    field = open_field(source, variable, units, time=time) if scattered is None else scattered
    given, methods = places_of(field), "" if scattered is not None else _cell_methods(source, str(field.name))
    lattice = teller.checkpoint.plan.lattice if isinstance(given, Scatter) else given
    if isinstance(given, Scatter):
        teller.checkpoint.plan.downscaling.refuse_points()
        if factor is not None or conserve:
            raise ValueError(
                f"the input is a list of points, which has no cells for --{'conserve' if conserve else 'factor'}: "
                "leave it out" + ("" if conserve else ", and say --resolution, --like or --points")
            )
    if factor is not None:
        target = targets.finer(lattice, factor)
    elif resolution is not None:
        target = targets.at_resolution(lattice, resolution, region)
    elif points is not None:
        target = targets.stations(points)
    else:
        assert like is not None
        target = targets.like(like)
    if region is not None:
        target = targets.within(target, region)
    targets.check_inside(target, lattice)
    field = field.assign_attrs(cell_methods=methods)
    kind = cell_kind(methods) if conserve else None
    if kind is not None:
        check_conserved(kind, lattice, target)
    own = Conventions.from_json(field.attrs["conventions"])
    job = Job(
        teller=teller,
        field=field,
        target=targets.in_conventions(target, own),
        members=members,
        seed=seed,
        also=tuple(dict.fromkeys(also)),
        conserve=kind,
    )
    return Asked(job, own)


def on_target(teller: Downscaler, field: xr.DataArray, target: Target, *, members: int, seed: int) -> xr.Dataset:
    """Lazy members on a target, of a canonical field."""
    job = Job(teller=teller, field=field, target=target, members=members, seed=seed)
    return described(job.lazily(), job)


def downscale_file(
    model: str,
    input: str,  # noqa: A002 - the command line's word
    output: str,
    *,
    overwrite: bool = False,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    **request: Any,  # noqa: ANN401 - the keywords of `downscale`
) -> dict[str, Any]:
    """Downscale to a NetCDF file or a Zarr store, block by block; the keywords are those of `downscale`.

    What is finished is kept in `OUTPUT.partial` until all of it is: the same request goes on from there.

    Args:
        model, input, output: A MODEL, and paths.
        overwrite: Replace the output if it exists.
        workers: Ray workers, which must see the same files; 0 for the cores of this machine.
        progress: Called with (blocks done, blocks in all).
        say: Told what is worth a line.

    Returns:
        What was written: path, dimensions, members, warnings.
    """
    from pipelines.products.writing import write_blocks

    path = Path(output)
    if path.suffix not in {".nc", ".zarr"}:
        raise ValueError(f"the output must end in .nc or .zarr, got {output!r}")
    if workers < 0:
        raise ValueError(f"workers must be 0 (the cores of this machine) or more, got {workers}")
    refuse_existing(path, overwrite=overwrite)
    asked = ask(input, model, **request)
    dataset = asked.dataset()
    again = {"input": input, "model": model, "request": request}
    write_blocks(asked, dataset, path, overwrite=overwrite, workers=workers, again=again, progress=progress, say=say)
    return {
        "output": str(path),
        "sizes": dict(dataset.sizes),
        "members": int(dataset.sizes["realization"]),
        "warnings": dataset.attrs.get("warnings", ""),
    }


def write_output(dataset: xr.Dataset, path: Path, *, overwrite: bool) -> None:
    """Write a data set at once to a NetCDF file or a Zarr store, beside and then renamed."""
    with written_beside(path, overwrite=overwrite) as beside, one_thread_a_block():
        if path.suffix == ".nc":
            dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding(dataset))
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            dataset.to_zarr(beside, zarr_format=3, consolidated=True)


def encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """How NetCDF keeps each variable: compressed, in the chunks that it comes in."""
    return {
        str(name): {"zlib": True, "complevel": 1, "chunksizes": tuple(size[0] for size in values.chunks or ())}
        for name, values in dataset.data_vars.items()
    }


def _cell_methods(source: Source, name: str) -> str:
    """What an input says that its values are of their cells."""
    for _, dataset in open_datasets(source, variable=name):
        return str(dataset[name].attrs.get("cell_methods", "")) if name in dataset else ""
    return ""


@contextmanager
def one_thread_a_block() -> Iterator[None]:
    """Threads work on blocks side by side, so Torch is to use one in each: else they fight for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(before)
