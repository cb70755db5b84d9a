"""What is shown, to take away: NetCDF, PNG, the coarse input, and the command that makes the same."""

from __future__ import annotations

import io
import re
import shlex
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from infra.explorer.downscaling.input import Given
from infra.explorer.downscaling.layers import Layer, Quantity
from infra.explorer.downscaling.view import Seen
from infra.explorer.session import Loaded
from pipelines.data.climate import apply_conventions
from pipelines.data.times import label
from pipelines.products.description import described
from pipelines.products.plot import Panel, maps
from pipelines.products.tiles import Job


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """All that what is on the screen depends on.

    Attributes:
        loaded: The model.
        given: The coarse fields.
        time: Which of them.
        members, seed: Of the ensemble.
        quantity, level: What of the members is shown.
        seen: The window.
    """

    loaded: Loaded
    given: Given
    time: int
    members: int
    seed: int
    quantity: Quantity
    level: float
    seen: Seen

    @property
    def also(self) -> tuple[str, ...]:
        """What the command writes beside the members."""
        match self.quantity:
            case "component" | "spread":
                return (self.quantity,)
            case "quantile":
                return (f"q{round(100 * self.level):02d}",)
            case _:
                return ("component",)

    @property
    def stem(self) -> str:
        """Of the names of files."""
        return "downscaled-" + re.sub(r"[^0-9A-Za-z-]", "", label(self.given.times[self.time]))


def command(shown: Shown) -> str:
    """The command that makes what is shown."""
    window = shown.seen.window
    region = ",".join(f"{edge:.8g}" for edge in window.region)
    words = ["vamoh", "downscale", shown.loaded.name, shown.given.input, f"{shown.stem}.nc"]
    words += ["--resolution", f"{window.step_deg:.8g}", f"--region={region}"]
    words += ["--members", str(shown.members), "--seed", str(shown.seed), "--also", ",".join(shown.also)]
    if shown.given.name != "t2m":
        words += ["--variable", shown.given.name]
    return shlex.join(words)


def dataset(shown: Shown) -> xr.Dataset:
    """What the command writes of the time that is shown, of the values that are on the screen."""
    target = shown.seen.target
    job = Job(
        teller=shown.loaded.teller,
        field=coarse_field(shown),
        target=target,
        members=shown.members,
        seed=shown.seed,
        also=shown.also,
    )
    found = {name: (job.dims(each), each.of(shown.seen.answer)) for name, each in job.variables.items()}
    coords: dict[str, Any] = {"realization": np.arange(shown.members), "time": job.field["time"], **target.coords}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they stand in the file
        result = described(xr.Dataset(found, coords=coords), job)
    return apply_conventions(result, shown.given.conventions)


def coarse_field(shown: Shown) -> xr.DataArray:
    """The coarse field of the time that is shown."""
    given, lattice = shown.given, shown.given.lattice
    return xr.DataArray(
        given.coarse(np.array([shown.time])),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": given.times[[shown.time]],
            "latitude": ("latitude", lattice.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", lattice.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        name=given.name,
        attrs={"units": "K", "standard_name": "air_temperature", "long_name": "2 metre temperature"}
        | ({"cell_methods": given.cell_methods} if given.cell_methods else {}),
    )


def netcdf(data: xr.Dataset) -> io.BytesIO:
    """A data set as a file's content."""
    file = io.BytesIO()
    compressed = {str(name): {"zlib": True, "complevel": 1} for name in data.data_vars}
    data.to_netcdf(file, engine="h5netcdf", encoding=compressed)
    file.seek(0)
    return file


def png(drawn: tuple[Layer, Layer], shown: Shown) -> io.BytesIO:
    """Both maps as a picture."""
    names = {layer.label: layer for layer in drawn}
    panels = [
        Panel(
            field=_field(layer, shown), title=name.partition(":")[0], kind=layer.kind,
            scale="temperature" if layer.kind == "field" else "",
        )
        for name, layer in names.items()
    ]  # fmt: skip
    file = io.BytesIO()
    maps(panels, title=f"{label(shown.given.times[shown.time])} UTC").savefig(file, format="png", dpi=130)
    file.seek(0)
    return file


def _field(layer: Layer, shown: Shown) -> xr.DataArray:
    """A layer as `maps` draws it; longitudes as the map counts them."""
    target = replace(layer.target, longitude=shown.seen.window.shown(layer.target.longitude))
    units = "1" if layer.kind == "component" else "K"
    return xr.DataArray(
        layer.values, dims=("latitude", "longitude"),
        coords={"latitude": target.latitude, "longitude": target.longitude},
        attrs={"units": units, "long_name": "2 m temperature"},
    )  # fmt: skip
