"""What a sweep begins with, or goes on from: its record, and whether what is asked for now is the same."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pipelines.data.store import Store
from pipelines.training.tracking import Tracking, flatten
from pipelines.training.train import LIBRARIES
from tuning.record import FILE, LOCK, SweepRecord
from tuning.space import SpaceConfig


def fresh_record(folder: Path, space: SpaceConfig, store: Store, place: str) -> SweepRecord:
    """The record of a sweep that begins.

    Raises:
        FileExistsError: If something of its name is there.
    """
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise FileExistsError(
            f"there is something named {folder.name} in runs/ already: choose another --name, or go on with --resume"
        )
    libraries = (*LIBRARIES, "optuna")
    return SweepRecord(
        name=folder.name,
        space=as_tree(space),
        metric=space.metric,
        mode=space.mode,
        store=place,
        fingerprint=store.fingerprint,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        trials=(),
        versions={library: version(library) for library in libraries} | {"python": platform.python_version()},
        config=space.config({}).model_dump(mode="json"),
    )


def resumed_record(folder: Path, space: SpaceConfig, store: Store) -> SweepRecord:
    """The record that a sweep began with, if what is asked for now is the same; more trials may be asked for.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If space or data are others, with the difference.
    """
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"there is no sweep to resume in {folder}: start one without --resume")
    record = SweepRecord.from_json(folder / FILE)
    if record.fingerprint != store.fingerprint:
        raise ValueError(
            f"the store's content differs from what sweep {folder.name} began with (fingerprint "
            f"{record.fingerprint[:12]} -> {store.fingerprint[:12]}): resume with the same store"
        )
    now = {"space": as_tree(space), "config": space.config({}).model_dump(mode="json")}
    before = {"space": dict(record.space), "config": record.config}
    if space.method != "grid" and space.total >= len(record.trials):
        for tree in (now, before):
            tree["space"] = {key: value for key, value in tree["space"].items() if key != "trials"}
    ours, theirs = (flatten(json.loads(json.dumps(tree))) for tree in (before, now))
    changed = [
        f"{key.removeprefix('space.')} {ours.get(key)} -> {theirs.get(key)}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
    if changed:
        raise ValueError(
            f"the space differs from the one that sweep {folder.name} began with: {'; '.join(changed[:5])}"
        )
    return record


def as_tree(space: SpaceConfig) -> dict[str, object]:
    """A space as JSON values."""
    tree = json.loads(space.model_dump_json(exclude_none=True, by_alias=True))
    return dict(tree)


def going_on(record: SweepRecord, space: SpaceConfig, place: str, parent: Tracking) -> SweepRecord:
    """The record as it goes on: perhaps with more trials to come, or the same store in another place."""
    return replace(record, space=as_tree(space), store=place, run_id=parent.run_id)
