"""Small pictures of what was made, side by side, that wrap where the page is narrow."""

from __future__ import annotations

import base64
import io

import numpy as np
import xarray as xr
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from infra.explorer.imagining.planes import rgb_of, span_of
from pipelines.products.shading import picture

SIDE = 96  # pixels
_STYLE = (
    "display:flex;flex-wrap:wrap;gap:8px;margin:0;padding:0",
    "margin:0;text-align:center;font-size:13px;color:#1b2731",
    f"width:{SIDE}px;max-width:27vw;image-rendering:auto;border:1px solid #8a979e;display:block",
)


def gallery(made: xr.DataArray, components: xr.DataArray) -> str:
    """HTML of every function (sample, *grid): fields and pictures as they are, shapes from above by component."""
    box, figure, image = _STYLE
    tiles = []
    for number, tile in enumerate(tiles_of(made, components)):
        told = f"Sample {number}"
        tiles.append(
            f'<figure role="listitem" style="{figure}"><img style="{image}" alt="{told}" src="{_png(tile)}">'
            f"<figcaption>{told}</figcaption></figure>"
        )
    return f'<div role="list" aria-label="Samples" style="{box}">{"".join(tiles)}</div>'


def tiles_of(made: xr.DataArray, components: xr.DataArray) -> list[NDArray[np.uint8]]:
    """A picture [y, x, 3] of each."""
    if "z" in made.dims:
        return [
            (255 * picture(solid, part, size=SIDE)).astype(np.uint8)
            for solid, part in zip(made.values, components.values, strict=True)
        ]
    if "channel" in made.dims:
        return [rgb_of(each)[..., :3] for each in made.transpose(..., "y", "x", "channel").values]
    low, high = span_of(made)
    upright = made.sortby("latitude", ascending=False).transpose(..., "latitude", "longitude").values
    shades = (upright - low) / ((high - low) or 1.0)
    return [(255 * colormaps["viridis"](each)[..., :3]).astype(np.uint8) for each in shades]


def _png(tile: NDArray[np.uint8]) -> str:
    image = Image.fromarray(tile)
    larger = max(1, SIDE // max(tile.shape[:2]))
    if larger > 1:
        image = image.resize((tile.shape[1] * larger, tile.shape[0] * larger), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
