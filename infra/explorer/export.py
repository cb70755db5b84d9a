"""A page of one view that needs no server: coarse input, mean, spread and a member, with everything inlined."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from bokeh.embed import file_html
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.resources import INLINE, Resources
from jinja2 import Template

from infra.explorer.downscaling.input import FromStore, usual_every
from infra.explorer.downscaling.layers import Layer, colour_bar, layers
from infra.explorer.downscaling.map import coast, colours, image, map_figure, ranges_of, whole_of
from infra.explorer.downscaling.save import Shown, command
from infra.explorer.downscaling.view import FINE_POINTS, Window, look
from infra.explorer.page_style import BARS
from infra.explorer.session import load, registered
from pipelines.data.atomic import refuse_existing, written_beside
from pipelines.data.store import open_store
from pipelines.data.times import label

MEMBERS, PIXELS = 8, 1000
_TEMPLATE = """{% from macros import embed %}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'unsafe-inline' 'unsafe-eval' data: blob:">
<title>{{ title | e }}</title>
<link rel="icon" href="data:,">
{% for script in scripts %}<script>{{ script }}</script>
{% endfor %}<style>
  body { margin: 0; background: #ffffff; color: #17202a;
    font: 16px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; }
  header { background: #14213d; color: #ffffff; padding: 12px 16px; } h1 { font-size: 20px; margin: 0; }
  main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px;
    padding: 12px; }
  footer { padding: 0 16px 24px; font-size: 13px; } code { white-space: pre-wrap; overflow-wrap: anywhere; }
  {{ bars }}
</style>
</head>
<body>
<header><h1>{{ title | e }}</h1></header>
<main>
{% for name, bar in maps %}<section aria-label="{{ name }}">{{ bar }}{{ embed(roots[name]) }}</section>
{% endfor %}</main>
<footer><p>Drag to pan, turn the wheel to zoom: all maps move together.</p><p><code>{{ command }}</code></p>
<p>{{ notice }}</p></footer>
{{ plot_script | indent(2) }}
</body>
</html>
"""
_NOTICE = (
    "Contains modified Copernicus Climate Change Service information where ERA5 is shown. Coastlines: Natural Earth."
)


def export_page(model: str | None, store: str | None, output: Path, *, overwrite: bool = False) -> None:
    """Write the page of the store's last field.

    Args:
        model: MODEL; None for the first that is registered.
        store: Of fields.
        output: An .html file.
        overwrite: Replace it if it exists.

    Raises:
        ValueError: If there is no model, no store of fields, or the output is no .html.
        OSError: If something cannot be read or written, or the output exists.
    """
    if output.suffix != ".html":
        raise ValueError(f"--export writes a page: expected FILE.html, got {str(output)!r}")
    refuse_existing(output, overwrite=overwrite)
    named = model or next(iter(registered()), None)
    if named is None or store is None:
        raise ValueError("--export needs a model that downscales and fields to downscale: give MODEL and --store STORE")
    loaded, opened = load(named), open_store(store)
    if not loaded.downscales or opened.domain != "sphere":
        raise ValueError(
            "--export shows what is downscaled: expected a model of preset downscale and a store of fields"
        )
    plan = loaded.checkpoint.plan
    context = plan.config.context
    given = FromStore(opened, usual_every(opened, plan), context is not None and context.kind == "means")
    time = len(given.times) - 1
    at = np.array([time])
    lattice = given.lattice
    ensemble = loaded.teller.ensemble(given.coarse(at), lattice, given.times[at], members=MEMBERS, seed=0)
    window = Window.on_screen(whole_of(lattice), PIXELS, None, FINE_POINTS)
    seen = look(ensemble, window, lambda done, total: None)
    coarse, mean = layers(seen, "mean")
    drawn = {"coarse": coarse, "mean": mean, "spread": layers(seen, "spread")[1], "member": layers(seen, "member")[1]}
    shown = Shown(
        loaded=loaded, given=given, time=time, members=MEMBERS, seed=0, quantity="spread", level=0.95, seen=seen
    )
    title = f"{loaded.label}: {label(given.times[time])} UTC"
    with written_beside(output, overwrite=overwrite) as beside:
        beside.write_text(_page(drawn, window, shown, title), encoding="utf-8")


def _page(drawn: dict[str, Layer], window: Window, shown: Shown, title: str) -> str:
    """The page: maps that share their ranges."""
    x, y, aspect = ranges_of(shown.given.lattice)
    lines = coast(window)
    shore = ColumnDataSource({"x": lines[:, 0], "y": lines[:, 1]})
    figures = []
    for name, layer in drawn.items():
        mapper = LinearColorMapper(nan_color="#d9d9d9", **colours(layer))
        each = map_figure((x, y), aspect, ColumnDataSource(image(layer, window)), mapper, shore)
        each.name = name
        figures.append(each)
    return file_html(
        figures,
        resources=INLINE,
        title=title,
        template=Template(_TEMPLATE),
        template_variables={
            # Bokeh's own: what is bundled of itself has what Panel's models need, too
            "scripts": Resources(mode="inline", components=["bokeh"]).js_raw,
            "maps": [(name, colour_bar(layer)) for name, layer in drawn.items()],
            "bars": BARS,
            "command": escape(command(shown)),
            "notice": escape(_NOTICE),
        },
    )
