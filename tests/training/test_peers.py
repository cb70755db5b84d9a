"""Functa and GASP are trained by the same steps, kept in the same checkpoints and asked by the same commands."""

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.multiprocessing.spawn import spawn

from infra.cli import main
from pipelines.config import load_config
from pipelines.data.store import Store
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipelines.training.energy import energy_distance
from pipelines.training.exchange import Exchange, same_everywhere
from pipelines.training.learner import Learner
from pipelines.training.plan import Plan, make_plan
from pipelines.training.step import Drawn, differentiate, draw
from pipelines.training.systems import Share, system_of
from pipelines.training.validation import read_samples
from vamoh.peers import GASP, Functa
from vamoh.peers.gasp import CANNOT_INFER

TINY = ("split.gap_hours=0", "training.batch_size=6", "training.warmup=0", "training.threads=1", "training.points=120")
FUNCTA = ("functa-fields", *TINY, "training.hidden=0", "model.latent=6", "model.width=12", "model.depth=3")
GASP_ = (
    "gasp-fields",
    *TINY,
    "model.latent=4",
    "model.fourier_frequencies=6",
    "model.hypernetwork=[8]",
    "model.generator=[6]",
    "model.discriminator={centres: [16, 1], channels: [5, 1], neighbours: [6, 8], kernel_widths: [4], pooled: [8, 0]}",
)
CPU = torch.device("cpu")


def planned(store: Store, preset: tuple[str, ...], *overrides: str) -> Plan:
    return make_plan(load_config(preset[0], [*preset[1:], *overrides]), store)


def drawn_of(plan: Plan, store: Store, step: int = 0, rows: slice = slice(6)) -> Drawn:
    samples = next(iter(read_samples(store, np.arange(6))))
    samples = samples._replace(fields=samples.fields[rows], times=samples.times[rows], position=samples.position[rows])
    return draw(samples, plan.framing, plan.geometry, seed=0, step=step, latent=plan.spec.latent, num=2)


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_steps_of_functa_lower_what_is_left_after_its_inner_steps(hidden: float, store: Store) -> None:
    plan = planned(store, FUNCTA, f"training.hidden={hidden}", "training.schedule=constant")
    learner, drawn = Learner(plan, 18, steps=20, device=CPU), drawn_of(plan, store)
    losses = [learner.step(drawn, rows=6, epoch=0, step=step)["loss"] for step in range(8)]
    assert losses[-1] < 0.9 * losses[0] and losses[1] < losses[0]


def test_one_pass_back_gives_both_players_their_own_gradients(store: Store) -> None:
    plan = planned(store, GASP_)
    model, drawn = plan.new_model(), drawn_of(plan, store)
    assert isinstance(model, GASP) and drawn.at is not None
    objective = system_of(plan.spec).objective(model, plan.config.training, 18)
    differentiate(objective, drawn, at_a_time=4, epoch=0, step=0)
    batch = drawn.batch.at(drawn.at)
    made = model.values(drawn.noise[1], batch)
    alone = {
        model.discriminator: model.discriminator_loss(batch, drawn.noise[0]).total.mean(),
        model.hypernetworks: torch.nn.functional.softplus(-model.score(batch, made)).mean(),
    }
    for player, loss in alone.items():
        own = torch.autograd.grad(loss, list(player.parameters()), retain_graph=True)
        for parameter, slope in zip(player.parameters(), own, strict=True):
            assert slope.abs().max() > 0
            torch.testing.assert_close(parameter.grad, slope, rtol=1e-4, atol=1e-7)


def test_every_parameter_of_gasp_learns_at_its_players_rate(store: Store) -> None:
    plan = planned(store, GASP_, "training.learning_rate=1e-4", "training.discriminator_rate=3e-4")
    learner = Learner(plan, 18, steps=20, device=CPU)
    assert isinstance(learner.model, GASP)
    rates = {
        id(p): (group["initial_lr"], group["betas"])
        for group in learner.optimizer.param_groups
        for p in group["params"]
    }
    for player, rate in ((learner.model.hypernetworks, 1e-4), (learner.model.discriminator, 3e-4)):
        assert all(rates.pop(id(parameter)) == (rate, (0.5, 0.999)) for parameter in player.parameters())
    assert not rates


@pytest.mark.parametrize("preset", [FUNCTA, GASP_], ids=["functa", "gasp"])
def test_a_peer_that_goes_on_from_a_checkpoint_goes_on_bit_for_bit(
    preset: tuple[str, ...], store: Store, tmp_path: Path
) -> None:
    plan = planned(store, preset)
    learner = Learner(plan, 18, steps=20, device=CPU)

    def step(of: Learner, number: int) -> None:
        of.step(drawn_of(plan, store, number), rows=6, epoch=0, step=number)

    for number in range(2):
        step(learner, number)
    checkpoint = Checkpoint(plan=plan, epoch=1)
    save_checkpoint(tmp_path / "last", checkpoint, learner.average, training=(learner.model, learner.optimizer))
    again = Learner(plan, 18, steps=20, device=CPU, start=tmp_path / "last")
    for number in (2, 3):
        step(learner, number)
        step(again, number)
    for ours, theirs in ((learner.model, again.model), (learner.average, again.average)):
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    betas = [[group["betas"] for group in each.optimizer.param_groups] for each in (learner, again)]
    assert betas[0] == betas[1]


def test_a_functa_round_trips_with_what_was_fitted_to_it(store: Store, tmp_path: Path) -> None:
    plan = planned(store, FUNCTA, "model.flow_depth=2")
    model, system = plan.new_model(), system_of(plan.spec)
    scores = system.validate(model, plan, Share(store=store, held=np.arange(18, 22), learned=np.arange(18)))
    assert {"validation_rmse", "validation_crps", "validation_log_score", "validation_energy"} == set(scores)
    save_checkpoint(tmp_path / "best", Checkpoint(plan=plan, epoch=0), model)
    before = load_checkpoint(tmp_path / "best")[1].state_dict()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    system.finish(tmp_path / "best", store, np.arange(18, 22))
    checkpoint, after = load_checkpoint(tmp_path / "best")
    assert isinstance(after, Functa) and checkpoint.plan.spec == plan.spec
    changed = {key for key, value in after.state_dict().items() if not torch.equal(value, before[key])}
    assert {"prior.mean", "prior.flow.direction"} <= changed
    assert all(key.startswith(("prior.", "latent_", "value_scale")) for key in changed)
    batch = plan.whole.all_of(store.field[:3].values, plan.geometry)
    error = (after.values(after.infer(batch), batch) - batch.values).square().mean().sqrt()
    assert after.value_scale.item() == pytest.approx(error.item(), rel=0.25)  # of three fields, and of all


def test_a_checkpoint_from_before_the_peers_is_read_as_vamohs(plan: Plan, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "old", Checkpoint(plan=plan, epoch=0), plan.new_model())
    described = tmp_path / "old" / "checkpoint.json"
    tree = json.loads(described.read_text())
    for model in (tree["spec"], tree["config"]["model"]):
        assert model.pop("system") == "vamoh"
    described.write_text(json.dumps(tree))
    assert load_checkpoint(tmp_path / "old")[0].plan.spec == plan.spec


def halves_of_a_step(rank: int, port: int, store: Store, folder: Path) -> None:
    """A worker's gradients of its half of a batch, added up over both; the first one keeps them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for preset in (FUNCTA, GASP_):
        plan = planned(store, preset)
        model = plan.new_model()
        if rank:  # what the other one has counts
            torch.nn.init.zeros_(next(model.parameters()))
        same_everywhere(model)
        objective = system_of(plan.spec).objective(model, plan.config.training, 18)
        drawn = drawn_of(plan, store, rows=slice(rank, None, 2))
        begun = Exchange(model, differentiate(objective, drawn, at_a_time=2, epoch=0, step=0, scale=1 / 6))
        assert begun.wait()["rows"] == 6
        if rank == 0:
            torch.save([p.grad for p in model.parameters() if p.grad is not None], folder / f"{preset[0]}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_workers_have_the_gradient_of_one(store: Store, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(halves_of_a_step, (port, store, tmp_path), nprocs=2)
    for preset in (FUNCTA, GASP_):
        plan = planned(store, preset)
        model = plan.new_model()
        objective = system_of(plan.spec).objective(model, plan.config.training, 18)
        differentiate(objective, drawn_of(plan, store), at_a_time=0, epoch=0, step=0)
        own = [p.grad for p in model.parameters() if p.grad is not None]
        for ours, theirs in zip(own, torch.load(tmp_path / f"{preset[0]}.pt", weights_only=True), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6 * float(ours.abs().max()) + 1e-9)


def test_the_energy_distance_is_that_of_all_pairs(generator_of: Callable[[int], torch.Generator]) -> None:
    chance = generator_of(0)
    made, truth = torch.randn(5, 9, 2, generator=chance), torch.randn(4, 9, 2, generator=chance) + 0.5
    area, seen = torch.rand(9, generator=chance), torch.rand(4, 9, generator=chance) < 0.7
    area = area / area.sum()

    def mean(left: torch.Tensor, right: torch.Tensor, where: list, at: list) -> float:  # type: ignore[type-arg]
        total = 0.0
        for first, here in zip(left, where, strict=True):
            for second, there in zip(right, at, strict=True):
                both = area * here * there
                total += float((both @ (first - second).square().mean(dim=1) / both.sum()).sqrt())
        return total / (len(left) * len(right))

    whole, part = [torch.ones(9)] * 5, [each.float() for each in seen]
    expected = 2 * mean(made, truth, whole, part) - mean(made, made, whole, whole) - mean(truth, truth, part, part)
    assert energy_distance(made, truth, area.double(), seen) == pytest.approx(expected, rel=1e-6)
    assert energy_distance(made, made[[2, 0, 1, 4, 3]], area.double()) == pytest.approx(0, abs=1e-7)
    assert expected > 0.01


@pytest.fixture
def generator_of() -> Callable[[int], torch.Generator]:
    """A generator of a seed."""
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def peers(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both were trained and registered by the command."""
    folder = tmp_path_factory.mktemp("peers")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, (preset, *settings) in (("functa", FUNCTA), ("gasp", GASP_)):
            asked = ["training.epochs=2", "training.validate_every=1", *settings]
            told = ["train", preset, "--store", store.path, "--name", name, "--register", name]
            assert main([*told, *(f"--set={setting}" for setting in asked)]) == 0
    return folder


def test_the_commands_train_register_sample_complete_and_score_a_peer(
    peers: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(peers)
    half = store.field[18:20].load().rename("t2m")
    half[..., 15:] = np.nan
    half.to_netcdf("half.nc")
    for name, system in (("functa", "Functa"), ("gasp", "GASP")):
        assert main(["sample", f"models:/{name}@champion", f"{name}.nc", "--number", "3"]) == 0
        made = xr.open_dataset(f"{name}.nc")
        assert made["t2m"].shape == (3, 16, 30) and made.attrs["source"] == f"{system} {name} 1"
        assert 150 < float(made["t2m"].min()) < float(made["t2m"].max()) < 400
        capsys.readouterr()
        assert main(["models", "show", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["system"] == system
        assert main(["evaluate", f"models:/{name}@champion", "--store", store.path, "--json", f"{name}.json"]) == 0
        told = json.loads(Path(f"{name}.json").read_text())
        assert (name in told["scores"]) == (name == "functa") and told["new_fields"][name]["energy_distance"] > 0
    assert main(["complete", "models:/functa@champion", "half.nc", "whole.nc", "--number", "4"]) == 0
    assert "Functa gives one completion of each: all would be alike" in capsys.readouterr().out
    whole = xr.open_dataset("whole.nc")["t2m"]
    assert whole.sizes["realization"] == 1 and np.isfinite(whole).all()
    np.testing.assert_allclose(whole[:, 0, :, :15], half[..., :15], atol=1e-4)


def test_gasp_refuses_to_complete_in_one_sentence(
    peers: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(peers)
    store.field[18:19].load().rename("t2m").to_netcdf("given.nc")
    capsys.readouterr()
    assert main(["complete", "models:/gasp@champion", "given.nc", "never.nc"]) == 2
    said = capsys.readouterr().err
    assert said == f"vamoh: error: {CANNOT_INFER}\n"
    assert not Path("never.nc").exists()
