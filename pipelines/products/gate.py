"""The gate before a model becomes the champion: it must beat the one that is, on hours that neither learned from.

Both models are given the same coarse fields and asked for the store's grid. Three numbers are compared, each smaller is
better: the CRPS of the members; the size of the mean error of their mean; and how far the members' power spectrum is
from the truth's, mean |log ratio| over the wavelengths above 3 cells. A challenger passes if its CRPS is lower beyond
chance (pipelines/products/verdict.py) and neither of the others is higher beyond chance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.data.sphere import Lattice
from pipelines.data.store import Store, open_store
from pipelines.data.times import label
from pipelines.products.doubts import doubts
from pipelines.products.ensemble import Downscaler
from pipelines.products.evaluate import coarsened, default_factor, members_of, samples_of
from pipelines.products.targets import Target
from pipelines.products.verdict import Verdict, block_length, losses_of, verdict_of
from pipelines.training.champions import promote
from pipelines.training.registry import CHAMPION, champion_of, find_version, load_model, version_uri

FEWEST = 4  # samples: of fewer nothing can be said to be beyond chance


def pass_gate(name: str, version: str, store: str, *, members: int = 32, seed: int = 0, force: bool = False) -> Verdict:
    """Compare a version with the champion and make it the champion if it passes, or if it is forced; both are recorded.

    Args:
        name, version: Of the registered model.
        store: A store with hours that neither learned from.
        members, seed: Of the ensembles.
        force: Promote it whatever the comparison says.

    Raises:
        ValueError: If there is no such version, nothing to compare on, or another version became the champion while
            this one was compared.
    """
    champion = champion_of(name)
    if champion == version:
        raise ValueError(f"version {version} of {name!r} is the champion already")
    challenger = version_uri(name, version)
    find_version(challenger)
    if champion is None:
        verdict = Verdict(passed=True, reason="there was no champion", compared={})
    else:
        try:
            verdict = judge(challenger, version_uri(name, champion), store, members=members, seed=seed)
        except ValueError as error:
            if not force:
                raise
            verdict = Verdict(passed=False, reason=f"they cannot be compared: {error}", compared={})
    if verdict.passed or force:
        record = {"forced": force and not verdict.passed, "store": store, "instead_of": champion, **verdict.to_dict()}
        promote(name, version, record, instead_of=champion)
    return verdict


def force_past_gate(name: str, version: str) -> Verdict:
    """Make a version the champion without a comparison; that is recorded."""
    verdict = Verdict(passed=False, reason="forced without a comparison", compared={})
    promote(name, version, {"forced": True, "store": None, **verdict.to_dict()})
    return verdict


def judge(challenger: str, champion: str, store: str, *, members: int, seed: int) -> Verdict:
    """Compare two MODELs on the hours of a store that neither learned from, given what the champion is made for.

    Raises:
        ValueError: If they cannot be compared there.
    """
    opened, tellers = open_store(store), []
    for model in (challenger, champion):
        checkpoint, network, origin = load_model(model)
        if network.local is None:
            raise ValueError(f"{model} reconstructs fields, it does not downscale: promote it with --force")
        tellers.append(Downscaler(checkpoint=checkpoint, model=network, origin=origin))
    _check_same(opened, tellers)
    truth = opened.field.isel(time=_unseen(opened, tellers)).load()
    plan = tellers[1].checkpoint.plan
    every = default_factor(plan)
    if min(truth.shape[1:]) <= every:
        raise ValueError(
            f"the champion is given every {every}th point, and those of {opened.path!r}, {truth.shape[1]} x "
            f"{truth.shape[2]}, are no grid: compare them on a larger store, or --force"
        )
    coarse = coarsened(truth, every, means=plan.downscaling.kind == "means")
    losses = [losses_of(members_of(each, coarse, truth, members=members, seed=seed), truth) for each in tellers]
    times = truth["time"].values
    verdict = verdict_of(*losses, block=block_length(times), seed=seed)
    on = {
        "store": opened.path, "fingerprint": opened.fingerprint, "from": label(times[0]), "to": label(times[-1]),
        "samples": len(times), "factor": every, "members": members, "seed": seed,
    }  # fmt: skip
    grid = Target(latitude=truth["latitude"].values, longitude=truth["longitude"].values)
    return replace(verdict, on=on, doubts=tuple(doubts(tellers[0].checkpoint.plan, Lattice.of(coarse), grid)))


def _check_same(opened: Store, tellers: list[Downscaler]) -> None:
    """Refuse models of different things, and a store that one of them knows nothing of."""
    variables = [teller.checkpoint.plan.variable for teller in tellers]
    if {opened.variable, *variables} != {opened.variable}:
        raise ValueError(
            f"{opened.path!r} holds {opened.variable}, the challenger is of {variables[0]} and the {CHAMPION} of "
            f"{variables[1]}: models of different variables cannot be compared"
        )
    here = Lattice.of(opened.field)
    for name, teller in zip(("the challenger", f"the {CHAMPION}"), tellers, strict=True):
        known = teller.checkpoint.plan.lattice
        if not _covers(known, here):
            raise ValueError(
                f"{opened.path!r} covers {_extent(here)}, {name} was trained on {_extent(known)}: compare them where "
                "both were trained, or --force"
            )


def _covers(known: Lattice, wanted: Lattice) -> bool:
    """Whether a grid reaches, but for a cell, as far as another."""
    margin = np.rad2deg(known.spacing_rad)
    rows = wanted.latitude[0] <= known.latitude[0] + margin and wanted.latitude[-1] >= known.latitude[-1] - margin
    middle = (known.longitude[0] + known.longitude[-1]) / 2
    away = np.abs((wanted.longitude - middle + 180.0) % 360.0 - 180.0).max()
    return bool(rows and (known.periodic or away <= (known.longitude[-1] - known.longitude[0]) / 2 + margin))


def _extent(lattice: Lattice) -> str:
    """West, south, east, north."""
    edges = (lattice.longitude[0], lattice.latitude[-1], lattice.longitude[-1], lattice.latitude[0])
    return "the globe" if lattice.periodic else ",".join(f"{edge:g}" for edge in edges)


def _unseen(opened: Store, tellers: list[Downscaler]) -> NDArray[np.int64]:
    """Samples that are no model's to learn from."""
    parts = [samples_of(opened, teller.checkpoint.plan, "test") for teller in tellers]
    both = np.intersect1d(parts[0], parts[1])
    if len(both) < FEWEST:
        raise ValueError(
            f"{opened.path!r} has {len(both)} samples that neither {CHAMPION} nor challenger learned from: comparing "
            f"them needs {FEWEST}, or --force"
        )
    return both
