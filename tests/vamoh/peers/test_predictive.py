"""What a peer says of a value is a distribution like any other, and as wide as what it misses."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vamoh.likelihoods import DiscretisedLogistic
from vamoh.peers.predictive import SCALES, PeerLikelihood, certain, predictive, scale_log_prob

MASK = torch.ones(1, 400, dtype=torch.bool)


@pytest.fixture
def values(generator: torch.Generator) -> Tensor:
    """f [B=2, N=400, C=2]."""
    return 0.2 + 0.6 * torch.rand(2, 400, 2, generator=generator, dtype=torch.float64)


def test_the_likeliest_scale_of_a_normal_is_the_root_mean_square_of_what_is_missed(
    values: Tensor, generator: torch.Generator
) -> None:
    sizes = torch.tensor([0.02, 0.3], dtype=torch.float64)
    truth = values + sizes * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    found = SCALES[scale_log_prob(values, truth, MASK, "normal").argmax(dim=0)]
    rms = (truth - values).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(found.double(), rms, rtol=0.026, atol=0)  # candidates are 5 % apart
    hidden = torch.where(MASK[..., None] & (torch.arange(400) % 2 == 0)[None, :, None], truth, torch.nan)
    seen = MASK & (torch.arange(400) % 2 == 0)
    assert torch.isfinite(scale_log_prob(values, hidden, seen, "normal")).all()


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli", "discretised_logistic"])
def test_a_function_says_what_its_family_says_of_it(
    likelihood: PeerLikelihood, values: Tensor, generator: torch.Generator
) -> None:
    scale = torch.tensor([0.05, 0.2], dtype=torch.float64)
    said, truth = predictive(values, likelihood, scale), (values > 0.45).double()
    match likelihood:
        case "normal":
            expected = Normal(values, scale).log_prob(truth)
            torch.testing.assert_close(said.mean, values)
        case "bernoulli":
            solid = torch.sigmoid((values - 0.5) / scale)
            expected = torch.where(truth == 1, solid, 1 - solid).log()
            torch.testing.assert_close(said.mean, solid)
            assert ((said.mean > 0.5) == (values > 0.5)).all()
        case "discretised_logistic":
            expected = DiscretisedLogistic(values, scale.log()).log_prob(truth)
    torch.testing.assert_close(said.log_prob(truth), expected.sum(dim=-1))


def test_what_is_certain_has_one_value_at_every_level(values: Tensor) -> None:
    said = certain(values)
    torch.testing.assert_close(said.mean, values)
    for level in (0.01, 0.5, 0.99):
        torch.testing.assert_close(said.quantile(torch.full_like(values, level)), values)
    assert (said.cdf(values + 1e-6) == 1).all() and (said.cdf(values - 1e-6) == 0).all()
