"""Whether an input's values are means or points is said by its cell_methods, and doubted where training had others."""

import warnings
from dataclasses import replace

import pytest

from pipelines.products.doubts import cell_kind, doubts
from pipelines.products.downscale import downscale
from pipelines.products.targets import finer
from pipelines.training.plan import Plan


@pytest.mark.parametrize(
    ("methods", "kind"),
    [
        ("", "points"),
        ("time: mean", "points"),
        ("area: time: mean", "means"),
        ("time: point area: mean", "means"),
        ("area: mean where land time: maximum", "means"),
        ("latitude: longitude: mean", "means"),
        ("area: point time: mean", "points"),
    ],
)
def test_cell_methods_are_read_as_the_conventions_write_them(methods, kind) -> None:
    assert cell_kind(methods) == kind


def of_kind(plan: Plan, kind: str) -> Plan:
    context = plan.config.context
    assert context is not None
    return replace(plan, config=plan.config.model_copy(update={"context": context.model_copy(update={"kind": kind})}))


def test_each_kind_is_doubted_by_a_model_of_the_other(teller) -> None:
    plan = teller.checkpoint.plan
    given = plan.lattice.every(3)
    target = finer(given, 3)
    assert doubts(plan, given, target, "area: point") == []
    assert doubts(of_kind(plan, "means"), given, target, "area: mean") == []
    (said,) = doubts(plan, given, target, "area: mean")
    assert said == (
        "The input holds means over its cells (cell_methods 'area: mean'), the model was trained on values at points."
    )
    (said,) = doubts(of_kind(plan, "means"), given, target)
    assert said == (
        "The input holds values at points (it has no cell_methods), the model was trained on means over its cells."
    )


def test_the_doubt_stands_in_the_output_and_on_the_screen(coarse, teller) -> None:
    with pytest.warns(UserWarning, match="The input holds means over its cells"):
        fine = downscale(coarse.assign_attrs(cell_methods="area: mean"), teller, factor=3, members=1)
    assert "means over its cells" in fine.attrs["warnings"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = downscale(coarse, teller, factor=3, members=1)
    assert fine.attrs["warnings"] == ""
