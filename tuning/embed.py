"""Figures as parts of an HTML page: SVG whose colours are the page's own."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.figure import Figure

from tuning.palette import NAMED

_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)


def svg(figure: Figure, name: str, alternative: str) -> str:
    """An SVG element, text as outlines.

    Args:
        figure: To draw.
        name: Letters and digits; keeps the element's ids apart from those of other figures.
        alternative: What it shows, for who does not see it; escaped already.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = _DROPPED.sub("", text.getvalue()).strip()
    for colour, variable in NAMED.items():
        drawing = drawing.replace(colour, f"var(--{variable})")
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawing)
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    _, _, rest = drawing.partition(">")  # matplotlib's own element, whose size is in points
    points = f"{72 * width / 100:g} {72 * height / 100:g}"
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {points}" width="{width}" height="{height}" '
        f'style="--width: {width}px" role="img" aria-label="{alternative}">{rest}'
    )
