"""Temperature units: every field leaves the data layer in kelvin, and nothing is guessed about what it came in.

A field without units is refused, and so is one whose units are no temperature. Whether the stated units can be true is
checked on the values themselves, when they are read: a 2 m temperature lies between 100 and 400 K.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["K", "degC", "degF"]

PLAUSIBLE_K = (100.0, 400.0)
# Where the temperatures of the Earth's atmosphere are found: tells which other unit would explain a wrong range.
_USUAL_K = (170.0, 340.0)

_SPELLINGS: dict[Unit, frozenset[str]] = {
    "K": frozenset({"k", "kelvin", "kelvins", "degk", "deg_k", "degree_k", "degrees_k", "degree_kelvin",
                    "degrees_kelvin", "°k"}),
    "degC": frozenset({"c", "celsius", "centigrade", "degc", "deg_c", "degree_c", "degrees_c", "degree_celsius",
                       "degrees_celsius", "deg_celsius", "°c", "℃"}),
    "degF": frozenset({"f", "fahrenheit", "degf", "deg_f", "degree_f", "degrees_f", "degree_fahrenheit",
                       "degrees_fahrenheit", "deg_fahrenheit", "°f", "℉"}),
}  # fmt: skip
_SCALE_AND_OFFSET: dict[Unit, tuple[float, float]] = {
    "K": (1.0, 0.0),
    "degC": (1.0, 273.15),
    "degF": (5.0 / 9.0, 459.67 * 5.0 / 9.0),
}


def temperature_unit(spelling: str) -> Unit | None:
    """Recognise a CF, UDUNITS or everyday spelling of a temperature unit.

    >>> temperature_unit("degrees_Celsius"), temperature_unit("Pa")
    ('degC', None)
    """
    key = "_".join(spelling.strip().lower().split())
    return next((unit for unit, spellings in _SPELLINGS.items() if key in spellings), None)


def resolve_unit(variable: str, declared: str | None, override: str | None) -> Unit:
    """Decide which unit a variable's values are in.

    Args:
        variable: the variable's name, for messages.
        declared: its `units` attribute, None where it has none.
        override: what the user says; wins over the attribute.

    Raises:
        ValueError: if neither says it, or what is said is not a temperature.
    """
    if override is not None:
        unit = temperature_unit(override)
        if unit is None:
            raise ValueError(f"units {override!r} is not a temperature: expected K, degC or degF")
        return unit
    if declared is None or not str(declared).strip():
        raise ValueError(f"variable {variable!r} has no units: say which they are (--units K, or degC, degF)")
    unit = temperature_unit(str(declared))
    if unit is None:
        raise ValueError(f"variable {variable!r} is in {declared!r}, which is not a temperature (K, degC or degF)")
    return unit


def to_kelvin(values: NDArray[np.floating] | NDArray[np.integer], unit: Unit) -> NDArray[np.float32]:
    """Convert values to float32 kelvin; the arithmetic is float64, so that it rounds once.

    >>> float(to_kelvin(np.array([32.0]), "degF")[0])
    273.1499938964844
    """
    scale, offset = _SCALE_AND_OFFSET[unit]
    if (scale, offset) == (1.0, 0.0):
        return np.asarray(values, dtype=np.float32)
    return (np.asarray(values, dtype=np.float64) * scale + offset).astype(np.float32)


def check_plausible(variable: str, low_k: float, high_k: float, unit: Unit) -> None:
    """Refuse a range of temperatures that no air has, naming the unit that would explain it.

    Raises:
        ValueError: if `low_k` or `high_k` lies outside 100..400 K.
    """
    if PLAUSIBLE_K[0] <= low_k and high_k <= PLAUSIBLE_K[1]:
        return
    scale, offset = _SCALE_AND_OFFSET[unit]
    raw_low, raw_high = (low_k - offset) / scale, (high_k - offset) / scale
    fitting = [
        other
        for other, (other_scale, other_offset) in _SCALE_AND_OFFSET.items()
        if other != unit
        and raw_low * other_scale + other_offset >= _USUAL_K[0]
        and raw_high * other_scale + other_offset <= _USUAL_K[1]
    ]
    advice = "a marker of missing values must be declared as _FillValue"
    if fitting:
        advice = f"they look like {' or '.join(fitting)}: say --units {'|'.join(fitting)}"
    raise ValueError(
        f"variable {variable!r} holds {raw_low:.6g} to {raw_high:.6g}, which cannot be temperatures in {unit} "
        f"(expected {PLAUSIBLE_K[0]:.0f} to {PLAUSIBLE_K[1]:.0f} K); {advice}"
    )
