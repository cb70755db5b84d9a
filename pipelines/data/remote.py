"""Reading from a URL: what has failed is asked for again, a bounded number of times; what hangs has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipelines.data.sources import client_errors

# Between attempts.
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
# A connection that gives no byte for so long hangs. S3's client has such limits of its own, aiohttp one on the whole.
SILENCE_S = 60.0

Got = TypeVar("Got")


def is_url(path: str) -> bool:
    """Whether a store is read through fsspec."""
    return "://" in path


def persistently(read: Callable[[], Got], path: str, *, also: tuple[type[Exception], ...] = ()) -> Got:
    """Read, and again with pauses that double where that may help: from a URL, and something is there.

    Args:
        read: what to call.
        path: what it reads from; a local file is read once.
        also: errors to try again after, besides those of the remote file systems.
    """
    for pause in PAUSES_S if is_url(path) else ():
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except (*client_errors(), *also):
            time.sleep(pause)
    return read()


def remote_options(path: str, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options for fsspec, with a limit on silence where its file system has none; None for a local path."""
    if not is_url(path):
        return None
    options = dict(given or {})
    if path.startswith(("http://", "https://")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
    return options
