"""Models of shapes side by side: whole shapes, hidden halves, and new shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.data.box import Box
from pipelines.products.comparison_contest import Data, Row
from pipelines.products.comparison_entry import Entry, Floats
from pipelines.products.comparison_metrics import Scores
from pipelines.products.comparison_samples import energy
from pipelines.products.shading import picture
from pipelines.products.shape_distances import POINTS, Solids, distances, likeness, surface_points
from pipelines.products.shape_figures import rows_of
from pipelines.products.shape_scores import LEVEL, MEAN, NEAREST, TRAINING, hidden_halves, mean_shape, nearest, overlap
from vamoh.model import Posterior

_SHOWN = 6  # new shapes of each model on the page


class ShapeContest:
    """See `Contest`."""

    metrics = (
        "reconstruction_iou",
        "bits",
        "bits_bound",
        "completion_iou",
        "mmd",
        "coverage",
        "one_nn",
        "empty",
        "energy",
    )
    units = "1"
    told: Mapping[str, str] = {
        "hidden_half": "the lower, then the upper half along each axis, in turn",
        "surface_points": str(POINTS),
    }

    def __init__(self, data: Data) -> None:
        self.data = data
        self._truth: Solids = np.asarray(data.truth.values > LEVEL)
        self._box = Box(self._truth.shape[1:])
        self._hidden = hidden_halves(len(self._truth), self._box.shape)
        self._training: Solids | None = None if data.training is None else np.asarray(data.training.values > LEVEL)

    def seen(self, entry: Entry, found: Posterior) -> Scores:
        """IoU of the inferred shapes."""
        return {"reconstruction_iou": overlap(self._solids(entry.values(found.mean, self._box)), self._truth)["iou"]}

    def unseen(self, entry: Entry) -> Scores:
        """IoU in the halves that were hidden."""
        values = self._truth.astype(np.float32)
        values[self._hidden] = np.nan
        found = entry.inferred(self.data.truth.copy(data=values), self.data.seed)
        made = self._solids(entry.values(found.mean, self._box))
        return {"completion_iou": overlap(made, self._truth, self._hidden)["iou"]}

    def new(self, entry: Entry) -> Row:
        """Distances of as many new shapes as there are true ones."""
        return self._judged(entry.sampled(self.data.number, self._box, self.data.seed)[..., 0])

    def downscaled(self, entry: Entry) -> Scores:
        """Nothing: no model of shapes has a context."""
        return {}

    def references(self) -> dict[str, Scores]:
        """The nearest training shape, the mean of all, and training shapes as if they were new."""
        if self._training is None:
            return {}
        mean = np.broadcast_to(mean_shape(self._training), self._truth.shape)
        everything = np.ones_like(self._hidden)
        of = {
            NEAREST: [
                self._training[nearest(self._truth, self._training, seen)] for seen in (everything, ~self._hidden)
            ],
            MEAN: [mean, mean],
        }
        rows: dict[str, Scores] = {
            name: {
                "reconstruction_iou": overlap(whole, self._truth)["iou"],
                "completion_iou": overlap(half, self._truth, self._hidden)["iou"],
            }
            for name, (whole, half) in of.items()
        }
        rng = np.random.default_rng((self.data.seed, 1))
        count = len(self._training)
        picked = self._training[rng.choice(count, self.data.number, replace=count < self.data.number)]
        rows[TRAINING] = self._judged(picked.reshape(len(picked), -1).astype(np.float32)).scores
        return rows

    def figures(self, entries: Sequence[Entry]) -> list[tuple[str, str, Figure]]:
        """Rows of true and of new shapes."""
        rows = {"Truth": self._truth[:_SHOWN].astype(np.float32)}
        for entry in entries:
            if entry.can("sample"):
                made = entry.sampled(_SHOWN, self._box, self.data.seed)[..., 0]
                rows[f"{entry.label}, new"] = made.reshape(-1, *self._box.shape)
        images = [picture(shape) for row in rows.values() for shape in row]
        titles = [name if number == 0 else "" for name, row in rows.items() for number in range(len(row))]
        return [("New shapes of each model", _SHAPES, rows_of(images, titles, min(_SHOWN, len(self._truth))))]

    @cached_property
    def _reference(self) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Surface points of the true shapes, and the distances among them."""
        rng = np.random.default_rng((self.data.seed, 2))
        points = [surface_points(solid, POINTS, rng) for solid in self._truth if solid.any()]
        return points, distances(points)

    def _judged(self, made: Floats) -> Row:
        """Of new shapes [n, N]."""
        row, solids = Row(), self._solids(made)
        flat = self._truth.reshape(len(self._truth), -1).astype(np.float32)
        row.scores["energy"] = energy(made, flat, self.data.geometry.area)
        solid = [shape for shape in solids if shape.any()]
        row.scores["empty"] = 1 - len(solid) / len(solids)
        if not solid:
            nothing = "nothing is solid in any sample"
            return Row(row.scores, dict.fromkeys(("mmd", "coverage", "one_nn"), nothing))
        reference, among_truth = self._reference
        rng = np.random.default_rng((self.data.seed, 3))
        clouds = [surface_points(shape, POINTS, rng) for shape in solid]
        like = asdict(likeness(distances(clouds), distances(clouds, reference), among_truth))
        row.scores |= {name: float(value) for name, value in like.items()}
        return row

    def _solids(self, values: Floats) -> Solids:
        return np.asarray(values.reshape(len(values), *self._box.shape) > LEVEL)


_SHAPES = (
    "Cut where the probability of being solid is one half. Samples are not chosen: they are the first of the seed."
)
