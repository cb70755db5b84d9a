"""The tab Compare: what MLflow keeps is what is drawn; nobody becomes champion but through the gate and a question."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from infra.explorer.comparing import records
from infra.explorer.comparing.figures import curves_figure, heat_cells, heat_map, skill_figure
from infra.explorer.comparing.models import table, told
from infra.explorer.comparing.records import Curve, Version
from pipelines.products.verdict import Compared, Verdict
from pipelines.training.champions import keep_evaluation, register_version
from pipelines.training.registry import champion_of
from pipelines.training.tracking import Tracking, client
from tests.tuning.records import GRID, WIDE, grid_score, make_record, wide_score
from tuning.axes import axes_of
from tuning.record import SweepRecord
from tuning.runs import PARENT, SWEEP, TRIAL

ROWS = [
    {"factor": factor, "every": every, "input_km": 111.0 * factor, "output_km": 111.0 * every, "trained": factor == 4,
     "rmse": {"vamoh": 0.2 * factor, "bilinear": 0.3 * factor},
     "crps": {"vamoh": 0.1 * factor, "bilinear": 0.2 * factor}, "effective_km": {}}
    for factor, every in ((8, 1), (2, 1), (4, 1), (4, 2))
]  # fmt: skip


def sweep(name: str = "depths") -> SweepRecord:
    """Components against depth: some trials failed, some were stopped."""
    return replace(make_record(GRID, grid_score, seeds=3, failed=0.15, stopped=0.2), name=name)


def keep(record: SweepRecord) -> str:
    """Tell MLflow of a sweep, as its driver does; its run's id."""
    parent = Tracking.start(record.name, {}, {SWEEP: record.name})
    now = int(time.time() * 1000)
    for trial in record.trials[:4]:
        tags = {PARENT: parent.run_id, SWEEP: record.name, TRIAL: str(trial.number)}
        run = Tracking.start(f"{record.name}/{trial.name}", {}, tags)
        for point in trial.curve:
            run.log(point.metrics, point.epoch, now)
        run.finish("FINISHED")
    return parent.run_id


def test_the_cells_of_the_heat_map_are_the_means_of_the_record() -> None:
    record = sweep()
    across, down = axes_of(record)
    cells, mapper = heat_cells(record, across, down)
    components, depths = (GRID["search"][key]["choice"] for key in ("model.components", "model.flow_depth"))
    expected = {}
    for trial in record.trials:
        pair = components.index(trial.values["model.components"]), depths.index(trial.values["model.flow_depth"])
        expected.setdefault(pair, []).append(trial)
    assert len(cells["column"]) == len(expected) == 12
    for column, row, mean, text in zip(cells["column"], cells["row"], cells["mean"], cells["text"], strict=True):
        trials = expected[column, row]
        scores = [trial.best for trial in trials if trial.state == "FINISHED"]
        scores = scores or [trial.best for trial in trials if trial.state == "PRUNED" and trial.best is not None]
        if not scores:
            assert mean is None and text in ("failed", "–")
            continue
        assert mean == pytest.approx(np.mean(scores))
        assert ("°" in text) == all(trial.state != "FINISHED" for trial in trials)
    best = min(mean for mean in cells["mean"] if mean is not None)
    assert [cells["mean"][place] for place, width in enumerate(cells["width"]) if width == 4] == [best]
    assert mapper.low == best and cells["fill"][cells["mean"].index(best)] == mapper.palette[0]


def test_a_heat_map_has_every_cell_s_name_on_its_axes() -> None:
    chart = heat_map(sweep(), *axes_of(sweep()))
    assert list(chart.xaxis[0].major_label_overrides.values()) == ["1", "2", "3", "5"]
    assert list(chart.yaxis[0].major_label_overrides.values()) == ["0", "4", "16"]
    assert "lower is better" in chart.below[-1].title
    wide = make_record({**WIDE, "trials": 30}, wide_score)
    for one in axes_of(wide)[:3]:
        assert heat_map(wide, one, axes_of(wide)[-1]).title.text.startswith("a sweep")
    one = axes_of(wide)[0]
    assert set(heat_cells(wide, one, one)[0]["row"]) == {0}  # a sweep of one key is one row
    nothing = make_record(GRID, grid_score, missing=True)
    with pytest.raises(ValueError, match="no trial of a sweep has a"):
        heat_map(nothing, *axes_of(nothing))


def test_where_more_is_better_the_greatest_is_dark() -> None:
    record = make_record({**GRID, "metric": "validation_elbo"}, lambda values: -grid_score(values))
    cells, mapper = heat_cells(record, *axes_of(record))
    greatest = max(cells["mean"])
    assert cells["fill"][cells["mean"].index(greatest)] == mapper.palette[-1]
    assert mapper.palette[-1] == heat_cells(sweep(), *axes_of(sweep()))[1].palette[0]


def test_skill_is_drawn_from_fine_to_coarse_at_the_finest_output() -> None:
    chart = skill_figure(ROWS, "crps")
    lines = {each.data_source.data["name"][0]: each.data_source.data for each in chart.renderers}
    np.testing.assert_allclose(lines["vamoh"]["km"], [222.0, 444.0, 888.0])
    np.testing.assert_allclose(lines["vamoh"]["value"], [0.2, 0.4, 0.8])
    assert lines["bilinear"]["taught"][1] == "taught on such input"
    assert chart.xaxis[0].axis_label == "Spacing of the input (km)" and chart.yaxis[0].axis_label == "CRPS (K)"
    with pytest.raises(ValueError, match="--curve"):
        skill_figure([], "crps")


def test_curves_are_told_apart_by_more_than_their_colour() -> None:
    curves = [Curve(name=f"run {number}", epochs=[1, 2], values=[1.0, 0.5]) for number in range(10)]
    chart = curves_figure(curves, "validation_crps")
    looks = {(each.glyph.line_color, str(each.glyph.line_dash)) for each in chart.renderers[::2]}
    assert len(looks) == 10
    with pytest.raises(ValueError, match="choose another metric"):
        curves_figure([], "validation_crps")


def test_what_a_name_says_is_no_html() -> None:
    version = Version(
        name="<b>t2m</b>", version="2", aliases=["<i>"], created=datetime(2026, 3, 1, tzinfo=UTC),
        scores={"validation_crps": 0.137}, evaluations=[],
    )  # fmt: skip
    both = Compared(challenger=0.1, champion=0.2, low=-0.2, high=-0.05, better=1.0)
    verdict = Verdict(passed=True, reason="its CRPS is lower <beyond> chance", compared={"crps": both}, doubts=("<u>",))
    for html in (table([version]), told(version, verdict)):
        assert not {"<b>", "<i>", "<u>", "<beyond>"} & set(html.replace(">", "> ").split()) and "&lt;b&gt;" in html
    assert "crps 0.137" in table([version]) and "is the champion: its CRPS is lower" in told(version, verdict)


def test_a_server_that_is_away_is_a_sentence(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(
        OSError, match=r"MLflow at http://127.0.0.1:9 does not answer .* is its server running\?"
    ) as said:
        records.runs()
    assert time.monotonic() - started < 10 and "secret" not in str(said.value)


def test_nothing_kept_yet_makes_no_database(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="nothing is kept in .* yet"):
        records.versions()
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()


@pytest.fixture
def kept(tracked: str, model, monkeypatch, tmp_path: Path) -> Iterator[SweepRecord]:
    """A sweep, and an evaluation of `tiny` over resolutions, in the store that `tiny` was trained in."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    record = sweep()
    if not records.sweeps():
        run_id = keep(record)
        record.to_json(tmp_path / "sweep.json")
        client().log_artifact(run_id, str(tmp_path / "sweep.json"))
        asked = {"split": "test", "factor": 4, "every": 1, "members": 8, "units": "K", "store": "globe.zarr"}
        keep_evaluation("models:/tiny@champion", {**asked, "scores": {"vamoh": {"rmse": 1.0}}, "curve": ROWS})
    yield record


def test_what_is_read_of_mlflow_is_what_was_kept(kept: SweepRecord) -> None:
    (found,) = records.sweeps()
    record = records.sweep_record(found)
    assert json.loads(json.dumps(record.space)) == kept.space and len(record.trials) == len(kept.trials)
    trials = [run for run in records.runs() if run.sweep]
    assert len(trials) == 4 and found.run_id not in {run.run_id for run in trials}
    curves = {curve.name: curve for curve in records.curves(trials, kept.metric)}
    for trial in kept.trials[:4]:
        if trial.curve:
            curve = curves[f"{kept.name}/{trial.name}"]
            assert list(curve.epochs) == [point.epoch for point in trial.curve]
            np.testing.assert_allclose(curve.values, [point.metrics[kept.metric] for point in trial.curve])
    ((name, rows),) = records.kept_curves(records.versions()).items()
    assert name == "tiny version 1, test of globe.zarr, 8 members" and rows == ROWS


# --- in the browser -------------------------------------------------------------------------------------------------


def drawn(page, title: str) -> None:
    """Wait for a figure of this title: what a canvas shows is no text."""
    page.wait_for_function(
        "title => Bokeh.documents.some(each => [...each._all_models.values()]"
        ".some(model => model.type === 'Title' && model.text === title))",
        arg=title,
    )


def test_a_person_compares_runs_sweeps_and_models_and_promotes_through_the_gate(
    page, explorer_at, kept, model, globe, shot, monkeypatch
) -> None:
    (first,) = [row for row in records.versions() if row.name == "tiny" and row.version == "1"]
    run_id = client().get_model_version("tiny", first.version).run_id
    second = register_version("tiny", run_id, {"validation_crps": 1.0})
    page.goto(explorer_at(model, globe))
    page.get_by_role("button", name="Compare").click()
    drawn(page, f"Learning curves: {kept.metric.replace('_', ' ')}")
    shot(page, "compare-curves-1280")
    page.get_by_role("button", name="Sweeps").click()
    drawn(page, f"{kept.name}: mean {kept.metric.replace('_', ' ')}")
    page.get_by_text(f"{len(kept.trials)} trials:").wait_for()
    shot(page, "compare-sweep-1280")
    page.get_by_role("button", name="Skill").click()
    drawn(page, "CRPS against resolution")
    shot(page, "compare-skill-1280")
    page.get_by_role("button", name="Models").click()
    page.get_by_role("cell", name="champion").wait_for()
    page.locator("[role=slider]:visible").first.focus()
    page.keyboard.press("Home")  # two members, which are quick
    page.get_by_role("button", name="Promote through the gate").click()
    page.get_by_text("it becomes the champion, for everybody").wait_for()
    page.get_by_role("button", name="No, leave it").click()
    page.get_by_text("it becomes the champion, for everybody").wait_for(state="hidden")
    page.get_by_role("button", name="Promote through the gate").click()
    page.get_by_role("button", name="Yes, compare and promote").click()
    page.get_by_text(f"tiny version {second} is not promoted: its CRPS is not lower beyond chance.").wait_for()
    assert champion_of("tiny") == "1"
    shot(page, "compare-models-1280")
    client().delete_registered_model_alias("tiny", "champion")
    try:
        page.get_by_role("button", name="Promote through the gate").click()
        page.get_by_role("button", name="Yes, compare and promote").click()
        page.get_by_text(f"tiny version {second} is the champion: there was no champion.").wait_for()
        assert champion_of("tiny") == second
    finally:
        client().set_registered_model_alias("tiny", "champion", "1")
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 400")
    shot(page, "compare-models-400")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    page.get_by_role("button", name="Read again").click()
    page.get_by_text("MLflow at http://127.0.0.1:9 does not answer").wait_for()
