"""How a tab is laid out: controls beside what is shown, or above it on a narrow page; files and commands."""

from __future__ import annotations

import io
import shlex
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import panel as pn
import xarray as xr

from pipelines.products import generate

_COMMAND = (
    "white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f6f8;border:1px solid #c3ccd2;border-radius:4px;"
    "padding:8px;margin:2px 0;font-size:13px;color:#17202a"
)


def side_by_side(controls: Sequence[pn.viewable.Viewable], shown: Sequence[pn.viewable.Viewable]) -> pn.FlexBox:
    """Controls, and beside them what is shown."""
    left = pn.Column(*controls, sizing_mode="stretch_width", styles={"flex": "1 1 280px", "min-width": "250px"})
    right = pn.Column(*shown, sizing_mode="stretch_width", styles={"flex": "1000 1 560px", "min-width": "0"})
    return pn.FlexBox(left, right, flex_wrap="wrap", align_items="flex-start", sizing_mode="stretch_width")


def cards(*shown: pn.viewable.Viewable, least: int = 400) -> pn.FlexBox:
    """Figures side by side, as many as there is room for."""
    for each in shown:
        each.styles = {"flex": f"1 1 {least}px", "min-width": "0", "max-width": "470px"}
    return pn.FlexBox(*shown, flex_wrap="wrap", align_items="flex-start", sizing_mode="stretch_width")


def command_html(told: str, *words: object) -> str:
    """A command that can be copied, under what it does."""
    line = " ".join(shlex.quote(str(word)) for word in words)
    return f'<p style="margin:6px 0 0">{escape(told)}</p><pre style="{_COMMAND}" tabindex="0">{escape(line)}</pre>'


def download(
    shown: Callable[[], xr.Dataset | None], name: Callable[[], str], domain: str, *, label: str
) -> pn.widgets.FileDownload:
    """A button that hands out what is shown, as the file that `vamoh` would write.

    Args:
        shown: What to write; None where there is nothing yet.
        name: Of the file; its suffix says how.
        domain: The kind of data.
        label: On the button.
    """

    def made() -> io.BytesIO:
        dataset = shown()
        if dataset is None:
            raise ValueError("there is nothing to download yet")
        button.filename = name()
        return written(dataset, button.filename, domain)

    button = pn.widgets.FileDownload(
        callback=made, filename=name(), label=label, button_type="primary", sizing_mode="stretch_width"
    )
    return button


def written(dataset: xr.Dataset, name: str, domain: str) -> io.BytesIO:
    """What the file of that name would hold.

    Raises:
        ValueError: If no such file is written of this kind of data.
    """
    with tempfile.TemporaryDirectory(prefix="vamoh-explorer-") as folder:
        path = Path(folder, name)
        generate.write(dataset, path, domain)
        return io.BytesIO(path.read_bytes())
