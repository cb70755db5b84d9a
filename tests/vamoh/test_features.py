"""Features that functions share, and their own, are those that lie side by side."""

import pytest
import torch
from torch import Tensor

from vamoh import blocks
from vamoh.features import Features
from vamoh.gating import Gating
from vamoh.generators import GeneratorShape

PARTS = {  # rows and widths
    "shared": ((1, 2), (1, 4)),
    "own": ((3, 2), (3, 4)),
    "own in the middle": ((1, 2), (3, 1), (1, 3)),
    "own first": ((3, 2), (1, 4)),
    "own around shared": ((1, 1), (3, 1), (1, 2), (3, 1), (1, 1)),
}


@pytest.fixture(params=PARTS)
def parts(request: pytest.FixtureRequest, generator: torch.Generator) -> list[Tensor]:
    shapes = [(rows, 7, width) for rows, width in PARTS[request.param]]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def whole(parts: list[Tensor]) -> Tensor:
    """All of them, of each function."""
    return torch.cat([part.expand(3, -1, -1) for part in parts], dim=-1)


def test_each_function_sees_them_in_their_order(parts: list[Tensor]) -> None:
    features, expected = Features.of(parts), whole(parts)
    assert features.num_points == 7
    for row in range(3):
        assert torch.equal(features.seen(row), expected[row])
        assert torch.equal(features.seen(row, slice(2, 5)), expected[row, 2:5])
        assert torch.equal(features.at(slice(2, 5)).rows(row, row + 1).shared, expected[row : row + 1, 2:5])
        assert torch.equal(features.rows(1, 3).seen(row - 1), expected[row]) or row == 0


def test_a_layer_of_them_is_a_layer_of_all(parts: list[Tensor], generator: torch.Generator) -> None:
    weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    features = Features.of(parts)
    shared, own = features.columns(weight)
    found = features.shared @ shared.T
    if own is not None and features.own is not None:
        found = found + features.own @ own.T
    torch.testing.assert_close(found.expand(3, -1, -1), whole(parts) @ weight.T)


@pytest.mark.parametrize("numbers", [2**20, 24])
def test_generators_and_gates_and_their_gradients_are_those_of_all(
    parts: list[Tensor], numbers: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocks.NUMBERS, "cpu", numbers)
    shape = GeneratorShape((6, 4, 2))
    networks = torch.randn(2, 3, shape.num_parameters, generator=generator, dtype=torch.float64, requires_grad=True)
    latent = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    gate = Gating(6, 4, (5,), 2).double()
    leaves = [part.requires_grad_() for part in parts]

    def answers(row: int | None) -> Tensor:
        rows = slice(None) if row is None else slice(row, row + 1)
        features = Features.of(leaves) if row is None else Features(whole(leaves)[rows])
        outputs = shape(networks[:, rows], features)
        return torch.cat([outputs.transpose(1, 2).flatten(2), gate(features, latent[rows])], dim=-1)

    found, expected = answers(None), torch.cat([answers(row) for row in range(3)])
    torch.testing.assert_close(found, expected)
    given = [*leaves, networks, latent, *gate.parameters()]
    for one, other in zip(
        torch.autograd.grad((found**2).sum(), given), torch.autograd.grad((expected**2).sum(), given), strict=True
    ):
        torch.testing.assert_close(one, other)
