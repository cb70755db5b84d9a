"""Products by oneDNN are those of torch, whatever the layout and the precision."""

import pytest
import torch
from torch import nn

from vamoh import onednn


@pytest.mark.parametrize("slope", [1.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(7, 3, 5), (1, 1, 1), (40, 384, 100)])
def test_it_is_a_layer_and_its_activation(sizes: tuple[int, int, int], dtype: torch.dtype, slope: float) -> None:
    rows, width_in, width_out = sizes
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(rows, width_in, generator=generator, dtype=dtype)
    weight = torch.randn(width_out, width_in, generator=generator, dtype=dtype)
    bias = torch.randn(width_out, generator=generator, dtype=dtype)
    for given in (None, bias):
        expected = nn.functional.leaky_relu(nn.functional.linear(features, weight, given), slope)
        torch.testing.assert_close(onednn.linear(features, weight, given, slope=slope), expected, rtol=1e-5, atol=2e-5)


def test_points_may_be_the_last_axis() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, points = torch.randn(6, 4, generator=generator), torch.randn(4, 50, generator=generator)
    found = onednn.linear(weight, points.T)
    assert found.is_contiguous()
    torch.testing.assert_close(found, weight @ points)
