"""Maps of a model that was just trained."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from pipelines.products.pictures import training_pictures


@pytest.mark.parametrize(("model", "name"), [("trained", "downscaled"), ("classic", "reconstruction")])
def test_a_trained_model_is_drawn_beside_its_checkpoint(request, model: str, name: str) -> None:
    made = request.getfixturevalue(model)
    pictures = training_pictures(made.checkpoint, made.store)
    assert pictures == [made.checkpoint.parent / "maps" / f"{name}.png"]
    image = imread(pictures[0])
    assert min(image.shape[:2]) > 400 and image[..., :3].std() > 0.05


def test_drawing_again_replaces_the_picture(trained) -> None:
    (path,) = training_pictures(trained.checkpoint, trained.store)
    first = path.read_bytes()
    path.write_bytes(b"")
    assert training_pictures(trained.checkpoint, trained.store) == [path]
    assert Path(path).read_bytes() == first
