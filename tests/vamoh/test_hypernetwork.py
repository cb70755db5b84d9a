"""Laws of the hypernetworks and of the generators whose weights they make: both equal a loop of plain networks."""

import pytest
import torch
from torch import Tensor, nn

from vamoh.features import Features
from vamoh.generators import GeneratorShape
from vamoh.hypernetwork import Hypernetworks


def plain_network(shape: GeneratorShape, parameters: Tensor) -> nn.Sequential:
    """The network of one flat parameter vector [P], as anyone would write it."""
    layers: list[nn.Module] = []
    start = 0
    for width_in, width_out in shape.layers:
        linear = nn.Linear(width_in, width_out, dtype=parameters.dtype)
        end = start + width_in * width_out
        with torch.no_grad():
            linear.weight.copy_(parameters[start:end].view(width_in, width_out).T)
            linear.bias.copy_(parameters[end : end + width_out])
        start = end + width_out
        layers += [linear, nn.LeakyReLU(0.1)]
    assert start == shape.num_parameters == len(parameters)
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("widths", [(6, 5, 4, 3), (6, 2)])
def test_batched_generators_equal_a_loop_of_plain_networks(
    widths: tuple[int, ...], rows: int, generator: torch.Generator
) -> None:
    shape = GeneratorShape(widths)
    parameters = torch.randn(3, 2, shape.num_parameters, generator=generator, dtype=torch.float64)
    features = torch.randn(rows, 7, 6, generator=generator, dtype=torch.float64)
    outputs = shape(parameters, Features.of([features]))
    assert outputs.shape == (2, 3, 7, widths[-1])
    for k in range(3):
        for b in range(2):
            expected = plain_network(shape, parameters[k, b])(features[min(b, rows - 1)])
            torch.testing.assert_close(outputs[b, k], expected)


def test_generators_at_some_points_equal_those_points_of_all(generator: torch.Generator) -> None:
    shape = GeneratorShape((6, 5, 3))
    parameters = torch.randn(3, 2, shape.num_parameters, generator=generator, dtype=torch.float64)
    features = torch.randn(1, 7, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        shape(parameters, Features(features[:, [5, 2]])), shape(parameters, Features(features))[:, :, [5, 2]]
    )


def test_initial_generators_are_different_draws_of_the_right_size(generator: torch.Generator) -> None:
    shape = GeneratorShape((50, 40, 3))
    initial = shape.initial(4, generator=generator)
    assert initial.shape == (4, shape.num_parameters)
    assert initial[:, : 50 * 40].std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.05)
    assert not torch.equal(initial[0], initial[1])


def test_hypernetworks_equal_a_loop_of_plain_networks(generator: torch.Generator) -> None:
    initial = torch.randn(3, 11, generator=generator)
    hyper = Hypernetworks(4, (6, 5), initial, generator=generator).double()
    with torch.no_grad():
        for bias in hyper.biases:
            bias.add_(torch.randn(bias.shape, generator=generator, dtype=torch.float64))
    latent = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    parameters = hyper(latent)
    assert parameters.shape == (3, 2, 11)
    for k in range(3):
        hidden = latent
        for layer, (weight, bias) in enumerate(zip(hyper.weights, hyper.biases, strict=True)):
            linear = nn.Linear(weight.shape[1], weight.shape[2], dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(weight[k].T)
                linear.bias.copy_(bias[k, 0])
            hidden = linear(hidden if layer == 0 else nn.functional.leaky_relu(hidden, 0.1))
        torch.testing.assert_close(parameters[k], hidden)


def test_at_the_start_hypernetworks_make_nearly_the_initial_generators(generator: torch.Generator) -> None:
    initial = GeneratorShape((50, 40, 3)).initial(3, generator=generator)
    hyper = Hypernetworks(8, (32, 64), initial, generator=generator)
    made = hyper(torch.randn(200, 8, generator=generator))
    torch.testing.assert_close(made.mean(dim=1), initial, rtol=0, atol=0.1)
    spread = made.std(dim=1).mean()
    assert 0.02 * initial.std() < spread < initial.std()  # the latent is heard, and does not drown the initial weights


def test_a_component_depends_on_its_own_hypernetwork_only(generator: torch.Generator) -> None:
    hyper = Hypernetworks(4, (6,), torch.randn(3, 11, generator=generator), generator=generator)
    hyper(torch.randn(2, 4, generator=generator))[1].sum().backward()
    for parameter in hyper.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[[0, 2]] == 0).all() and (parameter.grad[1] != 0).any()
