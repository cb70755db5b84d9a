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
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.config import Config, Positive, Section, load_config

Values = dict[str, Any]
Kind = Literal["choice", "int", "float", "log"]
KINDS: tuple[Kind, ...] = ("choice", "int", "float", "log")


class Trial(Protocol):
    """What Optuna hands to a space that is defined as it runs."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int) -> int: ...  # noqa: D102
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...  # noqa: D102


class Dimension(Section):
    """One key's values: exactly one of the kinds.

    Attributes:
        choice: Any of these values.
        whole: `int` in the file: whole numbers from the first to the second, both included.
        number: `float` in the file: numbers between two.
        log: Positive numbers between two, uniform in their logarithm.
        when: Only where these other keys have one of these values; elsewhere the key keeps its value.
    """

    choice: tuple[Any, ...] | None = None
    whole: tuple[int, int] | None = Field(default=None, alias="int")
    number: tuple[float, float] | None = Field(default=None, alias="float")
    log: tuple[float, float] | None = None
    when: dict[str, tuple[Any, ...]] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        given = [kind for kind in KINDS if self._of(kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(KINDS)}, got {', '.join(given) or 'none'}")
        if self.kind == "choice" and not self.choice:
            raise ValueError("a choice needs at least one value")
        if self.kind != "choice" and self.ends[0] > self.ends[1]:
            raise ValueError(f"a range is [low, high], got {list(self.ends)}")
        if self.kind == "log" and self.ends[0] <= 0:
            raise ValueError(f"a logarithmic range needs positive ends, got {list(self.ends)}")
        return self

    @property
    def kind(self) -> Kind:
        """Which of them it is."""
        return next(kind for kind in KINDS if self._of(kind) is not None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of a range."""
        return self._of(self.kind) or ()

    def _of(self, kind: Kind) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = {
            "choice": self.choice,
            "int": self.whole,
            "float": self.number,
            "log": self.log,
        }[kind]
        return found

    def all(self) -> list[Any]:
        """Every value, of a choice or of whole numbers.

        Raises:
            ValueError: If there is no end of them.
        """
        if self.choice is not None:
            return list(self.choice)
        if self.whole is not None:
            return list(range(self.whole[0], self.whole[1] + 1))
        raise ValueError("a grid needs a choice or whole numbers, got a range of numbers: list values under `choice`")

    def draw(self, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """One value at random."""
        if self.kind in ("choice", "int"):
            return self.all()[int(rng.integers(len(self.all())))]
        low, high = self.ends
        if self.kind == "float":
            return float(rng.uniform(low, high))
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    def suggest(self, key: str, trial: Trial) -> Any:  # noqa: ANN401
        """One value, as Optuna's sampler would have it; choices of any type pass through it as JSON."""
        if self.kind == "choice":
            return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in self.ends]))
        low, high = self.ends
        if self.kind == "int":
            return trial.suggest_int(key, low, high)
        return trial.suggest_float(key, low, high, log=self.kind == "log")


class SpaceConfig(Section):
    """A sweep.

    Attributes:
        description: What it is for, in a sentence.
        train: The training preset, or YAML file, that is searched around.
        set: Values that every trial has, by key.
        search: What varies, by key; a key's `when` names keys before it.
        method: "tpe" learns from the trials so far, "random" does not, "grid" takes every combination.
        trials: How many; a grid has as many as it has.
        metric: What is minimised: a validation quantity.
        seed: Of the search.
        asha: Stop trials early that are behind others at the same epoch.
        grace: Validations that every trial is given.
        reduction: One in so many goes on at each rung.
    """

    description: str = ""
    train: str
    set: dict[str, Any] = {}
    search: dict[str, Dimension]
    method: Literal["tpe", "random", "grid"] = "tpe"
    trials: Positive = 20
    metric: Literal["validation_crps", "validation_rmse"] = "validation_crps"
    seed: Annotated[int, Field(ge=0)] = 0
    asha: bool = True
    grace: Positive = 2
    reduction: Annotated[int, Field(ge=2)] = 3

    @field_validator("search")
    @classmethod
    def _ordered(cls, search: dict[str, Dimension]) -> dict[str, Dimension]:
        if not search:
            raise ValueError("there is nothing to search")
        before: list[str] = []
        for key, dimension in search.items():
            unknown = [name for name in dimension.when if name not in before]
            if unknown:
                raise ValueError(f"{key}: `when` names {unknown[0]!r}, which is not searched before it")
            before.append(key)
        return search

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
        given = [f"{key}={json.dumps(value)}" for key, value in {**self.set, **values}.items()]
        return load_config(self.train, [*given, *overrides])

    def check(self, overrides: Sequence[str] = ()) -> None:
        """Try every choice and both ends of every range, each by itself.

        Raises:
            ValueError: If the training config knows no such key, or refuses a value.
        """
        self.config({}, overrides)
        for key, dimension in self.search.items():
            for value in dimension.ends:
                self.config({key: value}, overrides)
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


def load_space(source: str, overrides: Sequence[str] = ()) -> SpaceConfig:
    """A shipped sweep by its name, or a YAML file by its path, checked.

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
        raise ValueError(f"{source}: {place}: {message}") from error
    space.check(overrides)
    return space
