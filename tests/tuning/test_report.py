"""The report says what the record says, needs nothing outside itself, and is written of any sweep."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.tuning.records import GRID, NOISE, WIDE, grid_score, make_record, wide_score
from tuning import charts
from tuning.axes import Axis, axes_of
from tuning.importance import importance
from tuning.palette import CLASSES, NAMED, contrast, scale_css
from tuning.record import CurvePoint, SweepRecord
from tuning.report import write_report
from tuning.scores import front, ranked_points, rungs, seed_noise
from tuning.wording import number

SHAPES = {
    "a grid with seeds": make_record(GRID, grid_score, seeds=3, failed=0.1, stopped=0.2),
    "one trial": make_record({**WIDE, "trials": 1}, wide_score),
    "failed trials only": make_record(GRID, grid_score, failed=1.1),
    "a missing metric": make_record(GRID, grid_score, missing=True),
    "no trial": replace(make_record(GRID, grid_score), trials=()),
    "no config": replace(make_record(GRID, grid_score), config={}, seconds=0.0),
    "one key": make_record(
        {"search": {"training.beta": {"float": [0.2, 2.0]}}}, lambda values: values["training.beta"]
    ),
    "one value": make_record({"search": {"model.latent": {"int": [4, 4]}}, "trials": 7}, lambda values: 1.0),
    "a bound": make_record({**GRID, "metric": "validation_elbo"}, lambda values: -grid_score(values), seeds=2),
}


@pytest.fixture(scope="module")
def wide() -> SweepRecord:
    """200 trials with lists, a logarithm and a condition, of which some failed and many were stopped."""
    return make_record({**WIDE, "trials": 200}, wide_score, failed=0.1, stopped=0.4)


@pytest.fixture(scope="module")
def eighty() -> SweepRecord:
    """80 trials, all of which finished."""
    return make_record({**WIDE, "trials": 80}, wide_score)


@pytest.fixture(scope="module")
def page(wide: SweepRecord, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(wide, tmp_path_factory.mktemp("report")).read_text()


def texts(figure: charts.Figure) -> list[str]:
    """What is written inside the axes."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_report_is_written_of(shape: str, tmp_path: Path) -> None:
    path = write_report(SHAPES[shape], tmp_path)
    assert [path] == list(tmp_path.iterdir())
    text = path.read_text()
    assert text.count("<tr") == text.count("</tr>") and text.rstrip().endswith("</html>")
    assert len(re.findall(r'<td>\d+</td><td class="text', text)) == len(SHAPES[shape].trials)


def test_the_page_needs_nothing_outside_itself(page: str) -> None:
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert not re.findall(r"<link(?! rel=\"icon\" href=\"data:,\")|<img|@import|src=", page)


def test_a_trial_of_any_state_has_its_row_and_its_words_are_no_html(wide: SweepRecord, page: str) -> None:
    rows = page.split('<table class="sortable">')[1].split("</table>")[0].split("<tr")[2:]
    assert len(rows) == 200
    for trial, row in zip(wide.trials, rows, strict=True):
        state = {"FINISHED": "finished", "PRUNED": "stopped early", "FAILED": "failed"}[trial.state]
        assert f">{state}</td>" in row
        assert ("&lt;b&gt;no&lt;/b&gt; &amp; no" in row) == (trial.state == "FAILED")
        assert "×".join(map(str, trial.values["model.generator"])) in row
    assert "<b>" not in page


def test_ids_are_unique_and_every_reference_is_met(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_every_colour_is_the_pages_own_in_light_and_in_dark(page: str) -> None:
    assert not [colour for colour in NAMED if colour in page.lower()]
    light, dark = (
        page.split("@media (prefers-color-scheme: dark)")[0],
        page.split("@media (prefers-color-scheme: dark)")[1],
    )
    used = set(re.findall(r"var\(--([\w-]+)\)", page)) - {"width"}
    assert used and all(f"--{name}:" in part for name in used for part in (light, dark.split("}")[0]))
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", " ".join(drawings)))
    assert colours <= {"#ffffff", "#000000"}, "a colour that does not follow a dark screen"


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_every_step_of_the_scale_can_be_read(dark: bool) -> None:
    values = dict(re.findall(r"--([\w-]+): (#\w+);", scale_css(dark=dark)))
    pairs = [(values[f"scale-{step}"], values[f"on-scale-{step}"]) for step in range(CLASSES)]
    assert min(contrast(to_rgb(one), to_rgb(other)) for one, other in pairs) >= 4.5


def test_a_cell_of_the_heat_map_is_the_mean_over_its_seeds_that_finished() -> None:
    record = make_record(GRID, grid_score, seeds=3, failed=0.2)
    drawn = texts(charts.heat_map(record, *axes_of(record)))
    for k, depth in itertools.product([1, 2, 3, 5], [0, 4, 16]):
        here = [t for t in record.trials if t.values == {"model.components": k, "model.flow_depth": depth}]
        scores = [t.best for t in here if t.state == "FINISHED" and t.best is not None]
        expected = number(float(np.mean(scores))) if scores else "failed"
        assert sum(text.split("\n")[0] == expected for text in drawn) >= 1
    assert len(drawn) == 12


def test_the_heat_map_is_of_components_and_depth_where_both_are_searched(tmp_path: Path) -> None:
    assert "<h3>components × flow_depth</h3>" in write_report(SHAPES["a grid with seeds"], tmp_path).read_text()


def test_the_heat_map_is_otherwise_of_what_matters_most(page: str) -> None:
    assert "<h3>learning_rate × generator</h3>" in page


def test_what_a_score_depends_on_is_what_matters_whatever_one_diverged_trial_says(eighty: SweepRecord) -> None:
    trials = list(eighty.trials)
    trials[3] = replace(trials[3], best=1e6)
    found = importance(replace(eighty, trials=tuple(trials))).shares
    assert list(found)[:2] == ["training.learning_rate", "model.generator"]
    assert found["training.learning_rate"] > 0.7
    assert math.isclose(sum(found.values()), 1.0)


def test_trials_that_were_stopped_are_compared_where_all_of_them_were(wide: SweepRecord, page: str) -> None:
    reached = [max(point.epoch for point in trial.curve) for trial in wide.trials if trial.state != "FAILED"]
    assert f"fANOVA over {len(reached)} trials, ranked at epoch {min(reached)}" in page


def test_nothing_is_said_of_too_few_trials() -> None:
    found = importance(SHAPES["one trial"])
    assert not found.shares and "1 comparable trial" in found.note


@pytest.mark.parametrize("shape", ["a grid with seeds", "a bound"])
def test_nobody_is_better_and_quicker_than_the_front(shape: str) -> None:
    record = SHAPES[shape]
    sign = 1 if record.mode == "min" else -1
    known = [
        (sign * t.best, t.seconds_per_sample, t.number)
        for t in record.trials
        if t.state == "FINISHED" and t.best is not None and t.seconds_per_sample is not None
    ]
    expected = {
        n
        for score, cost, n in known
        if not any(s <= score and c <= cost and (s, c) != (score, cost) for s, c, _ in known)
    }
    assert {each.trial.number for each in front(record)} == expected


def test_the_best_points_are_whole_and_their_noise_is_that_of_the_seeds() -> None:
    record = make_record(GRID, grid_score, seeds=5, failed=0.05, seed=1)
    points = ranked_points(record)
    whole = [point.finished == len(point.trials) for point in points]
    assert whole == sorted(whole, reverse=True) and not all(whole)
    means = [point.mean for point in points if point.finished == len(point.trials)]
    assert means == sorted(means)
    noise = seed_noise(record)
    assert noise is not None and 0.4 * NOISE < noise < 1.3 * NOISE  # the best of twelve validations varies less


def test_the_rungs_are_those_of_the_scheduler(wide: SweepRecord) -> None:
    from tuning.schedule import rungs as of_scheduler
    from tuning.space import SpaceConfig

    for space in ({}, {"grace": 1, "reduction": 2}, {"asha": False}, {"against": "seconds_per_sample"}):
        tree = {**wide.space, **space, "set": {"training.epochs": 60, "training.validate_every": 5}}
        assert rungs(replace(wide, space=tree)) == of_scheduler(SpaceConfig.model_validate(tree))


@pytest.mark.parametrize("shape", ["wide", "a grid with seeds"])
def test_every_value_has_one_cell_and_stands_between_the_first_and_the_last_tick(shape: str, wide: SweepRecord) -> None:
    record = wide if shape == "wide" else SHAPES[shape]
    for axis in axes_of(record):
        ticks = [place for place, _ in axis.ticks()]
        assert ticks == sorted(ticks)
        for trial in record.trials:
            place = axis.position(trial.values)
            assert ticks[0] <= place <= ticks[-1]
            assert sum(low <= place < high for low, high, _ in axis.cells()) == 1


def test_a_cell_of_whole_numbers_names_what_it_holds() -> None:
    (axis,) = axes_of(make_record({"search": {"model.flow_depth": {"int": [0, 80]}}}, lambda values: 1.0))
    names = _held(axis, [{"model.flow_depth": depth} for depth in range(81)])
    assert [name for name, _ in names] == [f"{min(held)}–{max(held)}" for _, held in names]


def _held(axis: Axis, points: list[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [
        (name, [point[axis.key] for point in points if low <= axis.position(point) < high])
        for low, high, name in axis.cells()
    ]


def test_a_score_that_is_not_finite_is_a_dash(tmp_path: Path) -> None:
    record = make_record(GRID, grid_score)
    trials = list(record.trials)
    broken = CurvePoint(epoch=5, seconds=1.0, metrics={"validation_crps": math.nan})
    trials[0] = replace(trials[0], best=math.inf, curve=(broken, *trials[0].curve[1:]))
    text = write_report(replace(record, trials=tuple(trials)), tmp_path).read_text()
    assert "inf<" not in text and ">nan" not in text


def test_the_file_of_a_sweep_gives_the_same_page(tmp_path: Path) -> None:
    record = SHAPES["a grid with seeds"]
    record.to_json(tmp_path / "sweep.json")
    again = SweepRecord.from_json(tmp_path / "sweep.json")
    (tmp_path / "again").mkdir()
    assert write_report(again, tmp_path / "again").read_text() == write_report(record, tmp_path).read_text()
