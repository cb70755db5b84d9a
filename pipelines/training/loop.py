"""What every training worker does: stream, step, validate, keep. Runs inside Ray Train, in this process or in many."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import TrainingConfig
from pipelines.data.split import Split
from pipelines.data.store import Store, open_store
from pipelines.data.stream import FieldStream, Index, Samples
from pipelines.training import members
from pipelines.training.checkpoint import Checkpoint, load_checkpoint, load_training, save_checkpoint
from pipelines.training.plan import Plan
from pipelines.training.step import (
    Objective,
    differentiate,
    draw,
    make_optimizer,
    set_rates,
    take_step,
    update_average,
    validate,
    validation_metrics,
)
from pipelines.training.tracking import Tracking

VALIDATION_BATCH = 8
FITTED_FIELDS = 64


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What a worker is told; it opens everything else itself.

    Attributes:
        plan: The run.
        store: Path or URL.
        split: Which samples are for what.
        folder: The run's.
        tracking_uri, run_id: Where rank 0 logs.
        resume: Begin from the folder's `last` checkpoint.
        versions: Of the driver's libraries.
    """

    plan: Plan
    store: str
    split: Split
    folder: Path
    tracking_uri: str
    run_id: str
    resume: bool
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch, epochs, step, steps: Done, and in all.
        metrics: Newest values.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    metrics: dict[str, float]

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Read what a worker wrote."""
        return cls(**json.loads(text))


def run_worker(loop: dict[str, Any]) -> None:
    """Ray Train's entry: train until the plan's last epoch."""
    from ray import train

    context = train.get_context()
    worker = Worker(
        loop["task"],
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        beside=context.get_local_world_size(),
    )
    worker.run(train.report)


class Worker:
    """One rank of a run.

    Args:
        task: What to do.
        rank, world_size: Its place.
        beside: Workers on this machine, which share its CPUs.
    """

    def __init__(self, task: WorkerTask, *, rank: int = 0, world_size: int = 1, beside: int = 1) -> None:
        self.task, self.plan, self.rank, self.world_size = task, task.plan, rank, world_size
        self.config: TrainingConfig = self.plan.config.training
        torch.set_num_threads(self.config.threads or max(1, (os.cpu_count() or 1) // beside))
        self.store = open_store(task.store)
        self.device = _device()
        self.model = self.plan.new_model().to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = make_optimizer(self.model, self.config)
        self.objective: nn.Module = Objective(self.model, self.config, len(task.split.train))
        self.epoch, self.best, self.stale = 0, float("inf"), 0
        self.metrics: dict[str, float] = {}
        self.tracking = Tracking(task.tracking_uri, task.run_id) if rank == 0 else None
        self.logged = 0
        if task.resume:
            self._restore()
        if world_size > 1:
            from torch.nn.parallel import DistributedDataParallel

            self.objective = DistributedDataParallel(self.objective, find_unused_parameters=True)
        self.stream = FieldStream(
            store=self.store,
            samples=task.split.train,
            batch_size=self.config.batch_size,
            seed=self.plan.config.seed,
            rank=rank,
            world_size=world_size,
            buffer=self.config.buffer,
            prefetch=self.config.prefetch,
        )
        self.steps = self.stream.batches_per_epoch * self.config.epochs

    def run(self, report: Any) -> None:  # noqa: ANN401 - ray.train.report
        """Train, validate and keep; then fit the members' random field on the best weights."""
        while self.epoch < self.config.epochs and not (self.config.patience and self.stale >= self.config.patience):
            self.metrics = self._train_epoch() | {
                key: value for key, value in self.metrics.items() if key.startswith("validation")
            }
            self.epoch += 1
            last = self.epoch == self.config.epochs
            if last or self.epoch % self.config.validate_every == 0:
                self._validate_and_keep()
                report({**self.metrics, "epoch": self.epoch})
            if self.tracking is not None and self.epoch > self.logged:
                self.tracking.log(self.metrics, self.epoch)
        if self.rank == 0:
            self._fit_members()
        report({**self.metrics, "epoch": self.epoch})

    def _train_epoch(self) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        began, rate = time.perf_counter(), 0.0
        batches = self.stream.epoch(self.epoch)
        noted = 0.0
        try:
            for number, samples in enumerate(batches):
                step = self.epoch * self.stream.batches_per_epoch + number
                drawn = draw(
                    samples,
                    self.plan.framing,
                    self.plan.lattice,
                    seed=self.plan.config.seed,
                    step=step,
                    latent=self.plan.spec.latent,
                    num=self.config.kl_samples + 1,
                )
                rate = set_rates(self.optimizer, self.config, step, self.steps)
                drawn, size = drawn.to(self.device), self.config.micro_batch
                terms = differentiate(self.objective, drawn, at_a_time=size, epoch=self.epoch, step=step)
                take_step(self.model, self.optimizer, self.config.clip)
                update_average(self.average, self.model, self.config.average, step)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.rank == 0 and time.perf_counter() - noted > 0.5:
                    noted = time.perf_counter()
                    self._note(step + 1)
        finally:
            batches.close()
        count, elapsed = self.stream.batches_per_epoch, time.perf_counter() - began
        means = self._reduced({name: float(value) / count for name, value in sums.items()})
        return means | {
            "learning_rate": rate,
            "samples_per_second": count * self.config.batch_size / elapsed,
            "data_wait_fraction": batches.waited_s / elapsed,
        }

    def _validate_and_keep(self) -> None:
        held = (
            self.task.split.validation if len(self.task.split.validation) else self.task.split.train[:VALIDATION_BATCH]
        )
        sums = validate(
            self.average,
            read_samples(self.store, held, rank=self.rank, world_size=self.world_size),
            self.plan.framing,
            self.plan.lattice,
            members=self.config.members,
            seed=self.plan.config.seed,
        )
        if self.world_size > 1:
            torch.distributed.all_reduce(sums)
        self.metrics |= validation_metrics(sums)
        better = self.metrics["validation_crps"] < self.best
        self.best = min(self.best, self.metrics["validation_crps"])
        self.stale = 0 if better else self.stale + 1
        if self.rank == 0:
            checkpoint = self._checkpoint()
            if better:
                save_checkpoint(self.task.folder / "best", checkpoint, self.average)
            save_checkpoint(self.task.folder / "last", checkpoint, self.average, training=(self.model, self.optimizer))
            self._note(self.epoch * self.stream.batches_per_epoch)

    def _fit_members(self) -> None:
        checkpoint, model = load_checkpoint(self.task.folder / "best")
        held = self.task.split.validation if len(self.task.split.validation) else self.task.split.train
        held = held[np.linspace(0, len(held) - 1, min(FITTED_FIELDS, len(held))).round().astype(int)]
        seed = self.plan.config.seed
        where = (self.plan.framing, self.plan.lattice)
        scores, hours = members.normal_scores(model, read_samples(self.store, held), *where, seed=seed)
        law = replace(
            members.fit_random_field(scores, hours, self.plan.lattice, seed=seed),
            spread=members.fit_spread(model, read_samples(self.store, held), *where, seed=seed),
        )
        save_checkpoint(self.task.folder / "best", replace(checkpoint, random_field=law), model)

    def _restore(self) -> None:
        folder = self.task.folder / "last"
        checkpoint, weights = load_checkpoint(folder)
        load_training(folder, self.model, self.optimizer)
        self.average.load_state_dict(weights.state_dict())
        self.epoch, self.metrics = checkpoint.epoch, dict(checkpoint.metrics)
        self.best = float("inf") if checkpoint.best is None else checkpoint.best
        self.stale = checkpoint.stale
        if self.tracking is not None:  # the steps after the checkpoint were logged before the stop; its own perhaps not
            self.logged = self.tracking.last_step()
            if self.logged < self.epoch:
                self.tracking.log(self.metrics, self.epoch)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            plan=self.plan,
            epoch=self.epoch,
            metrics=self.metrics,
            versions=self.task.versions,
            best=self.best,
            stale=self.stale,
        )

    def _reduced(self, means: dict[str, float]) -> dict[str, float]:
        """Means over all workers, whose shares are equal."""
        if self.world_size == 1:
            return means
        values = torch.tensor(list(means.values()), dtype=torch.float64, device=self.device) / self.world_size
        torch.distributed.all_reduce(values)
        return dict(zip(means, values.tolist(), strict=True))

    def _note(self, step: int) -> None:
        progress = Progress(
            epoch=self.epoch, epochs=self.config.epochs, step=step, steps=self.steps, metrics=self.metrics
        )
        path = self.task.folder / "progress.json"
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(asdict(progress)))
        beside.replace(path)


def read_samples(store: Store, index: Index, *, rank: int = 0, world_size: int = 1) -> Iterator[Samples]:
    """Samples by position, a few at a time, in order; of these parts, every `world_size`-th from `rank` on."""
    field = store.field
    for first in range(rank * VALIDATION_BATCH, len(index), world_size * VALIDATION_BATCH):
        part = index[first : first + VALIDATION_BATCH]
        chosen = field.isel({field.dims[0]: part})
        yield Samples(chosen.values, chosen[field.dims[0]].values, part)


def _device() -> torch.device:
    """The device that Ray Train gave this worker; the CPU outside a cluster with GPUs."""
    from ray.train.torch import get_device

    return get_device()
