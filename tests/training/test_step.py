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
from pipelines.data.coarsening import observed
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store
from pipelines.data.stream import FieldStream, Samples
from pipelines.training.exchange import Exchange
from pipelines.training.learner import Learner
from pipelines.training.plan import Plan, make_plan, split_of
from pipelines.training.step import (
    Objective,
    differentiate,
    draw,
    make_optimizer,
    set_rates,
    take_step,
    update_average,
    vamoh_groups,
)
from pipelines.training.validation import (
    VALIDATION_BATCH,
    ensemble_crps,
    read_samples,
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


def gradient(plan: Plan, store: Store, workers: int, batch: int = 0) -> tuple[torch.Tensor, dict[str, float]]:
    """The sum over workers of their gradients of one global batch, float64.

    Returns:
        It, and the sums of the terms over the workers.
    """
    config = plan.config.training
    model = plan.new_model().double()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off its start, where tables and read-outs are zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    samples = split_of(plan.config, store).train
    rows = min(config.batch_size, len(samples) - batch * config.batch_size)
    sums: dict[str, float] = {}
    for rank in range(workers):
        stream = FieldStream(
            store=store,
            samples=samples,
            batch_size=config.batch_size,
            seed=0,
            rank=rank,
            world_size=workers,
            last=config.last_batch,
        )
        batches = stream.epoch(1, start=batch)
        drawn = draw(next(batches), plan.framing, plan.lattice, seed=0, step=7, latent=plan.spec.latent, num=2)
        batches.close()
        drawn = replace(drawn, batch=in_double(drawn.batch), noise=drawn.noise.double())
        objective = Objective(model, config, len(samples))
        own = Exchange(model, differentiate(objective, drawn, at_a_time=2, epoch=1, step=7, scale=1 / rows)).wait()
        sums = {name: sums.get(name, 0.0) + value for name, value in own.items()}
    assert sums["rows"] == rows
    parts = [parameter.grad.ravel() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(parts), sums


CLASSIC = ("context=null", "model.local=null", "model.context_encoder=null", "model.component_posterior=network")
RANGE = ("context.every=[2, 4]", "training.predictive=0.3")
UNEVEN = ("training.last_batch=keep", "training.batch_size=5", "split.validation=0")


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(
    "changes",
    [(), RANGE, ("context.noise=0.5",), CLASSIC, (*CLASSIC, "training.hidden=0.7")],
    ids=["lattice", "range", "noise", "classic", "hidden"],
)
def test_any_number_of_workers_computes_the_same_gradient(
    changes, uneven, workers, store: Store, tiny: Callable[..., Config]
) -> None:
    plan = make_plan(tiny(*changes, *(UNEVEN if uneven else ())), store)
    batch = 3 if uneven else 0
    one, terms = gradient(plan, store, 1, batch)
    assert one.abs().max() > 0
    assert terms["rows"] == (3 if uneven else 6)
    again, same = gradient(plan, store, workers, batch)
    torch.testing.assert_close(again, one, rtol=1e-6, atol=1e-9 * float(one.abs().max()))
    assert same == pytest.approx(terms, rel=1e-9)


def test_rows_without_weight_teach_nothing(plan: Plan, store: Store) -> None:
    samples = next(iter(read_samples(store, np.arange(6))))
    gradients = []
    for rows, weight in ((slice(6), [1, 0, 1, 1, 0, 1]), ([0, 2, 3, 5], [1, 1, 1, 1])):
        part = Samples(*(each[rows] for each in samples[:3]), np.array(weight, dtype=np.float32))
        drawn = draw(part, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
        drawn = replace(drawn, batch=in_double(drawn.batch), noise=drawn.noise.double())
        model = plan.new_model().double()
        objective = Objective(model, plan.config.training, 18)
        sums = differentiate(objective, drawn, at_a_time=0, epoch=9, step=9, scale=1 / 4)
        assert float(sums["rows"]) == 4
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("changes", [(), CLASSIC], ids=["lattice", "classic"])
def test_half_the_precision_is_nearly_the_same_step(changes, store: Store, tiny: Callable[..., Config]) -> None:
    plan = make_plan(tiny(*changes), store)
    samples = next(iter(read_samples(store, np.arange(6))))
    drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        model = plan.new_model()
        config = plan.config.training.model_copy(update={"precision": precision})
        terms = differentiate(Objective(model, config, 18), drawn, at_a_time=0, epoch=9, step=9)
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
        losses.append(float(terms["loss"]) / 6)
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    assert 0 < abs(losses[1] - losses[0]) < 0.02 * abs(losses[0])
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_compiled_step_is_the_same_step(store: Store, tiny: Callable[..., Config], monkeypatch) -> None:
    traced, compiled = [], nn.Module.compile

    def trace(module: nn.Module, **settings: object) -> None:
        traced.append(module)
        compiled(module, backend="eager", **settings)  # all but the compiler, which takes a minute

    monkeypatch.setattr(nn.Module, "compile", trace)
    plan = make_plan(tiny("training.compile=true"), store)
    samples = next(iter(read_samples(store, np.arange(6))))
    drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
    eager = replace(plan, config=tiny())
    one, other = (Learner(each, 18, steps=10, device=torch.device("cpu")) for each in (eager, plan))
    for step in range(2):
        ours, theirs = (learner.step(drawn, rows=6, epoch=0, step=step) for learner in (one, other))
        assert theirs == pytest.approx(ours, rel=1e-4)
    assert len(traced) == 1
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, atol=1e-4, rtol=0)


def test_rates_are_a_function_of_the_step(plan: Plan) -> None:
    config = plan.config.training
    fresh, worn = (make_optimizer(vamoh_groups(plan.new_model(), config)) for _ in range(2))
    for step in range(30):
        set_rates(worn, config, step, 40)
    for step in (0, 1, 17, 39):
        assert set_rates(worn, config, step, 40) == set_rates(fresh, config, step, 40)
        assert [g["lr"] for g in worn.param_groups] == [g["lr"] for g in fresh.param_groups]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_warm_up_and_then_fall_or_stay(plan: Plan, schedule) -> None:
    config = plan.config.training.model_copy(update={"schedule": schedule, "warmup": 10})
    optimizer = make_optimizer(vamoh_groups(plan.new_model(), config))
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
    optimizer = make_optimizer(vamoh_groups(model, plan.config.training))
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    config = plan.config.training
    for name, parameter in model.named_parameters():
        kind = "grid" if ".tables." in name else "local" if name.startswith("local.") else "learning"
        assert rates[id(parameter)] == getattr(config, f"{kind}_rate"), name


@pytest.mark.parametrize("faulty", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_anything_changes(faulty, plan: Plan, store: Store) -> None:
    learner = Learner(plan, 18, steps=10, device=torch.device("cpu"))
    samples = next(iter(read_samples(store, np.arange(6))))
    drawn = draw(samples, plan.framing, plan.lattice, seed=0, step=0, latent=3, num=2)
    learner.step(drawn, rows=6, epoch=0, step=0)
    parts = [learner.model.state_dict(), learner.average.state_dict()]
    parts += [{str(key): each["exp_avg"] for key, each in learner.optimizer.state_dict()["state"].items()}]
    before = [{key: value.clone() for key, value in part.items()} for part in parts]
    with pytest.raises(FloatingPointError, match="the loss is not finite: lower the learning rates"):
        learner.step(replace(drawn, noise=drawn.noise * faulty), rows=6, epoch=0, step=1)
    for part, kept in zip(parts, before, strict=True):
        assert all(torch.equal(part[key], kept[key]) for key in kept)


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


@pytest.mark.parametrize("changes", [(), CLASSIC], ids=["lattice", "classic"])
@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_micro_batches_are_the_same_step(size, changes, store: Store, tiny) -> None:
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
    given = {"framing": plan.framing, "geometry": plan.geometry, "members": 4, "seed": 0} | changes
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


def test_validation_of_a_new_model_is_about_what_its_base_scores(plan: Plan, store: Store) -> None:
    metrics = validation_metrics(scored(plan, store, plan.new_model(), np.arange(6), 1))
    truth = store.field.values[:6].astype(float)
    lattice = Lattice.of(store.field)
    known = observed(truth, lattice, (3, 3), np.random.default_rng(0), "points")
    parts = plan.background.part_of(store.field["time"].values[:6])
    analysed = plan.background.analyse(*known, without=parts).fields
    squares = ((analysed - truth).reshape(6, -1) ** 2 @ lattice.area).mean()
    assert metrics["validation_rmse"] == pytest.approx(squares**0.5, rel=0.15)
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
