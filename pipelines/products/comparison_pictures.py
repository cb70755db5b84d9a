"""Models of pictures side by side: whole pictures, a hidden patch and a hidden half, and new pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.data.box import Box
from pipelines.products.comparison_contest import Data, Row
from pipelines.products.comparison_entry import Entry, Floats, draws
from pipelines.products.comparison_metrics import Scores
from pipelines.products.comparison_samples import energy
from pipelines.products.image_distributions import NEIGHBOURS, frechet_distance, precision_and_recall
from pipelines.products.image_evaluation import LINEAR, MEAN, TRAINING
from pipelines.products.image_features import INCEPTION, STATED, ColoursAndEdges, Features, inception
from pipelines.products.image_figures import Row as Tiles
from pipelines.products.image_figures import sheet
from pipelines.products.image_figures import shown as tile
from pipelines.products.image_products import INCEPTION_VARIABLE, hidden
from pipelines.products.image_scores import Mask, closeness, filled, lower_half, mean_picture, middle_patch
from pipelines.products.linear_pictures import LinearPictures
from vamoh.model import Posterior

_SHOWN = 8  # new pictures of each model on the page


class PictureContest:
    """See `Contest`. For users who have the weights of Inception (VAMOH_INCEPTION) the Frechet distance is the FID."""

    units = "levels of 255"

    def __init__(self, data: Data) -> None:
        self.data = data
        self._truth: Floats = data.truth.values.astype(np.float32)
        self._box = Box(self._truth.shape[1:3])
        known = data.truth.values if data.training is None else data.training.values
        weights = os.environ.get(INCEPTION_VARIABLE)
        self._features: Features = inception(weights) if weights else ColoursAndEdges.of(known, data.seed)
        self._distance = "fid" if weights else "frechet"
        self._missing: dict[str, Mask] = {
            "completion_quarter_psnr": middle_patch(*self._box.shape),
            "completion_half_psnr": lower_half(*self._box.shape),
        }
        self.metrics = (
            "reconstruction_psnr",
            "reconstruction_ssim",
            "bits",
            "bits_bound",
            *self._missing,
            self._distance,
            "precision",
            "recall",
            "energy",
        )
        self.told: Mapping[str, str] = {
            "members": str(data.members),
            "hidden_half": "the middle quarter, and the lower half",
            "features": INCEPTION if weights else STATED,
        }

    def seen(self, entry: Entry, found: Posterior) -> Scores:
        """PSNR and SSIM of the inferred pictures."""
        return _whole(self._pictures(entry.values(found.mean, self._box)), self._truth)

    def unseen(self, entry: Entry) -> Scores:
        """PSNR of the mean of completions, where they were to be guessed."""
        scores: Scores = {}
        for name, missing in self._missing.items():
            found = entry.inferred(hidden(self.data.truth, missing), self.data.seed)
            drawn = [entry.values(latents, self._box) for latents in draws(found, self.data.members, self.data.seed)]
            scores[name] = self._guessed(self._pictures(np.mean(drawn, axis=0)), missing)
        return scores

    def new(self, entry: Entry) -> Row:
        """Precision, recall, Frechet and energy distance of as many new pictures as true ones."""
        return self._judged(self._pictures(entry.sampled(self.data.number, self._box, self.data.seed)))

    def downscaled(self, entry: Entry) -> Scores:
        """Nothing: no model of pictures has a context."""
        return {}

    def references(self) -> dict[str, Scores]:
        """The mean picture, principal components, and training pictures as if they were new."""
        if self.data.training is None:
            return {}
        training, rng = self.data.training.values, np.random.default_rng((self.data.seed, 1))
        mean = np.broadcast_to(mean_picture(training), self._truth.shape)
        linear = LinearPictures.of(training, min(32, len(training) - 1), self.data.seed)
        rows = {
            MEAN: _whole(mean, self._truth) | {key: self._guessed(mean, at) for key, at in self._missing.items()},
            LINEAR: _whole(linear.completed(self._truth), self._truth)
            | {key: self._guessed(linear.completed(self._truth, at), at) for key, at in self._missing.items()},
        }
        rows[LINEAR] |= self._judged(linear.sample(self.data.number, rng)).scores
        picked = training[rng.choice(len(training), self.data.number, replace=len(training) < self.data.number)]
        rows[TRAINING] = self._judged(picked.astype(np.float32)).scores
        return rows

    def figures(self, entries: Sequence[Entry]) -> list[tuple[str, str, Figure]]:
        """A row of true pictures, and of each model's new ones."""
        rows = [Tiles(tiles=[tile(each) for each in self._truth[:_SHOWN]], title="truth")]
        for entry in entries:
            if entry.can("sample"):
                made = self._pictures(entry.sampled(min(_SHOWN, len(self._truth)), self._box, self.data.seed))
                rows.append(Tiles(tiles=[tile(each) for each in made], title=f"{entry.label}, new"))
        return [("New pictures of each model", _PICTURES, sheet(rows))]

    def _judged(self, made: Floats) -> Row:
        """Of new pictures [n, y, x, channel]."""
        real = self._truth[: self.data.number]
        row = Row({"energy": energy(made.astype(np.float32), real, self.data.geometry.area)})
        if len(real) <= NEIGHBOURS:
            too_few = f"{len(real)} pictures are too few: a manifold is of {NEIGHBOURS} neighbours"
            return Row(row.scores, dict.fromkeys((self._distance, "precision", "recall"), too_few))
        one, other = self._features(np.clip(made, 0, 255).round()), self._features(real)
        row.scores[self._distance] = frechet_distance(one, other)
        row.scores |= dict(zip(("precision", "recall"), precision_and_recall(one, other), strict=True))
        return row

    def _guessed(self, pictures: Floats, missing: Mask) -> float:
        return closeness(filled(self._truth, pictures, missing), self._truth, missing).to_dict()["psnr"]

    def _pictures(self, values: Floats) -> Floats:
        """[n, N, C] -> [n, y, x, channel]."""
        return values.reshape(len(values), *self._box.shape, values.shape[-1])


def _whole(pictures: Floats, truth: Floats) -> Scores:
    return {f"reconstruction_{name}": value for name, value in closeness(pictures, truth).to_dict().items()}


_PICTURES = "Samples are not chosen: they are the first of the seed."
