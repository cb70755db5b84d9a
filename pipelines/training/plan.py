"""What a config and a store determine together, before anything is trained: the plan of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.config import Config, ContextConfig
from pipelines.data.background import Background, spaced_fields
from pipelines.data.batches import Framing
from pipelines.data.coarsening import Kind, observed
from pipelines.data.domain import Geometry, Scaling, evenly, kind_of
from pipelines.data.means import block_means
from pipelines.data.normalize import Statistics, statistics
from pipelines.data.sphere import NUM_SUN_COVARIATES, Lattice
from pipelines.data.split import Split
from pipelines.data.static import StaticField, lapse, open_statics, with_slopes
from pipelines.data.store import Store
from pipelines.data.whole import WholeFraming
from vamoh.spec import LocationSpec, ModelSpec
from vamoh.systems import Model, Spec, new_model

SAMPLED_FIELDS = 64
TUNED_SETS = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, resolved against its data; plain values that a checkpoint can keep.

    Attributes:
        config: As given.
        spec: The model's shape, with what the data determine filled in.
        scaling: To the model's units.
        statistics: Of the training samples, in kelvin.
        geometry: Where the store's values stand.
        variable: Name of the values.
        fingerprint: Of the store's content.
        trained_from, trained_to: First and last training or validation sample: ISO time, or name.
        background: What whole fields are made with of what is known; None to interpolate it.
        statics: Fields that do not change, which the model is told at every place.
    """

    config: Config
    spec: Spec
    scaling: Scaling
    statistics: Statistics
    geometry: Geometry
    variable: str
    fingerprint: str
    trained_from: str
    trained_to: str
    background: Background | None = None
    statics: tuple[StaticField, ...] = ()

    @property
    def lattice(self) -> Lattice:
        """Where the values of fields on the sphere stand."""
        assert isinstance(self.geometry, Lattice)
        return self.geometry

    @property
    def framing(self) -> Framing | WholeFraming:
        """How this run's samples become batches."""
        return self.whole if self.config.context is None else self.downscaling

    @property
    def whole(self) -> WholeFraming:
        """How whole functions become batches."""
        return WholeFraming(
            scaling=self.scaling,
            points=self.config.training.points,
            bounded=self.spec.bounded,
            hidden=self.config.training.hidden,
            stretch=self.config.training.stretch,
            within=self.config.training.within,
            draw=evenly if self.spec.even_points else kind_of(self.spec.domain).draw,
        )

    @property
    def downscaling(self) -> Framing:
        """How fields with a context become batches, and how a downscaling model is asked."""
        context = self.config.context
        assert context is not None
        return Framing(
            scaling=self.scaling,
            factors=context.factors,
            points=self.config.training.points,
            kind=context.kind,
            noise=context.noise,
            background=self.background,
            statics=self.statics,
        )

    def new_model(self) -> Model:
        """The model at its start."""
        gridded = isinstance(self.spec, ModelSpec) and (self.spec.local is not None or self.spec.location is not None)
        support = support_points(self.lattice) if gridded else None
        return new_model(self.spec, support=support, seed=self.config.seed)


def split_of(config: Config, store: Store) -> Split:
    """The samples of `store` that train, validate and test under `config`."""
    return kind_of(store.domain).split(store.field, **config.split.model_dump(), seed=config.seed)


def make_plan(config: Config, store: Store, statics: Sequence[str] = ()) -> Plan:
    """Resolve a config against a store.

    Args:
        config, store: See there.
        statics: Files of fields that do not change (orography), for a model with a context.

    Raises:
        ValueError: If the store's kind, grid or length does not suit the config, or a static field not the store.
    """
    if config.model.domain != store.domain:
        raise ValueError(
            f"this config is for functions on the {config.model.domain} (model.domain), {store.path!r} is of the "
            f"{store.domain}: choose another preset or store"
        )
    kind, split = kind_of(store.domain), split_of(config, store)
    geometry = kind.geometry(store.field)
    if len(split.train) < config.training.batch_size:
        raise ValueError(
            f"a batch of {config.training.batch_size} needs as many training samples, {store.path!r} has "
            f"{len(split.train)}: lower training.batch_size"
        )
    known = np.sort(np.concatenate([split.train, split.validation]))
    times = store.field[store.field.dims[0]].values[known]
    numbers = statistics(store.field.isel({store.field.dims[0]: split.train}))
    if statics and config.context is None:
        raise ValueError("--static is for downscaling: the classic model is told nothing but the field")
    spec: Spec = config.model
    background: Background | None = None
    told: tuple[StaticField, ...] = ()
    if config.context is not None and spec.local is not None:
        if not isinstance(geometry, Lattice):
            raise ValueError(f"a context to downscale from is of fields on the sphere, {store.path!r} has none")
        lattice, factors = geometry, config.context.factors
        if min(lattice.shape) <= factors[1]:
            raise ValueError(
                f"every {factors[1]}th point of a {lattice.shape[0]} x {lattice.shape[1]} grid is no grid: "
                "lower context.every"
            )
        told = open_statics(statics, lattice)
        residual, told = _residual_std(store, split, lattice, factors, config.context.kind, told)
        if config.context.analysed and residual > 0:
            background, residual = _background(store, split, lattice, config.context, residual, config.seed)
        scaling = Scaling(offset=numbers.mean, scale=residual)
        spec = replace(
            spec,
            covariates=NUM_SUN_COVARIATES + config.context.analysed + len(told),
            context_scale=numbers.std / residual,
            local=replace(
                spec.local,
                spacing=lattice.spacing_rad,
                resolutions=_resolutions(lattice, spec.local.levels, spec.local.finest),
            ),
        )
    else:
        if config.training.stretch and isinstance(geometry, Lattice):
            raise ValueError("training.stretch is for shapes and pictures: a field on the sphere stays where it is")
        if config.training.within and isinstance(geometry, Lattice):
            raise ValueError("training.within is for shapes and pictures: a field's values are those of points")
        scaling = kind.scaling(numbers, bounded=spec.unit_interval)
        spec = replace(spec, channels=kind.channels(store.field))
        if isinstance(spec, ModelSpec) and spec.encoder.places == "region" and isinstance(geometry, Lattice):
            spec = replace(spec, encoder=replace(spec.encoder, region=geometry.region))
        if isinstance(spec, ModelSpec) and spec.location is not None:
            spec = replace(spec, location=_placed(spec.location, geometry))
    if not scaling.scale > 0:
        raise ValueError(f"the training samples of {store.path!r} do not vary: there is nothing to learn")
    return Plan(
        config=config,
        spec=spec,
        scaling=scaling,
        statistics=numbers,
        geometry=geometry,
        variable=store.variable,
        fingerprint=store.fingerprint,
        trained_from=kind.label(times[0]),
        trained_to=kind.label(times[-1]),
        background=background,
        statics=told,
    )


def _placed(location: LocationSpec, geometry: Geometry) -> LocationSpec:
    """With the resolutions that follow the grid."""
    if not isinstance(geometry, Lattice):
        raise ValueError("model.location is learned for fields on the sphere: leave it out for shapes and pictures")
    return replace(location, resolutions=_resolutions(geometry, location.levels, location.finest))


def support_points(lattice: Lattice) -> torch.Tensor:
    """The lattice with the midpoints between its points, [n, 3]: where feature grids must exist."""
    longitude = lattice.longitude
    if lattice.periodic:
        longitude = np.append(longitude, longitude[0] + 360.0)
    fine = Lattice(latitude=_midpoints(lattice.latitude), longitude=_midpoints(longitude))
    return torch.from_numpy(fine.coords.astype(np.float32))


def _midpoints(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(np.arange(2 * len(axis) - 1) / 2, np.arange(len(axis)), axis)


def _resolutions(lattice: Lattice, levels: int, finest: float) -> tuple[int, ...]:
    """Cells along a cube's edge for each level: the finest follows the grid, each other is half as fine."""
    cells = (np.pi / 2) / (lattice.spacing_rad * finest)
    return tuple(max(1, round(cells / 2**level)) for level in reversed(range(levels)))


def _background(
    store: Store, split: Split, lattice: Lattice, context: ContextConfig, residual: float, seed: int
) -> tuple[Background, float]:
    """What training fields have in common, and the root mean square of what it misses of them, kelvin."""
    chosen = split.train[spaced_fields(len(split.train), len(lattice.coords))]
    part = store.field.isel({store.field.dims[0]: chosen})
    background = Background.of(part.values, part[store.field.dims[0]].values, lattice)
    rng = np.random.default_rng(seed)
    number = TUNED_SETS if context.kind == "scattered" or context.factors[0] < context.factors[1] else 1
    sets = [observed(part.values[:1], lattice, context.factors, rng, context.kind)[1] for _ in range(number)]
    return background.tuned(sets, rng, residual)


def _residual_std(
    store: Store,
    split: Split,
    lattice: Lattice,
    factors: tuple[int, int],
    kind: Kind,
    told: tuple[StaticField, ...] = (),
) -> tuple[float, tuple[StaticField, ...]]:
    """Standard deviation of truth minus interpolated context, kelvin, over a sample of the training fields.

    Of static fields the slopes are fitted, and what they explain is taken off.
    """
    factor = round((factors[0] + factors[1]) / 2)
    coarse = lattice.every(factor)
    total, weight, explained = 0.0, 0.0, np.zeros(len(lattice.coords))
    if told:
        missed = []
        for field in _some_fields(store, split):
            values, coarse = _coarse(field, lattice, factor, kind)
            if np.isfinite(values).any():
                missed.append(field.ravel() - coarse.interpolate(values.reshape(1, -1), *lattice.points)[0])
        told = with_slopes(told, np.mean(missed, axis=0), lattice, coarse) if missed else told
        explained = lapse(told, lattice.points, coarse)
    for field in _some_fields(store, split):
        values, coarse = _coarse(field, lattice, factor, kind)
        known = values.reshape(1, -1)
        if not np.isfinite(known).any():
            continue
        squares = (field.ravel() - coarse.interpolate(known, *lattice.points)[0] - explained) ** 2
        seen = np.isfinite(squares)
        total += float((squares * lattice.area)[seen].sum())
        weight += float(lattice.area[seen].sum())
    return (float(np.sqrt(total / weight)) if weight else 0.0), told


def _coarse(field: NDArray[Any], lattice: Lattice, factor: int, kind: Kind) -> tuple[NDArray[Any], Lattice]:
    """What is known of a field [n, m] in training, where a factor is fixed."""
    if kind == "means":
        means, where = block_means(field[None], lattice, factor)
        return means[0], where
    return field[::factor, ::factor], lattice.every(factor)


def _some_fields(store: Store, split: Split) -> Iterator[NDArray[Any]]:
    places = np.linspace(0, len(split.train) - 1, min(SAMPLED_FIELDS, len(split.train))).round().astype(int)
    for place in split.train[places]:
        yield store.field.isel({store.field.dims[0]: int(place)}).values.astype(np.float64)
