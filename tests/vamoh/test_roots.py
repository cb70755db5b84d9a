"""Laws of the bracketed root."""

import torch

from vamoh.roots import MAX_STEPS, bracketed_root


def test_roots_are_found_to_the_last_digits_of_very_different_functions_at_once() -> None:
    power = torch.tensor([1.0, 3.0, 9.0, 1 / 3, 0.1], dtype=torch.float64)
    root = torch.tensor([0.3, -2.0, 1e-3, 700.0, 1.0], dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x - root).sign() * (x - root).abs() ** power

    found = bracketed_root(function, torch.full_like(root, -1e3), torch.full_like(root, 1e4))
    torch.testing.assert_close(found, root, rtol=1e-15, atol=1e-18)


def test_a_step_is_crossed_as_fast_as_by_bisection() -> None:
    calls = 0

    def step(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.where(x < 12.345, -0.3, 0.7).to(x)

    low = torch.tensor([-1e6], dtype=torch.float64)
    found = bracketed_root(step, low, -low)
    assert abs(found.item() - 12.345) < 1e-13 * 12.345 * 4
    assert calls < 80 < MAX_STEPS


def test_an_end_that_is_a_root_or_lies_beyond_one_by_rounding_is_the_answer() -> None:
    low, high = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    shift = torch.tensor([0.0, -1.0, -1 - 1e-6, 1e-7])
    torch.testing.assert_close(
        bracketed_root(lambda x: x + shift, low, high), torch.tensor([0.0, 1.0, 1.0, 0.0]), rtol=0, atol=0
    )
