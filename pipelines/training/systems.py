"""What training must know of a system, behind one Protocol; VAMoH, Functa and GASP answer to it.

How a model of a spec is made stands in vamoh/systems.py. Here is what a step lowers, which parameters learn how fast,
what a validation gives (its names stand in pipelines/quantities.py), what is fitted when training has ended, and how a
function is inferred. Nothing else asks which system it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import TrainingConfig
from pipelines.data.store import Store
from pipelines.data.stream import Index
from pipelines.training.checkpoint import load_checkpoint, save_checkpoint
from pipelines.training.energy import sample_energy
from pipelines.training.members import fit_members, spaced
from pipelines.training.peer_objectives import FunctaObjective, GaspObjective
from pipelines.training.plan import Plan, split_of
from pipelines.training.step import Groups, Objective, vamoh_groups
from pipelines.training.validation import read_samples, validate, validation_metrics
from vamoh import FunctionBatch, VAMoH
from vamoh.aggregate import fit_prior
from vamoh.model import Posterior
from vamoh.peers import GASP, Functa
from vamoh.peers.settling import fit_flow, settle
from vamoh.refinement import STEPS, Draw, refined
from vamoh.systems import Spec

SETTLED_FUNCTIONS, FITTED_FUNCTIONS = 64, 4096  # that Functa reads before a validation, and at the end
SETTLED_POINTS = 4096  # of each


@dataclass(frozen=True, kw_only=True)
class Share:
    """A worker's share of a validation.

    Attributes:
        store: Of the samples.
        held, learned: Positions of those held out, and of those of training.
        rank, of: Which worker of how many.
    """

    store: Store
    held: Index
    learned: Index
    rank: int = 0
    of: int = 1


class System(Protocol):
    """A system, as training and the products see it.

    Attributes:
        name: As it is written.
        ways: By which functions are inferred, by name, and the steps of each (`infer`); none where none can be.
    """

    name: str
    ways: Mapping[str, int]

    def objective(self, model: Any, config: TrainingConfig, num_samples: int) -> nn.Module:  # noqa: ANN401 - its own
        """What a step lowers: (drawn, epoch, step) -> loss and terms, as `step.Objective`."""

    def groups(self, model: Any, config: TrainingConfig) -> Groups:  # noqa: ANN401
        """The parameters, with their rates."""

    def validate(self, model: Any, plan: Plan, share: Share) -> dict[str, float]:  # noqa: ANN401
        """Scores on held-out samples, of all workers."""

    def finish(self, folder: Path, store: Store, held: Index) -> None:
        """Fit what is fitted at the end, and add it to the best checkpoint."""

    def infer(
        self,
        model: Any,  # noqa: ANN401
        batch: FunctionBatch,
        draw: Draw,
        *,
        steps: int | None,
        cell: Tensor | None,
        generator: torch.Generator,
    ) -> Posterior:
        """The latents of functions; the arguments are those of `refined`. Without `steps`, as the system does it best.

        Raises:
            ValueError: If it cannot infer.
        """


class VamohSystem:
    """VAMoH: the bound, its terms, members that are fitted at the end; an encoder whose answer is improved."""

    name = "VAMoH"
    ways: Mapping[str, int] = {"vamoh": STEPS, "vamoh, the encoder alone": 0}

    def objective(self, model: VAMoH, config: TrainingConfig, num_samples: int) -> nn.Module:
        """See `System`."""
        return Objective(model, config, num_samples)

    def groups(self, model: VAMoH, config: TrainingConfig) -> Groups:
        """See `System`."""
        return vamoh_groups(model, config)

    def validate(self, model: VAMoH, plan: Plan, share: Share) -> dict[str, float]:
        """See `System`."""
        scores = _reconstructed(model, plan, share)
        if plan.config.context is None:
            scores["validation_energy"] = sample_energy(model, plan, share.store, share.held)
        return scores

    def finish(self, folder: Path, store: Store, held: Index) -> None:
        """The law of members, where there is a context; else the prior's Gaussian, where that was asked for."""
        checkpoint, model = load_checkpoint(folder)
        if checkpoint.plan.config.context is not None:
            fit_members(folder, store, held)
        elif isinstance(model, VAMoH) and model.spec.fitted_prior:
            learned = spaced(split_of(checkpoint.plan.config, store).train, FITTED_FUNCTIONS)
            fit_prior(model.prior, *(_posteriors(model, checkpoint.plan, store, each) for each in (learned, held)))
            save_checkpoint(folder, checkpoint, model)

    def infer(
        self,
        model: VAMoH,
        batch: FunctionBatch,
        draw: Draw,
        *,
        steps: int | None,
        cell: Tensor | None,
        generator: torch.Generator,
    ) -> Posterior:
        """The encoder's answer, and an ascent of the bound from there."""
        with torch.no_grad():
            begun = model.posterior(batch)
        steps = self.ways["vamoh"] if steps is None else steps
        return refined(model, batch, begun, draw, steps=steps, cell=cell, generator=generator)


class FunctaSystem:
    """Functa: the error after its steps; what it says and samples is settled on training functions."""

    name = "Functa"
    ways: Mapping[str, int] = {"functa": 3, "functa, 10 steps": 10}

    def objective(self, model: Functa, config: TrainingConfig, num_samples: int) -> nn.Module:
        """See `System`."""
        return FunctaObjective(model)

    def groups(self, model: Functa, config: TrainingConfig) -> Groups:
        """All but the prior over modulations, which is fitted to them at the end."""
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return [{"params": learned, "lr": config.learning_rate, "weight_decay": config.weight_decay}]

    def validate(self, model: Functa, plan: Plan, share: Share) -> dict[str, float]:
        """See `System`."""
        settle(model, _learned(plan, share.store, spaced(share.learned, SETTLED_FUNCTIONS), model.rates.device))
        energy = sample_energy(model, plan, share.store, share.held)
        return _reconstructed(model, plan, share) | {"validation_energy": energy}

    def finish(self, folder: Path, store: Store, held: Index) -> None:
        """The likelihood's scale, and the prior over modulations."""
        checkpoint, model = load_checkpoint(folder)
        assert isinstance(model, Functa)
        learned = spaced(split_of(checkpoint.plan.config, store).train, FITTED_FUNCTIONS)
        fit_flow(model, settle(model, _learned(checkpoint.plan, store, learned, model.rates.device)))
        save_checkpoint(folder, checkpoint, model)

    def infer(
        self,
        model: Functa,
        batch: FunctionBatch,
        draw: Draw,
        *,
        steps: int | None,
        cell: Tensor | None,
        generator: torch.Generator,
    ) -> Posterior:
        """So many steps of gradient descent on all that was seen; as many as in training where none are asked for."""
        return model.posterior(batch, steps=steps or None)


class GaspSystem:
    """GASP: two players in one step; it samples, and infers nothing."""

    name = "GASP"
    ways: Mapping[str, int] = {}

    def objective(self, model: GASP, config: TrainingConfig, num_samples: int) -> nn.Module:
        """See `System`."""
        return GaspObjective(model)

    def groups(self, model: GASP, config: TrainingConfig) -> Groups:
        """The generator's and the discriminator's."""
        players = ((model.hypernetworks, config.learning_rate), (model.discriminator, config.discriminator_rate))
        return [
            {"params": list(player.parameters()), "lr": rate, "weight_decay": 0.0, "betas": (0.5, 0.999)}
            for player, rate in players
        ]

    def validate(self, model: GASP, plan: Plan, share: Share) -> dict[str, float]:
        """See `System`."""
        return {"validation_energy": sample_energy(model, plan, share.store, share.held)}

    def finish(self, folder: Path, store: Store, held: Index) -> None:
        """Nothing."""

    def infer(self, model: GASP, batch: FunctionBatch, draw: Draw, **_: object) -> Posterior:
        """Refused."""
        return model.posterior(batch)


SYSTEMS: Mapping[str, System] = {"vamoh": VamohSystem(), "functa": FunctaSystem(), "gasp": GaspSystem()}


def system_of(spec: Spec) -> System:
    """The system of a spec."""
    return SYSTEMS[spec.system]


def _reconstructed(model: VAMoH | Functa, plan: Plan, share: Share) -> dict[str, float]:
    """What a model says of held-out functions that it has seen, or whose context it has."""
    sums = validate(
        model,
        read_samples(share.store, share.held, rank=share.rank, world_size=share.of),
        plan.framing,
        plan.geometry,
        members=plan.config.training.members,
        seed=plan.config.seed,
    )
    if share.of > 1:
        torch.distributed.all_reduce(sums)
    return validation_metrics(sums)


@torch.no_grad()
def _posteriors(model: VAMoH, plan: Plan, store: Store, index: Index) -> Posterior:
    """What the encoder says of functions that it sees in whole."""
    device = next(model.parameters()).device
    found = [
        model.posterior(plan.whole.all_of(part.fields, plan.geometry).to(device)) for part in read_samples(store, index)
    ]
    return Posterior(*(torch.cat(each) for each in zip(*found, strict=True)))


def _learned(plan: Plan, store: Store, index: Index, device: torch.device) -> Iterator[FunctionBatch]:
    """Training functions as a model is told of them, a few at a time, on some of their points."""
    rng, total = np.random.default_rng(plan.config.seed), len(plan.geometry.area)
    points = torch.from_numpy(np.sort(rng.choice(total, min(total, SETTLED_POINTS), replace=False)))
    for part in read_samples(store, index):
        yield plan.whole.all_of(part.fields, plan.geometry).at(points).to(device)
