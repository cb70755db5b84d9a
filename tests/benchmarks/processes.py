"""A process and all that it started, as Linux's /proc tells."""

from __future__ import annotations

from pathlib import Path


def family(process: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            after = read(int(entry.name), "stat").rpartition(b")")[2].split()
            if after:
                parents[int(entry.name)] = int(after[1])
    found = [process]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def read(process: int, name: str) -> bytes:
    """A file of /proc/PROCESS; nothing if it has ended or is not ours."""
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""
