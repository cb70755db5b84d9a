"""The ShapeNetCore v2 tree: SYNSET/MODEL/models/model_normalized.{solid,surface}.binvox and .obj.

Categories have the names of taxonomy.json, splits are those of the official all.csv, where these files are present.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

# Of a model the first that is there and can be read is taken.
FILES = ("model_normalized.solid.binvox", "model_normalized.obj", "model_normalized.surface.binvox")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_SYNSET = re.compile(r"\d{8}")


@dataclass(frozen=True)
class Item:
    """A shape that a source holds.

    Attributes:
        name: Unique in its source.
        category: A class's name, or "".
        split: "train", "validation" or "test", or "" where nobody says.
        files: Where it stands in its source; of several the first that can be read.
    """

    name: str
    category: str
    split: str
    files: tuple[str, ...]


def items(root: Path) -> tuple[Item, ...]:
    """The models of a tree, or of one synset's folder in it; none if it is no such tree.

    Raises:
        ValueError: If taxonomy.json or the split file is not what it should be.
    """
    synsets = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _SYNSET.fullmatch(folder.name)]
    if _SYNSET.fullmatch(root.name) and not synsets:
        synsets = [root]
    if not synsets:
        return ()
    names, splits = _names(root), _splits(root)
    found = []
    for synset in synsets:
        for model in sorted(folder for folder in synset.iterdir() if folder.is_dir()):
            files = [model / "models" / name for name in FILES]
            there = tuple(file.relative_to(root).as_posix() for file in files if file.is_file())
            if not there and not (model / "models").is_dir():
                continue
            found.append(
                Item(
                    name=f"{synset.name}/{model.name}",
                    category=names.get(synset.name, synset.name),
                    split=splits.get(model.name, ""),
                    files=there or (files[0].relative_to(root).as_posix(),),  # named as missing when it is read
                )
            )
    return tuple(found)


def _names(root: Path) -> dict[str, str]:
    """Synsets' names, the first of each: 03001627 -> chair."""
    for file in (root / "taxonomy.json", root.parent / "taxonomy.json"):
        if file.is_file():
            try:
                entries = json.loads(file.read_text())
                return {str(one["synsetId"]): str(one["name"]).split(",")[0].strip() for one in entries}
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{str(file)!r} is no taxonomy of ShapeNet: {error}") from error
    return {}


def _splits(root: Path) -> dict[str, str]:
    """Models' splits by the official file: columns modelId and split."""
    for file in (root / "all.csv", root.parent / "all.csv"):
        if file.is_file():
            with file.open(newline="") as text:
                rows = csv.DictReader(text)
                if not {"modelId", "split"} <= set(rows.fieldnames or ()):
                    raise ValueError(f"{str(file)!r} is no split file of ShapeNet: it lacks modelId and split")
                return {row["modelId"]: SPLITS.get(str(row["split"]).lower(), "") for row in rows}
    return {}
