r"""How right pictures are, pixel for pixel, and what could be had instead: the mean picture, and the nearest one.

    PSNR = 10 log10(255^2 / mean squared error)        SSIM: see Source

Of a picture that is completed, both are taken over what was missing alone. Source: Wang, Bovik, Sheikh and Simoncelli,
"Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004, as scikit-image has it
(windows of 7 x 7, a channel at a time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE = 255.0
_WINDOW = 7
_FEWEST_ERRORS = 1e-10  # of a picture that is exactly right, so that its PSNR is a number (148 dB)
_BLOCK = 64

Pictures = NDArray[Any]  # [n, y, x, channel], 0..255
Mask = NDArray[np.bool_]  # [y, x]


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """Of each picture [n]: `psnr` in dB, `ssim` in -1..1."""

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]

    def to_dict(self) -> dict[str, float]:
        """Means over the pictures."""
        return {"psnr": float(self.psnr.mean()), "ssim": float(self.ssim.mean())}


def closeness(pictures: Pictures, truth: Pictures, missing: Mask | None = None) -> Closeness:
    """Compare pictures with the truth.

    Args:
        pictures: [n, y, x, channel], 0..255.
        truth: Likewise.
        missing: Where to compare; None for everywhere.
    """
    where = np.ones(truth.shape[1:3], dtype=bool) if missing is None else missing
    squares = ((pictures.astype(np.float64) - truth) ** 2)[:, where].mean(axis=(1, 2))
    likeness = [_ssim(one, other)[where].mean() for one, other in zip(pictures, truth, strict=True)]
    psnr = 10 * np.log10(WHITE**2 / np.maximum(squares, _FEWEST_ERRORS))
    return Closeness(psnr=psnr, ssim=np.array(likeness))


def _ssim(picture: Pictures, truth: Pictures) -> NDArray[np.float64]:
    """The map of the likeness around each pixel [y, x], channels averaged; NaN-free on the smallest pictures."""
    from skimage.metrics import structural_similarity

    side = min(*truth.shape[:2], _WINDOW)
    window = side if side % 2 else side - 1
    _, likeness = structural_similarity(
        picture.astype(np.float64),
        truth.astype(np.float64),
        win_size=window,
        data_range=WHITE,
        channel_axis=2,
        full=True,
    )
    return np.asarray(likeness).mean(axis=2)


def mean_picture(training: Pictures) -> NDArray[np.float64]:
    """The mean of the training pictures [y, x, channel]: the best guess that knows nothing of the one asked for."""
    total = np.zeros(training.shape[1:])
    for first in range(0, len(training), _BLOCK):
        total += training[first : first + _BLOCK].astype(np.float64).sum(axis=0)
    return total / len(training)


def nearest_pictures(training: Pictures, truth: Pictures, missing: Mask | None = None) -> NDArray[np.int64]:
    """For each picture the training picture that is nearest to it in what is seen, by the squared error; positions [n].

    Args:
        training: [m, y, x, channel].
        truth: [n, y, x, channel]; what is missing of it is not read.
        missing: [y, x]; None where all is seen.
    """
    seen = np.ones(truth.shape[1:3], dtype=bool) if missing is None else ~missing
    known = truth[:, seen].reshape(len(truth), -1).astype(np.float32)
    best = np.full(len(truth), np.inf, np.float32)
    nearest = np.zeros(len(truth), np.int64)
    for first in range(0, len(training), _BLOCK * 16):
        block = training[first : first + _BLOCK * 16, seen].reshape(-1, known.shape[1]).astype(np.float32)
        # |a - b|^2 without |a|^2, which is the same for all
        distance = (block**2).sum(axis=1)[None] - 2 * known @ block.T
        here = distance.argmin(axis=1)
        least = distance[np.arange(len(known)), here]
        closer = least < best
        nearest[closer], best[closer] = first + here[closer], least[closer]
    return nearest


def filled(truth: Pictures, guess: Pictures, missing: Mask) -> Pictures:
    """What was seen of the truth, and a guess elsewhere."""
    return np.where(missing[..., None], guess, truth)


def middle_patch(height: int, width: int) -> Mask:
    """A missing patch: the middle, half as high and half as wide, a quarter of the picture."""
    missing = np.zeros((height, width), dtype=bool)
    missing[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return missing


def lower_half(height: int, width: int) -> Mask:
    """A missing half: the lower one."""
    missing = np.zeros((height, width), dtype=bool)
    missing[height // 2 :] = True
    return missing
