"""The server of the explorer: where it listens, whom it lets in, how it ends."""

from __future__ import annotations

import errno
import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from panel.io.server import Server, get_server

from infra.explorer import work
from infra.explorer.page import TITLE, Page, prepare, tab_classes
from infra.explorer.security import MAX_MESSAGE_BYTES, check_access, origins
from infra.explorer.session import load
from pipelines.data.store import open_store

_LOGIN = Path(__file__).with_name("login.html")


def serve(
    model: str | None,
    store: str | None,
    *,
    port: int,
    address: str = "127.0.0.1",
    password_file: Path | None = None,
    also_from: Sequence[str] = (),
    show: bool = False,
    say: Callable[[str], None],
) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        model, store: Of the command line.
        port: 0 for any that is free.
        address: Where to listen.
        password_file: Holds the password that is asked for.
        also_from: Further HOST:PORT under which browsers reach it.
        show: Open a browser.
        say: Told the address, once the page can be opened.

    Raises:
        ValueError, OSError: As `make_server`.
    """
    server = make_server(model, store, port=port, address=address, password_file=password_file, also_from=also_from)
    host = "localhost" if address in ("127.0.0.1", "localhost", "0.0.0.0", "::") else address
    url = f"http://{host}:{server.port}/"
    server.start()
    say(url)
    if show:
        webbrowser.open(url)
    try:
        server.io_loop.start()  # until Ctrl-C, which Panel turns into an end of the loop
    except KeyboardInterrupt:
        pass
    finally:
        work.close()
        server.stop(wait=False)


def make_server(
    model: str | None,
    store: str | None,
    *,
    port: int,
    address: str = "127.0.0.1",
    password_file: Path | None = None,
    also_from: Sequence[str] = (),
) -> Server:
    """A server that has not begun; the arguments are those of `serve`.

    Raises:
        ValueError: If the model or the store is none, or others are let in without a password.
        OSError: If something cannot be read, or the port is taken.
    """
    password = check_access(address, password_file)
    port = free_port(address, port)
    allowed = origins(address, port, also_from)
    opened = None if store is None else open_store(store)
    if model is not None:
        load(model)  # what is wrong with it is said here, not on the page
    prepare()
    tab_classes()  # imported before the first visitor waits for it
    return get_server(
        {"/": lambda: Page(model, opened).template()},
        port=port,
        address=address,
        title=TITLE,
        websocket_origin=allowed,
        websocket_max_message_size=MAX_MESSAGE_BYTES,
        unused_session_lifetime=30_000,
        basic_auth=password,
        login_template=str(_LOGIN) if password else None,
        cookie_secret=secrets.token_urlsafe(32),
    )


def free_port(address: str, port: int) -> int:
    """A port that can be listened on.

    Raises:
        OSError: If this one cannot.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OverflowError as error:
            raise ValueError(f"--port must be 0 to 65535, got {port}") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(
                    f"port {port} is taken by another program: choose another (--port 0 takes any)"
                ) from error
            raise OSError(f"cannot listen on {address}:{port}: {error.strerror or error}") from error
        return int(probe.getsockname()[1])
