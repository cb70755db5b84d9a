"""What the tabs of one page share: the model that was chosen, and the store if there is one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import panel as pn

from pipelines.data.store import Store
from pipelines.products.ensemble import Downscaler
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.registry import list_models, load_model

KEPT_MODELS = 4
_loading = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model in memory, shared by every page of the server: nothing changes it.

    Attributes:
        name: MODEL, as it was given.
        checkpoint: What is known of it.
        network: Ready to be asked; a `VAMoH`, or one of the systems that it is compared with.
        origin: Name, version and run.
    """

    name: str
    checkpoint: Checkpoint
    network: Any
    origin: Mapping[str, str]

    @property
    def label(self) -> str:
        """Its name for people: of a folder the last two parts."""
        return label_of(self.name)

    @property
    def downscales(self) -> bool:
        """Whether it makes fine fields from coarse ones."""
        return self.network.local is not None

    @property
    def teller(self) -> Downscaler:
        """The model as `vamoh downscale` asks it."""
        return Downscaler(checkpoint=self.checkpoint, model=self.network, origin=self.origin)


@dataclass(frozen=True, kw_only=True, eq=False)
class Explorer:
    """What one page's tabs share; another model makes another one, and new tabs.

    Attributes:
        loaded: The model; None where none was given and none is registered.
        store: The store of `--store`.
    """

    loaded: Loaded | None = None
    store: Store | None = None

    @property
    def model(self) -> Loaded:
        """The model, of a tab that is shown only where there is one."""
        assert self.loaded is not None
        return self.loaded


class Tab(Protocol):
    """One tab of the page.

    Attributes:
        title: On its button.
    """

    title: str

    def __init__(self, explorer: Explorer) -> None: ...

    @classmethod
    def suits(cls, explorer: Explorer) -> str | None:
        """None, or the sentence that says why there is nothing to show."""

    def view(self) -> pn.viewable.Viewable:
        """What is shown; asked for once, when the tab is first opened."""


def label_of(model: str) -> str:
    """A MODEL for people.

    >>> label_of("/home/me/runs/uk/best"), label_of("models:/t2m@champion")
    ('uk/best', 'models:/t2m@champion')
    """
    return model if model.startswith("models:") else "/".join(Path(model).parts[-2:])


def load(model: str) -> Loaded:
    """Load a MODEL once for all pages.

    Raises:
        ValueError: If there is no such model, or it is damaged.
        OSError: If its files are not there.
    """
    with _loading:
        return _load(model)


@lru_cache(maxsize=KEPT_MODELS)
def _load(model: str) -> Loaded:
    checkpoint, network, origin = load_model(model)
    return Loaded(name=model, checkpoint=checkpoint, network=network.eval(), origin=origin)


def has_registry() -> bool:
    """Whether MLflow has anything to tell; to ask it where it has nothing makes a database, which takes seconds."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or Path("mlruns/mlflow.db").is_file()


def registered() -> list[str]:
    """MODELs of the registry: every name's aliases, and the versions that have none."""
    if not has_registry():
        return []
    found = []
    for row in list_models():
        aliases = row["aliases"]
        found += [f"models:/{row['name']}@{alias}" for alias in aliases] or [f"models:/{row['name']}/{row['version']}"]
    return sorted(found, key=lambda uri: "@champion" not in uri)
