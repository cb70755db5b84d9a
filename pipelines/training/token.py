"""The token without which Ray answers nobody: whoever reaches a Ray port and has it can run code there.

Ray finds it in RAY_AUTH_TOKEN, else in the file RAY_AUTH_TOKEN_PATH, else in `~/.ray/auth_token`, and asks for it where
RAY_AUTH_MODE is `token`. Ray itself would write the file readable for everybody.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

MODE, VALUE, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def token_file() -> Path:
    """Where Ray looks for the token, unless RAY_AUTH_TOKEN holds it."""
    given = os.environ.get(PATH)
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def write_token(path: Path) -> None:
    """Write a fresh token to a file that only its owner can read.

    Raises:
        FileExistsError: If there is a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def is_private(path: Path) -> bool:
    """Whether nobody but its owner can read or change a file."""
    return not stat.S_IMODE(path.stat().st_mode) & 0o077


def ensure_private_token() -> None:
    """Make the token that a Ray of this process will ask for, if there is none, and let nobody else read it.

    Raises:
        PermissionError: If others can read the token's file, and this process may not change that.
    """
    if os.environ.get(MODE, "token") != "token" or os.environ.get(VALUE):
        return
    path = token_file()
    if not path.exists():
        write_token(path)
    elif not is_private(path):
        path.chmod(0o600)
