"""A registered model and a coarse temperature field -> a CF data set at any resolution, lazily, member by member.

The target is cut into bands of rows and the times into blocks; each is one task that asks the model
(pipelines/products/ensemble.py), and is computed only where it is touched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.climate import apply_conventions, open_field
from pipelines.data.grid import Region
from pipelines.data.sphere import Lattice
from pipelines.products import targets
from pipelines.products.ensemble import Downscaler
from pipelines.products.targets import Target

TILE_POINTS = 4096
BLOCK_TIMES = 16
Source = str | Path | xr.DataArray | xr.Dataset


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
    variable: str = "t2m",
    units: str | None = None,
    time: str | None = None,
) -> xr.Dataset:
    """Downscale a temperature field.

    Args:
        coarse: A field on a latitude-longitude grid, points of the truth; NaN marks gaps. A file, a URL or an xarray
            object, in the caller's own conventions.
        model: `models:/NAME@ALIAS`, an MLflow run id, a checkpoint folder, or a `Downscaler`.
        factor: Divide every cell of the input by this much along each side.
        resolution: Or: a grid of this many degrees.
        like: Or: the grid of this file or data set.
        points: Or: the stations of this CSV file.
        members: Of the ensemble.
        region: West, south, east, north: only there. The whole input is read all the same.
        seed: Of the members. Members 2 i and 2 i + 1 mirror each other.
        variable, units, time: Of the input, where it does not say; see `vamoh data climate`.

    Returns:
        `variable(realization, time, latitude, longitude)` (or `station`) in kelvin and `component(time, ...)`, in the
        caller's conventions; Dask arrays, computed where they are touched.

    Raises:
        ValueError: If not exactly one target is given, or the input does not suit the model or the target.
    """
    given = [
        name
        for name, value in (("factor", factor), ("resolution", resolution), ("like", like), ("points", points))
        if value is not None
    ]
    if len(given) != 1:
        raise ValueError(f"give exactly one of factor, resolution, like and points, got {', '.join(given) or 'none'}")
    if members < 1:
        raise ValueError(f"members must be at least 1, got {members}")
    teller = Downscaler.of(model) if isinstance(model, str) else model
    field = open_field(
        coarse if isinstance(coarse, xr.Dataset | xr.DataArray) else str(coarse), variable, units, time=time
    )
    lattice = Lattice.of(field)
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
    result = on_target(teller, field, target, members=members, seed=seed)
    return apply_conventions(result, field.attrs["conventions"])


def on_target(teller: Downscaler, field: xr.DataArray, target: Target, *, members: int, seed: int) -> xr.Dataset:
    """Lazy members on a target, of a canonical field."""
    times, lattice = field["time"].values, Lattice.of(field)
    columns = len(target.longitude) if target.names is None else 1
    rows = len(target.latitude)
    band = max(1, min(rows, TILE_POINTS // max(1, columns)))
    blocks: list[list[Any]] = []
    asked = dask.delayed(teller, traverse=False)
    for start in range(0, len(times), BLOCK_TIMES):
        chosen = slice(start, min(start + BLOCK_TIMES, len(times)))
        part = dask.delayed(_block, nout=2)
        blocks.append(
            [
                part(asked, field[chosen].data, lattice, times[chosen], _places(target, first, band), members, seed)
                for first in range(0, rows, band)
            ]
        )
    shape = [len(range(first, min(first + band, rows))) for first in range(0, rows, band)]
    tail = (columns,) if target.names is None else ()
    axis = -len(target.dims)

    def assemble(which: int, leading: tuple[int, ...], dtype: type) -> da.Array:
        columns_of_blocks = []
        for number, row in enumerate(blocks):
            count = min(BLOCK_TIMES, len(times) - number * BLOCK_TIMES)
            columns_of_blocks.append(
                da.concatenate(
                    [
                        da.from_delayed(b[which], (*leading, count, size, *tail), dtype)
                        for b, size in zip(row, shape, strict=True)
                    ],
                    axis=axis,
                )
            )
        return da.concatenate(columns_of_blocks, axis=len(leading))

    name = str(field.name)
    dataset = xr.Dataset(
        {
            name: (("realization", "time", *target.dims), assemble(0, (members,), np.float32), _VALUE_ATTRS),
            "component": (("time", *target.dims), assemble(1, (), np.int8), _COMPONENT_ATTRS),
        },
        coords={"realization": np.arange(members), "time": field["time"], **target.coords},
    )
    return _described(dataset, teller, field, target, seed)


def downscale_file(
    model: str,
    input: str,  # noqa: A002 - the command line's word
    output: str,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **request: Any,  # noqa: ANN401 - the keywords of `downscale`
) -> dict[str, Any]:
    """Downscale to a NetCDF file or a Zarr store, written beside and renamed; the keywords are those of `downscale`.

    Returns:
        What was written: path, dimensions, members, warnings.
    """
    path = Path(output)
    if path.suffix not in {".nc", ".zarr"}:
        raise ValueError(f"the output must end in .nc or .zarr, got {output!r}")
    refuse_existing(path, overwrite=overwrite)
    dataset = downscale(input, model, **request)
    with _reported(progress):
        write_output(dataset, path, overwrite=overwrite)
    return {
        "output": str(path),
        "sizes": dict(dataset.sizes),
        "members": int(dataset.sizes["realization"]),
        "warnings": dataset.attrs.get("warnings", ""),
    }


def write_output(dataset: xr.Dataset, path: Path, *, overwrite: bool) -> None:
    """Write a downscaled data set to a NetCDF file or a Zarr store, beside and then renamed."""
    with written_beside(path, overwrite=overwrite) as beside, one_thread_a_block():
        if path.suffix == ".nc":
            dataset.to_netcdf(beside, engine="h5netcdf", encoding=_encoding(dataset))
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            dataset.to_zarr(beside, zarr_format=3, consolidated=True)


_VALUE_ATTRS = {"standard_name": "air_temperature", "long_name": "2 metre temperature", "units": "K"}
_COMPONENT_ATTRS = {"long_name": "most probable mixture component", "units": "1"}


def _places(target: Target, first: int, band: int) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Latitude and longitude [N] of a band of the target, and its shape."""
    latitude = target.latitude[first : first + band]
    if target.names is not None:
        return latitude, target.longitude[first : first + band], latitude.shape
    grid = Lattice(latitude=latitude, longitude=target.longitude)
    return *grid.points, grid.shape


def _block(
    teller: Downscaler,
    coarse: NDArray[np.floating],
    lattice: Lattice,
    times: NDArray[Any],
    places: tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]],
    members: int,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    latitude, longitude, shape = places
    values, component = teller.ensemble(coarse, lattice, times, latitude, longitude, members=members, seed=seed)
    return values.reshape(members, len(times), *shape), component.reshape(len(times), *shape)


def _described(dataset: xr.Dataset, teller: Downscaler, field: xr.DataArray, target: Target, seed: int) -> xr.Dataset:
    """CF attributes and provenance, and a warning where the model is asked beyond what it has seen."""
    plan = teller.checkpoint.plan
    dataset["realization"].attrs = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
    dataset["latitude"].attrs = {"standard_name": "latitude", "units": "degrees_north"}
    dataset["longitude"].attrs = {"standard_name": "longitude", "units": "degrees_east"}
    dataset["time"].attrs.setdefault("standard_name", "time")
    dataset[str(field.name)].attrs["cell_methods"] = "realization: point"
    doubts = _doubts(plan.lattice, target)
    for doubt in doubts:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    every = None if plan.config.context is None else plan.config.context.every
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": "Downscaled 2 metre temperature",
        "source": f"VAMoH {teller.origin.get('model', '')} {teller.origin.get('version', '')}".strip(),
        "institution": "",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} downscaled with vamoh",
        "model_run": teller.origin.get("run_id", ""),
        "model_data_fingerprint": plan.fingerprint,
        "model_context_every": str(every),
        "model_grid_degrees": f"{np.rad2deg(plan.lattice.spacing_rad):.4g}",
        "seed": seed,
        "warnings": " ".join(doubts),
    }
    return dataset


def _doubts(trained: Lattice, target: Target) -> list[str]:
    """Where a target goes beyond the region of the training data."""
    margin = np.rad2deg(trained.spacing_rad)
    inside = (target.latitude.max() <= trained.latitude[0] + margin) and (
        target.latitude.min() >= trained.latitude[-1] - margin
    )
    if not trained.periodic:
        middle = (trained.longitude[0] + trained.longitude[-1]) / 2
        away = np.abs((target.longitude - middle + 180.0) % 360.0 - 180.0)
        inside &= bool(away.max() <= (trained.longitude[-1] - trained.longitude[0]) / 2 + margin)
    if inside:
        return []
    return ["The target reaches outside the region that the model was trained on: nothing local was learned there."]


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    return {str(name): {"zlib": True, "complevel": 1} for name in dataset.data_vars}


@contextmanager
def one_thread_a_block() -> Iterator[None]:
    """Dask's threads work on blocks side by side, so Torch is to use one in each: else they fight for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _reported:  # noqa: N801 - used as a context manager, like a function
    """Calls progress(done, total) for every block that Dask finishes."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        from dask.callbacks import Callback

        self._done, self._total = 0, 0

        def start(dsk: Mapping[Any, Any]) -> None:
            self._total = sum("_block" in str(key) for key in dsk)

        def after(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:  # noqa: ANN401
            if progress is not None and "_block" in str(key):
                self._done += 1
                progress(self._done, max(self._total, self._done))

        self._callback = Callback(start=start, posttask=after)

    def __enter__(self) -> None:
        self._callback.__enter__()

    def __exit__(self, *error: object) -> None:
        self._callback.__exit__(*error)
