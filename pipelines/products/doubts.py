"""Where a request goes beyond what a model was trained on: said in the output and on the screen, and not refused."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipelines.data.scatter import Scatter
from pipelines.data.sphere import Lattice
from pipelines.products.targets import Target
from pipelines.training.plan import Plan

FINER = 3.0  # a grid so many times finer than the trained one still has most of its detail from the model
_SAME = 0.1  # relative difference of spacings that are taken for equal
_UNEVEN = 0.35  # and of points in no order
Kind = Literal["means", "points"]


def doubts(plan: Plan, given: Lattice | Scatter, target: Target, cell_methods: str = "") -> list[str]:
    """One sentence for each way in which a request goes beyond the training.

    Args:
        plan: What the model was trained on.
        given: The input's grid, or its points.
        target: Where the field is wanted.
        cell_methods: What the input says that its values are of their cells.
    """
    found = [
        _region(plan.lattice, target),
        _input(plan, given) if isinstance(given, Lattice) else _points(plan, given),
        _kind(plan, cell_methods),
        _resolution(plan.lattice, target),
    ]
    return [sentence for sentence in found if sentence]


def cell_kind(cell_methods: str) -> Kind:
    """Whether CF cell methods say that values are means over areas; they are points where nothing is said.

    >>> cell_kind("time: point area: mean"), cell_kind("latitude: longitude: mean"), cell_kind("area: point")
    ('means', 'means', 'points')
    """
    words = cell_methods.split()
    for place, word in enumerate(words):
        if word in ("area:", "latitude:", "longitude:", "lat:", "lon:"):
            method = next((each for each in words[place:] if not each.endswith(":")), "")
            return "means" if method == "mean" else "points"
    return "points"


def taught(plan: Plan) -> dict[str, str]:
    """What a downscaling model was trained on, as attributes of an output: region, input and output resolution."""
    assert plan.config.context is not None
    lattice, (low, high) = plan.lattice, plan.config.context.factors
    south, north = lattice.latitude.min(), lattice.latitude.max()
    west, east = (-180.0, 180.0) if lattice.periodic else (lattice.longitude[0], lattice.longitude[-1])
    spacing = np.array(spacing_deg(lattice))
    ends = [" x ".join(f"{step:.4g}" for step in factor * spacing) for factor in dict.fromkeys((low, high))]
    return {
        "model_region": f"{west:.6g},{south:.6g},{east:.6g},{north:.6g}",  # west, south, east, north, as --region
        "model_input_degrees": " to ".join(ends),
        "model_input_kind": plan.config.context.kind,
        "model_static_fields": ", ".join(f"{each.name} ({each.units}) {each.fingerprint}" for each in plan.statics),
        "model_grid_degrees": " x ".join(f"{step:.4g}" for step in spacing),
    }


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


def _points(plan: Plan, given: Scatter) -> str:
    assert plan.config.context is not None
    low, high = plan.config.context.factors
    trained, inside = plan.lattice.spacing_rad, plan.downscaling.within(given.latitude, given.longitude)
    factor = np.sqrt(len(plan.lattice.coords) / max(len(inside), 1))
    found = []
    if len(inside) < len(given.latitude):
        found.append(
            f"{len(given.latitude) - len(inside)} of the input's {len(given.latitude)} points lie outside the region "
            "that the model was trained on: they are left out."
        )
    if not low * (1 - _UNEVEN) <= factor <= high * (1 + _UNEVEN):
        degrees = np.rad2deg(trained)
        found.append(
            f"The input's points are some {factor * degrees:.3g} degrees apart, the model was trained on points that "
            f"are {low * degrees:.3g} to {high * degrees:.3g} degrees apart."
        )
    return " ".join(found)


def _kind(plan: Plan, cell_methods: str) -> str:
    assert plan.config.context is not None
    trained: Kind = "means" if plan.config.context.kind == "means" else "points"
    came = cell_kind(cell_methods)
    if came == trained:
        return ""
    called = {"means": "means over its cells", "points": "values at points"}
    said = f"(cell_methods {cell_methods!r})" if cell_methods else "(it has no cell_methods)"
    return f"The input holds {called[came]} {said}, the model was trained on {called[trained]}."


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
