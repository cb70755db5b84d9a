"""Fields on the sphere, as users meet them: NetCDF in and out, maps, and scores beside the training mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.climate import open_field
from pipelines.data.domain import Geometry
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.data.times import label
from pipelines.data.whole import query
from pipelines.products import plot, skill
from pipelines.products.generate import batch_of
from pipelines.products.inference import inferred
from pipelines.products.kinds import Ask, Generated
from pipelines.products.plot import Panel
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.energy import energy_distance
from pipelines.training.plan import Plan
from pipelines.training.systems import system_of
from vamoh.systems import Model

AT_ONCE, SHOWN = 8, 6
_AXES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


class FieldProducts:
    """See `ProductKind`."""

    values = "t2m"
    writers: Mapping[str, Callable[[xr.Dataset, Path], None]] = {}

    def read(self, source: str | xr.DataArray, plan: Plan) -> xr.DataArray:
        """A temperature field with gaps, in any of the forms that `vamoh data climate` takes."""
        return open_field(source, None if isinstance(source, xr.DataArray) else plan.variable).load()

    def at(self, geometry: Geometry, resolution: float) -> Lattice:
        """A grid of so many degrees over the same region."""
        assert isinstance(geometry, Lattice)
        if not 0 < resolution <= 90:
            raise ValueError(f"--resolution must be above 0 and at most 90 degrees, got {resolution:g}")
        return geometry.at(resolution)

    def evaluated(self, ask: Ask, geometry: Geometry) -> NDArray[np.float32]:
        """Everywhere."""
        return ask(geometry.coords)

    def named(self, made: Generated, plan: Plan) -> xr.Dataset:
        """t2m (item, realization, latitude, longitude) in kelvin; items are times where they have any."""
        lattice = made.geometry
        assert isinstance(lattice, Lattice)
        first = "sample" if made.items is None else "time"
        shape = (*made.values.shape[:2], *lattice.shape)
        dims = (first, "realization", "latitude", "longitude")
        temperature = {"long_name": "2 metre temperature", "standard_name": "air_temperature", "units": "K"}
        return xr.Dataset(
            {
                self.values: (dims, made.values[..., 0].reshape(shape), temperature),
                "component": (dims, made.components.reshape(shape), {"long_name": "most probable component"}),
            },
            {
                first: np.arange(shape[0]) if made.items is None else made.items,
                "latitude": ("latitude", lattice.latitude, _AXES["latitude"]),
                "longitude": ("longitude", lattice.longitude, _AXES["longitude"]),
            },
            {"Conventions": "CF-1.11"},
        )

    def figure(self, dataset: xr.Dataset) -> Figure:
        """Maps of the first fields."""
        field = dataset[self.values]
        stacked = field.stack(each=[dim for dim in field.dims if dim not in _AXES]).transpose("each", *_AXES)
        panels = [
            Panel(
                field=one.drop_vars(set(one.coords) - {*_AXES}).assign_attrs(units="K"),
                title=str(number + 1),
                scale="field",
            )
            for number, one in enumerate(stacked[:SHOWN])
        ]
        return plot.maps(panels, title=dataset.attrs.get("history", "").split(": ")[-1])

    def illustration(self, checkpoint: Checkpoint, network: Model, store: Store, sample: int) -> Figure:
        """A field, its reconstruction and error where the system infers, and two fields from the prior."""
        truth, plan = store.field.isel(time=[sample]).load(), checkpoint.plan
        dated = label(truth["time"].values[0])
        panels = [Panel(field=truth[0], title=f"Truth, {dated}", scale="field")]
        if system_of(plan.spec).ways:
            again = reconstructed(network, plan, truth)
            error = (again - truth)[0].assign_attrs(units=store.units)
            panels += [
                Panel(field=again[0].assign_attrs(truth.attrs), title="Reconstruction", scale="field"),
                Panel(field=error, title="Error: reconstruction minus truth", kind="error"),
            ]
        noise = torch.randn(2, plan.spec.latent, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            drawn = plan.scaling.to_kelvin(network.sample(noise, query(plan.geometry)).mean[..., 0])
        for number, values in enumerate(drawn, start=1):
            field = truth[0].copy(data=values.reshape(truth.shape[1:]))
            panels.append(Panel(field=field, title=f"Sample {number} from the prior", scale="field"))
        return plot.maps(panels, title="What the model makes of a field, and fields of its own")

    def scores(
        self,
        checkpoint: Checkpoint,
        network: Model,
        store: Store,
        chosen: NDArray[np.int64],
        learned: tuple[Store, NDArray[np.int64]] | None,
        *,
        members: int,
        seed: int,
    ) -> dict[str, Any]:
        """Reconstructions of whole fields, and of their eastern halves given the western ones; samples beside truth."""
        truth = store.field.isel(time=chosen).load()
        east = slice(truth.shape[2] // 2, None)
        half = truth.copy(deep=True)
        half[..., east] = np.nan
        plan = checkpoint.plan
        ways = system_of(plan.spec).ways
        whole, completed = (
            {way: reconstructed(network, plan, given, steps=steps, seed=seed) for way, steps in ways.items()}
            for given in (truth, half)
        )
        mean = None if learned is None else _mean(*learned, truth)
        if mean is not None:
            whole["training mean"] = completed["training mean"] = mean
        tables = {
            key: {name: skill.scores_of(field, truth, weighted=weighted) for name, field in whole.items()}
            for key, weighted in (("scores", True), ("scores_unweighted", False))
        }
        tables["completion_of_the_eastern_half"] = {
            name: skill.scores_of(field[..., east], truth[..., east]) for name, field in completed.items()
        }
        tables["new_fields"] = _sampled(network, plan, truth, learned if mean is not None else None, seed)
        return tables


def _sampled(
    network: Model, plan: Plan, truth: xr.DataArray, learned: tuple[Store, NDArray[np.int64]] | None, seed: int
) -> dict[str, dict[str, float]]:
    """The energy distance between the truth and as many new fields, and as many training fields drawn at random."""
    lattice, rng = Lattice.of(truth), np.random.default_rng(seed)
    noise = torch.randn(len(truth), plan.spec.latent, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        drawn = [network.sample(part, query(lattice)).mean for part in noise.split(AT_ONCE)]
    fields: dict[str, NDArray[np.floating]] = {plan.spec.system: plan.scaling.to_kelvin(torch.cat(drawn))[..., 0]}
    if learned is not None:
        store, index = learned
        picked = np.sort(rng.choice(index, len(truth), replace=len(index) < len(truth)))
        fields["training fields"] = store.field.isel(time=picked).values.reshape(len(truth), -1)
    area, wanted = torch.from_numpy(lattice.area), torch.from_numpy(truth.values.reshape(len(truth), -1, 1))
    seen = torch.isfinite(wanted[..., 0])
    found = {}
    for name, each in fields.items():
        known = torch.from_numpy(np.nan_to_num(each, nan=0.0))[..., None]
        found[name] = {"energy_distance": energy_distance(known, wanted, area, seen)}
    return found


def reconstructed(
    network: Model, plan: Plan, fields: xr.DataArray, *, steps: int | None = 0, seed: int = 0
) -> xr.DataArray:
    """A classic model's mean of fields at the inferred latent's mean, given what is there of them (`inferred`)."""
    lattice, parts = Lattice.of(fields), []
    latents = inferred(network, plan, batch_of(plan, fields), lattice, steps=steps, seed=seed).mean
    for part in latents.split(AT_ONCE):
        with torch.no_grad():
            mean = network.decode(part, query(lattice)).mean
        parts.append(plan.scaling.to_kelvin(mean[..., 0]))
    return fields.copy(data=np.concatenate(parts).reshape(fields.shape))


def _mean(store: Store, learned: NDArray[np.int64], truth: xr.DataArray) -> xr.DataArray | None:
    """The mean of what was learned from, for every time; None where it stands on another grid."""
    fields = store.field.isel(time=learned)
    if not all(np.array_equal(fields[axis].values, truth[axis].values) for axis in _AXES):
        return None
    return fields.mean("time").load().broadcast_like(truth).transpose(*truth.dims)
