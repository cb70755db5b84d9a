"""What the products must know of a kind of data, behind one Protocol; one module a kind answers to it.

What training knows of a kind stands in pipelines/data/domain.py. Here is how a result is called, written, drawn and
scored, and how what is to be completed is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.domain import Geometry
from pipelines.data.store import Store
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.plan import Plan
from vamoh.systems import Model

# Places [n, D] -> what a function is there [n, C + 1]: its values in the store's units, and its component's number.
Ask = Callable[[NDArray[np.floating]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Functions that a model made.

    Attributes:
        values: [I, R, N, C] in the store's units: I items, R realizations of each.
        components: [I, R, N], the most probable component at each place.
        geometry: Of the N places.
        items: [I] dates or names; None where they are drawn from the prior.
    """

    values: NDArray[np.float32]
    components: NDArray[np.uint8]
    geometry: Geometry
    items: NDArray[Any] | None


class ProductKind(Protocol):
    """A kind of data, as users meet it.

    Attributes:
        values: The name of what is generated, the first variable of every data set of it.
        writers: How a data set is written to a file of a suffix, beside the common ones (.nc .zarr .npz .png).
    """

    values: str
    writers: Mapping[str, Callable[[xr.Dataset, Path], None]]

    def read(self, source: str | xr.DataArray, plan: Plan) -> xr.DataArray:
        """What is to be completed, (item, *grid) or (item, *grid, channel) with the store's dimensions; NaN is missing.

        Raises:
            ValueError: If it is no such thing.
        """

    def at(self, geometry: Geometry, resolution: float) -> Geometry:
        """The same domain at another resolution, as `--resolution` says it.

        Raises:
            ValueError: If there is no such resolution.
        """

    def evaluated(self, ask: Ask, geometry: Geometry) -> NDArray[np.float32]:
        """A function everywhere on a geometry [N, C + 1]; at fewer places where the rest follows from them."""

    def named(self, made: Generated, plan: Plan) -> xr.Dataset:
        """Functions by their names: variable `values` (item, realization, *grid(, channel)), and `component`."""

    def figure(self, dataset: xr.Dataset) -> Figure:
        """A picture of such a data set."""

    def illustration(self, checkpoint: Checkpoint, network: Model, store: Store, sample: int) -> Figure:
        """What a model that was just trained makes of a sample of its store."""

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
        """How well samples of a store are reconstructed and completed, and how good new ones are, beside baselines.

        Args:
            checkpoint, network: The model.
            store, chosen: The samples to score.
            learned: The samples that it learned from; None where they are not known.
            members: Completions of each.
            seed: Of all draws.

        Returns:
            Tables of scores, by name: {table: {system: {metric: value}}}, and plain facts.
        """


KINDS: Mapping[str, tuple[str, str]] = {
    "sphere": ("pipelines.products.field_products", "FieldProducts"),
    "cube": ("pipelines.products.shape_products", "ShapeProducts"),
    "plane": ("pipelines.products.image_products", "ImageProducts"),
}


def products_of(domain: str) -> ProductKind:
    """The kind of data that lives on a domain."""
    module, name = KINDS[domain]
    found: ProductKind = getattr(import_module(module), name)()
    return found


def names_of(field: xr.DataArray) -> Sequence[Any]:
    """The samples of a field, by their coordinate or by their numbers."""
    first = field.dims[0]
    return list(field[first].values) if first in field.coords else list(range(field.shape[0]))
