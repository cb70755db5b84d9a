"""Long work beside the page: in a thread, with its progress and a Cancel button; newer work takes the place of older.

A tab makes one `Work` and shows its `view()`. Work that is `start`ed calls `step` often: that is where it learns that
it was cancelled, or that newer work has come (a slider that is dragged does not queue).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import Any, TypeVar

import panel as pn
from bokeh.document import Document

THREADS = 2  # side by side, for all pages of the server
SHOWN_AFTER_S = 0.4  # quicker work shows no bar, which would only flicker
UPDATE_S = 0.1
ROOM_PX = 40
WENT_WRONG = "This did not work, because of a bug in vamoh: what happened is in the log of `vamoh explore`."

_log = logging.getLogger(__name__)
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="explorer")
_closed = threading.Event()
T = TypeVar("T")
Step = Callable[[int, int], None]


class Cancelled(Exception):  # noqa: N818 - the end of work, not a failure
    """The work is not wanted any more."""


class Work:
    """The work of one tab, one piece at a time.

    Args:
        what: Is being worked on, in a word or two, beside the bar.
        room: Keep room for the bar, so that nothing jumps when it comes.
    """

    def __init__(self, what: str = "Computing", *, room: bool = False) -> None:
        self._room = room
        self._what = what
        self._number = 0
        self._lock = threading.Lock()
        self._document: Document | None = pn.state.curdoc
        self._bar = pn.indicators.Progress(
            value=0, max=100, sizing_mode="stretch_width", height=14, margin=(10, 8), bar_color="primary"
        )
        self._said = pn.pane.HTML("", margin=(4, 8), styles={"font-size": "14px"})
        self._cancel = pn.widgets.Button(name="Cancel", width=80, margin=(2, 8))
        self._cancel.on_click(lambda event: self.cancel())
        self._row = pn.Row(self._said, self._bar, self._cancel, visible=False, sizing_mode="stretch_width")
        self._error = pn.pane.HTML("", visible=False, sizing_mode="stretch_width", css_classes=["vamoh-error"])
        self.sentence = ""
        """What went wrong last; empty where nothing did."""

    def view(self) -> pn.viewable.Viewable:
        """The bar with its button while something takes long, and the sentence of what went wrong."""
        bar = pn.Column(self._row, sizing_mode="stretch_width", margin=0, height=ROOM_PX if self._room else None)
        return pn.Column(bar, self._error, sizing_mode="stretch_width", margin=0)

    @property
    def busy(self) -> bool:
        """Whether something is being worked on."""
        return bool(self._row.visible)

    def start(self, job: Callable[[Step], T], done: Callable[[T], None], *, what: str | None = None) -> None:
        """Begin, in place of what was being done.

        Args:
            job: Called in a thread with `step(done, in all)`, which raises `Cancelled` where the work is not wanted any
                more; it touches nothing of the page.
            done: Called with the result on the page's own thread.
            what: Is being worked on, beside the bar; as for the class.
        """
        self.say("")
        with self._lock:
            self._number += 1
            number = self._number
        if _closed.is_set():
            return
        _threads.submit(self._run, number, job, done, what or self._what)

    def cancel(self) -> None:
        """End what is being done; its result is not wanted."""
        with self._lock:
            self._number += 1
        self._row.visible = False

    def say(self, sentence: str) -> None:
        """Put a sentence on the page, of what the user can mend; an empty one takes it away."""
        self.sentence = sentence
        self._error.object = f'<p role="alert">{escape(sentence)}</p>' if sentence else ""
        self._error.visible = bool(sentence)

    def _run(self, number: int, job: Callable[[Step], T], done: Callable[[T], None], what: str) -> None:
        last, share = time.monotonic() + SHOWN_AFTER_S, 0

        def step(finished: int, total: int) -> None:
            nonlocal last, share
            if number != self._number or _closed.is_set() or has_left(self._document):
                raise Cancelled
            share = int(100 * finished / max(total, 1))
            if time.monotonic() - last > UPDATE_S:
                last = time.monotonic()
                self._later(number, lambda: self._show(what, share))

        # shown even if the work does not come to its first step soon
        shown = threading.Timer(SHOWN_AFTER_S, lambda: self._later(number, lambda: self._show(what, share)))
        shown.daemon = True
        shown.start()
        try:
            step(0, 1)
            result = job(step)
        except Cancelled:
            return
        except (ValueError, OSError) as error:
            said = sentence_of(error)
            self._later(number, lambda: self._end(lambda: self.say(said)))
        except Exception:  # the border of a thread: whatever it is, it ends in a sentence
            _log.exception("what the explorer was asked for failed")
            self._later(number, lambda: self._end(lambda: self.say(WENT_WRONG)))
        else:
            self._later(number, lambda: self._end(lambda: done(result)))
        finally:
            shown.cancel()

    def _later(self, number: int, act: Callable[[], None]) -> None:
        """Act on the page's own thread, if the work is still wanted then."""

        def now() -> None:
            if number == self._number:
                act()

        on_page(self._document, now)

    def _show(self, what: str, share: int) -> None:
        self._said.object = escape(what)
        self._bar.value = share
        self._row.visible = True

    def _end(self, act: Callable[[], None]) -> None:
        self._row.visible = False
        try:
            act()
        except (ValueError, OSError) as error:
            self.say(sentence_of(error))
        except Exception:
            _log.exception("what the explorer was asked for cannot be shown")
            self.say(WENT_WRONG)


def has_left(document: Document | None) -> bool:
    """Whether the visitor of a page is gone."""
    return document is not None and document.session_context is None


def on_page(document: Document | None, act: Callable[[], Any]) -> None:
    """Act on a page's own thread; at once where there is no page, as in a test."""
    if document is None:
        act()
    elif not has_left(document):
        document.add_next_tick_callback(act)


def sentence_of(error: Exception) -> str:
    """An error that a user can mend, as one sentence without the system's number.

    >>> sentence_of(ValueError("expected  a grid"))
    'expected a grid'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def close() -> None:
    """End all work of the process; whoever asks for more is told nothing."""
    _closed.set()
    _threads.shutdown(wait=False, cancel_futures=True)
