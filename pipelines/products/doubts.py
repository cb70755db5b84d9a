"""Where a request goes beyond what a model was trained on: said in the output and on the screen, and not refused."""

from __future__ import annotations

import numpy as np

from pipelines.data.sphere import Lattice
from pipelines.products.targets import Target
from pipelines.training.plan import Plan

FINER = 3.0  # a grid so many times finer than the trained one still has most of its detail from the model
_SAME = 0.1  # relative difference of spacings that are taken for equal


def doubts(plan: Plan, given: Lattice, target: Target) -> list[str]:
    """One sentence for each way in which a request goes beyond the training.

    Args:
        plan: What the model was trained on.
        given: The input's grid.
        target: Where the field is wanted.
    """
    found = [_region(plan.lattice, target), _input(plan, given), _resolution(plan.lattice, target)]
    return [sentence for sentence in found if sentence]


def spacing_deg(lattice: Lattice) -> tuple[float, float]:
    """Usual steps along latitude and longitude; NaN along an axis of one."""
    axes = (lattice.latitude, np.unwrap(lattice.longitude, period=360.0))
    latitude, longitude = (float(np.median(np.abs(np.diff(axis)))) if len(axis) > 1 else np.nan for axis in axes)
    return latitude, longitude


def _region(trained: Lattice, target: Target) -> str:
    margin = np.rad2deg(trained.spacing_rad)
    inside = (target.latitude.max() <= trained.latitude[0] + margin) and (
        target.latitude.min() >= trained.latitude[-1] - margin
    )
    if not trained.periodic:
        middle = (trained.longitude[0] + trained.longitude[-1]) / 2
        away = np.abs((target.longitude - middle + 180.0) % 360.0 - 180.0)
        inside &= bool(away.max() <= (trained.longitude[-1] - trained.longitude[0]) / 2 + margin)
    if inside:
        return ""
    return "The target reaches outside the region that the model was trained on: nothing local was learned there."


def _input(plan: Plan, given: Lattice) -> str:
    assert plan.config.context is not None
    low, high = plan.config.context.factors
    trained, came = np.array(spacing_deg(plan.lattice)), np.array(spacing_deg(given))
    factor = came / trained
    if not ((factor < low * (1 - _SAME)) | (factor > high * (1 + _SAME))).any():  # NaN: nothing to compare
        return ""
    wanted = f"{low * trained[0]:.4g}" if low == high else f"{low * trained[0]:.4g} to {high * trained[0]:.4g}"
    return (
        f"The input's points are {came[0]:.4g} x {came[1]:.4g} degrees apart, the model was trained on input of "
        f"{wanted} degrees."
    )


def _resolution(trained: Lattice, target: Target) -> str:
    if target.names is not None:
        return ""
    known = np.array(spacing_deg(trained))
    wanted = np.array(spacing_deg(Lattice(latitude=target.latitude, longitude=target.longitude)))
    if not (known > FINER * (1 + 1e-6) * wanted).any():
        return ""
    return (
        f"The target's spacing of {np.nanmin(wanted):.4g} degrees is more than {FINER:g} times finer than the "
        f"{known.min():.4g} degrees that the model was trained on: finer detail is smooth interpolation."
    )
