"""The prior that is fitted to the aggregate posterior: what it finds, and that it never does harm."""

import pytest
import torch

from vamoh.aggregate import fit_prior
from vamoh.flows import Prior
from vamoh.model import Posterior

Z = 5


def posteriors(count: int, seed: int, *, related: bool = True) -> Posterior:
    """Of functions whose latents lie near a line, or are independent."""
    generator = torch.Generator().manual_seed(seed)
    along = torch.randn(count, 1, generator=generator) * torch.linspace(0.5, 2.0, Z)
    apart = torch.randn(count, Z, generator=generator)
    mean = along + 0.1 * apart - 1 if related else apart
    return Posterior(mean, torch.full((count, Z), -2.0))


def prior_of(depth: int) -> Prior:
    return Prior(Z, depth, correlated=True, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 3])
def test_functions_held_out_become_more_probable_by_what_it_says(depth: int) -> None:
    prior, held = prior_of(depth), posteriors(40, 1)
    before = prior.log_prob(held.mean).mean()
    gained = fit_prior(prior, posteriors(200, 2), held)
    assert gained > 3 and float(prior.log_prob(held.mean).mean() - before) == pytest.approx(gained, rel=0.5)


def test_what_it_draws_is_where_the_functions_are() -> None:
    prior = prior_of(2)
    fit_prior(prior, posteriors(400, 2), posteriors(40, 1))
    drawn = prior.transform(torch.randn(4000, Z, generator=torch.Generator().manual_seed(3)))
    truth = posteriors(4000, 4).mean
    torch.testing.assert_close(drawn.mean(dim=0), truth.mean(dim=0), atol=0.25, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), truth.T.cov(), atol=0.3, rtol=0.25)


def test_few_functions_are_not_learned_by_heart() -> None:
    prior, held = prior_of(0), posteriors(60, 1, related=False)
    gained = fit_prior(prior, posteriors(4, 2, related=False)._replace(log_scale=torch.full((4, Z), -6.0)), held)
    assert gained >= 0  # the prior that was learned stays where no fit is better


def test_what_was_learned_by_descent_stays_where_it_is_better() -> None:
    prior = prior_of(2)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    far = posteriors(50, 2)
    assert fit_prior(prior, far._replace(mean=far.mean + 100), posteriors(50, 1, related=False)) == 0
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())
