"""One place: the distribution there, now and over the times around, with the coarse value and the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import panel as pn
from bokeh.plotting import figure
from numpy.typing import NDArray

from infra.explorer.downscaling.input import Given
from infra.explorer.session import Loaded
from pipelines.data.times import label

MEMBERS = 48
TIMES = 25
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
GRAVITY = 9.80665  # m s-2, of geopotential


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """What is known of a place.

    Attributes:
        latitude, longitude: Degrees.
        times: [T], those around the one that is shown.
        now: Position of that one.
        members: [M, T] kelvin.
        coarse: [T] kelvin, the coarse field interpolated.
        truth: [T] kelvin, of the truth's nearest point; None where it is not known.
        facts: What does not change there, such as its elevation.
    """

    latitude: float
    longitude: float
    times: NDArray[Any]
    now: int
    members: NDArray[np.float32]
    coarse: NDArray[np.float64]
    truth: NDArray[np.floating] | None
    facts: tuple[str, ...]


def look_at(
    loaded: Loaded, given: Given, time: int, latitude: float, longitude: float, *, seed: int,
    step: Callable[[int, int], None],
) -> Place:  # fmt: skip
    """Ask for one place.

    Raises:
        ValueError: If it lies outside the coarse field.
    """
    lattice, plan = given.lattice, loaded.checkpoint.plan
    here = np.array([latitude]), np.array([longitude])
    if not lattice.periodic and not (
        lattice.latitude[-1] <= latitude <= lattice.latitude[0]
        and lattice.longitude[0] <= longitude <= lattice.longitude[-1]
    ):
        raise ValueError(f"{named(latitude, longitude)} lies outside the coarse field")
    first = int(np.clip(time - TIMES // 2, 0, max(0, len(given.times) - TIMES)))
    wanted = np.arange(first, min(first + TIMES, len(given.times)))
    step(0, 3)
    fields = given.coarse(wanted)
    known = np.isfinite(fields).any(axis=(1, 2))
    wanted, fields = wanted[known], fields[known]
    if time not in wanted:
        raise ValueError(f"the coarse field has no value at {label(given.times[time])}")
    step(1, 3)
    ensemble = loaded.teller.ensemble(fields, lattice, given.times[wanted], members=MEMBERS, seed=seed)
    values = ensemble.at(*here)[0][:, :, 0]
    step(2, 3)
    truth, found = None, given.truth(wanted)
    if found is not None:
        true, fine = found
        row = int(np.abs(fine.latitude - latitude).argmin())
        column = int(np.abs((fine.longitude - longitude + 180.0) % 360.0 - 180.0).argmin())
        truth = true[:, row, column]
    return Place(
        latitude=latitude,
        longitude=longitude,
        times=given.times[wanted],
        now=int(np.flatnonzero(wanted == time)[0]),
        members=values,
        coarse=lattice.interpolate(fields.reshape(len(fields), -1).astype(np.float64), *here)[:, 0],
        truth=truth,
        facts=tuple(_fact(each.name, each.units, float(each.at(here)[0])) for each in plan.statics),
    )


def sentence(place: Place) -> str:
    """What is there now."""
    now = place.members[:, place.now]
    low, high = np.quantile(now, (0.05, 0.95))
    parts = [
        f"{named(place.latitude, place.longitude)}, {label(place.times[place.now])}: mean {now.mean():.2f} K, "
        f"standard deviation {now.std(ddof=1):.2f} K, nine in ten between {low:.2f} and {high:.2f} K",
        f"coarse field {place.coarse[place.now]:.2f} K",
    ]
    if place.truth is not None:
        parts.append(f"truth at its nearest point {place.truth[place.now]:.2f} K")
    return "; ".join([*parts, *place.facts]) + "."


def drawn(place: Place) -> pn.viewable.Viewable:
    """The distribution now, and its quantiles over the times around."""
    panes = [_histogram(place)] + ([_over_time(place)] if len(place.times) > 1 else [])
    parts = (
        pn.Column(pn.pane.Bokeh(each, sizing_mode="stretch_width"), styles={"flex": "1 1 340px"}) for each in panes
    )
    return pn.FlexBox(*parts, sizing_mode="stretch_width")


def named(latitude: float, longitude: float) -> str:
    """A place in words.

    >>> named(51.5, -0.125), named(-33.9, 378.4)
    ('51.50°N 0.12°W', '33.90°S 18.40°E')
    """
    turned = (longitude + 180.0) % 360.0 - 180.0
    return f"{abs(latitude):.2f}°{'N' if latitude >= 0 else 'S'} {abs(turned):.2f}°{'E' if turned >= 0 else 'W'}"


def _fact(name: str, units: str, value: float) -> str:
    if units in ("m2 s-2", "m**2 s**-2"):
        return f"elevation {value / GRAVITY:.0f} m ({name})"
    return f"{name} {value:.4g} {units if units != '1' else ''}".strip()


def _chart(title: str, x: str, y: str, **more: Any) -> figure:  # noqa: ANN401 - Bokeh's keywords
    chart: Any = figure(
        height=260, sizing_mode="stretch_width", toolbar_location=None, tools="", title=title, x_axis_label=x,
        y_axis_label=y, **more,
    )  # fmt: skip
    for axis in chart.axis:
        axis.update(
            axis_label_text_font_style="normal", axis_label_text_font_size="13px", major_label_text_font_size="12px",
            axis_label_text_color="#17202a",
        )  # fmt: skip
        axis.ticker.update(desired_num_ticks=5)
    chart.title.update(text_font_size="14px")
    return chart


def _histogram(place: Place) -> figure:
    now = place.members[:, place.now]
    counts, edges = np.histogram(now, bins=12)
    chart = _chart(f"{len(now)} members now", "2 m temperature, K", "members")
    chart.quad(left=edges[:-1], right=edges[1:], top=counts, bottom=0, fill_color="#9ecae1", line_color="#0b5394")
    marks = [(place.coarse[place.now], "coarse", "#d55e00", "dashed")]
    if place.truth is not None:
        marks.append((place.truth[place.now], "truth", "#000000", "solid"))
    for value, name, colour, dash in marks:
        chart.vspan(x=[float(value)], line_color=colour, line_width=3, line_dash=dash, legend_label=name)
    values = [*edges, *(float(mark[0]) for mark in marks)]
    room = 0.06 * (max(values) - min(values))
    chart.x_range.update(start=min(values) - room, end=max(values) + room)
    _legend(chart)
    return chart


def _over_time(place: Place) -> figure:
    dated = place.times.dtype != object
    x: Any = place.times if dated else np.arange(len(place.times))
    low, lower, middle, upper, high = np.quantile(place.members, LEVELS, axis=0)
    chart = _chart(
        "Times around", "time, UTC" if dated else "time steps", "2 m temperature, K",
        **({"x_axis_type": "datetime"} if dated else {}),
    )  # fmt: skip
    chart.varea(x, low, high, fill_color="#c6dbef", legend_label="90 %")
    chart.varea(x, lower, upper, fill_color="#6baed6", legend_label="50 %")
    chart.line(x, middle, color="#08306b", line_width=2, legend_label="median")
    chart.line(x, place.coarse, color="#d55e00", line_width=2, line_dash="dashed", legend_label="coarse")
    if place.truth is not None:
        chart.line(x, place.truth, color="#000000", line_width=2, legend_label="truth")
    chart.vspan(x=x[[place.now]], line_color="#6c7a89", line_dash="dotted", line_width=2)
    _legend(chart)
    return chart


def _legend(chart: figure) -> None:
    chart.add_layout(chart.legend[0], "below")
    chart.legend.update(
        orientation="horizontal", label_text_font_size="12px", border_line_color=None, padding=2, spacing=8
    )
