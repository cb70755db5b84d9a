"""Open whatever a user names: NetCDF, GRIB, Zarr, a glob of them, or a URL. What they hold is not looked at here.

What a file is is read from its first bytes, not from its name. Nothing is loaded: arrays stay on disk, or on the
server, until a later stage asks for a part of them. Nothing is written beside the user's files.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import sqlite3  # noqa: F401 - ecCodes brings an old libsqlite, with which MLflow cannot work if it is loaded first
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import fsspec
import xarray as xr

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.Dataset | xr.DataArray
Kind = Literal["netcdf3", "hdf5", "grib"]

_ZARR_MARKS = ("zarr.json", ".zmetadata", ".zgroup")
_MAGIC: tuple[tuple[bytes, Kind], ...] = ((b"\x89HDF", "hdf5"), (b"CDF", "netcdf3"), (b"GRIB", "grib"))
_ARCHIVES = ((b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "a gzip archive"))
_READ: dict[str, Any] = {"chunks": None, "decode_timedelta": False, "decode_coords": "all"}


def open_datasets(
    source: Source, *, variable: str | None, storage_options: Mapping[str, Any] | None = None
) -> list[tuple[str, xr.Dataset]]:
    """Open a source lazily, as one data set for every file in it.

    Args:
        source: a path, a glob, a URL of any fsspec protocol, a list of them, or an xarray object.
        variable: the one that is wanted; GRIB files are searched for it alone.
        storage_options: for fsspec (credentials, anonymous access).

    Returns:
        Names to use in messages, with their data sets.

    Raises:
        FileNotFoundError: if there is nothing there.
        ValueError: if it is none of the formats, or a package to read it is not installed.
        OSError: if it cannot be read.
    """
    if isinstance(source, xr.DataArray):
        name = variable if source.name is None else str(source.name)
        return [("the given array", source.to_dataset(name=name or "field"))]
    if isinstance(source, xr.Dataset):
        return [("the given data set", source)]
    named = [source] if isinstance(source, str | os.PathLike) else list(source)
    options = dict(storage_options or {})
    places = [place for one in named for place in _expand(os.fspath(one), options)]
    if not places:
        raise ValueError("no source is given: expected a file, a folder, a glob or a URL")
    return [(public_name(place), _open(place, variable, options)) for place in places]


def public_name(place: str) -> str:
    """Strip a URL of what may be secret: the user and the query (signed links).

    >>> public_name("https://me:secret@example.org/a.nc?token=1")
    'https://example.org/a.nc'
    """
    if not _is_url(place):
        return place
    parts = urlsplit(place)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_url(place: str) -> bool:
    return "://" in place or "::" in place


def _expand(place: str, options: dict[str, Any]) -> list[str]:
    """List the files that a path, a glob or a URL names."""
    place = place.removeprefix("file://")
    if not _is_url(place):
        path = os.path.expanduser(place)
        if os.path.exists(path):
            return [path]
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            what = "no file fits the glob" if glob.has_magic(path) else "there is no file or folder"
            raise FileNotFoundError(f"{what} {place!r}")
        return found
    if "*" not in urlsplit(place).path + urlsplit(place).netloc:
        return [place]
    with _remote_errors(place):
        filesystem, pattern = fsspec.core.url_to_fs(place, **options)
        matches = sorted(filesystem.glob(pattern))
    if not matches:
        raise FileNotFoundError(f"no file fits the glob {public_name(place)!r}")
    return [filesystem.unstrip_protocol(match) for match in matches]


def _open(place: str, variable: str | None, options: dict[str, Any]) -> xr.Dataset:
    if _is_url(place):
        with _remote_errors(place):
            return _open_remote(place, variable, options)
    path = Path(place)
    if path.is_dir():
        if not any((path / mark).exists() for mark in _ZARR_MARKS):
            raise ValueError(
                f"{place!r} is a folder without Zarr metadata: expected a Zarr store, or a glob such as {place}/*.nc"
            )
        return _open_zarr(place, None)
    with path.open("rb") as file:
        kind = _kind(file.read(512), place)
    if kind == "grib":
        return _open_grib(place, place, variable)
    with _unreadable(place):
        return _read(place, "netcdf4")


def _read(file: Any, engine: str, **more: Any) -> xr.Dataset:  # noqa: ANN401 - whatever xarray opens
    """Open one file through xarray, lazily."""
    with warnings.catch_warnings():
        # Attributes that point to files which were not delivered with this one are usual in CMIP6.
        warnings.filterwarnings("ignore", message=r"Variable\(s\) referenced in")
        return xr.open_dataset(file, engine=engine, **_READ, **more)


def _kind(head: bytes, place: str) -> Kind:
    """Recognise a format by its first bytes."""
    for magic, kind in _MAGIC:
        if head.startswith(magic) or (kind == "grib" and magic in head):
            return kind
    name = public_name(place)
    if not head:
        raise ValueError(f"{name!r} is empty")
    for magic, archive in _ARCHIVES:
        if head.startswith(magic):
            raise ValueError(f"{name!r} is {archive}: unpack it and give the files in it")
    raise ValueError(f"{name!r} is neither NetCDF, GRIB nor Zarr")


def _open_zarr(place: str, options: dict[str, Any] | None) -> xr.Dataset:
    with warnings.catch_warnings(), _unreadable(place):
        # Stores without consolidated metadata, and with stray files in them, are common and readable.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
        warnings.filterwarnings("ignore", message="Object at .* is not recognized")
        return xr.open_zarr(place, storage_options=options, **_READ)


def _open_grib(path: str, place: str, variable: str | None) -> xr.Dataset:
    """Open the messages of one variable; one that is not there is refused with the names of those that are."""
    if importlib.util.find_spec("cfgrib") is None:
        raise ValueError(f"{place!r} is GRIB, which needs the package cfgrib: pip install 'vamoh[grib]'")
    import cfgrib

    # Without an index path nothing is written beside the user's file; damaged messages are refused, not left out.
    keys: dict[str, Any] = {"indexpath": "", "errors": "raise"}
    with _unreadable(place):
        if variable is not None:
            wanted = {**keys, "filter_by_keys": {"cfVarName": variable}}
            with suppress(cfgrib.DatasetBuildError):  # several kinds of level: told apart below
                found = _read(path, "cfgrib", backend_kwargs=wanted)
                if variable in found:
                    return found
        cubes = cfgrib.open_datasets(path, backend_kwargs=keys, decode_timedelta=False)
    if variable is None and len(cubes) == 1:
        return cubes[0]
    names = [str(name) for cube in cubes for name in cube.data_vars]
    if names.count(variable or "") > 1:
        levels = [str(cube[variable].attrs.get("GRIB_typeOfLevel")) for cube in cubes if variable in cube]
        raise ValueError(
            f"{place!r} holds {variable!r} on several kinds of level ({', '.join(levels)}): split it first, "
            "e.g. with grib_copy"
        )
    raise ValueError(no_variable(place, variable, names))


def no_variable(place: str, variable: str | None, candidates: Sequence[str]) -> str:
    """Say that a variable is not there, and which are."""
    listed = ", ".join(dict.fromkeys(candidates)) or "no field on a grid"
    if variable is None:
        return f"{place} holds {listed}: choose one with --variable"
    return f"{place} has no variable {variable!r}: it holds {listed}; choose one with --variable"


def _open_remote(place: str, variable: str | None, options: dict[str, Any]) -> xr.Dataset:
    filesystem, path = fsspec.core.url_to_fs(place, **options)
    base = path.rstrip("/")
    if any(filesystem.exists(f"{base}/{mark}") for mark in _ZARR_MARKS):
        return _open_zarr(place, options or None)
    if not filesystem.exists(path):
        raise FileNotFoundError(f"there is nothing at {public_name(place)!r}")
    with filesystem.open(path) as file:
        kind = _kind(file.read(512), place)
    # Only HDF5 can be read in parts, and only where the server serves ranges; the rest is fetched to a cache
    # that lasts as long as this process.
    if kind == "hdf5" and filesystem.info(path).get("partial", True):
        with _unreadable(place):
            return _read(filesystem.open(path), "h5netcdf")
    protocol = place.partition("://")[0]
    local = str(fsspec.open_local(f"simplecache::{place}", **({protocol: options} if options else {})))
    if kind == "grib":
        return _open_grib(local, public_name(place), variable)
    with _unreadable(place):
        return _read(local, "netcdf4")


@contextmanager
def _unreadable(place: str) -> Iterator[None]:
    """Say which file is damaged, or cannot be decoded, in one sentence."""
    damaged: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, KeyError, EOFError)
    if "eccodes" in sys.modules:
        import eccodes

        damaged += (eccodes.CodesInternalError,)
    try:
        yield
    except damaged as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{public_name(place)!r} cannot be read: {said[:300]}") from error


@contextmanager
def _remote_errors(place: str) -> Iterator[None]:
    """Turn what remote file systems raise into an OSError or ValueError that names the place."""
    name = public_name(place)
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{name!r} needs another package: {error}") from error
    except (FileNotFoundError, ValueError) as error:
        if name in str(error):
            raise
        raise type(error)(f"{name!r} cannot be opened: {error}") from error
    except client_errors() as error:
        raise OSError(f"{name!r} cannot be reached: {' '.join(str(error).split())[:300]}") from error


def client_errors() -> tuple[type[BaseException], ...]:
    """Collect the base errors of the remote clients that are in use; they share none but Exception."""
    known = (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"),
             ("botocore.exceptions", "ClientError"), ("google.auth.exceptions", "GoogleAuthError"),
             ("gcsfs.retry", "HttpError"))  # fmt: skip
    loaded = [getattr(sys.modules[module], name, None) for module, name in known if module in sys.modules]
    return (OSError, TimeoutError, *(error for error in loaded if error is not None))
