"""What MLflow keeps of a registered model as its code, and runs where the model is loaded: nothing is unpickled."""

from pathlib import Path

from mlflow.models import set_model

from pipelines.products.serving import PointServer

set_model(PointServer(Path(__file__).parent))
