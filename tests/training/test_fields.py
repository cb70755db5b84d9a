"""Models of whole fields: learned location, and a prior that is fitted when training has ended."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.config import load_config
from pipelines.data.box import Box
from pipelines.data.store import Store
from pipelines.data.whole import query
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipelines.training.learner import Learner
from pipelines.training.plan import Plan, _placed, make_plan
from pipelines.training.step import draw
from pipelines.training.systems import system_of
from pipelines.training.validation import read_samples
from vamoh import FunctionBatch, VAMoH
from vamoh.spec import LocationSpec

TINY = (
    "split.gap_hours=0",
    "model.latent=3",
    "model.flow_depth=1",
    "model.fourier_frequencies=4",
    "model.encoder={centres: [16, 4], channels: [6, 4], neighbours: [6, 4], kernel_widths: [4]}",
    "model.hypernetwork=[8]",
    "model.generator=[6]",
    "model.gating=[5]",
    "model.location={features: 5, levels: 3}",
    "model.fitted_prior=true",
    "training.batch_size=6",
    "training.points=80",
    "training.warmup=0",
    "training.threads=1",
)
HELD = np.arange(18, 22)


@pytest.fixture(scope="module")
def plan(store: Store) -> Plan:
    """The preset, small, on the small store."""
    return make_plan(load_config("fields", TINY), store)


@pytest.fixture(scope="module")
def learned(plan: Plan, store: Store) -> VAMoH:
    """The model after some steps."""
    learner = Learner(plan, 18, steps=40, device=torch.device("cpu"))
    samples = next(iter(read_samples(store, np.arange(6))))
    for step in range(30):
        drawn = draw(samples, plan.framing, plan.geometry, seed=0, step=step, latent=3, num=2)
        learner.step(drawn, rows=6, epoch=0, step=step)
    assert isinstance(learner.model, VAMoH)
    return learner.model


def test_every_level_of_the_learned_location_learns_at_the_grids_rate(learned: VAMoH, plan: Plan) -> None:
    assert learned.location is not None and len(learned.location.tables) == 3
    assert all(table.abs().max() > 0 for table in learned.location.tables)
    [group] = [
        group
        for group in system_of(plan.spec).groups(learned, plan.config.training)
        if any(each is learned.location.tables[0] for each in group["params"])
    ]
    assert (group["lr"], len(group["params"])) == (plan.config.training.grid_rate, 3)


def test_a_place_of_its_own_changes_what_is_decoded_there_and_not_elsewhere(learned: VAMoH, plan: Plan) -> None:
    assert learned.location is not None
    asked, latent = query(plan.geometry), torch.zeros(1, 3)
    with torch.no_grad():
        before = learned.decode(latent, asked).mean
        table = learned.location.tables[-1]
        kept = table[0].clone()
        table[0] += 1.0
        moved = (learned.decode(latent, asked).mean - before).abs()[0, :, 0] > 1e-5
        table[0] = kept
    assert 0 < moved.sum() < 0.1 * len(moved)


def test_the_slope_of_a_function_counts_what_places_have_of_their_own(learned: VAMoH) -> None:
    model, generator = copy.deepcopy(learned).double(), torch.Generator().manual_seed(0)
    place, ahead = torch.linalg.qr(torch.randn(20, 3, 2, generator=generator, dtype=torch.float64))[0].unbind(dim=-1)
    latent, small = torch.zeros(1, 3, dtype=torch.float64), 1e-6
    slope = model.decode(latent, FunctionBatch(coords=place[None]), gradient=True)[1][0, :, 0]
    with torch.no_grad():
        further = (model.decode(latent, FunctionBatch(coords=(place + sign * small * ahead)[None])).mean[0, :, 0]
                   for sign in (1, -1))  # fmt: skip
        expected = (next(further) - next(further)) / (2 * small)
    torch.testing.assert_close((slope * ahead).sum(dim=-1), expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_fields_round_trips_with_the_prior_that_was_fitted_to_it(
    learned: VAMoH, plan: Plan, store: Store, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "best", Checkpoint(plan=plan, epoch=1), learned)
    before = load_checkpoint(tmp_path / "best")[1].state_dict()
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())
    system_of(plan.spec).finish(tmp_path / "best", store, HELD)
    checkpoint, after = load_checkpoint(tmp_path / "best")
    assert isinstance(after, VAMoH) and checkpoint.plan.spec == plan.spec
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and changed <= {"prior.mean", "prior.log_scale", "prior.root"}
    held, noise = plan.whole.all_of(store.field[HELD].values, plan.geometry), torch.randn(300, len(HELD), 3)
    with torch.no_grad():
        gained = after.elbo(held, noise=noise).elbo - learned.elbo(held, noise=noise).elbo
    assert gained.mean() > 0  # the bound of functions that nothing was learned from


def test_a_model_without_them_has_nothing_of_either(store: Store) -> None:
    plan = make_plan(load_config("fields", [*TINY, "model.location=null", "model.fitted_prior=false"]), store)
    assert not [name for name in plan.new_model().state_dict() if "location" in name or "root" in name]


def test_learned_location_is_refused_where_there_is_no_sphere() -> None:
    box = Box((4, 4, 4))
    with pytest.raises(ValueError, match=r"model.location is learned for fields on the sphere"):
        _placed(LocationSpec(), box)


def test_a_downscaling_model_has_a_place_of_its_own_already() -> None:
    with pytest.raises(ValueError, match="are of the classic model"):
        load_config("downscale", ["model.fitted_prior=true"])
