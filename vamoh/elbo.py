"""The evidence lower bound of a mixture of hypergenerators, term by term.

    ELBO = E_q[ sum_d sum_k q(c_d = k) log p(y_d | k) - KL(q(c_d) || p(c_d)) ] - KL(q(z | X, Y) || p(z))

Source: paper, Section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ElboTerms:
    """Nats for each function [B].

    Attributes:
        reconstruction: E_q[sum_d sum_k q(c_d = k) log p(y_d | x_d, z, k)], rescaled to all of the function's points.
        kl_z: KL(q(z | X, Y) || p(z)).
        kl_c: sum_d KL(q(c_d) || p(c_d)), rescaled likewise.
        predictive: E_{p(z | context)}[log p(Y | X, z)], or None where it was not asked for.
        local_penalty: minus the log prior of the local terms up to a constant, summed over the points and given in
            samples: to be divided by the number of functions that there are to learn from. Zero for the classic model.
    """

    reconstruction: Tensor
    kl_z: Tensor
    kl_c: Tensor
    predictive: Tensor | None
    local_penalty: Tensor

    @property
    def elbo(self) -> Tensor:
        """The bound [B]."""
        return self.reconstruction - self.kl_c - self.kl_z


def mixture_terms(
    log_prob: Tensor, log_prior: Tensor, log_posterior: Tensor, mask: Tensor, rescale: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL of the component variable, summed over points.

    Args:
        log_prob: [B, N, K], log p(y | c = k).
        log_prior: [B, N, K], log p(c = k | x, z), normalised.
        log_posterior: [B, N, K], log q(c = k | x, y, z), normalised.
        mask: [B or 1, N], where values were seen.
        rescale: [B or 1, N or 1], points of the whole function that each point used here counts for.

    Returns:
        (reconstruction [B], kl_c [B]).
    """
    posterior = log_posterior.exp()
    reconstruction = (posterior * log_prob).sum(dim=-1)
    divergence = (posterior * (log_posterior - log_prior)).sum(dim=-1)
    zero = torch.zeros_like(reconstruction)
    return (
        (torch.where(mask, reconstruction, zero) * rescale).sum(dim=-1),
        (torch.where(mask, divergence, zero) * rescale).sum(dim=-1),
    )


def exact_posterior(log_prob: Tensor, log_prior: Tensor) -> Tensor:
    """log p(c | x, y, z) [B, N, K], with which the component level of the bound is tight."""
    return log_shares(log_prob + log_prior)


def log_shares(logits: Tensor) -> Tensor:
    """log softmax over components [B, N, K], which lie apart in memory: along them as the last axis it is slow."""
    return torch.log_softmax(logits.transpose(1, 2), dim=1).transpose(1, 2)


def gaussian_log_prob(value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(value; mean, exp(log_scale)^2), summed over the last axis."""
    standard = (value - mean) * torch.exp(-log_scale)
    return (-0.5 * standard**2 - log_scale - 0.9189385332046727).sum(dim=-1)
