"""What a node says of itself. It runs on the driver and, as a Ray task, on every node."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import socket
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("ray", "torch", "numpy", "xarray", "zarr", "mlflow")


def probe(shared: str | None = None, mark: str = "") -> dict[str, Any]:
    """Look at the machine that this runs on.

    Args:
        shared: A folder that all nodes should see; a file `.vamoh-doctor-MARK-HOST-PID` is written to it.
        mark: Of this examination; the driver has written `.vamoh-doctor-MARK` already.

    Returns:
        Plain values: `clock` in seconds since 1970, `disk` and `shm` in free bytes, `files` as the limit of open files.
    """
    told: dict[str, Any] = {
        "host": socket.gethostname(),
        "clock": time.time(),
        "python": platform.python_version(),
        "code": fingerprint(),
        "disk": shutil.disk_usage("/tmp").free,
        "shm": shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "driver": _has_nvidia_driver(),
        **_torch(),
    }
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            told[library] = version(library)
    if shared is not None:
        told["sees"] = Path(shared, f".vamoh-doctor-{mark}").exists()
        try:
            Path(shared, f".vamoh-doctor-{mark}-{told['host']}-{os.getpid()}").touch()
            told["writes"] = ""
        except OSError as error:
            told["writes"] = error.strerror or str(error)
    return told


def fingerprint() -> str:
    """A hash of this program's code: two nodes with one hash do the same."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for package in ("infra", "pipelines", "tuning", "vamoh"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _torch() -> dict[str, Any]:
    import torch

    told: dict[str, Any] = {"gpus": torch.cuda.device_count(), "cuda": torch.version.cuda, "bf16": None, "nccl": None}
    if told["gpus"]:
        told["bf16"] = torch.cuda.is_bf16_supported()
        if torch.distributed.is_nccl_available():
            told["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return told


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
