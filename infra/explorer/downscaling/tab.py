"""The tab Downscale: a coarse field and what the model makes of it, at any resolution, wherever one looks.

    a time, a window, a resolution -> members of the window (downscaling_view) -> two layers (downscaling_layers)
      -> two maps with a handle between them (downscaling_map)

The members of a window are kept: to show another of their quantities asks the model for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from html import escape
from typing import Any

import numpy as np
import panel as pn

from infra.explorer.downscaling import save
from infra.explorer.downscaling.controls import Controls
from infra.explorer.downscaling.input import FromStore, Given, from_upload, usual_every
from infra.explorer.downscaling.layers import Layer, colour_bar, layers
from infra.explorer.downscaling.map import HIGHEST_PX, Maps
from infra.explorer.downscaling.place import Place, drawn, look_at, sentence
from infra.explorer.downscaling.view import FINE_POINTS, QUICK_POINTS, Seen, Step, Window, look, with_error
from infra.explorer.page_style import BARS
from infra.explorer.session import Explorer
from infra.explorer.work import Work
from pipelines.products.doubts import doubts
from pipelines.products.ensemble import Ensemble

SETTLED_MS = 130  # a map that moves is waited for
USUAL_MEMBERS, LEAST_POINTS = 8, 4000
HINT = "Click the map, or type a place below it, for the distribution there."
NOTHING = "Drop a NetCDF file with a coarse temperature field above, or start with --store STORE."


class Downscaling:
    """The tab."""

    title = "Downscale"

    @classmethod
    def suits(cls, explorer: Explorer) -> str | None:
        """See `session.Tab`."""
        if explorer.loaded is None:
            return "there is no model."
        if not explorer.loaded.downscales:
            return f"{explorer.loaded.label} makes whole functions; fields are downscaled by one of preset downscale."
        return None

    def __init__(self, explorer: Explorer) -> None:
        self._model, self._store = explorer.model, explorer.store
        self._work, self._place_work = Work("Downscaling", room=True), Work("Asking for the place")
        self._given: Given | None = None
        self._seen: tuple[tuple[Any, ...], Seen] | None = None
        self._sketched = False  # what is seen is to be followed by something finer
        self._drawn: tuple[Layer, Layer] | None = None
        self._maps: Maps | None = None
        self._waiting: Any = None
        self._asked_at: tuple[float, float] | None = None
        every = None
        if self._store is not None and self._store.domain == "sphere":
            every = usual_every(self._store, self._model.checkpoint.plan)
        self.controls = Controls(self, every=every)
        self._stage = pn.Column(sizing_mode="stretch_width", margin=0)
        self._place = pn.Column(styles={"flex": "1 1 340px"}, margin=0)

    def view(self) -> pn.viewable.Viewable:
        """See `session.Tab`."""
        if self._store is not None and self._store.domain == "sphere":
            self.from_store()
        else:
            self._stage.objects = [pn.pane.HTML(f"<p>{NOTHING}</p>", sizing_mode="stretch_width")]
        return pn.Column(
            self.controls.view(), self._work.view(), self._stage, self._place_work.view(),
            self.controls.taking_away(), sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    # --- what is downscaled -----------------------------------------------------------------------------------------

    def from_store(self) -> None:
        """Downscale the store's fields."""
        assert self._store is not None
        plan = self._model.checkpoint.plan
        means = plan.config.context is not None and plan.config.context.kind == "means"
        try:
            self._begin(FromStore(self._store, self.controls.every, means))
        except ValueError as error:
            self._work.say(str(error))

    def from_file(self, content: bytes, name: str) -> None:
        """Downscale what a visitor has dropped."""
        variable, units = self.controls.variable, self.controls.units

        def reading(step: Step) -> Given:
            return from_upload(content, name, variable=variable, units=units, step=step)

        self._work.start(reading, self._begin, what="Reading the file")

    def refuse(self, why: str) -> None:
        """Say why a file is not taken."""
        self._work.say(why)

    def _begin(self, given: Given) -> None:
        self._given, self._seen, self._asked_at = given, None, None
        self._ensemble = lru_cache(maxsize=4)(partial(self._made, given))
        self.controls.set_times(given.times)
        self.controls.set_resolution(float(np.rad2deg(given.lattice.spacing_rad)))
        self._maps = Maps(given.lattice, self.moved, self.ask_place)
        self._place.objects = [pn.pane.HTML(f"<p>{HINT}</p>", margin=(4, 16), styles={"font-size": "15px"})]
        swipe = self._maps.swipe()
        self._bars = [pn.pane.HTML("", sizing_mode="stretch_width", margin=0, stylesheets=[BARS]) for _ in range(2)]
        self._stage.objects = [
            pn.FlexBox(*(pn.Column(bar, styles={"flex": "1 1 300px"}, margin=(0, 8)) for bar in self._bars)),
            pn.FlexBox(
                pn.Column(swipe, styles={"flex": f"1 1 {int(HIGHEST_PX * self._maps.aspect)}px"}, margin=0),
                self._place,
                sizing_mode="stretch_width",
            ),
            self.controls.navigation(self._maps, swipe),
        ]
        self.refresh()

    # --- what is on the screen --------------------------------------------------------------------------------------

    def moved(self) -> None:
        """The visitor has panned or zoomed: once the map stands still, ask."""
        document = pn.state.curdoc
        if document is None:
            self.refresh()
            return
        if self._waiting is not None:
            document.remove_timeout_callback(self._waiting)
        self._waiting = document.add_timeout_callback(self._settled, SETTLED_MS)

    def _settled(self) -> None:
        self._waiting = None
        self.refresh()

    def refresh(self) -> None:
        """Ask for what is on the screen: a sketch first where that takes long."""
        if self._given is not None and self._maps is not None:
            key = self._key(FINE_POINTS)
            if self._seen is not None and self._seen[0] == key:
                self._done(*self._seen)
                return
            quick = self._key(QUICK_POINTS)
            after = None if quick == key else lambda: self._look(key, None)
            self._look(quick, after)

    def redraw(self) -> None:
        """Show another quantity of the members that are known already."""
        if self._seen is None:
            self.refresh()
        else:
            self._done(*self._seen)

    def _key(self, points: int) -> tuple[Any, ...]:
        """All that the members of the window depend on."""
        assert self._maps is not None
        controls = self.controls
        points = max(points * USUAL_MEMBERS // controls.members, LEAST_POINTS)  # so that it takes as long
        window = Window.on_screen(self._maps.edges, self._maps.pixels, controls.resolution, points)
        return window, controls.time, controls.members, controls.seed

    def _look(self, key: tuple[Any, ...], after: Callable[[], None] | None) -> None:
        window, time, members, seed = key
        ensemble = self._ensemble

        def looking(step: Step) -> Seen:
            return look(ensemble(time, members, seed), window, step)

        def shown(seen: Seen) -> None:
            self._sketched = after is not None
            self._done(key, seen, after)

        self._work.start(looking, shown)

    def _done(self, key: tuple[Any, ...], seen: Seen, after: Callable[[], None] | None = None) -> None:
        """The members of a window are known: show them, once the error is known too where that is what is shown."""
        given = self._given
        assert given is not None
        self._seen = (key, seen)
        if self.controls.quantity != "error" or seen.error is not None:
            self._show(seen)
        elif after is None:
            _, time, members, seed = key
            ensemble = self._ensemble

            def comparing(step: Step) -> Seen:
                truth = given.truth(np.array([time]))
                return with_error(seen, ensemble(time, members, seed), truth, step)

            self._work.start(comparing, lambda found: self._done(key, found))
        if after is not None:
            after()

    def _made(self, given: Given, time: int, members: int, seed: int) -> Ensemble:
        """The members of a time: what does not depend on the window is computed once."""
        at = np.array([time])
        return self._model.teller.ensemble(given.coarse(at), given.lattice, given.times[at], members=members, seed=seed)

    def _show(self, seen: Seen) -> None:
        assert self._maps is not None
        controls = self.controls
        self._drawn = layers(seen, controls.quantity, member=controls.member, level=controls.level)
        self._maps.draw(self._drawn, seen.window)
        for bar, layer in zip(self._bars, self._drawn, strict=True):
            bar.object = colour_bar(layer)
        shown = self._shown()
        assert shown is not None
        rows, columns = len(seen.target.latitude), len(seen.target.longitude)
        beyond = doubts(
            self._model.checkpoint.plan, shown.given.lattice, seen.target, shown.given.cell_methods
        )  # what the command warns of
        size = f"{rows} × {columns} points of {seen.window.step_deg:.3g}° on the screen" + (
            ", a sketch" if self._sketched else ""
        )
        controls.say(save.command(shown), size, beyond)

    # --- a place ----------------------------------------------------------------------------------------------------

    def ask_place(self, longitude: float, latitude: float) -> None:
        """Show the distribution at a place."""
        given = self._given
        if given is None or self._maps is None:
            return
        self._asked_at = (longitude, latitude)
        self._maps.mark(longitude, latitude)
        time, seed = self.controls.time, self.controls.seed

        def asking(step: Step) -> Place:
            return look_at(self._model, given, time, latitude, longitude, seed=seed, step=step)

        self._place_work.start(asking, self._show_place)

    def time_changed(self) -> None:
        """Another time: the map, and the place that was asked for."""
        self.refresh()
        if self._asked_at is not None:
            self.ask_place(*self._asked_at)

    def _show_place(self, place: Place) -> None:
        said = pn.pane.HTML(f'<p role="status">{escape(sentence(place))}</p>', sizing_mode="stretch_width",
                            margin=(4, 16), styles={"font-size": "15px"})  # fmt: skip
        self._place.objects = [said, drawn(place)]

    # --- to take away -----------------------------------------------------------------------------------------------

    def _shown(self) -> save.Shown | None:
        if self._given is None or self._seen is None:
            return None
        controls = self.controls
        return save.Shown(
            loaded=self._model, given=self._given, time=controls.time, members=controls.members, seed=controls.seed,
            quantity=controls.quantity, level=controls.level, seen=self._seen[1],
        )  # fmt: skip

    def file(self, kind: str) -> Any:  # noqa: ANN401 - what Panel's button takes: bytes, or nothing
        """The content of a file that is asked for: "nc", "png" or "coarse"; None where nothing is shown."""
        shown = self._shown()
        if shown is None or self._drawn is None:
            return None
        match kind:
            case "nc":
                return save.netcdf(save.dataset(shown))
            case "png":
                return save.png(self._drawn, shown)
            case _:
                return save.netcdf(save.coarse_field(shown).to_dataset())
