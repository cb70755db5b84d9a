"""Write beside, then rename: a path holds what was there before, or all of what is new, and never a part.

The temporary name lies in the same folder (so that the rename is one step of one file system) and carries the process'
number (so that two writers never share it).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMOVE_ATTEMPTS = 40
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux' renameat2(2)


@contextmanager
def written_beside(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write a file or a folder to; it takes the place of `path` if the block succeeds.

    Whatever ends the block otherwise, an error, a full disk or Ctrl-C, removes what was written and leaves what was at
    `path` as it was.

    Args:
        path: where the result is to be.
        overwrite: replace what is there.

    Raises:
        FileExistsError: if something is there and `overwrite` is false.
        OSError: if the disk is full, or the folder cannot be made.
    """
    final = Path(path)
    refuse_existing(final, overwrite=overwrite)
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    _remove(beside)
    try:
        yield beside
        refuse_existing(final, overwrite=overwrite)
        _swap(beside, final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(f"no space left to write {str(final)!r}: free some, nothing of it was kept") from error
    finally:
        _remove(beside)


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse to write where something is already.

    Raises:
        FileExistsError: if something is there and `overwrite` is false.
    """
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{os.fspath(path)!r} exists already: choose another name, or say --overwrite")


def _swap(beside: Path, final: Path) -> None:
    """Put the new in the place of the old; the old folder is then at `beside`, or removed.

    A folder cannot be renamed over another. Where the two cannot change names in one step, the old one steps aside, and
    a kill between the two steps leaves it there.
    """
    if not final.is_dir() or final.is_symlink():
        os.replace(beside, final)
        return
    if _exchanged(beside, final):
        return
    old = final.with_name(f"{final.name}.old-{os.getpid()}")
    os.rename(final, old)
    try:
        os.rename(beside, final)
    except BaseException:
        os.rename(old, final)
        raise
    _remove(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders changed names, in one step; not every system (Linux' does) and file system (NFS) can."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    return exchange is not None and exchange(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _remove(path: Path) -> None:
    """Remove a file or a folder; a writer that is just finishing a file in it is waited for."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for attempt in range(_REMOVE_ATTEMPTS):
        try:
            return shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or attempt == _REMOVE_ATTEMPTS - 1:
                raise
            time.sleep(0.05)
