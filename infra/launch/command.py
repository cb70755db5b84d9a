"""What may be launched: a command of `vamoh`, checked here before a cluster is started or asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

LAUNCHED = ("train", "tune", "evaluate", "downscale", "sample", "complete", "doctor")
NAMED = ("train", "tune")  # they make a folder in `runs/`, and can go on in it
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|(?<![A-Z])KEY", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)


def checked(command: Sequence[str], *, far: bool = False) -> list[str]:
    """Refuse what cannot be run on a cluster, as far as it can be seen from here.

    Args:
        command: What follows `--`.
        far: Whether it runs on machines that do not share this one's files.

    Raises:
        ValueError: If it is no command that can be launched, holds a secret, or a store of this machine for others.
    """
    if not command or command[0] not in LAUNCHED:
        given = f"got {command[0]!r}" if command else "nothing followed"
        raise ValueError(f"after `--` comes a command of vamoh, one of {', '.join(LAUNCHED)}: {given}")
    if any(_PASSWORD_IN_URL.search(word) for word in command):
        raise ValueError(
            "the command holds a URL with a password, which process lists and logs would show: give the address alone, "
            "and the password to the cluster's own environment"
        )
    store = option(command, "--store")
    if far and store is not None and "://" not in store and not store.startswith("/"):
        raise ValueError(
            f"--store {store} is a path on this machine: give a URL, or an absolute path that every node sees"
        )
    return list(command)


def option(command: Sequence[str], name: str) -> str | None:
    """The last value of an option.

    >>> option(["train", "era5", "--name", "a", "--store=b"], "--store")
    'b'
    """
    found = None
    for place, word in enumerate(command):
        if word == name and place + 1 < len(command):
            found = command[place + 1]
        elif word.startswith(f"{name}="):
            found = word.removeprefix(f"{name}=")
    return found


def named(command: Sequence[str]) -> list[str]:
    """A command whose run has a name, so that another attempt at it can go on; one is made up where there is none."""
    if command[0] not in NAMED or option(command, "--name") is not None:
        return list(command)
    return [*command, "--name", f"{command[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}"]


def is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is not for everybody.

    >>> is_secret("AWS_SECRET_ACCESS_KEY"), is_secret("MLFLOW_TRACKING_URI"), is_secret("MONKEYS")
    (True, False, False)
    """
    return bool(_SECRET.search(name))


def has_password(value: str) -> bool:
    """Whether a value is a URL that holds a password.

    >>> has_password("http://ann:x@host:5000"), has_password("http://host:5000")
    (True, False)
    """
    return bool(_PASSWORD_IN_URL.search(value))


def line(words: Sequence[str]) -> str:
    """Words as a shell reads them."""
    return shlex.join(words)
