"""The prior p(z), or p(z | context): planar flows of depth L over a diagonal Gaussian.

    z = f_L o ... o f_1(e),   f_l(z) = z + u_l h(w_l . z + b_l),   h = LeakyReLU,   e ~ N(mean, diag(scale^2))

Each layer is inverted in closed form: h is linear on either side of its kink and u is kept at u . w > -1 + FLOOR, so
the sign of the pre-activation survives the layer, and its inverse stretches nothing along w by more than 1 / FLOOR. All
inverse layers together are one matrix product and a recursion of scalars, because
w_l . z_l = w_l . z_L - sum_{m > l} (w_l . u_m) h_m.

Source: Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015; paper, Section 4.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vamoh.precision import full_precision

SLOPE = 0.1
FLOOR = 1e-3


class PlanarFlow(nn.Module):
    """A bijection of R^Z made of `depth` planar layers.

    Args:
        latent: Z.
        depth: L, at least 1.
        generator: Draws the initial directions.
    """

    def __init__(self, latent: int, depth: int, *, generator: torch.Generator) -> None:
        super().__init__()
        scale = 1 / math.sqrt(latent)
        self.direction = nn.Parameter(torch.randn(depth, latent, generator=generator) * scale)
        self.shift = nn.Parameter(torch.randn(depth, latent, generator=generator) * 0.01)
        self.bias = nn.Parameter(torch.zeros(depth))

    def _invertible_shift(self) -> tuple[Tensor, Tensor]:
        """u [L, Z], and u . w [L] = (1 - FLOOR) (softplus(s) - 1), with s so that a zero shift stays zero."""
        direction, shift = self.direction, self.shift
        dot = (direction * shift).sum(dim=-1)
        wanted = (1 - FLOOR) * (nn.functional.softplus(dot + math.log(math.e - 1)) - 1)
        along = direction / (direction**2).sum(dim=-1, keepdim=True).clamp_min(1e-8)
        moved = shift + (wanted - dot)[:, None] * along
        # once more: the first correction of a long shift leaves a rounding error as long as the shift's last digit
        moved = moved + (wanted - (direction * moved).sum(dim=-1))[:, None] * along
        return moved, (direction * moved).sum(dim=-1)

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """e [..., Z] -> z [..., Z] and log |det dz/de| [...]."""
        log_det = noise.new_zeros(noise.shape[:-1])
        for direction, shift, dot, bias in zip(self.direction, *self._invertible_shift(), self.bias, strict=True):
            before = noise @ direction + bias
            slope = _slope(before)
            noise = noise + shift * (slope * before)[..., None]
            log_det = log_det + torch.log1p(slope * dot)
        return noise, log_det

    def inverse(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """z [..., Z] -> e [..., Z] and log |det de/dz| [...]."""
        shift, dot = self._invertible_shift()
        projected = latent @ self.direction.T + self.bias  # [..., L], w_l . z_L + b_l
        gram = self.direction @ shift.T  # [L, L], w_l . u_m
        moves: list[Tensor] = []
        log_det = latent.new_zeros(latent.shape[:-1])
        for layer in reversed(range(len(self.direction))):
            after = projected[..., layer]
            if moves:
                after = after - torch.stack(moves, dim=-1) @ gram[layer, layer + 1 :].flip(0)
            slope = _slope(after)
            moves.append(slope * after / (1 + slope * dot[layer]))
            log_det = log_det - torch.log1p(slope * dot[layer])
        return latent - torch.stack(moves[::-1], dim=-1) @ shift, log_det


def _slope(before: Tensor) -> Tensor:
    return 1 - (1 - SLOPE) * (before <= 0).to(before)


class Prior(nn.Module):
    """p(z): a planar flow over a trainable diagonal Gaussian, whose place and scale may come from a context.

    Args:
        latent: Z.
        depth: L; 0 leaves the Gaussian as it is.
        correlated: The Gaussian has covariances too, which are not learned by descent: `fit` gives them.
        generator: Draws initial parameters.
    """

    root: Tensor | None

    def __init__(self, latent: int, depth: int, *, correlated: bool = False, generator: torch.Generator) -> None:
        super().__init__()
        # [Z, Z], lower triangular, with ones on its diagonal: of the correlations, in units of the scales
        self.register_buffer("root", torch.eye(latent) if correlated else None)
        self.mean = nn.Parameter(torch.zeros(latent))
        self.log_scale = nn.Parameter(torch.zeros(latent))
        # none rather than an empty one, whose parameters would wait for gradients that never come
        self.flow = PlanarFlow(latent, depth, generator=generator) if depth else None

    def _gaussian(self, context: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if context is None:
            return self.mean, self.log_scale
        return self.mean + context[0], self.log_scale + context[1]

    def log_prob(self, latent: Tensor, context: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """log p(z) [..., ] in nats, of latent [..., Z]; `context` is a (shift, log scale) pair [..., Z] each."""
        mean, log_scale = self._gaussian(context)
        with full_precision(latent):
            noise, log_det = (latent, 0.0) if self.flow is None else self.flow.inverse(latent)
            standard = (noise - mean) * torch.exp(-log_scale)
            if self.root is not None:
                rows = standard.reshape(-1, standard.shape[-1])
                solved = torch.linalg.solve_triangular(self.root, rows.T, upper=False, unitriangular=True)
                standard = solved.T.reshape(standard.shape)
            log_normal = -0.5 * (standard**2 + math.log(2 * math.pi)) - log_scale
            return log_normal.sum(dim=-1) + log_det

    def transform(self, noise: Tensor, context: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Standard normal noise [..., Z] -> a draw of the prior [..., Z], differentiable in every parameter."""
        mean, log_scale = self._gaussian(context)
        with full_precision(noise):
            noise = noise if self.root is None else noise @ self.root.T
            base = mean + torch.exp(log_scale) * noise
            return base if self.flow is None else self.flow(base)[0]

    def below(self, latent: Tensor) -> Tensor:
        """Latents [..., Z] as the Gaussian below the flow has them."""
        with full_precision(latent):
            return latent if self.flow is None else self.flow.inverse(latent)[0]

    @torch.no_grad()
    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Make the Gaussian below the flow the one of this mean [Z] and covariance [Z, Z].

        Raises:
            ValueError: If it has no covariances.
        """
        if self.root is None:
            raise ValueError("this prior's Gaussian has no covariances: make it with `correlated`")
        factor = torch.linalg.cholesky(covariance.double())
        scale = factor.diagonal()
        self.mean.copy_(mean)
        self.log_scale.copy_(scale.log())
        self.root.copy_(factor / scale[:, None])
