"""What a downscaled data set holds beside the members: each variable a function of what the model answered.

component    the generator that most probably explains a place
entropy      of the mixing weights: where the generators share a place
spread       the members' standard deviation
q05, q95...  the members' quantiles, any two digits
gradient     of each member, in K/km, eastward and northward
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT = ("component",)
_QUANTILE = re.compile(r"q(\d\d)")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says of some places at some times.

    Attributes:
        values: [M, T, ...] kelvin.
        weights: [T, ..., K], how probable each component is, the members' mean.
        gradient: [M, T, ..., 2] K/km eastward and northward, where it was asked for.
    """

    values: NDArray[np.float32]
    weights: NDArray[np.float32]
    gradient: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable of the result.

    Attributes:
        of: Its values [M, T, ...] or [T, ...].
        each_member: Whether it has the dimension realization.
        dtype: Of its values.
        attrs: By the CF conventions.
    """

    of: Callable[[Answer], NDArray[Any]]
    each_member: bool = False
    dtype: type = np.float32
    attrs: dict[str, Any] = field(default_factory=dict)


def variables(name: str, also: Iterable[str], members: int) -> dict[str, Variable]:
    """The variables of a result by their names.

    Args:
        name: The temperature's.
        also: What is wanted beside the members.
        members: M.

    Raises:
        ValueError: If something else is asked for, or something that needs more members.
    """
    kelvin = {"standard_name": "air_temperature", "units": "K", "units_metadata": "temperature: on_scale"}
    found = {
        name: Variable(
            of=lambda answer: answer.values,
            each_member=True,
            attrs=kelvin | {"long_name": "2 metre temperature", "cell_methods": "realization: point"},
        )
    }
    for word in also:
        if word == "component":
            found["component"] = Variable(of=_component, dtype=np.int8, attrs=_COMPONENT)
        elif word == "entropy":
            found["component_entropy"] = Variable(of=_entropy, attrs=_ENTROPY)
        elif word == "gradient":
            for axis, toward in enumerate(("east", "north")):
                found[f"{name}_gradient_{toward}"] = _gradient(axis, toward)
        elif word == "spread" or _QUANTILE.fullmatch(word):
            if members < 2:
                raise ValueError(f"{word} is of an ensemble: ask for at least 2 members, got {members}")
            found[f"{name}_{word}"] = _spread(kelvin) if word == "spread" else _quantile(word, kelvin)
        else:
            raise ValueError(
                f"what there is beside the members is component, entropy, spread, gradient and quantiles such as q05, "
                f"got {word!r}"
            )
    return found


_COMPONENT = {"long_name": "most probable mixture component", "units": "1"}
_ENTROPY = {"long_name": "entropy of the mixture components' weights, natural logarithm", "units": "1"}


def _component(answer: Answer) -> NDArray[Any]:
    return answer.weights.argmax(axis=-1).astype(np.int8)


def _entropy(answer: Answer) -> NDArray[Any]:
    # rounding may leave the sum of the weights a little above one
    return -(answer.weights * np.log(np.clip(answer.weights, 1e-12, 1.0))).sum(axis=-1)


def _spread(kelvin: dict[str, str]) -> Variable:
    attrs = kelvin | {
        "long_name": "standard deviation of the members",
        "units_metadata": "temperature: difference",
    }
    return Variable(of=lambda answer: answer.values.std(axis=0, ddof=1), attrs=attrs)


def _quantile(word: str, kelvin: dict[str, str]) -> Variable:
    level = int(word[1:]) / 100
    attrs = kelvin | {"long_name": f"{int(word[1:])} % quantile of the members"}
    return Variable(
        of=lambda answer: np.quantile(answer.values, level, axis=0).astype(np.float32),
        attrs=attrs,
    )


def _gradient(axis: int, toward: str) -> Variable:
    def of(answer: Answer) -> NDArray[Any]:
        assert answer.gradient is not None
        return answer.gradient[..., axis]

    attrs = {
        "long_name": f"{toward}ward gradient of 2 metre temperature",
        "units": "K km-1",
        "units_metadata": "temperature: difference",
        "cell_methods": "realization: point",
    }
    return Variable(of=of, each_member=True, attrs=attrs)
