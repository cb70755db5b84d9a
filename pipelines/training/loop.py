"""What every training worker does: stream, step, validate, keep. Runs inside Ray Train, in this process or in many.

A worker begins where the run's folder says: at its `last` checkpoint if there is one. So a run that was killed and
resumed, a worker or a node that was lost, and a cluster that grew or shrank all come back in the same way; and because
the global batches, the draws and the rates are functions of the seed and the step alone, as if nothing had happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.config import TrainingConfig
from pipelines.data.domain import kind_of
from pipelines.data.split import Split
from pipelines.data.store import open_store
from pipelines.data.stored import ChunkError
from pipelines.data.stream import FieldStream, Index, Samples
from pipelines.quantities import SIGNS
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.folder import Progress, RunFolder
from pipelines.training.learner import Learner
from pipelines.training.plan import Plan
from pipelines.training.record import Record
from pipelines.training.step import Drawn, draw
from pipelines.training.systems import Share, system_of
from pipelines.training.tracking import Tracking
from pipelines.training.validation import VALIDATION_BATCH
from pipelines.training.writer import CheckpointError

Ready = tuple[Samples, Drawn]  # a batch and what was drawn for it


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What a worker is told; it opens everything else itself.

    Attributes:
        plan: The run.
        store: Path or URL.
        split: Which samples are for what.
        folder: The run's.
        tracking_uri, run_id: Where rank 0 logs; without a run it only keeps its journal, for others to deliver.
        skip_corrupt: Go on without the samples of damaged chunks.
        versions: Of the driver's libraries.
    """

    plan: Plan
    store: str
    split: Split
    folder: RunFolder
    tracking_uri: str
    run_id: str
    skip_corrupt: bool
    versions: dict[str, str]


def run_worker(loop: dict[str, Any]) -> None:
    """Ray Train's entry. Ray is told of validations only where somebody listens: all workers wait for a report."""
    from ray import train
    from ray.train.torch import get_device

    from pipelines.training.quiet import resting

    context = train.get_context()
    with nullcontext() if loop["reported"] else resting():
        run_rank(
            loop["task"],
            get_device(),
            train.report if loop["reported"] else lambda metrics: None,
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            beside=context.get_local_world_size(),
        )


def run_rank(
    task: WorkerTask,
    device: torch.device,
    report: Callable[[dict[str, Any]], None],
    *,
    rank: int = 0,
    world_size: int = 1,
    beside: int = 1,
    durable: bool = False,
) -> None:
    """Train until the plan's last epoch, or until the driver asks to stop.

    Args:
        task, device, rank, world_size, beside: See `Worker`.
        report: Told of every validation, by all workers alike.
        durable: Tell it once the checkpoint to go on from is on disk.
    """
    if task.folder.failure is not None:
        return  # Ray tries again after every error: this one stays
    try:
        with ExitStack() as stack:
            if rank == 0:
                stack.enter_context(task.folder.locked())
                task.folder.recover()
            if world_size > 1:
                torch.distributed.barrier()
            worker = Worker(task, device, rank=rank, world_size=world_size, beside=beside)
            stack.callback(worker.close)
            worker.run(report, durable=durable)
    except FloatingPointError as error:  # of all workers at once
        if rank == 0:
            task.folder.fail(error)
    except (ValueError, ChunkError, CheckpointError) as error:
        task.folder.fail(error)
        raise


class Worker:
    """One rank of a run.

    Args:
        task: What to do.
        device: Its own.
        rank, world_size: Its place.
        beside: Workers on this machine, which share its CPUs.
    """

    def __init__(
        self, task: WorkerTask, device: torch.device, *, rank: int = 0, world_size: int = 1, beside: int = 1
    ) -> None:
        self.task, self.plan, self.rank, self.world_size = task, task.plan, rank, world_size
        self.config: TrainingConfig = self.plan.config.training
        self.system = system_of(self.plan.spec)
        torch.set_num_threads(self.config.threads or max(1, (os.cpu_count() or 1) // beside))
        self.store = open_store(task.store, skip_corrupt=task.skip_corrupt)
        self.stream = FieldStream(
            store=self.store,
            samples=task.split.train,
            batch_size=self.config.batch_size,
            seed=self.plan.config.seed,
            rank=rank,
            world_size=world_size,
            buffer=self.config.buffer,
            prefetch=self.config.prefetch or None,
            last=self.config.last_batch,
            skip_corrupt=task.skip_corrupt,
        )
        self.epoch, self.batch, self.best, self.stale = 0, 0, float("inf"), 0
        self.metrics: dict[str, float] = {}
        self.sums: dict[str, float] = {}
        self.stopping, self.kept = False, time.monotonic()
        self.record: Record | None = None
        if rank == 0:
            tracking = Tracking(task.tracking_uri, task.run_id) if task.run_id else None
            self.record = Record(task.folder, tracking, self.config.keep)
        self.learner = Learner(
            self.plan,
            len(task.split.train),
            steps=self.config.epochs * self.stream.batches_per_epoch,
            device=device,
            start=task.folder.last if task.folder.has_checkpoint else None,
        )
        if self.learner.began_at is not None:
            self._go_on_from(self.learner.began_at)

    def run(self, report: Callable[[dict[str, Any]], None], *, durable: bool = False) -> None:
        """Train, validate and keep; then fit to the best weights what is fitted at the end."""
        while self.epoch < self.config.epochs and not (self.config.patience and self.stale >= self.config.patience):
            self._train_epoch()
            if self.stopping:
                break
            due = self.epoch == self.config.epochs or self.epoch % self.config.validate_every == 0
            better = due and self._validate()
            if self.record is not None:
                self.record.log(self.metrics, self.epoch)  # before the checkpoint, from which it is not told again
            if due:
                self._keep(best=better)
                if durable and self.record is not None:
                    self.record.flush()
                report({**self.metrics, "epoch": self.epoch})
        if self.stopping:
            self._keep()
        if self.record is not None:
            self.record.flush()
        if not self.stopping:
            if self.record is not None:
                self.system.finish(self.task.folder.best, self.store, self.held)
            report({**self.metrics, "epoch": self.epoch})

    def close(self) -> None:
        """End the threads."""
        if self.record is not None:
            self.record.close()

    # --- an epoch ---------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """Train to the epoch's end, or until the workers are asked to stop."""
        began, first = time.perf_counter(), self.sums.get("rows", 0.0)
        with closing(self.stream.epoch(self.epoch, start=self.batch, prepare=self._prepared)) as batches:
            drawn = self._drawn(batches)
            ahead = next(drawn, None)
            while ahead is not None:
                ahead = self._step(*ahead, drawn)
                self._note()
                if self.stopping:
                    return
                minutes = (time.monotonic() - self.kept) / 60
                if 0 < self.config.checkpoint_minutes < minutes and self.batch < self.stream.batches_per_epoch:
                    self._keep()
            elapsed = time.perf_counter() - began
        rows = max(self.sums["rows"], 1.0)
        means = {name: value / rows for name, value in self.sums.items() if name not in ("rows", "skipped")}
        means |= {
            "learning_rate": self.learner.rate(self.step - 1),
            "samples_per_second": (self.sums["rows"] - first) / elapsed,
            "data_wait_fraction": batches.waited_s / elapsed,
        }
        if self.task.skip_corrupt:
            means["skipped_samples"] = self.sums["skipped"]
        self.metrics = means | {key: value for key, value in self.metrics.items() if key.startswith("validation")}
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}

    @property
    def held(self) -> Index:
        """The samples to validate on; where none are held out, those of training."""
        split = self.task.split
        return split.validation if len(split.validation) else split.train

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.epoch * self.stream.batches_per_epoch + self.batch

    def _prepared(self, batch: int, samples: Samples) -> tuple[Samples, Drawn | None]:
        """What the reading thread does: for a GPU, which works on meanwhile, it draws the batch and pins it.

        On a CPU a thread that drew ahead would hold the interpreter when the step needs it.
        """
        if self.learner.device.type == "cpu":
            return samples, None
        drawn = self._draw(samples, batch)
        return samples, drawn.pinned() if self.learner.device.type == "cuda" else drawn

    def _draw(self, samples: Samples, batch: int) -> Drawn:
        """Draw a batch of the epoch."""
        return draw(
            samples,
            self.plan.framing,
            self.plan.geometry,
            seed=self.plan.config.seed,
            step=self.epoch * self.stream.batches_per_epoch + batch,
            latent=self.plan.spec.latent,
            num=self.config.kl_samples + 1,
        )

    def _drawn(self, batches: Iterable[tuple[Samples, Drawn | None]]) -> Iterator[Ready]:
        """The epoch's batches from the next one on, drawn when they are asked for."""
        for number, (samples, drawn) in enumerate(batches, self.batch):
            yield samples, drawn or self._draw(samples, number)

    def _step(self, samples: Samples, drawn: Drawn, following: Iterator[Ready]) -> Ready | None:
        """Take a step; gives what follows it, which is drawn while the workers' gradients are on their way."""
        left = len(self.task.split.train) - self.batch * self.config.batch_size
        rows = min(self.config.batch_size, left)
        asked = float(self.rank == 0 and self.task.folder.asked_to_stop)
        try:
            begun = self.learner.begin(drawn, rows=rows, epoch=self.epoch, step=self.step, stop=asked)
            ahead = next(following, None)
            sums = self.learner.end(begun)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} ({self._keep_faulty(samples, str(error))} names them)") from error
        self.stopping = sums.pop("stop") > 0
        sums["skipped"] = rows - sums["rows"]  # samples of damaged chunks, which weigh nothing
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in sums.items()}
        self.batch += 1
        return ahead

    def _keep_faulty(self, samples: Samples, what: str) -> str:
        """Keep the samples of a batch, of all workers; says where."""
        assert samples.weight is not None
        kind = kind_of(self.plan.spec.domain)
        rows = zip(samples.position, samples.times, samples.weight, strict=True)
        own = [
            {"position": int(place), "sample": kind.label(time), "rank": self.rank}
            for place, time, real in rows
            if real
        ]
        found: list[Any] = [own] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(found, own)
        at = {"epoch": self.epoch + 1, "batch": self.batch + 1, "step": self.step + 1, "what": what}
        if self.rank == 0:
            self.task.folder.note_faulty(at | {"samples": [sample for share in found for sample in share]})
        return str(self.task.folder.faulty)

    # --- between epochs ---------------------------------------------------------------------------------------------

    def _validate(self) -> bool:
        """Score the averaged weights; whether they are the best so far."""
        held = self.held if len(self.task.split.validation) else self.held[:VALIDATION_BATCH]
        share = Share(store=self.store, held=held, learned=self.task.split.train, rank=self.rank, of=self.world_size)
        self.metrics |= self.system.validate(self.learner.average, self.plan, share)
        score = SIGNS[self.config.select] * self.metrics[self.config.select]
        better = score < self.best
        self.best = min(self.best, score)
        self.stale = 0 if better else self.stale + 1
        return better

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _keep(self, *, best: bool = False) -> None:
        """Have the state written; the call returns once it is copied."""
        self.kept = time.monotonic()
        if self.record is None:
            return
        checkpoint = Checkpoint(
            plan=self.plan,
            epoch=self.epoch,
            metrics=self.metrics,
            versions=self.task.versions,
            best=self.best,
            stale=self.stale,
            stream=self.stream.state_dict() | {"epoch": self.epoch, "batch": self.batch},
            sums=self.sums,
        )
        self.record.keep(checkpoint, self.learner, step=self.step, best=best)
        self._note(always=True)

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        self.epoch, self.metrics, self.sums = checkpoint.epoch, dict(checkpoint.metrics), dict(checkpoint.sums)
        if checkpoint.stream:
            self.stream.load_state_dict(checkpoint.stream)
            self.batch = self.stream.at[1]
        self.best = float("inf") if checkpoint.best is None else checkpoint.best
        self.stale = checkpoint.stale

    def _note(self, *, always: bool = False) -> None:
        """Say how far training is, now and then."""
        if self.record is not None:
            epochs, steps = self.config.epochs, self.learner.steps
            now = Progress(epoch=self.epoch, epochs=epochs, step=self.step, steps=steps, metrics=self.metrics)
            self.record.note(now, always=always)
