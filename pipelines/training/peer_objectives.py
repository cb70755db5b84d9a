"""What a training step of a peer lowers, as a module's forward (`step.Objective` is VAMoH's)."""

from __future__ import annotations

from torch import Tensor, nn

from pipelines.training.step import Drawn, Terms, weighted
from vamoh.peers import GASP, Functa


class FunctaObjective(nn.Module):
    """The squared error that is left after the steps.

    Args:
        model: What is trained.
    """

    def __init__(self, model: Functa) -> None:
        super().__init__()
        self.model = model

    def forward(self, drawn: Drawn, epoch: int, step: int) -> tuple[Tensor, Terms]:
        """See `step.Objective`; what is hidden is not seen by the steps, and is scored all the same."""
        scored, shown = drawn.scored, drawn.shown
        if drawn.at is not None:
            shown = None if shown is None else shown.gather(1, drawn.at.expand(len(shown), -1))
        losses = self.model.meta_loss(scored, shown=shown, rescale=drawn.rescale)
        return weighted(drawn, losses, {"loss": losses})


class GaspObjective(nn.Module):
    """Both players' losses, each with the other's parameters held: a step is simultaneous descent.

    Args:
        model: What is trained.
    """

    def __init__(self, model: GASP) -> None:
        super().__init__()
        self.model = model

    def forward(self, drawn: Drawn, epoch: int, step: int) -> tuple[Tensor, Terms]:
        """See `step.Objective`."""
        scored = drawn.scored
        judged = self.model.discriminator_loss(scored, drawn.noise[0])
        generator = self.model.generator_loss(scored, drawn.noise[-1])
        losses = judged.total + generator
        parts = {"loss": losses, "real": judged.real, "fake": judged.fake, "penalty": judged.penalty}
        return weighted(drawn, losses, parts | {"generator": generator})
