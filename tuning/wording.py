"""How values, scores and times are written, in the report and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuning.record import State

STATES: dict[State, str] = {"RUNNING": "running", "FINISHED": "finished", "PRUNED": "stopped early", "FAILED": "failed"}


def value_text(value: Any) -> str:  # noqa: ANN401 - whatever a config holds
    """Write a value so that a narrow place holds it.

    >>> value_text([16, 16]), value_text(0.00123456), value_text(True), value_text(None), value_text({"a": 1})
    ('16×16', '0.00123', 'true', 'none', 'a=1')
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={value_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "×".join(map(value_text, value)) or "[]"
    return str(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys by their last part, where that names them.

    >>> short_names(["model.latent", "model.encoder.centres", "model.context_encoder.centres"])["model.latent"]
    'latent'
    >>> short_names(["model.encoder.centres", "model.context_encoder.centres"])["model.encoder.centres"]
    'model.encoder.centres'
    """
    names = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)}


def values_text(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Write a point of the space, of which `keys` are searched.

    >>> values_text({"model.components": 3, "model.generator": [8, 8]}, ["model.components", "model.generator"])
    'components 3, generator 8×8'
    """
    names = short_names([*keys, *(key for key in values if key not in keys)])
    return ", ".join(f"{names[key]} {value_text(value)}" for key, value in values.items())


def number(value: float) -> str:
    """Write a score.

    >>> number(0.137321), number(-0.059), number(1234.6)
    ('0.1373', '−0.05900', '1235')
    """
    return f"{value:#.4g}".rstrip(".").replace("-", "−")


def duration(seconds: float) -> str:
    """Write a time.

    >>> duration(4.27), duration(59.8), duration(754), duration(3600 * 5 + 60 * 3)
    ('4.3 s', '1 min 00 s', '12 min 34 s', '5 h 03 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
