"""One key's values in a search space: a choice, whole numbers, or numbers, uniform in themselves or their logarithm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from pipelines.config import Section

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

    def holds(self, value: Any) -> bool:  # noqa: ANN401
        """Whether a value is one of these."""
        if self.kind == "choice":
            return json.dumps(value) in [json.dumps(each) for each in self.ends]
        whole = (int,) if self.kind == "int" else (int, float)
        return isinstance(value, whole) and not isinstance(value, bool) and self.ends[0] <= value <= self.ends[1]

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
