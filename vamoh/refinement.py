"""The posterior of one function, improved for that function: an ascent of the bound begins at what the encoder says.

    max over mean, scale of   E_q[ sum_d w_d log p(y_d | x_d, z) ] - KL(q(z) || p(z)),     q = N(mean, scale^2)

The encoder answers for every function at once and so for none of them best (the amortisation gap); a few steps close
much of it, most of all where only a part of the function was seen.

Where values are continuous, quasi-Newton steps first climb  log p(Y | X, z) + log p(z)  to its top near by, in units of
the encoder's width: they know what Adam does not, that an error here can be paid for there.

Source: Kim et al., "Semi-amortized variational autoencoders", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vamoh.ascent import ascend
from vamoh.batch import FunctionBatch
from vamoh.elbo import gaussian_log_prob
from vamoh.model import Posterior, VAMoH

STEPS = 60  # of the ascent; more gave nothing on chairs
RATE, LAST_RATE = 0.1, 0.2  # of Adam, and what is left of it at the end
# A step of a mean, in standard deviations of what the encoder says, and the longest there is. Longer steps leave the
# functions that the generators know: errors of hundreds of kelvin, and shapes that fit less well.
STRIDE, LONGEST = 0.7, 0.1
# Where values are continuous: quasi-Newton steps, the draws of points that they read at once, the longest step along an
# axis, and steps of Adam after them; chosen on fields.
CLIMBING, READ, FARTHEST, AFTER = 20, 4, 0.5, 20
MIDDLE = 0.75  # of a cell: at its edges a neighbour's value is as near
# Which points of the functions [B, n] a step reads, and how many each counts for [B, n] (0: it was not seen).
Draw = Callable[[], tuple[Tensor, Tensor]]


def refined(
    model: VAMoH,
    batch: FunctionBatch,
    posterior: Posterior,
    draw: Draw,
    *,
    steps: int,
    cell: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Posterior:
    """Improve q(z | X, Y) of the functions of a batch; the model stays as it is.

    Args:
        model: Of functions without a context.
        batch: B functions with values, on common points.
        posterior: Where to begin, [B, Z].
        draw: Gives the points of a step.
        steps: Of Adam; 0 gives `posterior`. Where values are continuous these are `AFTER` at most, after a climb.
        cell: [D], sides of the cell that a value is of, where it is not of a point alone: a step then asks for places
            in the middle of each, so that what lies between the centres is not left to chance.
        generator: Of the latents, a pair z, 2 mean - z in each step.
    """
    if not steps:
        return posterior
    assert batch.values is not None
    if model.spec.likelihood == "normal":
        posterior, steps = _climbed(model, batch, posterior, draw), min(steps, AFTER)
    start, log_scale = posterior.mean.detach(), posterior.log_scale.detach().clone().requires_grad_()
    unit = (STRIDE / RATE * log_scale.detach().exp()).clamp_max(LONGEST / RATE)
    moved = torch.zeros_like(start).requires_grad_()  # from where the encoder begins, in these units
    optimizer = torch.optim.Adam([moved, log_scale], lr=RATE, betas=(0.9, 0.98))
    with torch.enable_grad():
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - (1 - LAST_RATE) * step / steps)
            index, weight = draw()
            places = _taken(batch.coords, index)
            if cell is not None:
                places = places + (torch.rand(places.shape, generator=generator).to(places) - 0.5) * cell * MIDDLE
            asked = FunctionBatch(coords=places)
            values = _taken(batch.values, index)
            mean = start + unit * moved
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
            bound = torch.zeros((), dtype=mean.dtype, device=mean.device)
            for sign in (1, -1):
                latent = mean + sign * log_scale.exp() * noise
                likelihood = torch.where(weight > 0, model.decode(latent, asked).log_prob(values), 0.0) * weight
                divergence = gaussian_log_prob(latent, mean, log_scale) - model.prior.log_prob(latent, None)
                bound = bound + (likelihood.sum(dim=1) - divergence).sum() / 2
            moved.grad, log_scale.grad = torch.autograd.grad(-bound, [moved, log_scale])
            optimizer.step()
            with torch.no_grad():
                log_scale.clamp_(-8, 4)
    return Posterior((start + unit * moved).detach(), log_scale.detach())


def _climbed(model: VAMoH, batch: FunctionBatch, posterior: Posterior, draw: Draw) -> Posterior:
    """The mean moved to the top near by; the points stay the same meanwhile, so that no value can fall."""
    assert batch.values is not None
    drawn = [draw() for _ in range(READ)]
    drawn = drawn[:1] if drawn[0][0] is drawn[1][0] else drawn  # all that was seen, each time
    index, weight = (torch.cat(each, dim=1) for each in zip(*drawn, strict=True))
    weight = weight / len(drawn)
    asked, values = FunctionBatch(coords=_taken(batch.coords, index)), _taken(batch.values, index)
    start = posterior.mean.detach()
    unit = posterior.log_scale.detach().exp().clamp_max(1.0)

    def value(moved: Tensor) -> Tensor:
        latent = start + unit * moved
        likelihood = torch.where(weight > 0, model.decode(latent, asked).log_prob(values), 0.0) * weight
        return likelihood.sum(dim=1) + model.prior.log_prob(latent, None)

    moved = ascend(value, torch.zeros_like(start), steps=CLIMBING, longest=FARTHEST / unit)
    return Posterior(start + unit * moved, posterior.log_scale)


def _taken(tensor: Tensor, index: Tensor) -> Tensor:
    """Points [B, n] of a tensor [B or 1, N, F]."""
    rows = tensor.expand(len(index), -1, -1)
    return torch.gather(rows, 1, index[..., None].expand(-1, -1, tensor.shape[-1]))
