"""What of the members is shown: a member, their mean, spread, a quantile, the component, the error. And its colours."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from infra.explorer.downscaling.view import Seen
from pipelines.products.charts import CATEGORIES
from pipelines.products.targets import Target

Quantity = Literal["mean", "member", "spread", "quantile", "component", "error"]
Kind = Literal["field", "error", "spread", "component"]
QUANTITIES: dict[str, Quantity] = {
    "Mean": "mean",
    "Member": "member",
    "Spread": "spread",
    "Quantile": "quantile",
    "Component": "component",
    "Error of the mean": "error",
}
PALETTES = {
    name: [to_hex(colour) for colour in colormaps[maps](np.linspace(0, 1, 256))]
    for name, maps in (("field", "viridis"), ("spread", "cividis"), ("error", "RdBu_r"))
}
_TICKS = MaxNLocator(5, steps=[1, 2, 5, 10])


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One map.

    Attributes:
        values: [n, m], NaN where nothing is known.
        target: Its grid.
        label: What it is, with its unit.
        kind: How it is coloured.
        limits: Of the colours; of components 1 and K.
    """

    values: NDArray[np.floating]
    target: Target
    label: str
    kind: Kind
    limits: tuple[float, float]

    @property
    def palette(self) -> list[str]:
        """Colours between the limits, perceptually uniform and safe for colour-blind eyes."""
        if self.kind == "component":
            return [CATEGORIES[k % len(CATEGORIES)] for k in range(round(self.limits[1]))]
        return PALETTES[self.kind]


def layers(seen: Seen, quantity: Quantity, *, member: int = 0, level: float = 0.95) -> tuple[Layer, Layer]:
    """The coarse field, and what is shown of the members beside it.

    Args:
        seen: What is known of the window.
        quantity: What is shown.
        member: Which, for "member".
        level: Of the quantile.
    """
    members = seen.answer.values[:, 0]
    temperature = "2 m temperature, K"
    coarse, fine = seen.coarse, members.mean(axis=0)
    if quantity == "member":
        fine = members[member]
    elif quantity == "quantile":
        fine = np.quantile(members, level, axis=0)
    limits = _limits(coarse, fine)
    below = Layer(values=coarse, target=seen.target, label=f"Coarse input: {temperature}", kind="field", limits=limits)
    if quantity == "error":
        assert seen.error is not None
        values, target = seen.error
        extent = float(np.nanpercentile(np.abs(values), 99)) or 1.0
        return below, Layer(
            values=values, target=target, label="Mean less truth, K", kind="error", limits=(-extent, extent)
        )
    label, kind = f"Downscaled, mean: {temperature}", "field"
    if quantity == "member":
        label = f"Downscaled, member {member}: {temperature}"
    elif quantity == "quantile":
        label = f"Downscaled, {100 * level:.0f} % quantile: {temperature}"
    elif quantity == "spread":
        spread = members.std(axis=0, ddof=1)
        top = float(np.percentile(spread, 99.5)) or 1.0
        return below, Layer(
            values=spread, target=seen.target, label="Standard deviation of the members, K", kind="spread",
            limits=(0.0, top),
        )  # fmt: skip
    elif quantity == "component":
        found = seen.answer.weights[0].argmax(axis=-1).astype(np.float32) + 1
        return below, Layer(
            values=found, target=seen.target, label="Most probable component", kind="component",
            limits=(1.0, float(seen.answer.weights.shape[-1])),
        )  # fmt: skip
    assert kind == "field"
    return below, Layer(values=fine, target=seen.target, label=label, kind="field", limits=limits)


def colour_bar(layer: Layer) -> str:
    """A colour bar as HTML, which reads well at any width."""
    if layer.kind == "component":
        keys = "".join(
            f'<span><i style="background:{colour}"></i>{number + 1}</span>'
            for number, colour in enumerate(layer.palette)
        )
        return (
            f'<figure class="bar"><figcaption>{escape(layer.label)}</figcaption><div class="keys">{keys}</div></figure>'
        )
    low, high = layer.limits
    ticks = [tick for tick in _TICKS.tick_values(low, high) if low <= tick <= high]
    marks = "".join(f'<span style="left:{100 * (tick - low) / (high - low):.2f}%">{tick:g}</span>' for tick in ticks)
    colours = ",".join(layer.palette[::15])
    return (
        f'<figure class="bar"><figcaption>{escape(layer.label)}</figcaption>'
        f'<div class="ramp" style="background:linear-gradient(90deg,{colours})"></div>'
        f'<div class="ticks">{marks}</div></figure>'
    )


def _limits(*fields: NDArray[np.floating]) -> tuple[float, float]:
    """What all of some fields lie in, but for the outermost thousandths."""
    known = [each[np.isfinite(each)] for each in fields]
    known = [each for each in known if each.size] or [np.zeros(1)]
    low = min(float(np.percentile(each, 0.2)) for each in known)
    high = max(float(np.percentile(each, 99.8)) for each in known)
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)
