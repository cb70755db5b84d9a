"""Who may come in: this machine alone, or whoever knows the password; and how much may be sent.

A page in a visitor's browser can reach every address that the browser reaches, so the websocket, through which
everything goes, is opened only to pages that this server gave (`origins`).
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
SHORTEST_PASSWORD = 12
MAX_UPLOAD_BYTES = 64 * 1024**2
CHUNK_BYTES = 4 * 1024**2  # of an upload, in one message
MAX_MESSAGE_BYTES = 16 * 1024**2  # of the websocket


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def check_access(address: str, password_file: Path | None) -> str | None:
    """Read the password, and refuse an address that others reach without one.

    Returns:
        The password; None where none is asked for.

    Raises:
        ValueError: If others reach the address and there is no password, or it is too short, or others can read it.
        OSError: If the file cannot be read.
    """
    if password_file is None:
        if not is_loopback(address):
            raise ValueError(
                f"--address {address} lets other machines in: give a password too (--password-file FILE), or leave "
                "--address out"
            )
        return None
    if not password_file.is_file():
        raise FileNotFoundError(f"there is no password file {password_file}: write a password into it, on one line")
    if os.name == "posix" and stat.S_IMODE(password_file.stat().st_mode) & 0o077:
        raise ValueError(f"others can read the password file {password_file}: chmod 600 {password_file}")
    password = password_file.read_text(encoding="utf-8").strip()
    if len(password) < SHORTEST_PASSWORD or "\n" in password:
        raise ValueError(
            f"{password_file} must hold a password of at least {SHORTEST_PASSWORD} characters, on one line"
        )
    return password


def origins(address: str, port: int, also: Sequence[str] = ()) -> list[str]:
    """Hosts whose pages may open the websocket: this server's own names, and those it has behind a proxy or a tunnel.

    Args:
        address, port: Where it listens.
        also: Further HOST:PORT, as a browser shows them.

    Raises:
        ValueError: If one of these is no host.
    """
    wrong = next((each for each in also if not _HOST.fullmatch(each)), None)
    if wrong is not None:
        raise ValueError(f"--origin expects HOST:PORT as the browser shows it, such as localhost:8080, got {wrong!r}")
    hosts = {address, "localhost", "127.0.0.1"}
    if not is_loopback(address):
        hosts |= {socket.gethostname(), socket.getfqdn()}
    if address in ("0.0.0.0", "::"):
        hosts.discard(address)
        hosts |= {str(found[4][0]) for found in _addresses()}
    own = {f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts}
    return sorted(own | set(also))


def _addresses() -> list[tuple[Any, ...]]:
    """What this machine's name stands for."""
    try:
        return list(socket.getaddrinfo(socket.gethostname(), None))
    except OSError:
        return []
