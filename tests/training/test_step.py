"""A step is a function of its number: any number of workers takes the same one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scores.probability import crps_for_ensemble
from torch import nn

from pipelines.config import Config, TrainingConfig
from pipelines.data.batches import Framing
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.data.stream import FieldStream, Samples
from pipelines.training.loop import VALIDATION_BATCH, read_samples
from pipelines.training.plan import Plan, make_plan, split_of
from pipelines.training.step import (
    Drawn,
    Objective,
    differentiate,
    draw,
    ensemble_crps,
    make_optimizer,
    set_rates,
    take_step,
    update_average,
    validate,
    validation_metrics,
)
from vamoh import FunctionBatch, VAMoH


def in_double(batch: FunctionBatch) -> FunctionBatch:
    def widen(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None or tensor.dtype == torch.bool else tensor.double()

    context = batch.context
    return FunctionBatch(
        coords=batch.coords.double(),
        values=widen(batch.values),
        observed=batch.observed,
        covariates=widen(batch.covariates),
        base=widen(batch.base),
        context=None if context is None else in_double(context),
    )


def gradient(plan: Plan, store: Store, workers: int, epoch: int = 1) -> torch.Tensor:
    """The mean over shares of the gradients of one global batch, float64, as data parallelism averages them."""
    config = plan.config.training
    model = plan.new_model().double()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off its start, where tables and read-outs are zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    samples = split_of(plan.config, store).train
    total = 0.0
    for rank in range(workers):
        stream = FieldStream(
            store=store, samples=samples, batch_size=config.batch_size, seed=0, rank=rank, world_size=workers
        )
        batches = stream.epoch(epoch)
        drawn = draw(next(batches), plan.framing, plan.lattice, seed=0, step=7, latent=plan.spec.latent, num=2)
        batches.close()
        loss, _ = Objective(model, config, len(samples))(
            replace(drawn, batch=in_double(drawn.batch), noise=drawn.noise.double()), epoch, 7
        )
        parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        total = total + torch.cat([part.ravel() for part in parts if part is not None]) / workers
    return total


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(
    "changes", [(), ("context.every=[2, 4]", "training.predictive=0.3"), ("context=null",)], ids=str
)
def test_any_number_of_workers_computes_the_same_gradient(
    changes, workers, store: Store, tiny: Callable[..., Config]
) -> None:
    if "context=null" in changes:
        changes = (*changes, "model.local=null", "model.context_encoder=null", "model.component_posterior=network")
    plan = make_plan(tiny(*changes), store)
    one = gradient(plan, store, 1)
    assert one.abs().max() > 0
    torch.testing.assert_close(gradient(plan, store, workers), one, rtol=1e-6, atol=1e-9 * float(one.abs().max()))


def test_rates_are_a_function_of_the_step(plan: Plan) -> None:
    config = plan.config.training
    fresh, worn = (make_optimizer(plan.new_model(), config) for _ in range(2))
    for step in range(30):
        set_rates(worn, config, step, 40)
    for step in (0, 1, 17, 39):
        assert set_rates(worn, config, step, 40) == set_rates(fresh, config, step, 40)
        assert [g["lr"] for g in worn.param_groups] == [g["lr"] for g in fresh.param_groups]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_warm_up_and_then_fall_or_stay(plan: Plan, schedule) -> None:
    config = plan.config.training.model_copy(update={"schedule": schedule, "warmup": 10})
    optimizer = make_optimizer(plan.new_model(), config)
    rates = [set_rates(optimizer, config, step, 100) for step in range(100)]
    assert (np.diff(rates[:10]) > 0).all()
    assert max(rates) <= config.learning_rate
    if schedule == "cosine":
        assert (np.diff(rates[10:]) < 0).all()
        assert rates[-1] < 1e-3 * config.learning_rate
    else:
        assert set(rates[9:]) == {config.learning_rate}


def test_every_parameter_has_one_rate_and_only_tables_that_of_tables(plan: Plan) -> None:
    model = plan.new_model()
    optimizer = make_optimizer(model, plan.config.training)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    config = plan.config.training
    for name, parameter in model.named_parameters():
        kind = "grid" if ".tables." in name else "local" if name.startswith("local.") else "learning"
        assert rates[id(parameter)] == getattr(config, f"{kind}_rate"), name


@pytest.mark.parametrize("faulty", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_anything_changes(faulty) -> None:
    class Faulty(nn.Module):
        def forward(self, *_: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return model(torch.ones(1, 3)).sum() * faulty, {}

    model = nn.Linear(3, 1)
    drawn = Drawn(FunctionBatch(coords=torch.ones(1, 1, 3)), 1, None, torch.zeros(2, 1, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    take_step(model, optimizer, 1.0)
    before = [p.detach().clone() for p in model.parameters()]
    moments = {k: v.clone() for k, v in optimizer.state[model.weight].items()}
    with pytest.raises(FloatingPointError, match="the loss is not finite: lower the learning rates"):
        differentiate(Faulty(), drawn, at_a_time=0, epoch=0, step=0)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(v, optimizer.state[model.weight][k]) for k, v in moments.items())


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_gradients_are_clipped_as_torch_clips_them(clip) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    for model in (ours, theirs):
        (model(torch.arange(3.0)) ** 2).sum().backward()
    take_step(ours, torch.optim.SGD(ours.parameters(), lr=0.1), clip)
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert ours.weight.grad is None


@pytest.mark.parametrize("changes", [(), ("context=null",)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_micro_batches_are_the_same_step(size, changes, store: Store, tiny) -> None:
    if changes:
        changes = (*changes, "model.local=null", "model.context_encoder=null", "model.component_posterior=network")
    plan = make_plan(tiny(*changes), store)
    samples = next(iter(read_samples(store, np.arange(6))))
    drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
    drawn = replace(drawn, batch=in_double(drawn.batch), noise=drawn.noise.double())
    gradients, losses = [], []
    for each in (0, size):
        model = plan.new_model().double()
        terms = differentiate(Objective(model, plan.config.training, 18), drawn, at_a_time=each, epoch=9, step=9)
        losses.append(terms["loss"])
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_finite_loss_with_a_gradient_that_is_not_is_refused_too() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    (model.weight - before).sqrt().sum().backward()
    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        take_step(model, optimizer, 1.0)
    assert torch.equal(model.weight, before)


def test_averaged_weights_lie_between_and_forget_their_start(plan: Plan) -> None:
    model, average = plan.new_model(), plan.new_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    update_average(average, model, 0.99, 0)
    first = next(average.parameters()).clone()
    torch.testing.assert_close(next(model.parameters()) - first, torch.full_like(first, 0.1))
    for step in range(1, 40):
        update_average(average, model, 0.99, step)
    torch.testing.assert_close(next(average.parameters()), next(model.parameters()), atol=1e-3, rtol=0)
    update_average(average, plan.new_model(), 0.0, 1000)
    assert torch.equal(next(average.parameters()), next(plan.new_model().parameters()))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_crps_of_an_ensemble_is_that_of_its_steps(count) -> None:
    generator = torch.Generator().manual_seed(count)
    members = torch.randn(count, 4, 3, generator=generator, dtype=torch.float64)
    truth = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    ours = ensemble_crps(members, truth)
    pairs = (members[:, None] - members[None]).abs().mean(dim=(0, 1))
    torch.testing.assert_close(ours, (members - truth).abs().mean(dim=0) - 0.5 * pairs)
    theirs = crps_for_ensemble(
        xr.DataArray(members.numpy(), dims=("m", "a", "b")),
        xr.DataArray(truth.numpy(), dims=("a", "b")),
        "m",
        preserve_dims="all",
    )
    np.testing.assert_allclose(ours.numpy(), theirs.values, atol=1e-12)


def scored(plan: Plan, store: Store, model: VAMoH, index: np.ndarray, workers: int, **changes: object) -> torch.Tensor:
    given = {"framing": plan.framing, "lattice": plan.lattice, "members": 4, "seed": 0} | changes
    parts = [read_samples(store, index, rank=rank, world_size=workers) for rank in range(workers)]
    return sum(validate(model, part, **given) for part in parts)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("changes", [(), ("context.every=[2, 4]",)], ids=str)
@pytest.mark.parametrize("workers", [2, 3, 5])
def test_validation_does_not_depend_on_how_many_workers_share_it(changes, workers, store, tiny) -> None:
    plan = make_plan(tiny(*changes), store)
    model, index = plan.new_model(), np.arange(1, 2 * VALIDATION_BATCH + 4)
    torch.testing.assert_close(
        scored(plan, store, model, index, workers), scored(plan, store, model, index, 1), rtol=1e-12, atol=0
    )


def test_validation_of_a_new_model_is_about_what_interpolation_scores(plan: Plan, store: Store) -> None:
    index = np.arange(6)
    metrics = validation_metrics(scored(plan, store, plan.new_model(), index, 1))
    truth = store.field.values[index].astype(float)
    lattice = Lattice.of(store.field)
    coarse = lattice.every(3).interpolate(truth[:, ::3, ::3].reshape(6, -1), *lattice.points)
    rmse = np.sqrt(((coarse - truth.reshape(6, -1)) ** 2 @ lattice.area).mean())
    assert metrics["validation_rmse"] == pytest.approx(rmse, rel=0.15)
    assert metrics["validation_crps"] < metrics["validation_rmse"]


def test_validation_leaves_out_what_is_missing(plan: Plan, store: Store) -> None:
    samples = next(iter(read_samples(store, np.arange(4))))
    gaps = samples.fields.copy()
    gaps[1] = np.nan
    without = Samples(samples.fields[[0, 2, 3]], samples.times[[0, 2, 3]], samples.position[[0, 2, 3]])
    holed = Samples(gaps, samples.times, samples.position)
    framing: Framing = plan.framing
    sums = [
        validate(plan.new_model(), [each], framing, plan.lattice, members=4, seed=0)[3].item()
        for each in (without, holed)
    ]
    assert sums[0] == pytest.approx(sums[1])


@pytest.mark.parametrize("unit", ["epochs", "steps"])
def test_the_paper_schedule_learns_priors_late(unit, store: Store, tiny) -> None:
    config: TrainingConfig = tiny(f"training.stages={{prior: 2, gate: 3, unit: {unit}}}").training
    plan = make_plan(tiny(), store)
    model = plan.new_model()
    samples = next(iter(read_samples(store, np.arange(6))))
    drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
    learned = {}
    for now in (0, 2, 3):
        epoch, step = (now, 0) if unit == "epochs" else (0, now)
        loss, _ = Objective(model, config, 18)(drawn, epoch, step)
        prior = torch.autograd.grad(loss, list(model.prior.parameters()), allow_unused=True)
        learned[now] = any(part is not None and part.abs().max() > 0 for part in prior)
    assert learned == {0: False, 2: True, 3: True}
