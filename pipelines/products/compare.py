"""Several models of one store side by side, in one process: quality, samples and cost, one table.

What a model cannot do, or what could not be measured of it, is missing in the table and has its reason below it.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.atomic import refuse_existing
from pipelines.data.domain import kind_of
from pipelines.data.store import Store, open_store
from pipelines.products.comparison_contest import Contest, Row, contest_of
from pipelines.products.comparison_cost import cost, where_from
from pipelines.products.comparison_entry import Entry, entries
from pipelines.products.comparison_metrics import METRICS, best, unit_of
from pipelines.products.comparison_paper import paper_of
from pipelines.products.evaluate import samples_of
from pipelines.products.kinds import names_of
from pipelines.training.plan import Plan, split_of
from pipelines.training.registry import load_model

_NAMED = re.compile(r"^(?P<label>[^/:=]+)=(?P<model>.+)$")
_NOT_FINITE = "the number is not finite: values that the model gave are too large"
_ROLES = {"best", "last"}  # of a checkpoint in its run's folder


def compare(
    store: str,
    models: Sequence[str],
    *,
    split: str = "test",
    samples: int = 0,
    members: int = 8,
    factor: int = 4,
    seed: int = 0,
    report: str | Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compare models on a part of a store that none of them learned from.

    Args:
        store: A canonical store.
        models: Each a MODEL as everywhere, or LABEL=MODEL; any mixture of systems on this kind of data.
        split: "train", "validation", "test" or "all"; where models were trained on different splits, the samples that
            are of this split for all of them.
        samples: So many of these alone, spread evenly over them; 0 for all.
        members: Draws for scores of distributions, and completions of a picture that are averaged.
        factor: Every so many-th point of a field is seen where it is downscaled.
        seed: Of all draws.
        report: Also write a page.
        overwrite: Replace a page that is there.
        say: Told what is measured.

    Returns:
        `models` and `references`: {name: {metric: value}}; `metrics`, what these are; `missing`, reasons; `best`, who
        is best by what; `paper`, the paper's figures where the store is of its data; and what was compared on what.

    Raises:
        ValueError: If a model is not of the store's kind of data, there are fewer than two samples that are held out
            for all, or two models have one label.
    """
    if not models:
        raise ValueError("there is nothing to compare: give --models A,B,C")
    if members < 1 or factor < 2 or samples < 0 or samples == 1:
        raise ValueError(
            f"expected members of at least 1, a factor of at least 2, and 0 (all) or at least 2 samples, got "
            f"{members}, {factor} and {samples}"
        )
    if report is not None:
        refuse_existing(Path(report), overwrite=overwrite)
    opened = open_store(store)
    found, plans = _loaded(models, opened)
    held, told = _held_out(opened, plans, split)
    chosen = held if not samples else held[np.linspace(0, len(held) - 1, min(samples, len(held))).round().astype(int)]
    contest = contest_of(opened, chosen, _learned(opened, plans, held), members=members, factor=factor, seed=seed)
    rows: dict[str, Row] = {}
    first: dict[int, Row] = {}  # by model
    for entry in found:
        say(f"measuring {entry.label}")
        before = first.get(id(entry.network))
        rows[entry.label] = _measured(contest, entry, opened, chosen, before, factor=factor, seed=seed)
        first.setdefault(id(entry.network), rows[entry.label])
    say("measuring what can be had without a model")
    scores = {label: row.scores for label, row in rows.items()}
    references = contest.references()
    keys = [key for key in METRICS if any(key in row.scores or key in row.missing for row in rows.values())]
    names, kind = names_of(opened.field), kind_of(opened.domain)
    result = {
        "store": opened.path,
        "fingerprint": opened.fingerprint,
        "domain": opened.domain,
        "units": contest.units,
        "split": split,
        "samples": len(chosen),
        "from": kind.label(names[chosen[0]]),
        "to": kind.label(names[chosen[-1]]),
        "points": len(kind.geometry(opened.field).coords),
        "seed": seed,
        **contest.told,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, one thread, torch {torch.__version__}",
        "notes": told,
        "metrics": {key: asdict(METRICS[key]) | {"unit": unit_of(METRICS[key], contest.units)} for key in keys},
        "about": {entry.label: _about(entry) for entry in found},
        "models": scores,
        "references": {name: {key: row[key] for key in keys if key in row} for name, row in references.items()},
        "best": best(scores),
        "missing": _missing(rows, found, keys),
        "paper": paper_of(opened),
    }
    if report is not None:
        from pipelines.products.comparison_page import write_comparison

        say("writing the page")
        result["report"] = str(write_comparison(report, result, contest.figures(_one_each(found))))
    return result


def _loaded(models: Sequence[str], store: Store) -> tuple[list[Entry], list[Plan]]:
    """The rows of the table, and the models' plans."""
    found: list[Entry] = []
    plans: dict[str, Plan] = {}
    for text in models:
        named = _NAMED.match(text)
        model = named["model"] if named else text
        label = named["label"] if named else _label(model)
        checkpoint, network, origin = load_model(model)
        plan = checkpoint.plan
        if plan.spec.domain != store.domain:
            raise ValueError(
                f"{label} is of functions on the {plan.spec.domain}, {store.path!r} of the {store.domain}: models and "
                "store must be of one kind of data"
            )
        channels = kind_of(store.domain).channels(store.field)
        if plan.spec.channels != channels:
            raise ValueError(
                f"{label} is of {plan.spec.channels} values at a place, {store.path!r} has {channels}: choose "
                "models of this store's values"
            )
        if label in plans:
            raise ValueError(f"two models are called {label}: name them, such as --models first={model},second=...")
        plans[label] = plan
        found += entries(label, checkpoint, network, where_from(model, origin))
    return found, list(plans.values())


def _label(model: str) -> str:
    """What a model is called: its name in the registry, or its run's.

    >>> _label("models:/t2m@champion"), _label("runs/uk/best")
    ('t2m@champion', 'uk')
    """
    if model.startswith("models:"):
        return model.removeprefix("models:/")
    path = Path(model)
    return path.absolute().parent.name if path.name in _ROLES else path.name


def _held_out(store: Store, plans: Sequence[Plan], split: str) -> tuple[NDArray[np.int64], list[str]]:
    """The samples that are of the split for all models, and what is to be said of that."""
    each = [samples_of(store, plan, split) for plan in plans]
    common = each[0]
    for chosen in each[1:]:
        common = np.intersect1d(common, chosen)
    if len(common) < 2:
        raise ValueError(
            f"{len(common)} samples of {store.path!r} are {split} samples of all these models, at least 2 are needed: "
            "compare models that were trained with one split"
        )
    notes = []
    if any(len(chosen) != len(common) for chosen in each):
        notes.append(f"The models were trained with different splits: {len(common)} {split} samples are common to all.")
    return common, notes


def _learned(store: Store, plans: Sequence[Plan], chosen: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """What models of this very store learned from, without what is scored; None where none of them is of it."""
    known = [split_of(plan.config, store) for plan in plans if plan.fingerprint == store.fingerprint]
    if not known:
        return None
    positions = np.unique(np.concatenate([part for split in known for part in (split.train, split.validation)]))
    left = np.setdiff1d(positions, chosen)
    return left if len(left) > 2 else None


def _measured(
    contest: Contest,
    entry: Entry,
    store: Store,
    chosen: NDArray[np.int64],
    before: Row | None,
    *,
    factor: int,
    seed: int,
) -> Row:
    """Everything of one way of asking a model, in the table's order; `before` is another way of the same model."""
    truth = store.field.isel({store.field.dims[0]: chosen}).load()
    spent = cost(entry, truth, factor=factor, seed=seed)
    row = Row(missing=dict(spent.missing))
    if entry.can("infer"):
        found = entry.inferred(truth, seed)
        row.scores |= contest.seen(entry, found) | {"bits": entry.bits(truth, found)}
        if entry.can("bound"):
            row.scores["bits_bound"] = entry.bits_bound(truth, found, seed)
        row.scores |= contest.unseen(entry)
    same = set() if before is None else {key for key in before.scores if METRICS[key].needs == "sample"}
    if entry.can("sample") and before is None:
        new = contest.new(entry)
        row.scores |= new.scores
        row.missing |= new.missing
    if entry.downscales:
        row.scores |= contest.downscaled(entry)
    scores = row.scores | spent.scores
    if before is not None:  # how it infers does not change what it draws
        scores |= {key: before.scores[key] for key in same}
        row.missing |= before.missing
    row.missing |= {key: _NOT_FINITE for key, value in scores.items() if not math.isfinite(value)}
    return Row({key: scores[key] for key in METRICS if math.isfinite(scores.get(key, math.nan))}, row.missing)


def _missing(rows: dict[str, Row], found: Sequence[Entry], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Why there are dashes: {"models", "metrics", "reason"}, models together that lack the same for the same reason."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for entry in found:
        row = rows[entry.label]
        for key in keys:
            if key not in row.scores:
                said = row.missing.get(key) or entry.refusals.get(METRICS[key].needs) or "not measured"
                lacking.setdefault((entry.label, said), []).append(key)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (label, said), metrics in lacking.items():
        together.setdefault((said, tuple(metrics)), []).append(label)
    return [
        {"models": models, "metrics": list(metrics), "reason": said} for (said, metrics), models in together.items()
    ]


def _about(entry: Entry) -> dict[str, str]:
    told = {"given": entry.origin["given"], "system": entry.system, "description": entry.plan.config.description}
    told["inference"] = f"{entry.steps} steps for each function" if entry.can("infer") else ""
    origin = {key: value for key, value in entry.origin.items() if key in ("version", "run_id")}
    return {key: value for key, value in (told | origin).items() if value}


def _one_each(found: Sequence[Entry]) -> list[Entry]:
    """One row of each model: how it infers does not change what it samples."""
    return list({id(entry.network): entry for entry in reversed(found)}.values())[::-1]
