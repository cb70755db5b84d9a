"""Functa and GASP as small as they come, untrained: enough to be asked."""

from pathlib import Path

from pipelines.config import load_config
from pipelines.data.store import Store
from pipelines.training.checkpoint import Checkpoint, save_checkpoint
from pipelines.training.plan import Plan, make_plan
from vamoh.systems import new_model

SMALL = {
    "functa-fields": ("model.latent=4", "model.width=8", "model.depth=3"),
    "functa-shapes": ("model.latent=4", "model.width=8", "model.depth=3"),
    "gasp-fields": ("model.latent=4", "model.fourier_frequencies=4", "model.generator=[8]"),
    "gasp-shapes": ("model.latent=4", "model.fourier_frequencies=4", "model.generator=[8]"),
}
_OF_ALL = ("split.gap_hours=0", "training.batch_size=4")


def plan_of(preset: str, store: Store) -> Plan:
    """What a small model of a preset is on a store."""
    own = _OF_ALL if "fields" in preset else _OF_ALL[1:]
    return make_plan(load_config(preset, (*SMALL[preset], *own)), store)


def checkpoint_of(preset: str, store: Store, folder: Path) -> str:
    """Write a small model, as it is before training."""
    plan = plan_of(preset, store)
    save_checkpoint(folder, Checkpoint(plan=plan, epoch=0), new_model(plan.spec, seed=0))
    return str(folder)
