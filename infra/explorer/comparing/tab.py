"""The tab Compare: runs, sweeps and registered models, as MLflow keeps them."""

from __future__ import annotations

from typing import Any

import panel as pn

from infra.explorer.comparing import records
from infra.explorer.comparing.figures import curves_figure, heat_map, skill_figure, unit_of
from infra.explorer.comparing.models import Models
from infra.explorer.comparing.records import Run
from infra.explorer.imagining.layout import side_by_side
from infra.explorer.session import Explorer, has_registry
from infra.explorer.work import Work
from tuning.axes import Axis, axes_of
from tuning.record import SweepRecord

_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width"}
FIRST_METRICS = ("validation_crps", "validation_elbo", "validation_rmse", "loss")
FIRST_AXES = ("components", "flow_depth")
FIRST_RUNS = 3


class Comparing:
    """The tab.

    Args:
        explorer: Its store is where a challenger meets the champion.
    """

    title = "Compare"

    def __init__(self, explorer: Explorer) -> None:
        parts = {
            "Learning curves": LearningCurves(),
            "Sweeps": Sweeps(),
            "Skill": Skill(),
            "Models": Models(explorer.store),
        }
        self._parts: dict[str, Any] = parts
        self._which = pn.widgets.RadioButtonGroup(name="What to compare", options=list(parts), sizing_mode="fixed")
        again = pn.widgets.Button(name="Read again", width=110)
        self._buttons = pn.FlexBox(self._which, again, flex_wrap="wrap", **_WIDE)
        self._body = pn.Column(**_WIDE, margin=0)
        self._which.param.watch(lambda event: self._open(event.new), "value")
        again.on_click(lambda event: self._parts[self._which.value].read())

    @classmethod
    def suits(cls, explorer: Explorer) -> str | None:
        """See `session.Tab`: what is kept can always be looked at."""
        if has_registry():
            return None
        return "MLflow keeps nothing here yet (MLFLOW_TRACKING_URI, or mlruns/ where vamoh explore is started)."

    def view(self) -> pn.viewable.Viewable:
        """See `session.Tab`."""
        self._open(self._which.value)
        return pn.Column(self._buttons, self._body, **_WIDE)

    def _open(self, name: str) -> None:
        part = self._parts[name]
        if part.view not in self._body.objects:
            self._body.append(part.view)
        for each in self._parts.values():
            each.view.visible = each is part
        part.read()


class LearningCurves:
    """A metric of chosen runs, by the epoch."""

    def __init__(self) -> None:
        self._work = Work("Asking MLflow")
        self._runs: dict[str, Run] = {}
        self._chosen = pn.widgets.MultiSelect(name="Runs (several with Ctrl or Shift)", size=10, options=[], **_WIDE)
        self._metric = pn.widgets.Select(name="Metric", options=[], **_WIDE)
        self._chart = pn.pane.Bokeh(None, **_WIDE)
        self.view = side_by_side([self._chosen, self._metric], [self._work.view(), self._chart])
        self._chosen.param.watch(lambda event: self._offer(), "value")
        self._metric.param.watch(lambda event: self._draw(), "value")

    def read(self) -> None:
        """Read which runs there are."""
        self._work.start(lambda step: records.runs(), self._has_read)

    def _has_read(self, runs: list[Run]) -> None:
        if not runs:
            raise ValueError("no run is kept yet: vamoh train keeps one")
        self._runs = {run.run_id: run for run in runs}
        kept = [run_id for run_id in self._chosen.value if run_id in self._runs]
        self._chosen.options = {run.label: run.run_id for run in runs}
        with_metrics = [run.run_id for run in runs if run.metrics] or list(self._runs)
        self._chosen.value = kept or with_metrics[:FIRST_RUNS]
        self._offer()

    def _offer(self) -> None:
        """Offer the metrics that the chosen runs have."""
        names = sorted({name for run_id in self._chosen.value for name in self._runs[run_id].metrics})
        before = self._metric.value
        first = next((name for name in FIRST_METRICS if name in names), names[0] if names else None)
        self._metric.options = names
        self._metric.value = before if before in names else first
        if before == self._metric.value:
            self._draw()

    def _draw(self) -> None:
        chosen, metric = [self._runs[run_id] for run_id in self._chosen.value], self._metric.value
        if metric:
            (unit, *others) = {unit_of(metric, run.domain) for run in chosen}
            unit = "" if others else unit
            self._work.start(lambda step: curves_figure(records.curves(chosen, metric), metric, unit), self._chart_is)

    def _chart_is(self, chart: Any) -> None:  # noqa: ANN401 - Bokeh's
        self._chart.object = chart


class Sweeps:
    """The heat map of a sweep over two of its keys."""

    def __init__(self) -> None:
        self._work = Work("Asking MLflow")
        self._sweeps: dict[str, Run] = {}
        self._record: SweepRecord | None = None
        self._axes: dict[str, Axis] = {}
        self._quiet = False
        self._sweep = pn.widgets.Select(name="Sweep", options=[], **_WIDE)
        self._across = pn.widgets.Select(name="Columns", options=[], **_WIDE)
        self._down = pn.widgets.Select(name="Rows", options=[], **_WIDE)
        self._told = pn.pane.HTML("", **_WIDE)
        self._chart = pn.pane.Bokeh(None, **_WIDE)
        self.view = side_by_side([self._sweep, self._across, self._down], [self._work.view(), self._chart, self._told])
        self._sweep.param.watch(lambda event: self._open(), "value")
        for widget in (self._across, self._down):
            widget.param.watch(lambda event: self._draw(), "value")

    def read(self) -> None:
        """Read which sweeps there are."""
        self._work.start(lambda step: records.sweeps(), self._has_read)

    def _has_read(self, sweeps: list[Run]) -> None:
        if not sweeps:
            raise ValueError("no sweep is kept yet: vamoh tune keeps one")
        self._sweeps, before = {run.run_id: run for run in sweeps}, self._sweep.value
        self._sweep.options = {run.label: run.run_id for run in sweeps}
        self._sweep.value = before if before in self._sweeps else sweeps[0].run_id
        if self._sweep.value == before:
            self._open()

    def _open(self) -> None:
        sweep = self._sweeps[self._sweep.value]
        self._work.start(lambda step: records.sweep_record(sweep), self._opened)

    def _opened(self, record: SweepRecord) -> None:
        self._record, self._axes = record, {axis.key: axis for axis in axes_of(record)}
        options = {axis.label.replace("_", " "): axis.key for axis in self._axes.values()}
        wanted = [key for name in FIRST_AXES for key, axis in self._axes.items() if axis.label == name]
        keys = [*wanted, *(key for key in self._axes if key not in wanted)]
        self._quiet = True
        self._across.options = self._down.options = options
        self._across.value, self._down.value = keys[0], keys[min(1, len(keys) - 1)]
        self._quiet = False
        self._draw()

    def _draw(self) -> None:
        if self._record is None or self._quiet:
            return
        record, across, down = self._record, self._axes[self._across.value], self._axes[self._down.value]
        self._chart.object = None
        self._work.start(lambda step: heat_map(record, across, down), self._drawn)

    def _drawn(self, chart: Any) -> None:  # noqa: ANN401 - Bokeh's
        assert self._record is not None
        self._chart.object = chart
        states = [trial.state for trial in self._record.trials]
        counted = ", ".join(f"{states.count(state)} {state.lower()}" for state in dict.fromkeys(states))
        self._told.object = (
            f"<p>{len(states)} trials: {counted}. A cell is the mean over seeds and all other keys, ± the standard "
            "deviation; ° marks a mean of trials that were stopped early; the best is framed.</p>"
        )


class Skill:
    """A score against the resolution of the input, where evaluations keep it."""

    def __init__(self) -> None:
        self._work = Work("Asking MLflow")
        self._curves: dict[str, list[dict[str, Any]]] = {}
        self._which = pn.widgets.Select(name="Evaluation", options=[], **_WIDE)
        self._score = pn.widgets.RadioButtonGroup(name="Score", options={"CRPS": "crps", "RMSE": "rmse"}, **_WIDE)
        self._chart = pn.pane.Bokeh(None, **_WIDE)
        self.view = side_by_side([self._which, self._score], [self._work.view(), self._chart])
        for widget in (self._which, self._score):
            widget.param.watch(lambda event: self._draw(), "value")

    def read(self) -> None:
        """Read what is kept."""
        self._work.start(lambda step: records.kept_curves(records.versions()), self._has_read)

    def _has_read(self, curves: dict[str, list[dict[str, Any]]]) -> None:
        if not curves:
            raise ValueError(
                "no evaluation over resolutions is kept yet: vamoh evaluate MODEL --store STORE --curve 2,4,8 --keep"
            )
        self._curves, before = curves, self._which.value
        self._which.options = list(curves)
        self._which.value = before if before in curves else next(iter(curves))
        self._draw()

    def _draw(self) -> None:
        if self._which.value in self._curves:
            rows, score = self._curves[self._which.value], str(self._score.value)
            self._work.start(lambda step: skill_figure(rows, score), self._drawn)

    def _drawn(self, chart: Any) -> None:  # noqa: ANN401 - Bokeh's
        self._chart.object = chart
