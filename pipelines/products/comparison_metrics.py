"""What models are compared by: each metric described once, with its unit, which way is better, and what it needs.

The console, the JSON and the page all take names, units and explanations from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Better = Literal["less", "more", "half", ""]
# What a model must be able to do for a metric to be measured.
Need = Literal["infer", "downscale", "bound", "sample", "members", "invert", ""]
Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of the table.

    Attributes:
        name: Its heading.
        unit: Of its numbers; `{units}` stands for that of the values, and "1" for a plain number.
        better: Which value is: the least, the most, the nearest to one half; "" where none is.
        needs: What a model must be able to do.
        meaning: A sentence, without its full stop.
        group: The part of the table that it stands in.
    """

    name: str
    unit: str
    better: Better
    needs: Need
    meaning: str
    group: str


SEEN, UNSEEN, NEW, COST = "What was seen", "What was not seen", "New functions", "Cost"
_CRPS = "continuous ranked probability score of as many members as stated, each a draw of the inferred latent"


def _metric(group: str, name: str, unit: str, better: Better, needs: Need, meaning: str) -> Metric:
    return Metric(name=name, unit=unit, better=better, needs=needs, meaning=meaning, group=group)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "reconstruction_rmse": _metric(
            SEEN,
            "Reconstruction RMSE",
            "{units}",
            "less",
            "infer",
            "root mean squared error of whole functions, all of whose points were seen; by area",
        ),
        "reconstruction_psnr": _metric(
            SEEN,
            "Reconstruction PSNR",
            "dB",
            "more",
            "infer",
            "10 log10 of 255 squared over the mean squared error, of pictures all of whose pixels were seen",
        ),
        "reconstruction_ssim": _metric(
            SEEN,
            "Reconstruction SSIM",
            "1",
            "more",
            "infer",
            "structural similarity of the same pictures, in windows of 7 x 7",
        ),
        "reconstruction_iou": _metric(
            SEEN,
            "Reconstruction IoU",
            "1",
            "more",
            "infer",
            "intersection over union of shapes, all of whose voxels were seen",
        ),
        "bits": _metric(
            SEEN,
            "Bits per value, given the latent",
            "bits",
            "less",
            "infer",
            "minus log2 p(y | x, z) of the stored values at the inferred z, all points alike; of a density "
            "by one unit of the values, so it may be negative; what it takes to say z is not counted",
        ),
        "bits_bound": _metric(
            SEEN,
            "Bits per value, with the latent",
            "bits",
            "less",
            "bound",
            "minus the evidence bound, log2 p(y | x, z) + log2 p(z) - log2 q(z): a code that says z too needs no more",
        ),
        "completion_rmse": _metric(
            UNSEEN,
            "Completion RMSE, a half hidden",
            "{units}",
            "less",
            "infer",
            "of the eastern half, where the western half alone was seen; by area",
        ),
        "completion_crps": _metric(
            UNSEEN, "Completion CRPS, a half hidden", "{units}", "less", "infer", f"{_CRPS}, in that half"
        ),
        "completion_iou": _metric(
            UNSEEN,
            "Completion IoU, a half hidden",
            "1",
            "more",
            "infer",
            "in the hidden half alone; the six halves (both of each axis) in turn",
        ),
        "completion_quarter_psnr": _metric(
            UNSEEN,
            "Completion PSNR, the middle hidden",
            "dB",
            "more",
            "infer",
            "in the hidden middle quarter alone; the mean of as many completions as members",
        ),
        "completion_half_psnr": _metric(
            UNSEEN,
            "Completion PSNR, the lower half hidden",
            "dB",
            "more",
            "infer",
            "in the hidden half alone; the mean of as many completions as members",
        ),
        "downscaling_rmse": _metric(
            UNSEEN,
            "Downscaling RMSE",
            "{units}",
            "less",
            "downscale",
            "of the whole grid, where every n-th point along both axes was seen (n as stated); by area",
        ),
        "downscaling_crps": _metric(UNSEEN, "Downscaling CRPS", "{units}", "less", "downscale", f"{_CRPS}; by area"),
        "spread_skill": _metric(
            UNSEEN,
            "Members' spread / skill",
            "1",
            "",
            "members",
            "the spread of the members that downscale over the error of their mean; one is right",
        ),
        "spectral_distance": _metric(
            NEW,
            "Log-spectral distance",
            "dB",
            "less",
            "sample",
            "root mean square, over wavelengths, of 10 log10 of the samples' zonal power over truth's",
        ),
        "frechet": _metric(
            NEW,
            "Frechet distance",
            "1",
            "less",
            "sample",
            "between normal distributions fitted to features of samples and of truth; not the FID",
        ),
        "fid": _metric(
            NEW,
            "FID",
            "1",
            "less",
            "sample",
            "Frechet distance on Inception's features; depends on the number of pictures",
        ),
        "precision": _metric(
            NEW, "Precision", "1", "more", "sample", "share of samples within the manifold of truth's features"
        ),
        "recall": _metric(
            NEW, "Recall", "1", "more", "sample", "share of truth within the manifold of the samples' features"
        ),
        "mmd": _metric(
            NEW,
            "MMD, Chamfer",
            "1",
            "less",
            "sample",
            "mean over true shapes of the Chamfer distance to the nearest sample (edges of the cube are 2 long)",
        ),
        "coverage": _metric(
            NEW, "Coverage", "1", "more", "sample", "share of the true shapes that are nearest to some sample"
        ),
        "one_nn": _metric(
            NEW,
            "1-NN accuracy",
            "1",
            "half",
            "sample",
            "share of all shapes whose nearest other is of their own set; one half where nobody can tell the sets",
        ),
        "empty": _metric(NEW, "Empty samples", "1", "less", "sample", "share of samples in which nothing is solid"),
        "energy": _metric(
            NEW,
            "Energy distance",
            "{units}",
            "less",
            "sample",
            "2 E|X - Y| - E|X - X'| - E|Y - Y'| of samples X and truth Y, |.| the root mean square over the domain",
        ),
        "inference_1_s": _metric(
            COST,
            "Inference, 1 function",
            "s",
            "less",
            "invert",
            "processor's seconds of one thread, from what was seen to values at all points; places are known",
        ),
        "inference_64_s": _metric(COST, "Inference, 64 functions", "s", "less", "invert", "likewise, of 64 at once"),
        "sampling_64_s": _metric(
            COST, "Sampling, 64 functions", "s", "less", "sample", "likewise, from noise to values at all points"
        ),
        "memory_mb": _metric(
            COST,
            "Peak memory of inference",
            "MB",
            "less",
            "",
            "resident memory that 64 functions need beyond what the process holds before (of a model that cannot "
            "infer: 64 samples)",
        ),
        "parameters": _metric(COST, "Parameters", "1", "", "", "numbers that training changes"),
        "training_s": _metric(COST, "Training time", "s", "", "", "by the clock, of the run that made the model"),
    }
)


def best(scores: Mapping[str, Scores]) -> dict[str, list[str]]:
    """Who is best by each metric, as the numbers are printed; nobody is without company.

    Args:
        scores: {model: {metric: value}}.

    >>> best({"a": {"energy": 1.0, "one_nn": 0.7}, "b": {"energy": 2.0, "one_nn": 0.4}})
    {'one_nn': ['b'], 'energy': ['a']}
    """
    found = {}
    for key, metric in METRICS.items():
        here = {name: row[key] for name, row in scores.items() if math.isfinite(row.get(key, math.nan))}
        if metric.better and len(here) > 1:
            rank = {name: _rank(value, metric.better) for name, value in here.items()}
            found[key] = [name for name in here if rank[name] == min(rank.values())]
    return found


def shown(value: float | None) -> str:
    """A number as it is printed everywhere.

    >>> shown(0.123456), shown(1234567.0), shown(None), shown(0.00004)
    ('0.1235', '1,234,567', '–', '4e-05')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def unit_of(metric: Metric, units: str) -> str:
    """The unit of a metric of values in `units`; empty for a plain number."""
    unit = metric.unit.replace("{units}", units)
    return "" if unit == "1" else unit


def _rank(value: float, better: Better) -> float:
    printed = float(shown(value).replace(",", ""))
    match better:
        case "less":
            return printed
        case "more":
            return -printed
        case _:
            return abs(printed - 0.5)
