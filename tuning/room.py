"""How much a trial is given, and how many trials a cluster has room for at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a trial is given.

    Attributes:
        workers: Ray Train workers of a trial, one CPU (and a GPU, where there are enough) each; 0 trains in the trial's
            own process.
        cpus: Of a trial without workers; its threads.
        gpus: Of a trial without workers; less than one shares a GPU.
        concurrent: The most trials at a time; None for as many as fit.

    Raises:
        ValueError: If one of them is out of range.
    """

    workers: int = 0
    cpus: int = 1
    gpus: float = 0.0
    concurrent: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers of a trial must be 0 (it trains in its own process) or more, got {self.workers}")
        if self.cpus < 1:
            raise ValueError(f"a trial needs at least 1 CPU, got {self.cpus}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"a trial's GPUs are a fraction of one, or whole ones, got {self.gpus:g}")
        if self.concurrent is not None and self.concurrent < 1:
            raise ValueError(f"at least 1 trial must run at a time, got {self.concurrent}")
        if self.workers and (self.gpus or self.cpus != 1):
            raise ValueError(
                "a trial of several workers gives each of them a CPU: leave out --cpus-per-trial and --gpus-per-trial"
            )

    @property
    def resources(self) -> dict[str, float]:
        """What Ray Tune is asked for, for a trial.

        The driver of nested workers only waits: it is given no CPU of its own, or its workers would have none.
        """
        if self.workers:
            return {"cpu": 0, "memory": 1}
        return {"cpu": self.cpus, "gpu": self.gpus} if self.gpus else {"cpu": self.cpus}

    def at_a_time(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Trials that may run at a time.

        Args:
            nodes: The resources of each, as Ray names them.

        Raises:
            ValueError: If not one fits.
        """
        if self.workers:
            total = int(sum(node.get("CPU", 0) for node in nodes))
            fits, needs = total // self.workers, f"{self.workers} CPUs, one for each worker; the cluster has {total}"
        else:
            fits = sum(self._fits_on(node) for node in nodes)
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            needs = f"{self.cpus} CPUs; the largest machine has {largest:g}"
            if self.gpus:
                gpus = max((node.get("GPU", 0) for node in nodes), default=0)
                needs = f"{self.cpus} CPUs and {self.gpus:g} GPUs; the largest machine has {largest:g} and {gpus:g}"
        if not fits:
            raise ValueError(f"no trial fits: it needs {needs}")
        return fits if self.concurrent is None else min(fits, self.concurrent)

    def _fits_on(self, node: Mapping[str, float]) -> int:
        by_cpu = int(node.get("CPU", 0) / self.cpus + 1e-6)
        return min(by_cpu, int(node.get("GPU", 0) / self.gpus + 1e-6)) if self.gpus else by_cpu
