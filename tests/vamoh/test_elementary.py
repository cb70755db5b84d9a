"""Elementary functions by numpy are those of torch."""

from typing import Literal

import pytest
import torch

from vamoh import elementary


@pytest.mark.parametrize("function", ["cos", "log", "sin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_is_the_function_of_its_name_in_place_too(
    function: Literal["cos", "log", "sin"], dtype: torch.dtype
) -> None:
    values = torch.logspace(-6, 2, 1001, dtype=dtype)
    expected = getattr(torch, function)(values.double())
    tolerance = {"rtol": 0.0, "atol": 4 * torch.finfo(dtype).eps * max(1.0, float(expected.abs().max()))}
    found = elementary.write(function, values, torch.empty_like(values))
    torch.testing.assert_close(found.double(), expected, **tolerance)
    assert torch.equal(elementary.write(function, values, values), found)


def test_what_is_beyond_a_limit_and_what_is_no_number_are_found() -> None:
    values = torch.tensor([0.5, 1.0, 1.5, torch.nan, -torch.inf, torch.inf])
    assert elementary.beyond(values, 1.0).tolist() == [2, 3, 5]
