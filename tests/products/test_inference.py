"""The points of what was seen that an ascent of the bound reads."""

import numpy as np
import torch

from pipelines.data.box import Box
from pipelines.data.domain import Chance, evenly, kind_of
from pipelines.products.inference import POINTS, _Points
from vamoh import FunctionBatch


def seen_in_part(share: float) -> tuple[FunctionBatch, np.ndarray]:
    """Two balls on 24^3, of which a random part was seen."""
    rng, box = np.random.default_rng(0), Box((24, 24, 24))
    solid = np.stack([np.linalg.norm(box.coords, axis=1) < radius for radius in (0.4, 0.7)])
    observed = rng.random(solid.shape) < share
    values = torch.from_numpy(solid.astype(np.float32))[..., None]
    coords = torch.from_numpy(box.coords.astype(np.float32))[None]
    return FunctionBatch(coords=coords, values=values, observed=torch.from_numpy(observed)), observed


def chance(seed: int) -> Chance:
    rng = np.random.default_rng(seed)
    return Chance(rng, rng.spawn(2))


def test_where_little_was_seen_all_of_it_is_read() -> None:
    batch, observed = seen_in_part(0.01)
    index, weight = _Points(batch, Box((24, 24, 24)), evenly, chance(1))()
    for row in range(2):
        read = index[row][weight[row] > 0].numpy()
        assert np.array_equal(np.sort(read), np.flatnonzero(observed[row]))
    assert set(np.unique(weight)) <= {0.0, 1.0}


def test_sums_over_the_points_that_are_read_are_those_over_all_that_was_seen() -> None:
    batch, observed = seen_in_part(0.5)
    loss = np.random.default_rng(2).gamma(1.0, size=observed.shape)
    for draw in (evenly, kind_of("cube").draw):
        points = _Points(batch, Box((24, 24, 24)), draw, chance(3))
        sums = []
        for _ in range(300):
            index, weight = points()
            assert (np.take_along_axis(observed, index.numpy(), axis=1) == (weight.numpy() > 0)).all()
            sums.append((np.take_along_axis(loss, index.numpy(), axis=1) * weight.numpy()).sum(axis=1))
        assert 0.7 * POINTS < float((weight > 0).sum(dim=1).float().mean()) < 1.4 * POINTS
        error = np.std(sums, axis=0) / np.sqrt(len(sums))
        assert (np.abs(np.mean(sums, axis=0) - (loss * observed).sum(axis=1)) < 4 * error).all()
