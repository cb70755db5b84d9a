"""What a model that was just trained has learned, as maps beside its checkpoint: for `train(..., illustrate=...)`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from pipelines.data.store import Store, open_store
from pipelines.data.times import label
from pipelines.products import plot
from pipelines.products.downscale import on_target, one_thread_a_block
from pipelines.products.ensemble import Downscaler
from pipelines.products.evaluate import default_factor
from pipelines.products.kinds import products_of
from pipelines.products.targets import Target
from pipelines.training.checkpoint import Checkpoint, load_checkpoint
from pipelines.training.plan import split_of
from vamoh import VAMoH

MEMBERS, SEED, DOTS_PER_INCH = 8, 0, 110


def training_pictures(checkpoint: Path, store: str) -> list[Path]:
    """Draw one hour that the model was not fitted to, and write it to `maps/` beside the checkpoint's folder.

    A downscaling model is given the coarse field of that hour; a classic model reconstructs the whole field, and two
    fields are drawn from its prior.

    Args:
        checkpoint: A checkpoint's folder, `runs/NAME/best`.
        store: The store that it was trained on.

    Returns:
        The PNG files.
    """
    kept, network = load_checkpoint(checkpoint)
    opened = open_store(store)
    hour = _an_unfitted_sample(kept, opened)
    if network.local is None:
        kind = products_of(kept.plan.spec.domain)
        figures: Mapping[str, Figure] = {"reconstruction": kind.illustration(kept, network, opened, hour)}
    else:
        figures = {"downscaled": _downscaled(kept, network, opened, hour)}
    folder = checkpoint.parent / "maps"
    folder.mkdir(exist_ok=True)
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=DOTS_PER_INCH)
    return written


def _an_unfitted_sample(kept: Checkpoint, opened: Store) -> int:
    """The position of a validation sample; of a test sample, or else a training sample, where there is none."""
    split = split_of(kept.plan.config, opened)
    held = next(part for part in (split.validation, split.test, split.train) if len(part))
    return int(held[len(held) // 2])


def _downscaled(kept: Checkpoint, network: VAMoH, opened: Store, hour: int) -> Figure:
    truth = opened.field.isel(time=[hour]).load()
    factor = default_factor(kept.plan)
    coarse = truth[:, ::factor, ::factor]
    teller = Downscaler(checkpoint=kept, model=network, origin={})
    target = Target(latitude=truth["latitude"].values, longitude=truth["longitude"].values)
    with one_thread_a_block():
        result = on_target(teller, coarse, target, members=MEMBERS, seed=SEED).isel(time=0).compute()
    ensemble = result[opened.variable]
    return plot.comparison(
        coarse[0],
        ensemble.mean("realization").assign_attrs(ensemble.attrs),
        truth=truth[0].assign_attrs(ensemble.attrs),
        spread=ensemble.std("realization").assign_attrs(units="K"),
        component=result["component"],
        title=f"{label(truth['time'].values[0])}, given one point in {factor} along each side",
    )
