"""The resolution of what is made, as a slider: degrees on the sphere, voxels or pixels along the longest edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import panel as pn

from pipelines.data.box import Box
from pipelines.data.domain import Geometry
from pipelines.data.sphere import Lattice
from pipelines.data.voxels import LARGEST

MOST_VOXELS, MOST_PIXELS, MOST_POINTS = min(256, LARGEST), 512, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a slider offers.

    Attributes:
        label: Of the slider, with the unit.
        steps: Texts and values, from coarse to fine.
        own: The place among them of the training data's, for which no option is needed.
        coarse: For small pictures; None for the training data's.
    """

    label: str
    steps: tuple[tuple[str, float], ...]
    own: int
    coarse: float | None

    def widget(self) -> pn.widgets.DiscreteSlider:
        """The slider."""
        return pn.widgets.DiscreteSlider(
            name=self.label, options=dict(self.steps), value=self.steps[self.own][1], sizing_mode="stretch_width"
        )

    def value(self, widget: pn.widgets.DiscreteSlider) -> float | None:
        """What `resolution` is to be; None for that of the training data."""
        chosen = float(widget.value)
        return None if chosen == self.steps[self.own][1] else chosen

    def option(self, widget: pn.widgets.DiscreteSlider) -> list[str]:
        """What the command line is told."""
        chosen = self.value(widget)
        return [] if chosen is None else ["--resolution", f"{chosen:g}"]


def scale_of(geometry: Geometry) -> Scale:
    """What suits where a model's training data stand."""
    if isinstance(geometry, Lattice):
        rows, columns = geometry.shape
        own = float(np.abs(np.diff(geometry.latitude)).mean())
        factors = [f for f in (0.5, 1, 2, 4, 8, 16) if rows * columns * f * f <= MOST_POINTS]
        degrees = [float(f"{own / factor:.4g}") for factor in factors]
        degrees[factors.index(1)] = own
        steps = tuple((f"{each:.4g}", each) for each in degrees)
        return Scale(label="Resolution (degrees)", steps=steps, own=factors.index(1), coarse=None)
    assert isinstance(geometry, Box)
    own_size, solid = max(geometry.shape), len(geometry.shape) == 3
    most = MOST_VOXELS if solid else MOST_PIXELS
    sizes = sorted({16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, own_size})
    sizes = [size for size in sizes if size <= most and (solid or size >= own_size / 2) or size == own_size]
    unit = "voxels along the longest edge" if solid else "pixels along the longer side"
    return Scale(
        label=f"Resolution ({unit})",
        steps=tuple((str(size), float(size)) for size in sizes),
        own=sizes.index(own_size),
        coarse=float(min(32, own_size)) if solid else None,
    )
