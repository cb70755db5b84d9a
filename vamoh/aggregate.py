"""The prior's Gaussian, fitted to the aggregate posterior: the last step of learning, in closed form.

    max over m, S of   mean over functions E_q(z | X, Y)[ log p(z) ],   p(z) = N(f^-1(z); m, S) |det df^-1/dz|

is what the bound asks of m and S once all else has been learned: the mean and the covariance of the aggregate posterior
below the flow f. Descent with a diagonal S leaves functions between those of the data as probable as these; with few
steps, all the more.

Source: Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018, Section 2 (the bound's best prior is the aggregate
    posterior).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vamoh.flows import Prior
from vamoh.model import Posterior

DRAWS = 16  # of each function's latent
SHRUNK = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # towards no covariances; the held-out functions choose


@torch.no_grad()
def fit_prior(prior: Prior, learned: Posterior, held: Posterior, *, seed: int = 0) -> float:
    """Fit the Gaussian below the flow; what was learned by descent stays where it is better for functions held out.

    Args:
        prior: With covariances; changed in place.
        learned, held: Posteriors of training functions [n, Z], and of functions held out.
        seed: Of the draws.

    Returns:
        What it gains for the functions held out, nats each.
    """
    generator = torch.Generator().manual_seed(seed)
    latents, judged = (_drawn(each, generator) for each in (learned, held))
    below = prior.below(latents).double()
    mean, covariance = below.mean(dim=0), below.T.cov(correction=0)
    begun = best = float(prior.log_prob(judged).mean())
    kept = {name: value.clone() for name, value in prior.state_dict().items()}
    for share in SHRUNK:
        prior.fit(mean, (1 - share) * covariance + share * covariance.diagonal().diag())
        score = float(prior.log_prob(judged).mean())
        if score > best:
            best, kept = score, {name: value.clone() for name, value in prior.state_dict().items()}
    prior.load_state_dict(kept)
    return best - begun


def _drawn(posterior: Posterior, generator: torch.Generator) -> Tensor:
    """Latents [n DRAWS, Z]."""
    mean, log_scale = (each.cpu() for each in posterior)
    noise = torch.randn(DRAWS, *mean.shape, generator=generator, dtype=mean.dtype)
    return (mean + log_scale.exp() * noise).flatten(0, 1)
