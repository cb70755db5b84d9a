"""Files that visitors drop: in chunks through the websocket, and no more than is allowed, whatever the browser says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import panel as pn

from infra.explorer.security import CHUNK_BYTES

_MB = 1024**2


class Upload(pn.widgets.FileDropper):
    """One file at a time.

    Args:
        max_bytes: The browser refuses more, and so does the server: chunks beyond it are thrown away.
        take: Called with the content and the name, which is a visitor's and must not be used as a path.
        refuse: Called with a sentence where it is too much.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        take: Callable[[bytes, str], None],
        refuse: Callable[[str], None],
        **params: Any,  # noqa: ANN401 - Panel's own
    ) -> None:
        super().__init__(
            multiple=False, previews=[], chunk_size=CHUNK_BYTES, max_file_size=f"{max_bytes // _MB}MB", **params
        )
        self._max_bytes, self._take, self._refuse = max_bytes, take, refuse
        self._parts: list[bytes] = []

    def _process_event(self, event: Any) -> None:  # noqa: ANN401 - Panel's upload and delete events
        """Take a chunk; in place of Panel's own, which keeps as many chunks of as many files as are sent."""
        data = event.data
        if event.event_name != "upload_event":
            return
        chunk, total, content = data.get("chunk"), data.get("total_chunks"), data.get("data")
        if chunk == 1:
            self._parts = []
        known = sum(map(len, self._parts))
        content = content.encode() if isinstance(content, str) else content
        sound = isinstance(content, bytes) and isinstance(chunk, int) and isinstance(total, int)
        if not sound or chunk != len(self._parts) + 1:
            self._parts = []
            return
        if known + len(content) > self._max_bytes or total > math.ceil(self._max_bytes / CHUNK_BYTES) + 1:
            self._parts = []
            self._refuse(f"The file is larger than the {self._max_bytes // _MB} MB that the explorer takes.")
            return
        self._parts.append(content)
        if chunk == total:
            whole, self._parts = b"".join(self._parts), []
            self._take(whole, str(data.get("name", "")))
