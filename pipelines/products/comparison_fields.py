"""Models of temperature fields side by side: whole fields, hidden halves, coarse points, and new fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from pipelines.products import charts, plot, skill
from pipelines.products.comparison_contest import Data, Row
from pipelines.products.comparison_entry import Entry, Floats
from pipelines.products.comparison_metrics import Scores
from pipelines.products.comparison_samples import STATED, FieldFeatures, energy, log_spectral_distance
from pipelines.products.evaluate import coarsened, members_of
from pipelines.products.image_distributions import NEIGHBOURS, precision_and_recall
from pipelines.products.interpolate import bilinear
from pipelines.products.plot import Panel
from pipelines.products.spectra import zonal_spectrum
from vamoh.model import Posterior

MEAN, BILINEAR, TRAINING = "training mean", "bilinear", "training fields"
_SHOWN = 2  # new fields of each model on the page


class FieldContest:
    """See `Contest`."""

    metrics = (
        "reconstruction_rmse",
        "bits",
        "bits_bound",
        "completion_rmse",
        "completion_crps",
        "downscaling_rmse",
        "downscaling_crps",
        "spread_skill",
        "spectral_distance",
        "precision",
        "recall",
        "energy",
    )

    def __init__(self, data: Data) -> None:
        self.data = data
        self._east = slice(data.truth.shape[2] // 2, None)
        known = data.truth if data.training is None else data.training
        self._features = FieldFeatures.of(data.flat(known.values), data.geometry.area) if len(known) > 2 else None
        self.units = str(data.truth.attrs.get("units", "K"))
        self.told: Mapping[str, str] = {
            "members": str(data.members),
            "seen_for_downscaling": f"every {data.factor}th point along both axes",
            "hidden_half": "the eastern one",
            "features": STATED if data.training is not None else STATED.replace("training", "scored"),
        }

    def seen(self, entry: Entry, found: Posterior) -> Scores:
        """Area-weighted RMSE of the inferred functions."""
        return {"reconstruction_rmse": self._rmse(entry.values(found.mean, self.data.geometry), slice(None))}

    def unseen(self, entry: Entry) -> Scores:
        """RMSE of the inferred mean, and CRPS of members: the eastern half, and the grid between coarse points."""
        scores: Scores = {}
        for name, given, where in self._hidden():
            found = entry.inferred(given, self.data.seed)
            scores[f"{name}_rmse"] = self._rmse(entry.values(found.mean, self.data.geometry), where)
            drawn = entry.members(found, self.data.geometry, self.data.members, self.data.seed)
            members = xr.concat([self._field(each) for each in drawn], skill.MEMBERS)
            scores[f"{name}_crps"] = float(skill.crps_ensemble(members[..., where], self.data.truth[..., where]))
        return scores

    def new(self, entry: Entry) -> Row:
        """Spectra, precision, recall and energy distance of new fields."""
        return self._judged(entry.sampled(self.data.number, self.data.geometry, self.data.seed)[..., 0])

    def downscaled(self, entry: Entry) -> Scores:
        """Scores of a downscaling model's members on the whole grid."""
        teller = entry.teller
        means = entry.plan.downscaling.kind == "means"
        coarse = coarsened(self.data.truth, self.data.factor, means=means)
        ensemble = members_of(teller, coarse, self.data.truth, members=self.data.members, seed=self.data.seed)
        found = skill.ensemble_scores(ensemble, self.data.truth)
        names = {"rmse": "downscaling_rmse", "crps": "downscaling_crps", "spread_skill": "spread_skill"}
        return {name: found[key] for key, name in names.items() if key in found}

    def references(self) -> dict[str, Scores]:
        """The training mean, bilinear interpolation of the coarse points, and training fields as if they were new."""
        truth, axes = self.data.truth, ("latitude", "longitude")
        coarse = coarsened(truth, self.data.factor)
        between = skill.point_scores(bilinear(coarse, *(truth[axis].values for axis in axes)), truth)
        rows = {BILINEAR: {"downscaling_rmse": between["rmse"], "downscaling_crps": between["crps"]}}
        if self.data.training is None:
            return rows
        flat = self.data.flat(self.data.training.values)
        mean = np.broadcast_to(np.nanmean(flat, axis=0)[:, None], (len(truth), flat.shape[1], 1))
        whole, half = self._rmse(mean, slice(None)), self._rmse(mean, self._east)
        rows[MEAN] = {"reconstruction_rmse": whole, "completion_rmse": half, "downscaling_rmse": whole}
        rng = np.random.default_rng((self.data.seed, 1))
        picked = rng.choice(len(flat), self.data.number, replace=len(flat) < self.data.number)
        rows[TRAINING] = self._judged(flat[picked]).scores
        return rows

    def figures(self, entries: Sequence[Entry]) -> list[tuple[str, str, Figure]]:
        """New fields of each model, and their spectra beside truth's."""
        whole = [entry for entry in entries if entry.can("sample")]
        if not whole:
            return []
        truth = self.data.truth
        lines, panels = (
            {"Truth": zonal_spectrum(truth)},
            [
                Panel(field=_plain(truth[number]), title=f"Truth {number + 1}", scale="field")
                for number in range(min(_SHOWN, len(truth)))
            ],
        )
        for entry in whole:
            made = self._field(entry.sampled(self.data.number, self.data.geometry, self.data.seed)[..., 0])
            lines[entry.label] = zonal_spectrum(made)
            panels += [
                Panel(field=_plain(made[number]), title=f"{entry.label}, new {number + 1}", scale="field")
                for number in range(min(_SHOWN, len(made)))
            ]
        return [
            ("New fields of each model", _FIELDS, plot.maps(panels, title="2 m temperature, true and new")),
            ("How much variance new fields have at each wavelength", _SPECTRA, charts.spectra(lines)),
        ]

    def _hidden(self) -> list[tuple[str, xr.DataArray, slice]]:
        """Task, what is seen, and the longitudes that are scored."""
        truth, every = self.data.truth, self.data.factor
        half, coarse = truth.copy(deep=True), xr.full_like(truth, np.nan)
        half[..., self._east] = np.nan
        coarse[:, ::every, ::every] = truth[:, ::every, ::every]
        return [("completion", half, self._east), ("downscaling", coarse, slice(None))]

    def _judged(self, made: Floats) -> Row:
        """Of new fields [n, N]."""
        row, flat = Row(), self.data.flat(self.data.truth.values)
        row.scores["energy"] = energy(made, flat, self.data.geometry.area)
        try:
            row.scores["spectral_distance"] = log_spectral_distance(self._field(made), self.data.truth)
        except ValueError as error:
            row.missing["spectral_distance"] = str(error)
        if self._features is None or len(flat) <= NEIGHBOURS:
            too_few = f"{len(flat)} functions are too few: a manifold is of {NEIGHBOURS} neighbours"
            return Row(row.scores, row.missing | dict.fromkeys(("precision", "recall"), too_few))
        found = precision_and_recall(self._features(made), self._features(flat))
        row.scores |= dict(zip(("precision", "recall"), found, strict=True))
        return row

    def _rmse(self, values: Floats, where: slice) -> float:
        return float(skill.rmse(self._field(values)[..., where], self.data.truth[..., where]))

    def _field(self, values: Floats) -> xr.DataArray:
        """Values [n, N, 1] or [n, N] on the grid; the times are those of the first fields."""
        like = self.data.truth[: len(values)]
        return like.copy(data=np.asarray(values, np.float32).reshape(like.shape))


def _plain(field: xr.DataArray) -> xr.DataArray:
    return field.drop_vars([name for name in field.coords if name not in field.dims]).assign_attrs(units="K")


_FIELDS = "Nobody's field is to be like another: look for coasts, for how smooth they are, and for what repeats."
_SPECTRA = "Over all samples. Below the line of truth details are missing, above it there is noise that nature lacks."
