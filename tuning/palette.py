"""The colours of a sweep's charts, which are names: each stands for a CSS variable of the page.

So a chart follows the page to a dark screen. The scale from the best to the worst is viridis in `CLASSES` steps, told
apart in every kind of colour blindness; its best end is the one that stands out, dark on light and bright on dark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np

from tuning.record import SweepRecord
from tuning.scores import best_first, better, scored

CLASSES = 9
INK, MUTED, LINE, ACCENT, PAPER = "#1b2731", "#5c6a71", "#d8dfe1", "#0b5391", "#fffff1"
SCALE = tuple(f"#a7{step:02x}e9" for step in range(CLASSES))
ON_SCALE = tuple(f"#b7{step:02x}e9" for step in range(CLASSES))
NAMED = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    PAPER: "paper",
    **{colour: f"scale-{step}" for step, colour in enumerate(SCALE)},
    **{colour: f"on-scale-{step}" for step, colour in enumerate(ON_SCALE)},
}
_DARK_INK, _LIGHT_INK = "#000000", "#ffffff"


def scale_css(*, dark: bool) -> str:
    """The scale as CSS variables, with a colour for text on each step."""
    viridis = matplotlib.colormaps["viridis"]
    lines = []
    for step in range(CLASSES):
        place = step / (CLASSES - 1)
        red, green, blue, _ = viridis(1.0 - 0.8 * place if dark else 0.95 * place)
        ink = max((_DARK_INK, _LIGHT_INK), key=lambda ink: contrast((red, green, blue), _parts(ink)))  # noqa: B023
        digits = "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
        lines += [f"--{NAMED[SCALE[step]]}: #{digits};", f"--{NAMED[ON_SCALE[step]]}: {ink};"]
    return " ".join(lines)


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast ratio of two colours, parts within [0, 1]; 4.5 is what small text needs.

    Source: WCAG 2.2, "relative luminance" and "contrast ratio".

    >>> round(contrast((0, 0, 0), (1, 1, 1)), 6)
    21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ranks(record: SweepRecord) -> dict[int, int]:
    """Each finished trial's step of the scale, by its number, in equal shares from the best to the worst."""
    ordered = best_first(record, [each for each in scored(record) if each.trial.state == "FINISHED"])
    return {each.trial.number: place * CLASSES // len(ordered) for place, each in enumerate(ordered)}


def score_range(record: SweepRecord, values: Sequence[float]) -> tuple[float, float]:
    """The best value, and one that all but the worst tenth are better than."""
    if not values:
        return 1.0, 0.0
    if record.mode == "min":
        return min(values), float(np.quantile(values, 0.9))
    return max(values), float(np.quantile(values, 0.1))


def shades(record: SweepRecord, values: Sequence[float]) -> Callable[[float], int]:
    """A step of the scale for a value."""
    best, worst = score_range(record, values)

    def shade(value: float) -> int:
        if best == worst or not better(record, best, value):
            return 0
        return min(CLASSES - 1, int(CLASSES * (value - best) / (worst - best)))

    return shade


def _parts(digits: str) -> tuple[float, ...]:
    return tuple(int(digits[place : place + 2], 16) / 255 for place in (1, 3, 5))


def _luminance(colour: Sequence[float]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
