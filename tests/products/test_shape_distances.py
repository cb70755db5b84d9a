"""Likeness of solids and of sets of them, against cases that are known."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pipelines.data.box import Box
from pipelines.products.shape_distances import chamfer, distances, f1, iou, likeness, surface_points
from pipelines.products.shape_scores import hidden_halves, nearest, overlap


def test_iou_and_f1_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    made, truth = rng.random((2, 5, 4, 3, 6)) > 0.4
    for number in range(5):
        both, either = (made[number] & truth[number]).sum(), (made[number] | truth[number]).sum()
        assert iou(made, truth)[number] == pytest.approx(both / either)
        precision, recall = both / made[number].sum(), both / truth[number].sum()
        assert f1(made, truth)[number] == pytest.approx(2 * precision * recall / (precision + recall))
    nothing = np.zeros((1, 3), dtype=bool)
    assert iou(nothing, nothing) == f1(nothing, nothing) == 1 and iou(nothing, ~nothing) == 0


def test_surface_points_lie_on_the_faces_of_solid_cells_evenly() -> None:
    solid = np.zeros((10, 10, 20), dtype=bool)
    solid[2:8, 3:7, 4:16] = True  # 1.2 x 0.8 x 1.2 of the cube's 2
    points = surface_points(solid, 20_000, np.random.default_rng(0))
    low, high = np.array([-0.6, -0.4, -0.6]), np.array([0.6, 0.4, 0.6])
    assert (points >= low - 1e-9).all() and (points <= high + 1e-9).all()
    on = np.isclose(points, low) | np.isclose(points, high)
    assert on.any(axis=1).all()
    size = high - low
    area = np.prod(size) / size
    np.testing.assert_allclose(on.mean(axis=0), area / area.sum(), atol=0.015)
    with pytest.raises(ValueError, match="nothing is solid"):
        surface_points(np.zeros((3, 3, 3), dtype=bool), 5, np.random.default_rng(0))


def test_chamfer_distances_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    clouds = [rng.normal(size=(size, 3)) for size in (30, 40, 25, 50)]
    for one in clouds:
        for other in clouds:
            square = cdist(one, other) ** 2
            assert chamfer(one, other) == pytest.approx(square.min(axis=1).mean() + square.min(axis=0).mean())
    table = distances(clouds)
    assert table == pytest.approx(np.array([[chamfer(a, b) for b in clouds] for a in clouds]))
    assert distances(clouds[:2], clouds) == pytest.approx(table[:2])


def test_sets_that_nobody_can_tell_apart_and_sets_that_anybody_can() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(200, 2))
    square = lambda a, b: cdist(a, b)  # noqa: E731
    alike = rng.normal(size=(200, 2))
    found = likeness(square(alike, alike), square(alike, truth), square(truth, truth))
    assert 0.4 < found.one_nn < 0.6 and found.coverage > 0.45
    far = alike + 100
    found = likeness(square(far, far), square(far, truth), square(truth, truth))
    assert found.one_nn == 1 and found.coverage < 0.05 and found.mmd > 90
    point = np.repeat(truth.mean(axis=0, keepdims=True), 200, axis=0)
    found = likeness(square(point, point), square(point, truth), square(truth, truth))
    assert found.coverage == 1 / 200 and found.one_nn > 0.95
    copied = likeness(square(truth, truth), square(truth, truth), square(truth, truth))
    assert copied.mmd == 0 and copied.coverage == 1


def test_halves_are_hidden_in_turn_and_the_nearest_is_matched_on_what_was_seen() -> None:
    hidden = hidden_halves(7, (4, 6, 5))
    assert np.array_equal(hidden[0], hidden[6]) and hidden[0, :2].all() and not hidden[0, 2:].any()
    assert (hidden[4] ^ hidden[5]).all() and hidden[4, :, :, :2].all()
    rng = np.random.default_rng(3)
    training = rng.random((9, 4, 6, 5)) > 0.5
    shapes = training[[7, 2]].copy()
    shapes[hidden[:2]] = ~shapes[hidden[:2]]  # what is hidden misleads, and is not looked at
    assert nearest(shapes, training, ~hidden[:2]).tolist() == [7, 2]
    assert overlap(shapes, training[[7, 2]], hidden[:2])["iou"] == 0
    assert overlap(shapes, training[[7, 2]], ~hidden[:2])["iou"] == 1
    assert Box((4, 6, 5)).coords.shape == (120, 3)
