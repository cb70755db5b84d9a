"""Tables of scores of a model of pictures: of whole ones, of parts, and of new ones, with baselines beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.products.image_distributions import frechet_distance, precision_and_recall
from pipelines.products.image_features import INCEPTION, STATED, ColoursAndEdges, Features
from pipelines.products.image_scores import (
    Mask,
    closeness,
    filled,
    lower_half,
    mean_picture,
    middle_patch,
    nearest_pictures,
)
from pipelines.products.linear_pictures import LinearPictures

Pictures = NDArray[Any]
Table = dict[str, dict[str, float]]
SYSTEM, MEAN, NEAREST, LINEAR, TRAINING = "vamoh", "mean picture", "nearest picture", "linear", "training pictures"
FID, FRECHET = "fid", "frechet"
# What is missing of the pictures that are completed.
MISSING: dict[str, Callable[[int, int], Mask]] = {
    "completion_of_the_middle_quarter": middle_patch,
    "completion_of_the_lower_half": lower_half,
}
MOST_SAMPLES = 1_000


def reconstruction_tables(
    truth: Pictures,
    training: Pictures | None,
    completed: Callable[[Pictures, Mask | None], Pictures] | None,
    linear: LinearPictures | None,
    *,
    system: str = SYSTEM,
) -> dict[str, Table]:
    """PSNR and SSIM of reconstructions, and of completions where they were to be guessed.

    Args:
        truth: [n, y, x, channel], 0..255.
        training: What was learned from; None leaves the baselines out.
        completed: The model's pictures for the truth's; what is missing is not read. None of one that cannot infer.
        linear: The linear baseline.
        system: The model's name.

    Returns:
        {table: {system: {"psnr", "ssim"}}}.
    """
    tables: dict[str, Table] = {}
    kinds: dict[str, Mask | None] = {"reconstruction": None}
    kinds |= {name: mask(*truth.shape[1:3]) for name, mask in MISSING.items()}
    for name, missing in kinds.items():
        guesses = {} if completed is None else {system: completed(truth, missing)}
        if training is not None:
            guesses[MEAN] = np.broadcast_to(mean_picture(training), truth.shape)
            guesses[NEAREST] = training[nearest_pictures(training, truth, missing)]
        if linear is not None:
            guesses[LINEAR] = linear.completed(truth, missing)
        shown = {each: guess if missing is None else filled(truth, guess, missing) for each, guess in guesses.items()}
        tables[name] = {each: closeness(guess, truth, missing).to_dict() for each, guess in shown.items()}
    return tables


def sample_table(
    truth: Pictures,
    training: Pictures,
    sample: Callable[[int], Pictures],
    linear: LinearPictures,
    *,
    seed: int,
    inception: Features | None = None,
    system: str = SYSTEM,
) -> tuple[Table, dict[str, Any]]:
    """How like the truth new pictures are as a whole; as many of each kind as there are of the truth, 1000 at most.

    Args:
        truth: [n, y, x, channel], 0..255, n at least 4.
        training: What was learned from.
        sample: Draws that many pictures.
        linear: The linear baseline.
        seed: Of what is drawn.
        inception: Features of Inception, for those who have its weights: then the FID.
        system: The model's name.

    Returns:
        {system: {"frechet" or "fid", "precision", "recall"}}, and what it is of.
    """
    rng = np.random.default_rng([seed, 0x5A3])
    number = min(len(truth), MOST_SAMPLES)
    real = truth[np.sort(rng.choice(len(truth), number, replace=False))]
    features: Features = ColoursAndEdges.of(training, seed) if inception is None else inception
    of_training = rng.choice(len(training), number, replace=len(training) < number)
    made = {
        system: sample(number),
        MEAN: np.broadcast_to(mean_picture(training), real.shape),
        LINEAR: linear.sample(number, rng),
        TRAINING: training[of_training],
    }
    known, table = features(real), {}
    for name, pictures in made.items():
        found = features(np.clip(pictures, 0, 255).round())
        precision, recall = precision_and_recall(found, known)
        distance = frechet_distance(found, known)
        table[name] = {(FRECHET if inception is None else FID): distance, "precision": precision, "recall": recall}
    return table, {"pictures_of_each": number, "features": STATED if inception is None else INCEPTION}
