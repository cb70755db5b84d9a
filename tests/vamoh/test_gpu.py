"""On a GPU the model is the one it is on a CPU; skipped where there is none."""

from collections.abc import Callable

import pytest
import torch

from vamoh import FunctionBatch, ModelSpec, VAMoH

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
BUILD = Callable[..., FunctionBatch]
SPEC = Callable[..., ModelSpec]
WAKE = Callable[[VAMoH], VAMoH]


def test_the_bound_and_its_gradient_are_those_of_the_cpu(functions: BUILD, classic: SPEC, awake: WAKE) -> None:
    batch, noise = functions(), torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        model = awake(VAMoH(classic()).double()).to(device)
        bound = model.elbo(batch.to(device), noise=noise.to(device)).elbo
        bound.sum().backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append((bound.detach().cpu(), torch.cat([g.ravel() for g in gradients])))
    torch.testing.assert_close(found[1], found[0])


def test_a_field_with_a_context_is_downscaled_as_on_the_cpu(functions: BUILD, downscaling: SPEC, awake: WAKE) -> None:
    batch, noise = functions(2, context=True), torch.zeros(2, 4, dtype=torch.float64)
    model = awake(VAMoH(downscaling(), support=batch.coords[0]).double())
    with torch.no_grad():
        expected = model.sample(noise, batch).mean
        ours = model.to("cuda").sample(noise.cuda(), batch.to("cuda")).mean
    torch.testing.assert_close(ours.cpu(), expected)


def test_half_precision_gives_single_precision_probabilities(functions: BUILD, classic: SPEC) -> None:
    batch = functions()
    assert batch.values is not None
    single = FunctionBatch(coords=batch.coords.float(), values=batch.values.float(), observed=batch.observed)
    model = VAMoH(classic()).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        terms = model.elbo(single.to("cuda"))
    assert terms.elbo.dtype == terms.kl_z.dtype == terms.reconstruction.dtype == torch.float32
    assert torch.isfinite(terms.elbo).all()


def test_pinned_batches_arrive_whole(functions: BUILD) -> None:
    batch = functions(2, context=True)
    there = batch.pinned().to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert batch.pinned().coords.is_pinned()
    for one, other in ((batch, there), (batch.context, there.context)):
        assert one is not None and other is not None
        torch.testing.assert_close(other.coords.cpu(), one.coords)
        assert one.values is not None and other.values is not None
        torch.testing.assert_close(other.values.cpu(), one.values)
