"""Laws of the gating networks."""

import pytest
import torch
from torch import nn

from vamoh.features import Features
from vamoh.gating import Gating


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_the_split_first_layer_equals_the_concatenated_one(
    rows: int, hidden: tuple[int, ...], generator: torch.Generator
) -> None:
    torch.manual_seed(5)
    gate = Gating(8, 4, hidden, 3).double()
    features = torch.randn(rows, 7, 8, generator=generator, dtype=torch.float64)
    latent = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    whole = nn.Linear(12, hidden[0], dtype=torch.float64)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([gate.of_point.weight, gate.of_latent.weight], dim=1))
        whole.bias.copy_(gate.of_point.bias)
    together = torch.cat([features.expand(2, -1, -1), latent[:, None].expand(-1, 7, -1)], dim=-1)
    parts = features[..., :3], features[:1, :, 3:6], features[..., 6:]
    if rows > 1:
        together = torch.cat([together[..., :3], features[:1, :, 3:6].expand(2, -1, -1), together[..., 6:]], dim=-1)
    torch.testing.assert_close(gate(Features.of(parts), latent), gate.rest(whole(together)))


def test_one_component_can_take_a_point_for_itself_unless_the_public_bound_is_asked_for(
    generator: torch.Generator,
) -> None:
    features, latent = torch.randn(1, 7, 8, generator=generator), torch.randn(2, 4, generator=generator)
    for bounded, most in ((False, 1.0), (True, 0.787)):
        gate = Gating(8, 4, (6, 5), 3, bounded=bounded)
        with torch.no_grad():
            gate.rest.get_parameter("1.2.bias").copy_(torch.tensor([50.0, -50.0, -50.0]))
        weights = gate(Features(features), latent).softmax(dim=-1)
        torch.testing.assert_close(weights[..., 0], torch.full((2, 7), most), rtol=0, atol=1e-3)
