"""The widgets of the tab Downscale, all with labels and reachable by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
from bokeh.models import CustomJSTickFormatter
from numpy.typing import NDArray

from infra.explorer.downscaling.layers import QUANTITIES, Quantity
from infra.explorer.downscaling.map import HANDLE, Maps
from infra.explorer.page_style import STYLE
from infra.explorer.security import MAX_UPLOAD_BYTES
from infra.explorer.uploads import Upload
from pipelines.data.times import label

if TYPE_CHECKING:
    from infra.explorer.downscaling.tab import Downscaling

SCREEN = "As fine as the screen"
_COPY = """
const plain = html => new DOMParser().parseFromString(html, 'text/html').documentElement.textContent;
const text = plain(plain(shown.text)).trim();  // Panel escapes what is HTML once more
if (navigator.clipboard) { navigator.clipboard.writeText(text); }
else {
  const area = document.createElement('textarea'); area.value = text; document.body.append(area);
  area.select(); document.execCommand('copy'); area.remove();
}
"""


class Controls:
    """The widgets, and what they say.

    Args:
        tab: Is told of changes.
        every: Keep every so many-th point of the store; None without a store.
    """

    def __init__(self, tab: Downscaling, *, every: int | None) -> None:
        self._tab = tab
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (4, 8)}
        self._time = pn.widgets.IntSlider(label="Time (UTC)", start=0, end=1, value=0, disabled=True, **wide)
        self._every = pn.widgets.IntInput(label="Coarse: every n-th point of the store", value=every or 1, start=1,
                                          end=64, **wide)  # fmt: skip
        self._quantity = pn.widgets.Select(label="Show", options=list(QUANTITIES), **wide)
        self._members = pn.widgets.IntInput(label="Members", value=8, start=2, end=64, **wide)
        self._seed = pn.widgets.IntInput(label="Seed", value=0, start=0, end=2**31 - 1, **wide)
        self._member = pn.widgets.IntSlider(label="Member", start=0, end=7, value=0, visible=False, **wide)
        self._level = pn.widgets.IntSlider(label="Quantile, %", start=1, end=99, value=95, visible=False, **wide)
        self._follow = pn.widgets.Select(label="Resolution", options=[SCREEN, "Chosen with a slider"], **wide)
        self._resolution = pn.widgets.FloatSlider(
            label="Degrees", start=-3.0, end=1.0, step=0.01, value=0.0, visible=False,
            format=CustomJSTickFormatter(code="return (10 ** tick).toPrecision(3) + '°'"), **wide,
        )  # fmt: skip
        self._fine = pn.pane.HTML("", margin=(4, 16), sizing_mode="stretch_width", styles={"font-size": "14px"})
        self._command = pn.pane.HTML("", sizing_mode="stretch_width", margin=(4, 8), stylesheets=[_CODE])
        self._copy = pn.widgets.Button(label="Copy the command", margin=(4, 8), disabled=True)
        self._copy.js_on_click(args={"shown": self._command}, code=_COPY)
        self._upload = Upload(
            max_bytes=MAX_UPLOAD_BYTES, refuse=tab.refuse, take=tab.from_file,
            sizing_mode="stretch_width", margin=(4, 8), height=90,
        )  # fmt: skip
        self._variable = pn.widgets.TextInput(label="Variable, if the file holds several", **wide)
        self._units = pn.widgets.TextInput(label="Units, if it does not say", placeholder="K", **wide)
        self._with_store = every is not None
        self._downloads = [
            pn.widgets.FileDownload(
                callback=lambda kind=kind: tab.file(kind), filename=name, label=said, auto=True, embed=False,
                margin=(4, 8), disabled=True, button_type="default",
                stylesheets=[*pn.widgets.FileDownload.param.stylesheets.default, STYLE],
            )
            for kind, name, said in (
                ("nc", "downscaled.nc", "NetCDF of the window"), ("png", "downscaled.png", "PNG of both maps"),
                ("coarse", "coarse.nc", "Coarse input (NetCDF)"),
            )
        ]  # fmt: skip
        self._watch()

    def _watch(self) -> None:
        tab = self._tab
        self._time.param.watch(lambda event: tab.time_changed(), "value_throttled")
        for widget in (self._members, self._seed):
            widget.param.watch(lambda event: self._members_changed(), "value")
        self._every.param.watch(lambda event: tab.from_store(), "value")
        self._quantity.param.watch(lambda event: self._quantity_changed(), "value")
        for slider in (self._member, self._level):
            slider.param.watch(lambda event: tab.redraw(), "value")
        self._follow.param.watch(lambda event: self._follow_changed(), "value")
        self._resolution.param.watch(lambda event: tab.moved(), "value")

    # --- what they say ----------------------------------------------------------------------------------------------

    @property
    def time(self) -> int:
        """Position of the time."""
        return int(self._time.value or 0)

    @property
    def every(self) -> int:
        """Keep every so many-th point of the store."""
        return int(self._every.value or 1)

    @property
    def quantity(self) -> Quantity:
        """What of the members is shown."""
        return QUANTITIES[self._quantity.value]

    @property
    def members(self) -> int:
        """Of the ensemble."""
        return int(np.clip(self._members.value or 2, 2, 64))

    @property
    def seed(self) -> int:
        """Of the ensemble."""
        return int(self._seed.value or 0)

    @property
    def member(self) -> int:
        """Which is shown."""
        return min(int(self._member.value or 0), self.members - 1)

    @property
    def level(self) -> float:
        """Of the quantile."""
        return float(self._level.value or 1) / 100

    @property
    def resolution(self) -> float | None:
        """Degrees; None for the screen's."""
        return None if self._follow.value == SCREEN else float(10 ** float(self._resolution.value or 0))

    @property
    def variable(self) -> str:
        """Of a dropped file."""
        return str(self._variable.value or "").strip()

    @property
    def units(self) -> str:
        """Of a dropped file."""
        return str(self._units.value or "").strip()

    # --- what they are told -----------------------------------------------------------------------------------------

    def set_times(self, times: NDArray[Any]) -> None:
        """Offer times."""
        last = len(times) - 1
        named = CustomJSTickFormatter(args={"names": [label(time) for time in times]}, code="return names[tick]")
        self._time.param.update(end=max(last, 1), value=last, format=named, disabled=last < 1)

    def set_resolution(self, coarse_deg: float) -> None:
        """Offer resolutions from a coarse field's own to a hundredth of it."""
        coarse = float(np.log10(coarse_deg))
        self._resolution.param.update(start=coarse - 2, end=coarse, value=coarse - 0.6)

    def say(self, command: str, size: str, beyond: list[str]) -> None:
        """Give the command that makes what is shown, how much that is, and what of it the model was not taught."""
        self._command.object = f"<code>{escape(command)}</code>"
        self._fine.object = f"<div>{escape(size)}</div>" + "".join(f"<div>{escape(each)}</div>" for each in beyond)
        self._copy.disabled = False
        for button in self._downloads:
            button.disabled = False

    def _quantity_changed(self) -> None:
        self._member.visible, self._level.visible = self.quantity == "member", self.quantity == "quantile"
        self._tab.redraw()

    def _members_changed(self) -> None:
        self._member.param.update(end=self.members - 1, value=self.member)
        self._tab.refresh()

    def _follow_changed(self) -> None:
        self._resolution.visible = self._follow.value != SCREEN
        self._tab.refresh()

    # --- where they stand -------------------------------------------------------------------------------------------

    def view(self) -> pn.viewable.Viewable:
        """Above the maps."""
        first = [self._time, self._quantity, self._member, self._level, self._follow, self._resolution]
        more = [self._members, self._seed, *([self._every] if self._with_store else [])]
        dropped = pn.Column(
            self._upload, _flex([self._variable, self._units], 180), sizing_mode="stretch_width", margin=0
        )
        return pn.Column(
            _flex(first, 230),
            pn.Card(
                pn.Column(_flex(more, 200), dropped, sizing_mode="stretch_width"),
                title="Your own file (NetCDF), members, seed", collapsed=self._with_store, sizing_mode="stretch_width",
                margin=(4, 8), header_background="#eef2f6", active_header_background="#eef2f6",
            ),
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def navigation(self, maps: Maps, swipe: pn.layout.Swipe) -> pn.viewable.Viewable:
        """Below the maps: to move them without a mouse, and the handle."""
        moves = {
            "Zoom in": {"zoom": 2.0}, "Zoom out": {"zoom": 0.5}, "West": {"right": -0.4}, "East": {"right": 0.4},
            "North": {"up": 0.4}, "South": {"up": -0.4},
        }  # fmt: skip

        def moved(move: Callable[[], None], event: object) -> None:
            move()
            self._tab.moved()

        buttons = []
        for name, move in moves.items():
            button = pn.widgets.Button(label=name, margin=2)
            button.on_click(partial(moved, partial(maps.move, **move)))
            buttons.append(button)
        whole = pn.widgets.Button(label="Whole map", margin=2)
        whole.on_click(partial(moved, partial(maps.go, maps.whole)))
        handle = pn.widgets.IntSlider(label="Handle: coarse left, downscaled right, %", start=0, end=100, value=HANDLE,
                                      sizing_mode="stretch_width", margin=(4, 8))  # fmt: skip
        handle.jslink(swipe, value="value", bidirectional=True)
        latitude = pn.widgets.FloatInput(label="Latitude, °N", value=None, start=-90, end=90, width=110, margin=(0, 8))
        longitude = pn.widgets.FloatInput(
            label="Longitude, °E", value=None, start=-360, end=360, width=110, margin=(0, 8)
        )
        ask = pn.widgets.Button(label="Show this place", margin=(18, 8, 0, 8))

        def asked(event: object) -> None:
            if latitude.value is not None and longitude.value is not None:
                self._tab.ask_place(longitude.value, latitude.value)

        ask.on_click(asked)
        place = pn.Row(latitude, longitude, ask, margin=0)
        return pn.Column(
            self._fine,
            _flex([handle, pn.FlexBox(*buttons, whole, margin=(4, 6)), place], 300),
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def taking_away(self) -> pn.viewable.Viewable:
        """Below everything: files, and the command."""
        return pn.Column(
            pn.pane.HTML("<h2>Take it away</h2>", margin=(0, 8), stylesheets=["h2 {font-size: 16px; margin: 8px 0 0}"]),
            pn.FlexBox(*self._downloads, self._copy, sizing_mode="stretch_width"),
            self._command,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip


def _flex(widgets: list[Any], least: int) -> pn.FlexBox:
    """Widgets side by side where there is room for each, below each other where there is not."""
    parts = [pn.Column(each, styles={"flex": f"1 1 {least}px"}, margin=0) for each in widgets]
    for part, each in zip(parts, widgets, strict=True):
        each.param.watch(lambda event, part=part: part.param.update(visible=event.new), "visible")
        part.visible = each.visible
    return pn.FlexBox(*parts, sizing_mode="stretch_width", align_items="flex-end")


_CODE = """code { display: block; background: #eef2f6; color: #17202a; padding: 8px 12px; font-size: 13px;
white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 4px; }"""
