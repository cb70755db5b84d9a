"""The tab Imagine: what a model makes of nothing but noise, and the way from one such function to another."""

from __future__ import annotations

from typing import Any

import panel as pn
import xarray as xr

from infra.explorer.imagining.gallery import gallery
from infra.explorer.imagining.layout import command_html, download, side_by_side
from infra.explorer.imagining.scales import Scale, scale_of
from infra.explorer.imagining.view import View, view_of
from infra.explorer.session import Explorer
from infra.explorer.work import Step, Work
from pipelines.products import generate
from pipelines.products.generate import Opened
from pipelines.products.kinds import products_of
from pipelines.products.solids import SUFFIXES

MOST = 16
_FILES = {"cube": [*(suffix for suffix in SUFFIXES if suffix != ".binvox"), ".nc", ".png"]}
_PLAIN_FILES = [".nc", ".png"]


class Imagining:
    """The tab.

    Args:
        explorer: With a model of whole functions.
    """

    title = "Imagine"

    def __init__(self, explorer: Explorer) -> None:
        loaded = explorer.model
        plan = loaded.checkpoint.plan
        self._name, self._domain = loaded.name, plan.spec.domain
        self._model = Opened(loaded.network, plan, loaded.origin)
        self._values = products_of(self._domain).values
        self._scale: Scale = scale_of(plan.geometry)
        self._samples: xr.Dataset | None = None
        self._shown: xr.Dataset | None = None
        self._quiet = self._begun = False
        self._drawing, self._showing = Work("Drawing samples"), Work("Computing the one that is shown")
        self._make_widgets()
        self._gallery = pn.pane.HTML("", sizing_mode="stretch_width")
        self._view: View = view_of(self._domain, int(plan.spec.components))
        self._told = pn.pane.HTML("", sizing_mode="stretch_width")
        self._commands = pn.pane.HTML("", sizing_mode="stretch_width")

    @classmethod
    def suits(cls, explorer: Explorer) -> str | None:
        """See `session.Tab`."""
        if explorer.loaded is None:
            return "there is no model."
        if explorer.loaded.downscales:
            return f"{explorer.loaded.label} downscales: it has no functions of its own to give."
        return None

    def view(self) -> pn.viewable.Viewable:
        """See `session.Tab`."""
        controls = [
            self._number, self._seed, self._first, self._second, self._share, self._resolution, self._colour,
            self._suffix, self._file,
        ]  # fmt: skip
        shown = [
            self._drawing.view(),
            self._gallery,
            self._showing.view(),
            self._view.pane,
            self._told,
            self._commands,
        ]
        self._draw()
        return side_by_side(controls, shown)

    def _make_widgets(self) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self._number = pn.widgets.IntSlider(name="Number of samples", start=1, end=MOST, value=8, **wide)
        self._seed = pn.widgets.IntInput(name="Seed", value=0, start=0, end=2**31 - 1, **wide)
        self._first = pn.widgets.Select(name="Sample that is shown", options=[0], value=0, **wide)
        self._second = pn.widgets.Select(name="On the way to sample", options=[0], value=0, **wide)
        self._share = pn.widgets.FloatSlider(
            name="Share of the way (0 to 1)", start=0.0, end=1.0, step=0.05, value=0.0, **wide
        )
        self._resolution = self._scale.widget()
        self._colour = pn.widgets.RadioButtonGroup(
            name="Colour", options={"Value": False, "Component": True}, value=self._domain == "cube", **wide
        )
        files = _FILES.get(self._domain, _PLAIN_FILES)
        self._suffix = pn.widgets.Select(name="File format", options=files, value=files[0], **wide)
        self._file = download(
            lambda: self._shown, lambda: f"imagined{self._suffix.value}", self._domain, label="Download what is shown"
        )
        self._number.param.watch(lambda event: self._draw(), "value_throttled")
        self._seed.param.watch(lambda event: self._draw(), "value")
        for widget in (self._first, self._second, self._share):
            widget.param.watch(lambda event: self._show(), "value")
        self._resolution.param.watch(lambda event: self._show(), "value_throttled")
        self._colour.param.watch(lambda event: self._show(), "value")
        self._suffix.param.watch(lambda event: self._tell(), "value")

    def _draw(self) -> None:
        """Draw samples, coarsely enough to come at once."""
        number, seed = int(self._number.value or 1), int(self._seed.value or 0)

        def job(step: Step) -> tuple[xr.Dataset, str]:
            made = generate.sample(self._model, number=number, seed=seed, resolution=self._scale.coarse, progress=step)
            return made, gallery(made[self._values], made["component"])

        self._drawing.start(job, self._drawn)

    def _drawn(self, result: tuple[xr.Dataset, str]) -> None:
        self._samples, self._gallery.object = result
        numbers = list(range(self._samples[self._values].shape[0]))
        self._quiet = True  # a choice is set here, not made by the user
        for widget, default in ((self._first, 0), (self._second, min(1, numbers[-1]))):
            before = widget.value
            widget.options = numbers
            widget.value = before if self._begun and before in numbers else default
        self._quiet, self._begun = False, True
        self._show()

    def _show(self) -> None:
        """Compute the function at this share of the way, at this resolution."""
        if self._samples is None or self._quiet:
            return
        first, second, share = int(self._first.value), int(self._second.value), float(self._share.value or 0)
        seed, resolution, coloured = int(self._seed.value or 0), self._scale.value(self._resolution), self._colour.value
        title = f"Sample {first}" if not share else f"Sample {second}" if share == 1 else (
            f"{share:.0%} of the way from sample {first} to sample {second}"
        )  # fmt: skip

        def job(step: Step) -> tuple[xr.Dataset, Any]:
            made = generate.between(
                self._model, first, second, [share], seed=seed, resolution=resolution, progress=step
            )
            return made, self._view.drawn(made.isel({made[self._values].dims[0]: 0}), title=title, coloured=coloured)

        self._showing.start(job, self._done)

    def _done(self, result: tuple[xr.Dataset, Any]) -> None:
        self._shown, figure = result
        self._view.put(figure)
        self._tell()

    def _tell(self) -> None:
        """Say what is shown, and how to make it again."""
        if self._shown is None:
            return
        values = self._shown[self._values]
        size = " × ".join(str(values.sizes[dim]) for dim in values.dims[1:] if dim != "channel")
        units = str(values.attrs.get("units", ""))
        self._told.object = (
            f'<p aria-live="polite">{size}, {values.attrs.get("long_name", self._values)} '
            f"{float(values.min()):.4g} to {float(values.max()):.4g}{'' if units == '1' else ' ' + units}"
            f"{', coloured by the most probable component' if self._colour.value else ''}</p>"
        )
        seed = ["--seed", int(self._seed.value or 0)]
        way = f"{self._first.value},{self._second.value},{self._share.value:g}"
        shown = ["vamoh", "sample", self._name, f"imagined{self._suffix.value}", "--between", way]
        everything = ["vamoh", "sample", self._name, f"samples{self._suffix.value}", "--number", self._number.value]
        self._commands.object = command_html(
            "What is shown:", *shown, *seed, *self._scale.option(self._resolution)
        ) + command_html("All samples:", *everything, *seed)
        self._file.filename = f"imagined{self._suffix.value}"
