"""A registered model as MLflow serves it: points and values in, members at other points out.

    inputs    coords [B, N, 2], values [B, N, 1], query [B, Q, 2]; latitude and longitude in degrees, kelvin
    params    members M, seed, time (ISO 8601, UTC; one for each field, or one for all)
    answer    [B, M, Q] kelvin, to a tenth of a millikelvin

A model that downscales is given the points of a latitude-longitude grid in any order, null where a value is missing; if
it was trained on scattered points, any points. A classic one completes the field from any points. A member is the
function that it is everywhere else: `vamoh downscale` with the same seed gives the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel
from numpy.typing import NDArray

from pipelines.data.grid import goes_round
from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice, unit_vectors
from pipelines.data.units import PLAUSIBLE_K
from pipelines.products.ensemble import Downscaler, draw_member
from pipelines.products.server_guard import guard_next_server
from pipelines.products.targets import Target, check_inside
from pipelines.training.checkpoint import load_checkpoint
from vamoh import FunctionBatch

Array = NDArray[np.float64]
MOST_MEMBERS, DECIMALS = 1000, 4


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request, checked.

    Attributes:
        coords, query: [B, N, 2] and [B, Q, 2], latitude and longitude in degrees.
        values: [B, N] kelvin, NaN where missing.
        times: [B] dates, None where none were given.
        members, seed: Of the ensembles.
    """

    coords: Array
    values: Array
    query: Array
    times: NDArray[np.datetime64] | None
    members: int
    seed: int

    @classmethod
    def of(cls, inputs: Mapping[str, NDArray[Any]], params: Mapping[str, Any], most_values: int) -> Question:
        """Check what was asked.

        Args:
            inputs: coords, values and query, as above.
            params: members, seed and time.
            most_values: B M Q may be this much.

        Raises:
            ValueError: If it cannot be answered.
        """
        coords, values, query = (np.asarray(inputs[name], np.float64) for name in ("coords", "values", "query"))
        members, seed = (_whole(name, params.get(name)) for name in ("members", "seed"))
        for name, array, last in (("coords", coords, 2), ("values", values, 1), ("query", query, 2)):
            if array.ndim != 3 or array.shape[2] != last or array.shape[0] != len(coords) or not array.size:
                raise ValueError(
                    f"{name} must be [fields, points, {last}] with as many fields as coords, got {list(array.shape)}"
                )
        if values.shape[1] != coords.shape[1]:
            raise ValueError(f"coords has {coords.shape[1]} points, values has {values.shape[1]}: one value a point")
        if not 1 <= members <= MOST_MEMBERS:
            raise ValueError(f"members must be 1 to {MOST_MEMBERS}, got {members}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        asked = len(query) * members * query.shape[1]
        if asked > most_values:
            raise ValueError(f"fields x members x query points may be {most_values}, got {asked}: ask in several parts")
        for name, places in (("coords", coords), ("query", query)):
            latitude, longitude = places[..., 0], places[..., 1]
            if not (np.abs(latitude) <= 90).all() or not (np.abs(longitude) <= 360).all():  # NaN is not either
                raise ValueError(f"{name} holds a place that is not on Earth: latitude first, then longitude, degrees")
        seen = ~np.isnan(values)
        if not seen.any(axis=(1, 2)).all():
            raise ValueError("values has a field without any value: leave it out")
        low, high = float(values[seen].min()), float(values[seen].max())
        if not PLAUSIBLE_K[0] <= low <= high <= PLAUSIBLE_K[1]:
            raise ValueError(f"values must be temperatures in kelvin, got {low:g} to {high:g}")
        times = _times([str(text) for text in params.get("time", [])], len(coords))
        return cls(coords=coords, values=values[..., 0], query=query, times=times, members=members, seed=seed)

    @cached_property
    def parts(self) -> list[slice]:
        """Fields that share their points, to be answered at once: all of them, or each by itself."""
        alike = all(bool((points == points[:1]).all()) for points in (self.coords, self.query))
        return [slice(None)] if alike else [slice(row, row + 1) for row in range(len(self.coords))]


class PointServer(PythonModel):
    """What answers; MLflow makes it from a model's folder, which is a checkpoint's.

    Args:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._most_values = 0

    def load_context(self, context: Any) -> None:  # noqa: ANN401 - MLflow's PythonModelContext
        """Load the model, and limit the requests of the server that loads it."""
        limits = context.model_config
        self._most_values = int(limits["max_values"])
        guard_next_server(int(limits["max_request_bytes"]))
        checkpoint, model = load_checkpoint(self._folder)
        if checkpoint.plan.spec.domain != "sphere":
            raise ValueError("only models of fields on the sphere are served: use `vamoh sample` or `vamoh complete`")
        self._teller = Downscaler(checkpoint=checkpoint, model=model.eval(), origin={})

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Answer one request; MLflow would read type hints as the request's schema, so there are none.

        Args:
            context: Unused.
            model_input: coords, values and query.
            params: members, seed and time.

        Returns:
            [B, M, Q] kelvin.

        Raises:
            MlflowException: With status 400 and the reason, if it cannot be answered.
        """
        try:
            question = Question.of(model_input, params or {}, self._most_values)
            return answer(self._teller, question)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def answer(teller: Downscaler, question: Question) -> Array:
    """Members at the places of the query, [B, M, Q] kelvin.

    Raises:
        ValueError: If the model cannot be asked this.
    """
    tell = _completed if teller.model.local is None else _downscaled
    values = np.concatenate([tell(teller, question, part) for part in question.parts])
    return np.asarray(np.round(values.astype(np.float64), DECIMALS), np.float64)


def grid_of(coords: Array, values: Array) -> tuple[Lattice, Array] | None:
    """The grid that points make up, whatever their order, and the fields on it; None if they are no grid.

    Args:
        coords: [N, 2] degrees.
        values: [B, N].

    Returns:
        The grid of n latitudes and m longitudes, and [B, n, m].
    """
    turned = np.mod(np.round(np.mod(coords[:, 1], 360.0), 6), 360.0)
    latitude, row = np.unique(-np.round(coords[:, 0], 6), return_inverse=True)
    longitude, column = np.unique(turned, return_inverse=True)
    place = row * len(longitude) + column
    if len(latitude) * len(longitude) != len(coords) or len(np.unique(place)) != len(coords):
        return None
    first = 0 if goes_round(longitude) else (int(np.argmax(np.diff(longitude, append=longitude[0] + 360.0))) + 1)
    first %= len(longitude)
    onwards = np.concatenate([longitude[first:], longitude[:first] + 360.0])
    fields = np.empty_like(values)
    fields[:, place] = values
    fields = np.roll(fields.reshape(len(values), len(latitude), len(longitude)), -first, axis=2)
    return Lattice(latitude=-latitude, longitude=onwards), fields


def _downscaled(teller: Downscaler, question: Question, part: slice) -> NDArray[np.float32]:
    if question.times is None:
        raise ValueError(
            'params.time must say when, a time for each field or one for all, such as ["2019-03-25T12:00"]'
        )
    coords, values, query = question.coords[part][0], question.values[part], question.query[part][0]
    given: Lattice | Scatter
    grid = grid_of(coords, values)
    if grid is not None:
        given, values = grid
        check_inside(Target(latitude=query[:, 0], longitude=query[:, 1], names=("",) * len(query)), given)
    elif teller.checkpoint.plan.downscaling.kind == "scattered":
        given, values = Scatter(latitude=coords[:, 0], longitude=coords[:, 1]), values[:, None]
    else:
        raise ValueError(
            "coords must be the points of a latitude-longitude grid, each once, in any order (null where a value is "
            f"missing), got {len(coords)} points that are none; a model of preset `scattered` takes any"
        )
    ensemble = teller.ensemble(values, given, question.times[part], members=question.members, seed=question.seed)
    return ensemble.at(*query.T)[0].swapaxes(0, 1)


@torch.no_grad()
def _completed(teller: Downscaler, question: Question, part: slice) -> NDArray[np.float32]:
    """The mixture's mean for latents of the posterior; members differ by their latents alone."""
    plan, model = teller.checkpoint.plan, teller.model
    scaled = plan.scaling.to_model(question.values[part])
    scaled = scaled.clamp(0, 1) if plan.spec.bounded else scaled
    batch = FunctionBatch(
        coords=_coords(question.coords[part][0]), values=scaled[..., None], observed=torch.isfinite(scaled)
    )
    query = FunctionBatch(coords=_coords(question.query[part][0]))
    mean, log_scale = model.posterior(batch)
    drawn = [draw_member(question.seed, number, plan.spec.latent).noise for number in range(question.members)]
    members = [model.decode(mean + log_scale.exp() * noise, query).mean[..., 0] for noise in drawn]
    return plan.scaling.to_kelvin(torch.stack(members, dim=1)).astype(np.float32)


def _coords(places: Array) -> torch.Tensor:
    return torch.from_numpy(unit_vectors(*places.T).astype(np.float32))[None]


def _whole(name: str, value: object) -> int:
    """A parameter that is a whole number."""
    if not isinstance(value, int | np.integer):
        raise ValueError(f"params.{name} must be a whole number, got {value!r}")
    return int(value)


def _times(texts: list[str], fields: int) -> NDArray[np.datetime64] | None:
    """UTC dates, one for each field."""
    if not texts:
        return None
    if len(texts) not in (1, fields):
        raise ValueError(
            f"params.time must have one time for each of {fields} fields, or one for all, got {len(texts)}"
        )
    found = []
    for text in texts:
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"params.time must be ISO 8601 such as 2019-03-25T12:00, got {text!r}") from error
        found.append(time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None))
    return np.broadcast_to(np.array(found, dtype="datetime64[s]"), fields)
