"""Where shapes come from: arrays, a folder or a zip archive of meshes and voxels, a ShapeNet tree.

What is there is listed first, by name, category and split; a shape is read when it is asked for. Archives are read in
place: nothing of them is unpacked to disk.
"""

from __future__ import annotations

import difflib
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from numpy.typing import NDArray

from pipelines.data import meshes, shapenet
from pipelines.data.shapenet import SPLITS, Item
from pipelines.data.voxels import (
    Voxels,
    at_resolution,
    check_archive,
    read_arrays,
    read_binvox,
    read_tensor,
    solid_cells,
)

DEFAULT_RESOLUTION = 64
SUFFIXES = (".binvox", ".pt", *meshes.SUFFIXES)
LARGEST_ARCHIVE = 2**40  # bytes in all; a file of it may have `meshes.LARGEST_MESH`
_EXPECTED = f"expected .npz or .npy arrays (n, x, y, z), or a folder or .zip of {', '.join(SUFFIXES)} files"


class ShapeSource(Protocol):
    """Shapes, listed."""

    @property
    def name(self) -> str:
        """Of the source."""

    @property
    def items(self) -> tuple[Item, ...]:
        """What there is."""

    @property
    def resolution(self) -> int:
        """That the shapes have; 64 where they are files."""

    @property
    def at_once(self) -> int:
        """How many are worth reading together."""

    def read(self, item: Item, resolution: int) -> Voxels:
        """One shape [x, y, z].

        Raises:
            ValueError: If it cannot be read.
            OSError: Likewise.
        """


@dataclass(frozen=True)
class Arrays:
    """Arrays of shapes (n, x, y, z), by category; splits where they are called so ("train" and "test")."""

    name: str
    arrays: Mapping[str, NDArray[Any]]
    at_once: int = 64

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every shape of every array."""
        splits = {key: SPLITS.get(key.lower(), "") for key in self.arrays}
        named = set(splits.values()) >= {"train", "test"}  # one called "train" alone says nothing about the others
        return tuple(
            Item(
                name=f"{key}/{place:06d}".removeprefix("/"),
                category="" if named and splits[key] else key,
                split=splits[key] if named else "",
                files=(key, str(place)),
            )
            for key, array in self.arrays.items()
            for place in range(len(array))
        )

    @property
    def resolution(self) -> int:
        """The longest edge."""
        return max((max(array.shape[1:]) for array in self.arrays.values()), default=DEFAULT_RESOLUTION)

    def read(self, item: Item, resolution: int) -> Voxels:
        """See `ShapeSource`."""
        key, place = item.files
        return at_resolution(solid_cells(self.arrays[key][int(place)]), resolution)


@dataclass(frozen=True)
class Files:
    """Shapes of which each is a file of its own, in a folder or in a zip archive."""

    name: str
    items: tuple[Item, ...]
    resolution: int = DEFAULT_RESOLUTION
    at_once: int = 8

    def read(self, item: Item, resolution: int) -> Voxels:
        """See `ShapeSource`; of an item's files the first that can be read is taken."""
        failed = []
        for place in item.files:
            try:
                return _voxels(self._content(place), PurePosixPath(place).suffix.lower(), resolution)
            except (ValueError, OSError) as error:
                failed.append(str(error))
        raise ValueError("; ".join(failed))

    def _content(self, place: str) -> bytes:
        root = Path(self.name)
        if root.is_dir():
            path = root / place
            size = path.stat().st_size
            _check_size(size)
            return path.read_bytes()
        archive = _archive(self.name)
        _check_size(archive.getinfo(place).file_size)
        try:
            return archive.read(place)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"it is damaged in the archive: {error}") from error


def open_shapes(source: str | os.PathLike[str], category: str | None = None) -> ShapeSource:
    """List what shapes a source holds.

    Args:
        source: An .npz or .npy, one file of a shape, a folder, a .zip, or a ShapeNet tree.
        category: Only those of this category.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If it holds no shapes, none of the category, or is not to be trusted.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {str(path)!r}: {_EXPECTED}")
    if path.suffix.lower() in (".npz", ".npy"):
        found: ShapeSource = Arrays(str(path), read_arrays(path))
    elif path.is_dir():
        names = sorted(str(PurePosixPath(one.relative_to(path))) for one in path.rglob("*") if one.is_file())
        found = Files(str(path), shapenet.items(path) or _listed(names))
    elif path.suffix.lower() == ".zip":
        found = Files(str(path), _listed(sorted(_archive(str(path)).namelist())))
    else:
        found = Files(str(path.parent), _listed([path.name]))
    if not found.items:
        raise ValueError(f"there are no shapes in {str(path)!r}: {_EXPECTED}")
    return found if category is None else _only(found, category)


def _only(source: ShapeSource, category: str) -> ShapeSource:
    """The part of a source that is of a category."""
    known = sorted({item.category for item in source.items if item.category})
    kept = tuple(item for item in source.items if item.category == category)
    if not kept:
        near = difflib.get_close_matches(category, known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        there = f"the categories are {', '.join(known[:60])}" if known else "its shapes have no categories"
        raise ValueError(f"{source.name!r} has no category {category!r}{hint}: {there}")
    if isinstance(source, Arrays):
        return Arrays(source.name, {category: source.arrays[category]})
    return Files(source.name, kept)


def _listed(names: Iterable[str]) -> tuple[Item, ...]:
    """Files as items: CATEGORY/.../NAME.suffix, and the split where one of the folders is called so."""
    files = [PurePosixPath(name) for name in names]
    files = [one for one in files if one.suffix.lower() in SUFFIXES and not one.name.startswith(".")]
    stems = [str(one.with_suffix("")) for one in files]
    twice = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    splits = [next((SPLITS[part.lower()] for part in one.parts[:-1] if part.lower() in SPLITS), "") for one in files]
    if not {"train", "test"} <= set(splits):
        splits = [""] * len(files)
    items = []
    for one, stem, split in zip(files, stems, splits, strict=True):
        folders = [part for part in one.parts[:-1] if not (split and part.lower() in SPLITS)]
        items.append(
            Item(
                name=str(one) if stem in twice else stem,
                category=folders[0] if folders else "",
                split=split,
                files=(str(one),),
            )
        )
    return tuple(items)


def _voxels(data: bytes, suffix: str, resolution: int) -> Voxels:
    """A file's content as voxels."""
    if suffix == ".binvox":
        return at_resolution(read_binvox(data), resolution)
    if suffix == ".pt":
        return at_resolution(read_tensor(data), resolution)
    return meshes.voxelised(data, suffix, resolution)


def _check_size(size: int) -> None:
    if size > meshes.LARGEST_MESH:
        raise ValueError(f"it is {size / 2**30:.1f} GiB long where {meshes.LARGEST_MESH / 2**30:.0f} are allowed")


@lru_cache(maxsize=4)
def _archive(name: str) -> zipfile.ZipFile:
    """An archive, checked, opened once in a process."""
    try:
        archive = zipfile.ZipFile(name)
        check_archive(archive, name, os.path.getsize(name), LARGEST_ARCHIVE)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{name!r} is no zip archive: {error}") from error
    return archive
