"""Networks in tiles are the networks, one by one, and so are their gradients; in float64, whatever the tiles are."""

import pytest
import torch
from torch import Tensor, nn

from vamoh import perceptrons as module
from vamoh.features import Features
from vamoh.perceptrons import Layer, perceptrons

FUNCTIONS, NETWORKS, POINTS = 5, 2, 23
Given = tuple[Features, Layer, list[Layer]]


def given(own: bool, hidden: tuple[int, ...], one_for_all: bool) -> Given:
    """Features, a first layer and the others, of random numbers that can be differentiated."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    features = Features(drawn(1, POINTS, 4), drawn(FUNCTIONS, POINTS, 3) if own else None, 2 if own else 0)
    widths, seen = (*hidden, 2), 7 if own else 4
    together = NETWORKS * widths[0]
    first = Layer(drawn(1 if one_for_all else FUNCTIONS, together, seen), drawn(FUNCTIONS, together))
    networks = FUNCTIONS * NETWORKS
    rest = [Layer(drawn(networks, b, a), drawn(networks, b)) for a, b in zip(widths, widths[1:], strict=False)]
    return features, first, rest


def one_by_one(features: Features, first: Layer, rest: list[Layer]) -> Tensor:
    """[B, K out, N], a network at a time, as anybody would write it."""
    found = []
    for function in range(FUNCTIONS):
        seen = features.seen(function).T
        weight = first.weight[function if len(first.weight) > 1 else 0]
        for network in range(NETWORKS):
            rows = slice(network * len(weight) // NETWORKS, (network + 1) * len(weight) // NETWORKS)
            hidden = weight[rows] @ seen + first.bias[function, rows, None]
            for layer in rest:
                of_network = function * NETWORKS + network
                hidden = nn.functional.leaky_relu(hidden, 0.1)
                hidden = layer.weight[of_network] @ hidden + layer.bias[of_network, :, None]
            found.append(hidden)
    return torch.stack(found).view(FUNCTIONS, -1, POINTS)


def parts(features: Features, first: Layer, rest: list[Layer]) -> list[Tensor]:
    """All that can be differentiated."""
    own = [] if features.own is None else [features.own]
    return [features.shared, *own, *first, *(each for layer in rest for each in layer)]


@pytest.mark.parametrize("tile", [(1024, 2**19), (7, 2**19), (7, 70), (1, 1)])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
@pytest.mark.parametrize("one_for_all", [True, False])
def test_tiles_are_the_networks_one_by_one(
    tile: tuple[int, int], own: bool, hidden: tuple[int, ...], one_for_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POINTS", tile[0])
    monkeypatch.setattr(module, "NUMBERS", tile[1])
    asked = given(own, hidden, one_for_all)
    expected, found = one_by_one(*asked), perceptrons(*asked)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(perceptrons(*asked), expected)
    up = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs = torch.autograd.grad(expected, parts(*asked), up)
    for _ in range(2):  # a graph that is kept can be asked again
        ours = torch.autograd.grad(found, parts(*asked), up, retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("number", range(6))
def test_one_gradient_alone_is_that_of_all(number: int) -> None:
    asked = given(own=True, hidden=(6,), one_for_all=False)
    (expected,) = torch.autograd.grad(perceptrons(*asked).square().sum(), [parts(*asked)[number]])
    for place, part in enumerate(parts(*asked)):
        part.requires_grad_(place == number)
    (found,) = torch.autograd.grad(perceptrons(*asked).square().sum(), [parts(*asked)[number]])
    torch.testing.assert_close(found, expected)


def test_under_autocast_products_are_in_half_precision_and_gradients_in_that_of_what_was_given() -> None:
    asked = given(own=True, hidden=(6,), one_for_all=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = perceptrons(*asked)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), one_by_one(*asked), rtol=0.1, atol=0.3)
    found.float().sum().backward()
    assert all(part.grad is not None and part.grad.dtype == torch.float64 for part in parts(*asked))


def test_a_second_derivative_is_refused() -> None:
    asked = given(own=True, hidden=(6,), one_for_all=False)
    (slope,) = torch.autograd.grad(perceptrons(*asked).square().sum(), [asked[0].shared], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
