"""What makes a checkpoint's folder a model that MLflow can load and serve: its description, its code, its requests.

MLmodel, requirements and a script (pipelines/products/serving_script.py) beside the weights, and the model card as
README.md. The script is MLflow's "model from code": it is run where the model is loaded, and nothing is pickled.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

CARD = "README.md"
# What a server takes at most; SERVING_MODEL_CONFIG, JSON, changes it where a model is served.
LIMITS = {"max_request_bytes": 8_000_000, "max_values": 1_000_000}


def write_package(folder: Path, card: str) -> None:
    """Write everything but the checkpoint itself.

    Args:
        folder: A new one.
        card: Markdown.
    """
    script = files("pipelines") / "products" / "serving_script.py"
    with warnings.catch_warnings(record=True):  # its advice on type hints, for models without a signature
        save_model(
            folder,
            python_model=str(script),
            signature=_signature(),
            pip_requirements=[f"vamoh=={version('vamoh')}"],
            model_config=dict(LIMITS),
        )
    (folder / CARD).write_text(card)


def _signature() -> ModelSignature:
    """Of requests and answers: fields, points, and latitude and longitude or a value."""
    number = np.dtype(np.float64)
    inputs: list[Any] = [
        TensorSpec(number, (-1, -1, last), name) for name, last in (("coords", 2), ("values", 1), ("query", 2))
    ]
    params = [
        ParamSpec("members", DataType.long, 8),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("time", DataType.string, [], shape=(-1,)),
    ]
    answer: list[Any] = [TensorSpec(number, (-1, -1, -1))]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(answer), params=ParamSchema(params))
