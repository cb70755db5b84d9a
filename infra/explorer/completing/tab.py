"""The tab Complete: take a part of a field, a picture or a shape away, and see what the model puts there."""

from __future__ import annotations

import io
from html import escape
from typing import Any

import numpy as np
import panel as pn
import xarray as xr
from numpy.typing import NDArray

from infra.explorer.completing.cuts import Cuts, cuts_for
from infra.explorer.completing.inputs import as_file, file_name, holed, labels_of, sample_of
from infra.explorer.completing.shown import planar, solid, summary
from infra.explorer.imagining.layout import cards, command_html, download, side_by_side
from infra.explorer.imagining.view import turning_pane
from infra.explorer.session import Explorer
from infra.explorer.work import Step, Work
from pipelines.products import generate
from pipelines.products.generate import Opened
from pipelines.products.inference import STEPS
from pipelines.products.kinds import products_of

MOST = 16


class Completing:
    """The tab.

    Args:
        explorer: With a model of whole functions, and a store of the same kind.
    """

    title = "Complete"

    def __init__(self, explorer: Explorer) -> None:
        loaded, store = explorer.model, explorer.store
        assert store is not None
        plan = loaded.checkpoint.plan
        self._name, self._domain, self._store = loaded.name, plan.spec.domain, store
        self._model = Opened(loaded.network, plan, loaded.origin)
        self._values = products_of(self._domain).values
        self._sample: xr.DataArray | None = None
        self._given: xr.DataArray | None = None  # what the completions below are of
        self._made: xr.Dataset | None = None
        self._reading, self._work = Work("Reading the store"), Work("Completing")
        self._cuts: Cuts = cuts_for(self._domain, self._is_cut)
        self._make_widgets()
        self._results = self._make_results()
        self._told = pn.pane.HTML("", sizing_mode="stretch_width")
        self._commands = pn.pane.HTML("", sizing_mode="stretch_width")

    @classmethod
    def suits(cls, explorer: Explorer) -> str | None:
        """See `session.Tab`."""
        if explorer.loaded is None:
            return "there is no model."
        if explorer.loaded.downscales:
            return f"{explorer.loaded.label} downscales: it does not complete."
        if explorer.store is None:
            return "there is no store with something to complete: vamoh explore MODEL --store STORE."
        wanted = explorer.loaded.checkpoint.plan.spec.domain
        if explorer.store.domain != wanted:
            return (
                f"{explorer.store.path} lives on the {explorer.store.domain}, {explorer.loaded.label} on the {wanted}."
            )
        return None

    def view(self) -> pn.viewable.Viewable:
        """See `session.Tab`."""
        controls = [
            self._item, *self._cuts.controls, self._number, self._seed, self._refine, self._complete, self._one,
            self._input, self._output,
        ]  # fmt: skip
        shown = [
            self._reading.view(), self._work.view(), cards(self._cuts.pane, *self._results), self._told, self._commands,
        ]  # fmt: skip
        self._read()
        return side_by_side(controls, shown)

    def _make_widgets(self) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        labels = labels_of(self._store)
        self._item = pn.widgets.Select(name="Sample of the store", options=labels, **wide)
        self._number = pn.widgets.IntSlider(name="Number of completions", start=2, end=MOST, value=4, **wide)
        self._seed = pn.widgets.IntInput(name="Seed", value=0, start=0, end=2**31 - 1, **wide)
        self._refine = pn.widgets.IntSlider(
            name="Steps that improve the encoder's answer", start=0, end=120, step=20, value=STEPS, **wide
        )
        self._refine.visible = getattr(self._model.plan.spec, "system", "vamoh") == "vamoh"
        self._complete = pn.widgets.Button(name="Complete", button_type="primary", **wide)
        self._one = pn.widgets.IntSlider(name="Completion that is shown", start=0, end=3, value=0, **wide)
        self._input = pn.widgets.FileDownload(
            callback=self._input_file, filename=file_name(self._domain), label="Download what was left", **wide
        )
        self._output = download(
            lambda: self._made, lambda: "completed.nc", self._domain, label="Download the completions"
        )
        self._one.disabled = self._output.disabled = True
        self._item.param.watch(lambda event: self._read(), "value")
        self._complete.on_click(lambda event: self._start())
        self._one.param.watch(lambda event: self._show(), "value_throttled")

    def _make_results(self) -> list[Any]:
        if self._domain == "cube":
            return [turning_pane() for _ in range(2)]
        return [pn.pane.Bokeh(None, sizing_mode="stretch_width") for _ in range(3)]

    def _read(self) -> None:
        number = int(self._item.value)
        self._complete.disabled = self._input.disabled = True  # until the sample is there
        self._reading.start(lambda step: sample_of(self._store, number), self._has_read)

    def _has_read(self, sample: xr.DataArray) -> None:
        self._sample = sample
        self._forget()
        self._complete.disabled = self._input.disabled = False
        self._cuts.begin(sample)

    def _is_cut(self) -> None:
        """Another part is missing: what is shown below is not of it."""
        self._work.say("")
        self._forget()

    def _forget(self) -> None:
        self._work.cancel()
        self._made = self._given = None
        for pane in self._results:
            pane.object = None
        self._told.object = self._commands.object = ""
        self._one.disabled = self._output.disabled = True

    def _input_file(self) -> io.BytesIO:
        assert self._sample is not None
        given = holed(self._sample, self._cuts.missing) if self._given is None else self._given
        return as_file(given, self._domain)

    def _start(self) -> None:
        """Complete what is left."""
        if self._sample is None:
            return
        number, seed, refine = int(self._number.value or 2), int(self._seed.value or 0), self._steps
        truth, missing = self._sample, self._cuts.missing.copy()

        def job(step: Step) -> tuple[xr.DataArray, xr.Dataset, list[Any], str]:
            given = holed(truth, missing)
            made = generate.complete(self._model, given, number=number, refine=refine, seed=seed, progress=step)
            told = f"{summary(made[self._values], truth, ~missing)} {made.attrs.get('comment', '')}"
            return given, made, self._figures(made, ~missing, 0), told

        self._work.start(job, self._done)

    def _done(self, result: tuple[xr.DataArray, xr.Dataset, list[Any], str]) -> None:
        self._given, self._made, figures, told = result
        several = self._made.sizes["realization"]
        self._one.param.update(end=max(1, several - 1), value=0)
        self._one.disabled, self._output.disabled = several < 2, False
        self._put(figures)
        self._told.object = f'<p aria-live="polite">{escape(told)}</p>'
        self._commands.object = command_html(
            "With the file of “Download what was left”:", "vamoh", "complete", self._name, file_name(self._domain),
            "completed.nc", "--number", self._number.value, "--seed", int(self._seed.value or 0),
            *([] if self._steps is None else ["--refine", self._steps]),
        )  # fmt: skip

    @property
    def _steps(self) -> int | None:
        """Of refinement; None where the system infers in a way of its own."""
        return int(self._refine.value or 0) if self._refine.visible else None

    def _show(self) -> None:
        """Show another one of the completions."""
        if self._made is None:
            return
        made, seen, number = self._made, ~self._cuts.missing, int(self._one.value or 0)
        self._work.start(lambda step: self._figures(made, seen, number), self._put)

    def _figures(self, made: xr.Dataset, seen: NDArray[np.bool_], number: int) -> list[Any]:
        values = made[self._values]
        return solid(values, seen, number) if self._domain == "cube" else planar(values, number)

    def _put(self, figures: list[Any]) -> None:
        for pane, figure in zip(self._results, figures, strict=True):
            pane.object = figure
