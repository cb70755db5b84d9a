"""What a model costs: seconds of inference, memory, parameters, and how long its training took.

Times are the processor's, of one thread: with one thread they are the clock's where nothing else runs, and do not count
the waiting where something does. What a function is asked at is known already, as after one function: neighbours and
Fourier features of the grid are not counted.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from mlflow.exceptions import MlflowException

from pipelines.data.domain import kind_of
from pipelines.products.comparison_contest import Row
from pipelines.products.comparison_entry import Entry
from pipelines.products.evaluate import coarsened
from pipelines.training.registry import resolve
from pipelines.training.tracking import client

MANY = 64
_REPEATS, _ENOUGH_S = 5, 2.0
_PEAK, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_NO_MEMORY = "this system does not tell the peak of a process's memory since a moment (Linux does)"
_NO_RUN = "the model's training run is not known: neither MLflow nor the run's folder has it"


def cost(entry: Entry, truth: xr.DataArray, *, factor: int, seed: int) -> Row:
    """Measure a model.

    Args:
        entry: The model.
        truth: Functions of the store; of fewer than 64 some are taken again.
        factor: Every so many-th point is given to a model that downscales.
        seed: Of what is drawn.
    """
    row, geometry = Row(), kind_of(entry.plan.spec.domain).geometry(truth)
    row.scores["parameters"] = float(sum(parameter.numel() for parameter in entry.network.parameters()))
    with one_thread():
        asked = {1: _asking(entry, truth, 1, factor, seed), MANY: _asking(entry, truth, MANY, factor, seed)}
        asked[1]()  # plans of the grid are made once
        begun = time.process_time()
        peak = memory_of(asked[MANY])
        spent = time.process_time() - begun
        if entry.can("invert"):
            row.scores["inference_1_s"] = seconds_of(asked[1])
            row.scores["inference_64_s"] = seconds_of(asked[MANY], spent)
        if entry.can("sample"):
            row.scores["sampling_64_s"] = seconds_of(lambda: entry.sampled(MANY, geometry, seed))
    if peak is None:
        row.missing["memory_mb"] = _NO_MEMORY
    else:
        row.scores["memory_mb"] = peak / 1e6
    trained = training_seconds(entry)
    if trained is None:
        row.missing["training_s"] = _NO_RUN
    else:
        row.scores["training_s"] = trained
    return row


def seconds_of(work: Callable[[], object], *before: float) -> float:
    """The processor's seconds of a call: the median of as many as there is patience for, at least one.

    Args:
        work: The call.
        before: What it took before.
    """
    taken = list(before)
    while len(taken) < _REPEATS and sum(taken) < _ENOUGH_S:
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def memory_of(work: Callable[[], object]) -> int | None:
    """Bytes of resident memory that a call needs at its peak beyond what there was; None where nobody can tell."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what was freed and kept would hide what is needed
    try:
        _PEAK.write_text("5")
        before = _resident("VmRSS")
        work()
        return max(0, _resident("VmHWM") - before)
    except OSError:
        return None


def training_seconds(entry: Entry) -> float | None:
    """How long the run took by the clock: by MLflow where it knows the run, else by what the run's folder holds."""
    run_id = entry.origin.get("run_id")
    if run_id:
        try:
            run = client().get_run(run_id).info
        except MlflowException:  # deleted since
            return None
        return None if run.end_time is None else (run.end_time - run.start_time) / 1000
    return _by_folder(Path(entry.origin.get("folder", "")))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _by_folder(checkpoint: Path) -> float | None:
    """From when the run was described to its last line of metrics, or to its checkpoint if that came later."""
    journal, described = checkpoint.parent / "metrics.jsonl", checkpoint.parent / "run.json"
    if not (journal.is_file() and described.is_file()):
        return None
    times = [json.loads(line)["timestamp"] / 1000 for line in journal.read_text().splitlines()]
    if not times:
        return None
    begun = described.stat().st_mtime
    if begun < times[0]:
        # what is fitted at the end, after the last metrics, is written to the checkpoint
        return max(times[-1], (checkpoint / "checkpoint.json").stat().st_mtime) - begun
    # the folder was copied: as long for the first epoch as for each of the others
    return (times[-1] - times[0]) * len(times) / (len(times) - 1) if len(times) > 1 else None


def _resident(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} does not tell {name}")


def _asking(entry: Entry, truth: xr.DataArray, count: int, factor: int, seed: int) -> Callable[[], object]:
    """From what was seen of so many functions to values at all points; of a model that cannot infer, samples."""
    geometry = kind_of(entry.plan.spec.domain).geometry(truth)
    some = truth[np.arange(count) % len(truth)]
    if entry.downscales:
        teller = entry.teller
        coarse = coarsened(some, factor, means=entry.plan.downscaling.kind == "means")
        lattice = kind_of("sphere").geometry(coarse)
        places = tuple(np.ascontiguousarray(each) for each in geometry.points)  # type: ignore[attr-defined]

        def downscale() -> object:
            drawn = teller.ensemble(coarse.values, lattice, some["time"].values, members=1, seed=seed)  # type: ignore[arg-type]
            return drawn.at(*places)

        return downscale
    if not entry.can("infer"):
        return lambda: entry.sampled(count, geometry, seed)
    batch = entry.batch(some)
    return lambda: entry.values(entry.posterior(batch, geometry, seed).mean, geometry)


def where_from(model: str, origin: dict[str, str]) -> dict[str, str]:
    """What is known of a model's origin, with the folder that it was read from and the text that named it."""
    return origin | {"folder": str(resolve(model)[0].absolute()), "given": model}
