"""Laws of FunctionBatch: what it accepts, and what it never reads."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch

BUILD = Callable[..., FunctionBatch]


def test_what_stands_at_unobserved_points_is_never_kept(functions: BUILD) -> None:
    batch = functions()
    assert batch.values is not None
    dirty = torch.where(batch.mask[..., None], batch.values, torch.nan)
    clean = replace(batch, values=dirty).values
    assert clean is not None
    assert torch.equal(clean, torch.where(batch.mask[..., None], batch.values, 0.0))


def test_a_gap_that_is_not_marked_is_refused(functions: BUILD) -> None:
    batch = functions()
    assert batch.values is not None
    values = batch.values.clone()
    values[0, 0, 2] = torch.inf
    with pytest.raises(ValueError, match="mark missing points in `observed`"):
        replace(batch, values=values)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["coords", "covariates", "base"])
def test_what_is_known_everywhere_must_be_finite_everywhere(name: str, wrong: float, functions: BUILD) -> None:
    batch = functions(2, context=True)
    broken = getattr(batch, name).clone()
    broken[-1, 3, 0] = wrong
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        replace(batch, **{name: broken})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": torch.zeros(7, 3)}, "coords must be"),
        ({"coords": torch.zeros(1, 0, 3)}, "at least one point"),
        ({"values": torch.zeros(2, 6, 3)}, "values must have 3 dimensions with 7 points"),
        ({"values": torch.zeros(7, 3)}, "values must have 3 dimensions"),
        ({"observed": torch.ones(2, 7)}, "observed must be bool"),
        ({"observed": torch.ones(2, 7, 1, dtype=torch.bool)}, "observed must have 2 dimensions"),
        ({"covariates": torch.zeros(3, 7, 1)}, "functions where the batch holds"),
        ({"base": torch.zeros(2, 7, 3)}, "come together"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], message: str, functions: BUILD) -> None:
    with pytest.raises(ValueError, match=message):
        replace(functions(), **changes)


def test_a_subset_keeps_the_context_and_everything_known_of_its_points(functions: BUILD) -> None:
    batch = functions(2, context=True)
    index = torch.tensor([5, 0, 3])
    part = batch.at(index)
    assert part.num_points == 3 and part.batch_size == 2 and part.context is batch.context
    for name in ("coords", "values", "observed", "covariates", "base"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[:, index])


def test_moving_a_batch_changes_nothing_else(functions: BUILD) -> None:
    batch = functions(2, context=True)
    moved = batch.to("cpu")
    assert moved.context is not None and batch.context is not None
    for ours, theirs in ((moved, batch), (moved.context, batch.context)):
        for name in ("coords", "values", "observed", "covariates", "base"):
            before, after = getattr(theirs, name), getattr(ours, name)
            assert (before is None and after is None) or torch.equal(before, after)


def test_everything_is_observed_where_nothing_is_said(places: Callable[[int], Tensor]) -> None:
    batch = FunctionBatch(coords=places(7)[None], values=torch.zeros(2, 7, 3))
    assert batch.mask.shape == (1, 7) and batch.mask.all() and batch.batch_size == 2
