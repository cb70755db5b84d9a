"""Where one function is shown: a map or a picture, or a shape that turns."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import panel as pn
import xarray as xr

from infra.explorer.imagining.planes import plane
from infra.explorer.imagining.solids import by_component
from pipelines.products.kinds import products_of

HEIGHT = 520  # pixels
WIDEST = 860


class View(Protocol):
    """A place for one function.

    Attributes:
        pane: What stands on the page.
    """

    pane: Any

    def drawn(self, made: xr.Dataset, *, title: str, coloured: bool) -> Any:  # noqa: ANN401 - Bokeh's or Plotly's
        """A figure of one function (*grid), by its components where it is `coloured`; made in a thread."""

    def put(self, figure: Any) -> None:  # noqa: ANN401
        """Show it."""


class Planar:
    """Fields and pictures.

    Args:
        values: The variable that is shown.
        components: Of the mixture.
    """

    def __init__(self, values: str, components: int) -> None:
        self._values, self._components = values, components
        self.pane: Any = pn.pane.Bokeh(None, sizing_mode="stretch_width", styles={"max-width": f"{WIDEST}px"})

    def drawn(self, made: xr.Dataset, *, title: str, coloured: bool) -> Any:  # noqa: ANN401
        """See `View`."""
        if coloured:
            return plane(made["component"], title=title, kind="component", components=self._components)
        return plane(made[self._values], title=title)

    def put(self, figure: Any) -> None:  # noqa: ANN401
        """See `View`."""
        self.pane.object = figure


class Turning:
    """Shapes.

    Args:
        components: Of the mixture.
    """

    def __init__(self, components: int) -> None:
        self._components = components
        self.pane: Any = turning_pane()

    def drawn(self, made: xr.Dataset, *, title: str, coloured: bool) -> Any:  # noqa: ANN401
        """See `View`."""
        solid, parts = made["probability"].values, made["component"].values
        return by_component(solid, np.asarray(parts), self._components, title=title, coloured=coloured)

    def put(self, figure: Any) -> None:  # noqa: ANN401
        """See `View`."""
        self.pane.object = figure


def turning_pane() -> pn.pane.Plotly:
    """A place for a figure in 3-D."""
    return pn.pane.Plotly(
        None, config={"displaylogo": False, "responsive": True}, height=HEIGHT, sizing_mode="stretch_width"
    )


def view_of(domain: str, components: int) -> View:
    """What suits a kind of data."""
    return Turning(components) if domain == "cube" else Planar(products_of(domain).values, components)
