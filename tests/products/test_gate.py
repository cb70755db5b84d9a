"""A champion is replaced only by what beats it beyond chance; what was is remembered."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.cli import main
from pipelines.data.sphere import Lattice
from pipelines.data.store import open_store, write_store
from pipelines.products import gate
from pipelines.products.gate import force_past_gate, judge, pass_gate
from pipelines.products.verdict import Losses, block_length, draw_blocks, verdict_of
from pipelines.training.champions import promote, register_version, rollback
from pipelines.training.checkpoint import load_checkpoint, save_checkpoint
from pipelines.training.registry import champion_of, list_models
from pipelines.training.tracking import client

T, W = 240, 8


def losses(seed: int = 0, *, crps: float = 0.0, bias: float = 0.0, power: float = 1.0) -> Losses:
    """Of hours that resemble their neighbours; keywords make a model worse."""
    rng = np.random.default_rng(seed)
    weather = np.convolve(rng.normal(size=T + 23), np.ones(24) / 24, mode="valid")
    own = 0.01 * np.random.default_rng(hash((crps, bias, power)) % 2**32).normal(size=(2, T))
    truth = np.exp(rng.normal(size=(T, W)) * 0.1)
    return Losses(
        crps=0.3 + 0.1 * weather + own[0] + crps, error=0.05 * weather + own[1] + bias, power=truth * power, truth=truth
    )


def test_a_model_that_is_better_beyond_chance_passes() -> None:
    verdict = verdict_of(losses(), losses(crps=0.01), block=24, seed=0)
    assert verdict.passed and verdict.compared["crps"].better > 0.99
    assert verdict.compared["crps"].champion - verdict.compared["crps"].challenger == pytest.approx(0.01, abs=2e-3)


def test_a_difference_that_could_be_chance_does_not_pass() -> None:
    verdict = verdict_of(losses(), losses(crps=1e-5), block=24, seed=0)
    assert not verdict.passed and verdict.reason == "its CRPS is not lower beyond chance"


@pytest.mark.parametrize(("worse", "named"), [({"bias": 0.3}, "bias"), ({"power": 0.5}, "spectrum")])
def test_a_lower_crps_does_not_buy_a_worse_bias_or_spectrum(worse, named) -> None:
    verdict = verdict_of(losses(**worse), losses(crps=0.05), block=24, seed=0)
    assert not verdict.passed and verdict.reason == f"its {named} is worse beyond chance"


def test_equal_models_do_not_pass() -> None:
    verdict = verdict_of(losses(), losses(), block=24, seed=0)
    assert not verdict.passed and verdict.reason == "its CRPS is not lower beyond chance"
    assert verdict.compared["crps"].low == verdict.compared["crps"].high == 0.0


@pytest.mark.parametrize("broken", ["challenger", "champion"])
@pytest.mark.parametrize("number", ["crps", "power"])
def test_what_is_not_finite_never_passes(broken, number) -> None:
    both = {"challenger": losses(), "champion": losses(crps=0.05)}
    values = getattr(both[broken], number).copy()
    values[5] = np.nan
    both[broken] = replace(both[broken], **{number: values})
    verdict = verdict_of(both["challenger"], both["champion"], block=24, seed=0)
    assert not verdict.passed and "is not finite" in verdict.reason


def test_neighbouring_hours_count_for_less_than_independent_ones() -> None:
    rng = np.random.default_rng(3)
    one, noise = losses(), np.convolve(rng.normal(size=T + 47), np.ones(48) / 48, mode="valid")
    other = replace(one, crps=one.crps + 0.1 * noise)
    widths = []
    for block in (1, 48):
        compared = verdict_of(other, one, block=block, seed=0).compared["crps"]
        widths.append(compared.high - compared.low)
    assert widths[1] > 3 * widths[0]


def test_blocks_are_runs_of_neighbours_and_every_hour_is_as_likely() -> None:
    rng, counts = np.random.default_rng(1), np.zeros(50)
    for _ in range(4000):
        drawn = draw_blocks(50, 7, rng)
        assert len(drawn) == 50 and (np.diff(drawn.reshape(-1)[:7]) % 50 == 1).all()
        counts += np.bincount(drawn, minlength=50)
    assert np.abs(counts / 4000 - 1).max() < 0.2


def test_a_block_is_a_day() -> None:
    hours = np.datetime64("2019-03-01", "ns") + np.arange(240) * np.timedelta64(1, "h")
    assert block_length(hours) == 24 and block_length(hours[::6]) == 4 and block_length(hours[:8]) == 2
    assert block_length(hours[:1]) == 1


@pytest.fixture
def two_versions(trained, tmp_path: Path) -> Iterator[str]:
    """A name with a champion, the trained model, and a challenger that is the same with noise in its weights."""
    with contextlib.chdir(trained.folder):
        name = f"gate-{tmp_path.name}"
        assert register_version(name, trained.run_id, {}) == "1"
        checkpoint, model = load_checkpoint(trained.checkpoint)
        with torch.no_grad():
            for parameter in model.local.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        save_checkpoint(tmp_path / "spoilt", checkpoint, model)
        mlflow = client()
        run = mlflow.create_run(mlflow.get_run(trained.run_id).info.experiment_id)
        mlflow.log_artifacts(run.info.run_id, str(tmp_path / "spoilt"), "checkpoint")
        assert register_version(name, run.info.run_id, {}) == "2"
        yield name


def test_the_gate_keeps_a_spoilt_model_out_and_lets_a_better_one_in(two_versions: str, trained) -> None:
    refused = pass_gate(two_versions, "2", trained.store, members=4)
    assert not refused.passed and refused.compared["crps"].challenger > refused.compared["crps"].champion
    assert champion_of(two_versions) == "1"
    promote(two_versions, "2")
    better = pass_gate(two_versions, "1", trained.store, members=4)
    assert better.passed and champion_of(two_versions) == "1"
    record = json.loads(client().get_model_version(two_versions, "1").tags["promotion"])
    assert record["forced"] is False and record["compared"]["crps"]["better"] == better.compared["crps"].better


def test_what_is_forced_is_recorded_and_can_be_taken_back(two_versions: str, trained) -> None:
    assert pass_gate(two_versions, "2", trained.store, members=4, force=True).passed is False
    assert champion_of(two_versions) == "2"
    assert json.loads(client().get_model_version(two_versions, "2").tags["promotion"])["forced"] is True
    aliases = {row["version"]: row["aliases"] for row in list_models() if row["name"] == two_versions}
    assert aliases == {"1": [], "2": ["champion"]}
    assert rollback(two_versions) == "1" == champion_of(two_versions)
    with pytest.raises(ValueError, match="nothing to go back to"):
        rollback(two_versions)
    force_past_gate(two_versions, "2")
    assert champion_of(two_versions) == "2" and rollback(two_versions) == "1"


def test_what_cannot_be_compared_is_refused(two_versions: str, trained, classic) -> None:
    with pytest.raises(ValueError, match="the champion already"):
        pass_gate(two_versions, "1", trained.store)
    with pytest.raises(ValueError, match="there is no model"):
        pass_gate("nothing-of-that-name", "1", trained.store)
    with pytest.raises(ValueError, match="there is no model"):
        pass_gate(two_versions, "9", trained.store)
    with pytest.raises(ValueError, match="it does not downscale"):
        judge(str(classic.checkpoint), str(trained.checkpoint), trained.store, members=2, seed=0)


def test_a_store_that_a_model_was_not_made_for_is_refused_and_can_be_forced(two_versions, trained, tmp_path) -> None:
    field = open_store(trained.store).field.load()
    part = field.isel(latitude=slice(20, 40), longitude=slice(10, 40)).to_dataset(name="t2m")
    local = write_part(trained, tmp_path / "local", latitude=slice(25, 35), longitude=slice(15, 35))
    box = write_store(part["t2m"], tmp_path / "box.zarr", source="a box", license="CC-BY 4.0").path
    with pytest.raises(ValueError, match=r"box.zarr' covers .* the champion was trained on .* where both were"):
        judge(str(trained.checkpoint), str(local), box, members=2, seed=0)
    other = write_part(trained, tmp_path / "other", variable="skt")
    with pytest.raises(ValueError, match="holds t2m, the challenger is of skt and the champion of t2m"):
        judge(str(other), str(trained.checkpoint), trained.store, members=2, seed=0)
    few = write_store(field.isel(time=slice(-2, None)), tmp_path / "few.zarr", source="s", license="l").path
    with pytest.raises(ValueError, match="has 2 samples that neither champion nor challenger learned from: .* needs 4"):
        pass_gate(two_versions, "2", few, members=2)
    assert champion_of(two_versions) == "1"
    verdict = pass_gate(two_versions, "2", few, members=2, force=True)
    assert not verdict.passed and verdict.reason.startswith("they cannot be compared") and not verdict.compared
    assert champion_of(two_versions) == "2"


def write_part(trained, folder: Path, *, latitude=None, longitude=None, variable: str | None = None) -> Path:
    """The trained model, said to be of a part of the globe or of another variable."""
    checkpoint, model = load_checkpoint(trained.checkpoint)
    plan, grid = checkpoint.plan, checkpoint.plan.lattice
    plan = replace(plan, variable=variable or plan.variable)
    if latitude is not None:
        plan = replace(plan, geometry=Lattice(latitude=grid.latitude[latitude], longitude=grid.longitude[longitude]))
    save_checkpoint(folder, replace(checkpoint, plan=plan), model)
    return folder


def test_a_champion_that_changed_during_the_comparison_is_not_replaced(two_versions, trained, monkeypatch) -> None:
    with contextlib.chdir(trained.folder):
        assert register_version(two_versions, trained.run_id, {}) == "3"
    promote(two_versions, "2")
    original = gate.judge

    def judged(challenger: str, champion: str, store: str, *, members: int, seed: int):  # noqa: ANN202
        verdict = original(challenger, champion, store, members=members, seed=seed)
        promote(two_versions, "3")  # by somebody else, meanwhile
        return verdict

    monkeypatch.setattr(gate, "judge", judged)
    with pytest.raises(ValueError, match="version 3 .* the champion while version 1 was compared with version 2"):
        pass_gate(two_versions, "1", trained.store, members=4)
    assert champion_of(two_versions) == "3"


def test_promotions_at_the_same_time_lose_no_champion(two_versions, trained) -> None:
    with contextlib.chdir(trained.folder):
        for number in (3, 4, 5):
            assert register_version(two_versions, trained.run_id, {}) == str(number)
    with ThreadPoolExecutor(
        4
    ) as pool:  # the lock is the system's, and knows no difference between threads and processes
        list(pool.map(lambda number: promote(two_versions, number), "2345"))
    seen = [champion_of(two_versions)]
    for _ in range(4):
        seen.append(rollback(two_versions))
    assert sorted(filter(None, seen)) == ["1", "2", "3", "4", "5"] and seen[-1] == "1"


def test_a_version_that_was_deleted_is_not_gone_back_to(two_versions, trained) -> None:
    with contextlib.chdir(trained.folder):
        register_version(two_versions, trained.run_id, {})
    promote(two_versions, "2")
    promote(two_versions, "3")
    client().delete_model_version(two_versions, "2")
    assert rollback(two_versions) == "1"


def test_the_command_says_what_was_decided_and_how_it_ended(
    two_versions: str, trained, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["models", "promote", two_versions, "2"]
    assert main([*asked, "--store", trained.store, "--members", "4"]) == 3
    told = capsys.readouterr().out
    assert (
        "crps" in told and f"version 2 of {two_versions} is not promoted: its CRPS is not lower beyond chance" in told
    )
    assert main(asked) == 2
    assert "name a --store with hours to compare on" in capsys.readouterr().err
    assert main([*asked, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "forced without a comparison"
    assert main(["models", "rollback", two_versions]) == 0
    assert capsys.readouterr().out == f"version 1 of {two_versions} is the champion again\n"
