"""Sheets of pictures, as figures: every pixel a square of whole pixels, so that nothing is blurred or invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.products.charts import CATEGORIES

DOTS_PER_INCH = 110
TILE = 100  # pixels along the longest edge of a tile, about
_GAP, _MARGIN, _HEAD, _LINE, _KEY, _LETTER = 6, 14, 34, 18, 40, 7
_UNSEEN = 0.55  # grey where nothing was seen


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tiles side by side.

    Attributes:
        tiles: RGB [y, x, 3], 0..1, of any sizes.
        title: To their left.
        captions: Above them.
    """

    tiles: Sequence[NDArray[np.floating]]
    title: str = ""
    captions: Sequence[str] = ()

    def height(self, tile: int) -> float:
        """Pixels from its captions to below its tiles."""
        lines = max((text.count("\n") + 1 for text in self.captions), default=0)
        return lines * _LINE + tile * max(min(1.0, one.shape[0] / one.shape[1]) for one in self.tiles) + _GAP


def shown(picture: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> NDArray[np.floating]:
    """A picture [y, x, 1 or 3], 0..255, to be drawn; grey where it is NaN or missing."""
    colours = np.broadcast_to(np.asarray(picture, dtype=np.float64), (*picture.shape[:2], 3)) / 255.0
    gone = np.asarray(np.isnan(colours).any(axis=-1) if missing is None else missing)
    return np.where(gone[..., None], _UNSEEN, np.clip(colours, 0.0, 1.0))


def components(index: NDArray[np.integer]) -> NDArray[np.floating]:
    """A map of components [y, x] as colours, told apart in every kind of colour blindness up to eight."""
    colours = np.array([to_rgb(colour) for colour in CATEGORIES])
    return np.asarray(colours[index % len(CATEGORIES)])


def sheet(rows: Sequence[Row], *, title: str = "", num_components: int = 0, tile: int = TILE) -> Figure:
    """Draw rows of tiles.

    Args:
        rows: At least one, with at least one tile.
        title: Above all.
        num_components: So many colours are explained below; 0 for none.
        tile: Pixels along a tile's longest edge.
    """
    named = max(len(row.title) for row in rows)
    left = _MARGIN + (named * _LETTER + 12 if named else 0)
    top = float(_MARGIN + (_HEAD if title else 0))
    width = left + max(len(row.tiles) for row in rows) * (tile + _GAP) + _MARGIN
    width = max(width, len(title) * 9 + 2 * _MARGIN, left + (num_components + 2) * _KEY)
    height = top + sum(row.height(tile) for row in rows) + _MARGIN + (_KEY if num_components else 0)
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    if title:
        _text(figure, _MARGIN, _MARGIN, title, size=11, weight="bold")
    for row in rows:
        bottom = top + row.height(tile) - _GAP
        first = bottom - tile * max(min(1.0, one.shape[0] / one.shape[1]) for one in row.tiles)
        _text(figure, _MARGIN, first + 4, row.title)
        for column, caption in enumerate(row.captions):
            _text(figure, left + column * (tile + _GAP), first - 4, caption, below=False)
        for column, colours in enumerate(row.tiles):
            scale = tile / max(colours.shape[:2])
            size = colours.shape[1] * scale, colours.shape[0] * scale
            _tile(figure, colours, (left + column * (tile + _GAP), first, *size))
        top = bottom + _GAP
    if num_components:
        _text(figure, left, top + 10, "component")
    for number in range(num_components):
        key = np.broadcast_to(to_rgb(CATEGORIES[number % len(CATEGORIES)]), (1, 1, 3))
        place = left + (number + 2) * _KEY
        _tile(figure, key, (place, top + 10, 12, 12))
        _text(figure, place + 16, top + 10, str(number + 1))
    return figure


def _tile(figure: Figure, colours: NDArray[np.floating], box: tuple[float, float, float, float]) -> None:
    """A picture in a box of pixels from the upper left corner: left, top, width, height."""
    wide, high = figure.get_size_inches() * DOTS_PER_INCH
    left, top, width, height = box
    axes = figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))
    axes.imshow(colours, interpolation="nearest", aspect="auto")
    axes.set_axis_off()


def _text(
    figure: Figure, left: float, top: float, text: str, *, size: int = 8, weight: str = "normal", below: bool = True
) -> None:
    wide, high = figure.get_size_inches() * DOTS_PER_INCH
    figure.text(left / wide, 1 - top / high, text, fontsize=size, fontweight=weight, va="top" if below else "bottom")
