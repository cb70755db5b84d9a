"""The files that travel to a cluster: this program, and the working folder without history, data and secrets."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CODE = ("vamoh", "pipelines", "tuning", "infra")
LIMIT = 100 * 2**20  # bytes, of Ray's Jobs API
# What a cluster gets by other ways (data, runs) or has itself (environments), and what nobody else should have.
LEFT_OUT = (
    ".*", "__pycache__", "*.pyc", "node_modules", "venv", "build", "dist", "*.egg-info",
    "runs", "mlruns", "mlartifacts", "demo", "*.zarr", "*.nc", "*.nc4", "*.grib", "*.grib2", "*.grb", "*.h5", "*.hdf5",
    "*.idx", "*.npy", "*.npz", "*.pt", "*.pth", "*.pkl", "*.safetensors", "*.ckpt", "*.zip", "*.tar", "*.gz",
    "*.partial", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "credentials*", "auth_token*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Package:
    """What travels.

    Attributes:
        files: Where each lies here, by its name in the package.
        bytes: All of them together.
    """

    files: dict[str, Path]
    bytes: int


def collect(folder: Path, *, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> Package:
    """Find what travels; links are left out.

    Args:
        folder: The working folder.
        exclude: Further patterns of names or of paths within it, e.g. `notebooks`.
        include: Patterns of what travels although it would be left out, e.g. `orography.nc`.

    Raises:
        FileNotFoundError: If there is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to take along")
    code, files = Path(__file__).parents[2], {}
    for path in _walk(folder, folder, (*LEFT_OUT, *exclude), include):
        files[path.relative_to(folder).as_posix()] = path
    if folder.resolve() != code:
        for package in CODE:
            for path in _walk(code / package, code, ("__pycache__", "*.pyc"), ()):
                files[path.relative_to(code).as_posix()] = path
    return Package(files=dict(sorted(files.items())), bytes=sum(path.stat().st_size for path in files.values()))


def write_package(package: Package, path: Path) -> int:
    """Write a package as a zip; equal files give equal bytes.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: If it is larger than Ray takes.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in package.files.items():
            archive.writestr(zipfile.ZipInfo(name), source.read_bytes(), zipfile.ZIP_DEFLATED)
    size = path.stat().st_size
    if size > LIMIT:
        largest = sorted(package.files, key=lambda name: package.files[name].stat().st_size, reverse=True)[:3]
        raise ValueError(
            f"the package has {megabytes(size)}, Ray takes {megabytes(LIMIT)}: leave files out with "
            f"--exclude (the largest: {', '.join(largest)}), data belong on storage that the cluster sees"
        )
    return size


def megabytes(size: int) -> str:
    """A size for people.

    >>> megabytes(1_500_000)
    '1.4 MiB'
    """
    return f"{size / 2**20:.1f} MiB"


def _walk(folder: Path, root: Path, left_out: Sequence[str], include: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        names = (path.name, path.relative_to(root).as_posix())
        wanted = any(fnmatch.fnmatch(name, pattern) for name in names for pattern in include)
        if path.is_symlink() or (
            not wanted and any(fnmatch.fnmatch(name, pattern) for name in names for pattern in left_out)
        ):
            continue
        if path.is_dir():
            yield from _walk(path, root, left_out, include)
        elif path.is_file():
            yield path
