"""The blocks of a downscaled data set shared out among Ray workers, which all see the same files."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
import zarr
from ray.util import ActorPool

from pipelines.products.downscale import ask
from pipelines.products.writing import write_block
from pipelines.training.cluster import started_ray
from pipelines.training.registry import resolve


class Writer:
    """One worker: opens everything itself, and writes whole chunks.

    Args:
        again: What is asked for: input, model and the keywords of `downscale`.
        data: The Zarr store that the chunks belong to.
    """

    def __init__(self, again: dict[str, Any], data: str) -> None:
        torch.set_num_threads(1)
        self.job = ask(again["input"], again["model"], **again["request"]).job
        self.group = zarr.open_group(data, mode="r+")
        self.ensembles: dict[int, Any] = {}

    def write(self, number: int) -> int:
        """Write a block; its number."""
        return write_block(self.job, self.group, number, self.ensembles)


def by_ray(again: dict[str, Any], stage: Path, pending: Sequence[int], workers: int) -> Generator[int, None, None]:
    """Write the blocks; gives their numbers as they are finished. A worker that is lost is replaced."""
    given = dict(again, model=str(resolve(again["model"])[0].absolute()), input=_absolute(again["input"]))
    given["request"] = {key: _absolute(value) if key in ("like", "points") else value
                        for key, value in again["request"].items()}  # fmt: skip
    with started_ray(workers):
        remote: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Writer)
        count = min(workers, len(pending))
        pool: Any = ActorPool([remote.remote(given, str((stage / "data.zarr").absolute())) for _ in range(count)])
        yield from pool.map_unordered(lambda actor, number: actor.write.remote(number), pending)


def _absolute(place: Any) -> Any:  # noqa: ANN401 - a path, a URL or nothing
    """A worker may have another working directory."""
    return str(Path(place).absolute()) if place is not None and "://" not in str(place) else place
