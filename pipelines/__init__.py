"""From a raw field to a downscaled one: data, store, stream, training, registry, downscaling, scores, report.

The few names that a notebook needs are handed on from here, and loaded when they are first asked for, so that
`import pipelines` stays light:

    pipelines.downscale(coarse, "models:/t2m@champion", resolution=0.1, members=20)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.config import load_config
    from pipelines.data.climate import ingest
    from pipelines.data.store import open_store
    from pipelines.products.compare import compare
    from pipelines.products.downscale import downscale
    from pipelines.products.evaluate import evaluate
    from pipelines.products.generate import complete, sample
    from pipelines.training.registry import list_models, show_model
    from pipelines.training.train import train

__all__ = [
    "compare",
    "complete",
    "downscale",
    "evaluate",
    "ingest",
    "list_models",
    "load_config",
    "open_store",
    "sample",
    "show_model",
    "train",
]

_HOMES = {
    "compare": "pipelines.products.compare",
    "complete": "pipelines.products.generate",
    "sample": "pipelines.products.generate",
    "downscale": "pipelines.products.downscale",
    "evaluate": "pipelines.products.evaluate",
    "ingest": "pipelines.data.climate",
    "list_models": "pipelines.training.registry",
    "load_config": "pipelines.config",
    "open_store": "pipelines.data.store",
    "show_model": "pipelines.training.registry",
    "train": "pipelines.training.train",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever bears the name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
