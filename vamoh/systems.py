"""The systems of this house by their specs: VAMoH and its peers, which are made here and nowhere else.

Whatever a model is, it answers to `spec`, `local` (None where it does not downscale), `latents(noise)`,
`decode(latent, query)`, `sample(noise, query)`, `posterior(batch)` and `complete(batch, query, noise)`.
"""

from __future__ import annotations

from torch import Tensor

from vamoh.model import VAMoH
from vamoh.peers.functa import Functa, FunctaSpec
from vamoh.peers.gasp import GASP, GaspSpec
from vamoh.spec import ModelSpec

Spec = ModelSpec | FunctaSpec | GaspSpec
Model = VAMoH | Functa | GASP


def new_model(
    spec: Spec, *, seed: int, support: Tensor | None = None, vertices: tuple[int, ...] | None = None
) -> Model:
    """The model of a spec at its start; the arguments are those of `VAMoH`, and peers have no grids."""
    match spec:
        case ModelSpec():
            return VAMoH(spec, support=support, vertices=vertices, seed=seed)
        case FunctaSpec():
            return Functa(spec, seed=seed)
        case GaspSpec():
            return GASP(spec, seed=seed)
