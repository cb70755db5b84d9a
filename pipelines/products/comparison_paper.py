"""The figures that the paper reports, for stores of its data sets: to stand beside what was measured, not among it.

Source: Koyuncu, Sanchez-Martin, Peis, Olmos and Valera, "Variational mixture of hypergenerators for learning
    distributions over functions", ICML 2023, its tables of FID, precision and recall, and of inference times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.data.store import Store


@dataclass(frozen=True)
class DataSet:
    """One of the paper's data sets.

    Attributes:
        name: The paper's.
        domain, shape: Of its functions.
        words: Of which one stands in what a store says of its source.
    """

    name: str
    domain: str
    shape: tuple[int, ...]
    words: tuple[str, ...]


DATA_SETS = (
    DataSet("ERA5", "sphere", (46, 90), ("era5",)),
    DataSet("ShapeNet chairs", "cube", (32, 32, 32), ("shapenet",)),
    DataSet("PolyMNIST", "plane", (28, 28, 3), ("polymnist",)),
    DataSet("Shapes3D", "plane", (64, 64, 3), ("shapes3d", "3dshapes")),
    DataSet("CelebA-HQ", "plane", (64, 64, 3), ("celeba",)),
)
_TIMES = {
    "PolyMNIST": (0.00453, 0.01648, 0.05108),
    "Shapes3D": (0.00536, 0.01759, 0.05480),
    "CelebA-HQ": (0.00757, 0.01733, 0.05381),
    "ERA5": (0.00745, 0.01899, 0.05932),
    "ShapeNet chairs": (0.00689, 0.02095, 0.06576),
}
_SAMPLES: Mapping[str, Mapping[str, tuple[float | None, ...]]] = {
    "CelebA-HQ": {"GASP": (14.01, 0.81, 0.43), "Functa": (40.40, None, None), "VAMoH": (66.27, 0.65, 0.00)},
    "Shapes3D": {"GASP": (118.66, 0.01, 0.16), "Functa": (57.81, 0.06, 0.13), "VAMoH": (56.25, 0.08, 0.64)},
}
NOTE = (
    "These are the paper's own figures: of the authors' models and split, their times on their GPU, their FID, "
    "precision and recall on Inception's features. Of this store only the kind of data and the grid are the same."
)
Figures = dict[str, dict[str, float]]


def paper_of(store: Store) -> Mapping[str, Any] | None:
    """The paper's figures for a store, by system; None where the store is not of one of its data sets."""
    source = store.source.lower()
    for known in DATA_SETS:
        if (store.domain, tuple(store.field.shape[1:])) == (known.domain, known.shape):
            if any(word in source for word in known.words):
                return {"data_set": known.name, "figures": figures_of(known.name), "note": NOTE}
    return None


def figures_of(name: str) -> Figures:
    """{system: {quantity: value}} of a data set.

    >>> figures_of("ERA5")["VAMoH"]
    {'inference, s': 0.00745}
    """
    systems = ("VAMoH", "Functa, 3 steps", "Functa, 10 steps")
    rows: Figures = {system: {"inference, s": value} for system, value in zip(systems, _TIMES[name], strict=True)}
    for system, values in _SAMPLES.get(name, {}).items():
        named = zip(("FID", "precision", "recall"), values, strict=True)
        rows[system] = rows.get(system, {}) | {key: value for key, value in named if value is not None}
    return rows
