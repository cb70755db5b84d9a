"""Scores of a model on held-out hours, beside the baselines that a user could have had instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipelines.data.domain import kind_of
from pipelines.data.means import block_means
from pipelines.data.sphere import Lattice
from pipelines.data.store import Store, open_store
from pipelines.products import diagnosis, skill
from pipelines.products.baselines import Forecasts, competitors
from pipelines.products.downscale import on_target, one_thread_a_block
from pipelines.products.ensemble import Downscaler
from pipelines.products.kinds import names_of, products_of
from pipelines.products.targets import Target
from pipelines.training.plan import Plan, split_of
from pipelines.training.registry import load_model

SYSTEM = "vamoh"
Scores = dict[str, dict[str, float]]


def evaluate(
    model: str,
    store: str,
    *,
    split: str = "test",
    factor: int | None = None,
    every: int = 1,
    members: int = 32,
    seed: int = 0,
    reference: str | None = None,
    attention: float = 0.0,
    curve: Sequence[int] = (),
    report: str | Path | None = None,
) -> dict[str, Any]:
    """Score a model on a part of a store.

    A downscaling model is given every `factor`-th point and asked for the store's grid; a classic model reconstructs
    and completes whole functions, of any kind. Baselines that learn are fitted on what the model saw (training and
    validation).

    Args:
        model: MODEL, as everywhere.
        store: A canonical store.
        split: "train", "validation", "test" or "all". Of a store other than the training one, "test" is every sample
            outside the span that the model was trained on.
        factor: Of the coarse field; the model's own by default.
        every: Ask for every n-th point of the store's grid, and score there: another output resolution.
        members: Of the ensemble. Its CRPS is that of M equal steps, which is a little above the distribution's.
        seed: Of the members.
        reference: The training store, where `store` is another one: the baselines learn from it.
        attention: Seconds to train a window-attention model for, as one more baseline; 0 leaves it out.
        curve: Also score coarse fields of these factors, and the model's own outputs coarser than the store's grid.
        report: Also write a page with maps, spectra, ranks and the curve.

    Returns:
        What the scores are of, and tables of them. Of a downscaling model `scores` (area weighted),
        `scores_unweighted` (every grid point alike), `scales` and `reliability` (see `diagnosis`) and the `curve` (see
        there); of a classic model what `ProductKind.scores` gives.

    Raises:
        ValueError: If the split is empty, or the store's grid is too small for the factor.
    """
    checkpoint, network, origin = load_model(model)
    opened, plan = open_store(store), checkpoint.plan
    chosen = samples_of(opened, plan, split)
    named = [kind_of(opened.domain).label(name) for name in names_of(opened.field)]
    about = {
        **origin,
        "store": opened.path,
        "fingerprint": opened.fingerprint,
        "split": split,
        "samples": len(chosen),
        "from": named[chosen[0]],
        "to": named[chosen[-1]],
        "units": opened.units,
    }
    taught = opened if reference is None else open_store(reference)
    if network.local is None:
        asked = {"factor": factor, "every": every > 1, "attention": attention, "curve": curve, "report": report}
        given = [f"--{name}" for name, value in asked.items() if value]
        if given:
            raise ValueError(f"{', '.join(given)}: only of a model that downscales, {model} makes whole functions")
        known = (taught, _learned(taught, plan)) if taught.fingerprint == plan.fingerprint else None
        kind = products_of(plan.spec.domain)
        found = kind.scores(checkpoint, network, opened, chosen, known, members=members, seed=seed)
        return about | {"task": "reconstruction and completion", "seed": seed} | found
    truth = opened.field.isel(time=chosen).load()
    factor = default_factor(plan) if factor is None else factor
    if factor < 2:
        raise ValueError(f"--factor must be a whole number of at least 2, got {factor}: nothing is left out otherwise")
    if min(truth.shape[1:]) <= factor:
        raise ValueError(
            f"every {factor}th point of a {truth.shape[1]} x {truth.shape[2]} grid is no grid: use a smaller --factor"
        )
    if every < 1 or factor % every or factor == every:
        raise ValueError(f"--every must divide the factor {factor} and be less than it, got {every}")
    teller = Downscaler(checkpoint=checkpoint, model=network, origin=origin)
    learned = training_fields(taught, plan, truth)
    trial = Trial(teller=teller, truth=truth, learned=learned, seed=seed)
    coarse, wanted, forecasts = trial.run(factor, every, members=members, attention=attention)
    about |= {"task": "downscaling", "factor": factor, "every": every, "members": members, "seed": seed}
    if learned is None:
        about["note"] = "baselines that learn are left out: give the training store as reference"
    result = about | _scored(forecasts, wanted)
    result["scales"] = diagnosis.scales(forecasts, wanted)
    ensemble = forecasts[SYSTEM]
    assert isinstance(ensemble, xr.DataArray)
    result["reliability"] = diagnosis.reliability(ensemble, wanted, factor // every)
    if curve:
        from pipelines.products.curve import skill_curve

        result["curve"] = skill_curve(trial, sorted(set(curve)), own=factor)
    if report is not None:
        from pipelines.products.evaluation_report import write_evaluation

        result["report"] = str(write_evaluation(report, result, coarse, wanted, forecasts))
    return result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model on held-out fields, beside its competitors.

    Attributes:
        teller: The model.
        truth: The held-out fields (time, latitude, longitude), kelvin.
        learned: The fields that it learned from, on the same grid; None where they are not known.
        seed: Of the members.
    """

    teller: Downscaler
    truth: xr.DataArray
    learned: xr.DataArray | None
    seed: int

    def run(
        self, factor: int, every: int = 1, *, members: int, attention: float = 0.0
    ) -> tuple[xr.DataArray, xr.DataArray, Forecasts]:
        """The coarse fields, truth where it is asked for, and what every system makes of the one for the other."""
        means = self.teller.checkpoint.plan.downscaling.kind == "means"
        coarse, wanted = coarsened(self.truth, factor, means=means), self.truth[:, ::every, ::every]
        learned = None
        if self.learned is not None:
            learned = self.learned[:, ::every, ::every], coarsened(self.learned, factor, means=means)
        forecasts: Forecasts = {SYSTEM: members_of(self.teller, coarse, wanted, members=members, seed=self.seed)}
        return coarse, wanted, forecasts | competitors(coarse, wanted, learned, attention=attention)


def coarsened(field: xr.DataArray, factor: int, *, means: bool = False) -> xr.DataArray:
    """Every `factor`-th point of fields (time, latitude, longitude), or the means of blocks of so many."""
    if not means:
        return field[:, ::factor, ::factor]
    values, lattice = block_means(field.values, Lattice.of(field), factor)
    return xr.DataArray(
        values,
        dims=field.dims,
        coords={"time": field["time"], "latitude": lattice.latitude, "longitude": lattice.longitude},
        name=field.name,
        attrs={**field.attrs, "cell_methods": "area: mean"},
    )


def default_factor(plan: Plan) -> int:
    """Every how many points the model's coarse field has; the middle of the range of a model for any."""
    assert plan.config.context is not None
    return round(sum(plan.config.context.factors) / 2)


def members_of(
    teller: Downscaler, coarse: xr.DataArray, truth: xr.DataArray, *, members: int, seed: int
) -> xr.DataArray:
    """Members [realization, time, latitude, longitude] on the grid of `truth`."""
    target = Target(latitude=truth["latitude"].values, longitude=truth["longitude"].values)
    with one_thread_a_block():
        return on_target(teller, coarse, target, members=members, seed=seed)[str(coarse.name)].compute()


def _scored(forecasts: Forecasts, truth: xr.DataArray) -> dict[str, Scores]:
    """Scores of every system, area weighted and not."""
    return {
        key: {name: skill.scores_of(forecast, truth, weighted=weighted) for name, forecast in forecasts.items()}
        for key, weighted in (("scores", True), ("scores_unweighted", False))
    }


def samples_of(opened: Store, plan: Plan, split: str) -> np.ndarray:
    """Positions of a split in the training store, or in another one."""
    if opened.domain != plan.spec.domain:
        raise ValueError(f"the model is of functions on the {plan.spec.domain}, {opened.path!r} of the {opened.domain}")
    if split == "all":
        return np.arange(opened.field.shape[0])
    if opened.fingerprint == plan.fingerprint:
        return split_of(plan.config, opened).named(split)
    if split != "test":
        raise ValueError(
            f"{opened.path!r} is not the store that the model was trained on: it has no {split} split, use all"
        )
    chosen = kind_of(opened.domain).unseen(opened.field, plan.trained_from, plan.trained_to)
    if not len(chosen):
        raise ValueError(
            f"every sample of {opened.path!r} lies in the span that the model was trained on: use --split all"
        )
    return chosen


def _learned(opened: Store, plan: Plan) -> np.ndarray:
    """Positions in the training store of what the model learned from and was chosen by."""
    split = split_of(plan.config, opened)
    return np.sort(np.concatenate([split.train, split.validation]))


def training_fields(opened: Store, plan: Plan, truth: xr.DataArray) -> xr.DataArray | None:
    """What the model learned from and was chosen by, if this is its store and the grid is the one that is scored."""
    if opened.fingerprint != plan.fingerprint:
        return None
    learned = opened.field.isel(time=_learned(opened, plan))
    same = all(np.array_equal(learned[axis].values, truth[axis].values) for axis in ("latitude", "longitude"))
    return learned.load() if same else None
