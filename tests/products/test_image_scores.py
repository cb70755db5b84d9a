"""Scores of pictures: against formulas, against brute force, and on what is known to be better or worse."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pipelines.products import image_features
from pipelines.products.image_distributions import frechet_distance, precision_and_recall
from pipelines.products.image_features import ColoursAndEdges, inception
from pipelines.products.image_scores import (
    closeness,
    filled,
    lower_half,
    mean_picture,
    middle_patch,
    nearest_pictures,
)
from tests.data.scenes import scenes


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return scenes(260, side=24)


def test_the_psnr_is_that_of_the_formula_and_one_level_off_is_48_decibels(drawn) -> None:
    truth = np.clip(drawn[:5], 1, 254)
    found = closeness(truth.astype(float) + np.array([-1, 1, 1])[None, None, None], truth)
    assert found.psnr == pytest.approx(10 * np.log10(255**2)) and found.ssim.min() > 0.99
    exact = closeness(truth, truth)
    assert exact.ssim == pytest.approx(1.0) and np.isfinite(exact.psnr).all()


def test_ssim_ranks_a_blurred_picture_below_one_that_is_brighter_by_the_same_squared_error(drawn) -> None:
    truth = drawn[:20].astype(float)
    blurred = (np.roll(truth, 2, 1) + np.roll(truth, -2, 1) + np.roll(truth, 2, 2) + np.roll(truth, -2, 2)) / 4
    by = np.sqrt(((blurred - truth) ** 2).mean(axis=(1, 2, 3), keepdims=True))
    blurry, bright = closeness(blurred, truth), closeness(truth + by, truth)
    assert blurry.psnr == pytest.approx(bright.psnr) and (blurry.ssim < bright.ssim).mean() > 0.9


def test_of_a_completed_picture_only_what_was_missing_is_scored(drawn) -> None:
    truth, missing = drawn[:4], lower_half(24, 24)
    guess = np.where(missing[..., None], truth.astype(float) + 3, 0)  # worthless where the truth was seen
    assert closeness(filled(truth, guess, missing), truth, missing).psnr == pytest.approx(20 * np.log10(255 / 3))
    assert missing.mean() == 0.5 and not missing[:12].any()
    assert middle_patch(28, 28).mean() == 0.25 and middle_patch(24, 24).sum(axis=0).max() == 12


def test_no_constant_picture_is_closer_to_the_training_pictures_than_their_mean(drawn) -> None:
    mean = mean_picture(drawn)
    assert np.allclose(mean, drawn.mean(axis=0))
    error = ((drawn - mean) ** 2).mean()
    rng = np.random.default_rng(0)
    assert all(((drawn - mean - rng.normal(0, 1, mean.shape)) ** 2).mean() > error for _ in range(5))


def test_the_nearest_picture_is_that_of_brute_force_by_what_is_seen_alone(drawn, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.products.image_scores._BLOCK", 2)  # many blocks
    training, asked, missing = drawn[:200], drawn[200:220], middle_patch(24, 24)
    spoiled = asked.copy()
    spoiled[:, missing] = 255 - spoiled[:, missing]
    found = nearest_pictures(training, spoiled, missing)
    seen = (training[None, :, ~missing].astype(float) - asked[:, None, ~missing]) ** 2
    assert np.array_equal(found, seen.sum(axis=(2, 3)).argmin(axis=1))
    assert np.array_equal(nearest_pictures(training, training[7:9]), [7, 8])


@pytest.mark.parametrize("count", [9, 200])
def test_the_frechet_distance_is_that_of_the_matrix_square_root(count: int) -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) + 0.4
    other = rng.normal(size=(count + 3, 12)) @ rng.normal(size=(12, 12))
    first, second = np.cov(one.T), np.cov(other.T)
    root = sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9 * np.trace(first))
    assert frechet_distance(one, one + 2) == pytest.approx(4 * 12)


def test_precision_and_recall_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(2)
    real, made = rng.normal(size=(60, 5)), 1.4 * rng.normal(size=(50, 5)) + 0.5

    def covered(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
        reach = [sorted(np.linalg.norm(manifold - one, axis=1))[k] for one in manifold]  # the first is itself
        return float(
            np.mean([any(np.linalg.norm(p - m) <= r for m, r in zip(manifold, reach, strict=True)) for p in points])
        )

    for k in (1, 3):
        assert precision_and_recall(made, real, k) == pytest.approx((covered(made, real, k), covered(real, made, k)))
    assert precision_and_recall(real, real) == (1.0, 1.0)
    assert precision_and_recall(made + 100, real) == (0.0, 0.0)
    one_kind = real[0] + 0.01 * rng.normal(size=(50, 5))
    precision, recall = precision_and_recall(one_kind, real)
    assert precision == 1.0 and recall < 0.1
    with pytest.raises(ValueError, match="more pictures"):
        precision_and_recall(made[:3], real)


def test_the_features_tell_blur_and_a_wrong_colour_from_other_pictures_of_the_same_kind(drawn) -> None:
    features = ColoursAndEdges.of(drawn[:100])
    real, fresh = features(drawn[100:180]), drawn[180:260]
    assert real.shape == (80, 64 + 128)
    same = frechet_distance(features(fresh), real)
    blurred = (fresh.astype(float) + np.roll(fresh, 2, 1) + np.roll(fresh, 2, 2) + np.roll(fresh, -2, 1)) / 4
    assert frechet_distance(features(blurred), real) > 1.5 * same
    assert frechet_distance(features(fresh[..., [2, 0, 1]] // 2), real) > 1.5 * same
    assert frechet_distance(features(np.repeat(fresh[:1], 80, axis=0)), real) > 1.5 * same
    spread = features(drawn[:100])
    assert (spread[:, :64] ** 2).sum(axis=1).mean() == pytest.approx(1.0)
    assert spread[:, 64:].var(axis=0).sum() == pytest.approx(1.0)
    few = ColoursAndEdges.of(drawn[:20, ..., :1])  # fewer pictures than components, and grey
    assert few(drawn[20:30, ..., :1]).shape == (10, 19 + 128)


class Rows(torch.nn.Module):
    """Stands in for Inception, whose weights no package carries: takes and gives what it does, and means nothing."""

    def forward(self, pictures: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return pictures.float().flatten(1)[:, :2048]


def test_the_users_own_inception_network_is_read_from_its_file(drawn, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(image_features, "_BATCH", 3)
    torch.jit.script(Rows()).save(tmp_path / "inception.pt")
    scene = scenes(4, side=32)
    given = inception(tmp_path / "inception.pt")(scene)
    assert np.array_equal(given, scene.transpose(0, 3, 1, 2).reshape(4, -1)[:, :2048])
    with pytest.raises(ValueError, match="2048 features"):
        inception(tmp_path / "inception.pt")(drawn[:2, :8, :8])
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(ValueError, match="no TorchScript"):
        inception(tmp_path / "text.pt")
    with pytest.raises(FileNotFoundError):
        inception(tmp_path / "nothing.pt")
