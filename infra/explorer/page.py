"""What one visitor sees: a header, the choice of a model, and a button for each tab that suits it.

All of it comes from this server: no script, style or font from anywhere else.
"""

from __future__ import annotations

from html import escape
from importlib import import_module
from typing import Any

import panel as pn

from infra.explorer.page_style import STYLE
from infra.explorer.session import Explorer, Loaded, Tab, label_of, load, registered
from infra.explorer.work import Step, Work
from pipelines.data.store import Store

# In the order of the page. What is imported is a class with the tab's name.
TABS = (
    ("infra.explorer.downscaling.tab", "Downscaling"),
    ("infra.explorer.imagining.tab", "Imagining"),
    ("infra.explorer.completing.tab", "Completing"),
    ("infra.explorer.comparing.tab", "Comparing"),
)
TITLE = "vamoh explorer"
NO_MODEL = (
    "There is no model yet: give one (vamoh explore MODEL), or train and register one (vamoh train --register NAME)."
)

_TEMPLATE = """
{% extends base %}
{% block preamble %}
<meta http-equiv="Content-Security-Policy" content="default-src 'self' 'unsafe-inline' 'unsafe-eval'
  data: blob:; connect-src 'self' ws: wss:">
<meta name="viewport" content="width=device-width, initial-scale=1">{% endblock %}
{% block postamble %}
<style>
  :root { --vamoh-ink: #17202a; --vamoh-dark: #14213d; --vamoh-accent: #0b5394; }
  html { font-size: 16px; }
  body { margin: 0; background: #ffffff; color: var(--vamoh-ink); min-height: 100vh;
         font-family: system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; }
  header { background: var(--vamoh-dark); color: #ffffff; padding: 8px 16px; display: flex; flex-wrap: wrap;
           align-items: center; gap: 4px 24px; }
  header h1 { font-size: 20px; margin: 0; font-weight: 600; letter-spacing: 0.02em; white-space: nowrap; }
  header > div { flex: 1 1 280px; min-width: 0; max-width: 640px; }
  main { max-width: 1400px; margin: 0 auto; padding: 4px 8px 24px; box-sizing: border-box; }
  footer { color: #4d5656; font-size: 13px; max-width: 1400px; margin: 0 auto; padding: 0 16px 24px; }
</style>
{% endblock %}
{% block contents %}
<header><h1>{{ heading }}</h1><div>{{ embed(roots.chooser) }}</div></header>
<main>{{ embed(roots.tabs) }}</main>
<footer>{{ notice }}</footer>
{% endblock %}
"""
_NOTICE = (
    "Contains modified Copernicus Climate Change Service information where ERA5 is shown. Coastlines: Natural Earth."
)

_TABS_STYLE = """
.bk-btn-group { flex-wrap: wrap; }
.bk-btn.bk-btn-default { font-size: 16px; padding: 8px 16px; background: #ffffff !important; border: none !important;
  border-bottom: 3px solid transparent !important; border-radius: 0; box-shadow: none !important; }
.bk-btn.bk-btn-default.bk-active { border-bottom-color: #0b5394 !important; color: #0b5394 !important;
  font-weight: 600; }
"""
_CHOOSER_STYLE = "label { color: #ffffff; font-size: 13px; }"


def prepare() -> None:
    """Set Panel up for this process: everything from this server, and the widgets' style."""
    pn.extension(
        "filedropper", "plotly", sizing_mode=None, raw_css=[], notifications=False, throttled=False, inline=False
    )
    for kind in (pn.widgets.Widget, pn.pane.HTML):
        if STYLE not in kind.stylesheets:
            setattr(kind, "stylesheets", [*kind.stylesheets, STYLE])  # noqa: B010 - a param, to the type checker


class Page:
    """One visitor's page.

    Args:
        model: The MODEL of the command line; None for the first that is registered.
        store: Of the command line.
    """

    def __init__(self, model: str | None, store: Store | None) -> None:
        self._store = store
        names = list(dict.fromkeys([*([model] if model else []), *registered()]))
        self._chooser = pn.widgets.Select(
            label="Model", options={label_of(name): name for name in names},
            value=names[0] if names else None, sizing_mode="stretch_width",
            stylesheets=[STYLE, _CHOOSER_STYLE], disabled=not names,
        )  # fmt: skip
        self._chooser.param.watch(lambda event: self._choose(event.new), "value")
        self._work = Work("Loading the model")
        self._body = pn.Column(sizing_mode="stretch_width", margin=0)
        if names:
            self._choose(names[0])
        else:
            self._show(None)

    def template(self) -> pn.Template:
        """What the server answers with."""
        template = pn.Template(_TEMPLATE)
        template.add_variable("heading", TITLE)
        template.add_variable("notice", _NOTICE)
        template.add_panel("chooser", self._chooser)
        template.add_panel("tabs", pn.Column(self._work.view(), self._body, sizing_mode="stretch_width", margin=0))
        return template

    def _choose(self, name: str) -> None:
        def loading(step: Step) -> Loaded:
            return load(name)

        self._body.clear()
        self._work.start(loading, self._show)

    def _show(self, loaded: Loaded | None) -> None:
        explorer = Explorer(loaded=loaded, store=self._store)
        self._body.objects = [tabs_of(explorer, [] if loaded else [NO_MODEL])]


def tabs_of(explorer: Explorer, said: list[str] | None = None) -> pn.viewable.Viewable:
    """The buttons of the tabs that suit, and what they show; a tab is made when it is first opened.

    Args:
        explorer: What they share.
        said: Sentences that stand above.
    """
    kinds: dict[str, Any] = {}
    unsuited: list[str] = []
    for kind in tab_classes():
        reason = kind.suits(explorer)
        if reason is None:
            kinds[kind.title] = kind
        else:
            unsuited.append(f"{kind.title}: {reason}")
    notes = [pn.pane.HTML(f"<p>{escape(line)}</p>", sizing_mode="stretch_width") for line in said or []]
    below = pn.pane.HTML(
        "".join(f"<p>{escape(line)}</p>" for line in unsuited),
        visible=bool(unsuited), sizing_mode="stretch_width", styles={"color": "#4d5656", "font-size": "14px"},
    )  # fmt: skip
    if not kinds:
        return pn.Column(*notes, below, sizing_mode="stretch_width")
    buttons = pn.widgets.RadioButtonGroup(
        options=list(kinds), value=next(iter(kinds)), stylesheets=[STYLE, _TABS_STYLE], margin=(0, 8)
    )
    bodies: dict[str, pn.Column] = {}
    shown = pn.Column(sizing_mode="stretch_width", margin=0)

    def open_tab(title: str) -> None:
        if title not in bodies:
            bodies[title] = pn.Column(kinds[title](explorer).view(), sizing_mode="stretch_width", margin=0)
            shown.append(bodies[title])
        for name, body in bodies.items():
            body.visible = name == title

    buttons.param.watch(lambda event: open_tab(event.new), "value")
    open_tab(buttons.value)
    return pn.Column(*notes, buttons, shown, below, sizing_mode="stretch_width", margin=0)


def tab_classes() -> list[type[Tab]]:
    """The tabs, in their order."""
    return [getattr(import_module(module), name) for module, name in TABS]
