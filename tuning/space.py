"""What a sweep searches: a typed space in YAML, checked against the training config before anything starts.

description: Mixture components against flow depth.
train: downscale                                    # the preset or file that is searched around
set: {training.epochs: 40}                          # fixed in every trial
search:
model.components: {int: [1, 10]}
model.flow_depth: {choice: [0, 4, 16, 80]}
training.learning_rate: {log: [1.0e-4, 1.0e-2]}
training.beta: {float: [0.2, 2.0], when: {model.components: [2, 3]}}
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.config import Config, Positive, Section, load_config
from pipelines.quantities import SIGNS, Quantity
from tuning.dimension import KINDS, Dimension, Trial

Values = dict[str, Any]
# What may change while a model trains, and so be searched by a population.
CHANGEABLE = tuple(
    f"training.{key}"
    for key in ("learning_rate", "local_rate", "grid_rate", "weight_decay", "grid_decay", "clip", "beta", "predictive")
)


class SpaceConfig(Section):
    """A sweep.

    Attributes:
        description: What it is for, in a sentence.
        train: The training preset, or YAML file, that is searched around.
        set: Values that every trial has, by key.
        search: What varies, by key; a key's `when` names keys before it.
        method: "tpe" learns from the trials so far, "random" does not, "grid" takes every combination; "pbt" trains a
            population, of which the worst go on from the best with other rates.
        trials: How many combinations; a grid has as many as it has.
        defaults: Try first what the training run has by itself, where that lies in the space: what the others are
            measured by. A grid and a population have places of their own.
        seeds: Trials of each combination, which differ by the seed of the training run alone.
        metric: What is searched for: the least, or for scores and bounds the greatest, of a validation quantity.
        against: A second thing to be small, for a front of combinations none of which is worse in both.
        seed: Of the search.
        asha: Stop trials early that are behind others at the same epoch; not where there is a front, or a population.
        grace: Validations that every trial is given.
        reduction: One in so many goes on at each rung.
        interval: Validations between a population's changes.
    """

    description: str = ""
    train: str
    set: dict[str, Any] = {}
    search: dict[str, Dimension]
    method: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    trials: Positive = 20
    defaults: bool = True
    seeds: Positive = 1
    metric: Quantity = "validation_crps"
    against: Literal["seconds_per_sample"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    asha: bool = True
    grace: Positive = 2
    reduction: Annotated[int, Field(ge=2)] = 3
    interval: Positive = 1

    @field_validator("search")
    @classmethod
    def _ordered(cls, search: dict[str, Dimension]) -> dict[str, Dimension]:
        if not search:
            raise ValueError("there is nothing to search")
        if "training.select" in search:
            raise ValueError("training.select is the sweep's metric: it cannot be searched")
        before: list[str] = []
        for key, dimension in search.items():
            unknown = [name for name in dimension.when if name not in before]
            if unknown:
                raise ValueError(f"{key}: `when` names {unknown[0]!r}, which is not searched before it")
            before.append(key)
        return search

    @model_validator(mode="after")
    def _agrees(self) -> SpaceConfig:
        both = [key for key in self.search if key in self.set]
        if both:
            raise ValueError(f"{both[0]} is searched: it cannot be set too")
        if self.method != "pbt":
            return self
        fixed = [key for key in self.search if key not in CHANGEABLE]
        if fixed:
            raise ValueError(
                f"a population changes what may change in training ({', '.join(CHANGEABLE)}), not {fixed[0]}: "
                "give it under `set`, or search by tpe"
            )
        if self.seeds > 1 or self.against is not None or any(each.when for each in self.search.values()):
            raise ValueError("a population has one seed a member, one metric, and no `when`")
        return self

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the least or the greatest of the metric is searched for."""
        return "min" if SIGNS[self.metric] > 0 else "max"

    @property
    def total(self) -> int:
        """Trials in all, those of all seeds."""
        return self.seeds * (len(self.grid()) if self.method == "grid" else self.trials)

    def own(self) -> Values | None:
        """What the training run has by itself; None where that is not asked for, or does not lie in the space."""
        if not self.defaults or self.method not in ("tpe", "random"):
            return None
        tree = self.config({}).model_dump(mode="json")
        values: Values = {}
        for key, dimension in self.search.items():
            value: Any = tree
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if self._applies(key, values):
                if not dimension.holds(value):
                    return None
                values[key] = value
        return values

    def grid(self) -> list[Values]:
        """Every combination, those without meaning left out."""
        whole = [dict(zip(self.search, each, strict=True)) for each in itertools.product(*self._all())]
        kept = [{key: each[key] for key in self.search if self._applies(key, each)} for each in whole]
        return [each for number, each in enumerate(kept) if each not in kept[:number]]

    def draw(self, rng: np.random.Generator) -> Values:
        """A combination at random."""
        values: Values = {}
        for key, dimension in self.search.items():
            if self._applies(key, values):
                values[key] = dimension.draw(rng)
        return values

    def suggest(self, trial: Trial) -> Values:
        """A combination, as Optuna's sampler would have it."""
        values: Values = {}
        for key, dimension in self.search.items():
            if self._applies(key, values):
                values[key] = dimension.suggest(key, trial)
        return values

    def config(self, values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
        """The training config of a trial."""
        given = {**self.set, **values, "training.select": self.metric}
        return load_config(self.train, [*(f"{key}={json.dumps(value)}" for key, value in given.items()), *overrides])

    def check(self) -> None:
        """Try every choice and both ends of every range, each by itself.

        Raises:
            ValueError: If the training config knows no such key, or refuses a value.
        """
        self.config({})
        for key, dimension in self.search.items():
            for value in dimension.ends:
                self.config({key: value})
        if self.method == "grid":
            self.grid()

    def _all(self) -> list[list[Any]]:
        found = []
        for key, dimension in self.search.items():
            try:
                found.append(dimension.all())
            except ValueError as error:
                raise ValueError(f"search.{key}: {error}") from error
        return found

    def _applies(self, key: str, values: Mapping[str, Any]) -> bool:
        return all(values.get(name) in wanted for name, wanted in self.search[key].when.items())


def spaces() -> list[str]:
    """Names of the shipped sweeps."""
    folder = resources.files("tuning") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_space(source: str, overrides: Sequence[str] = (), **changes: Any) -> SpaceConfig:  # noqa: ANN401 - any field
    """A shipped sweep by its name, or a YAML file by its path, checked.

    Args:
        source: Name or path.
        overrides: `key=value`: what every trial has, beside the file's `set`.
        changes: Of the file's other keys, such as `trials`; None changes nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown or a value is out of range, here or in the training config.
    """
    path = Path(source)
    if source in spaces():
        text = (resources.files("tuning") / "presets" / f"{source}.yaml").read_text()
    elif path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {source}: give a sweep ({', '.join(spaces())}) or a YAML file")
        text = path.read_text()
    else:
        raise ValueError(f"there is no sweep {source!r}: they are {', '.join(spaces())}; or give a YAML file")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{source} must hold keys and values, got {type(tree).__name__}")
    if changes.get("trials") is not None and (changes.get("method") or tree.get("method")) == "grid":
        raise ValueError(f"{source} is a grid, it has as many trials as combinations: leave out --trials")
    tree |= {key: value for key, value in changes.items() if value is not None}
    if overrides:
        tree["set"] = {**(tree.get("set") or {}), **_settings(overrides)}
    try:
        space = SpaceConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            valid = KINDS if first["loc"][0] == "search" else tuple(SpaceConfig.model_fields)
            near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1, cutoff=0.4)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
        raise ValueError(f"{source}: {place + ': ' if place else ''}{message}") from error
    space.check()
    return space


def _settings(overrides: Sequence[str]) -> Values:
    """Read `key=value`."""
    found: Values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ValueError(f"--set expects key=value such as training.epochs=20, got {override!r}")
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {override}: {text!r} is not a YAML value") from error
    return found
