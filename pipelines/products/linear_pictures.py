r"""What a linear model of as many numbers makes of pictures: probabilistic principal components.

    x = m + W z + e,    z ~ N(0, I),    e ~ N(0, s^2 I)

W are the first principal axes of the training pictures, scaled by (their variance - s^2)^{1/2}, and s^2 is the mean
variance along all other axes. Given what is seen of a picture, E[z] = (W_S^T W_S + s^2 I)^{-1} W_S^T (x_S - m_S).

Source: Tipping and Bishop, "Probabilistic principal component analysis", JRSS B, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

Floats = NDArray[np.floating]
MOST = 5_000  # training pictures that axes are fitted to


@dataclass(frozen=True)
class LinearPictures:
    """Fitted to training pictures, in their own units.

    Attributes:
        mean: [y, x, channel].
        loadings: W [y x channel, Z].
        noise: s^2.
    """

    mean: Floats
    loadings: Floats
    noise: float

    @classmethod
    def of(cls, training: NDArray[Any], latent: int, seed: int = 0) -> LinearPictures:
        """Fit to pictures [m, y, x, channel], to 5000 of them at most.

        Args:
            training: The pictures.
            latent: Z; fewer where there are not as many pictures.
            seed: Of which pictures.
        """
        some = drawn(training, seed)
        flat = some.reshape(len(some), -1).astype(np.float32)
        mean = flat.mean(axis=0)
        axes, variances = principal_axes(flat - mean, latent)
        left = float(((flat - mean) ** 2).mean(axis=0).sum() - variances.sum())
        noise = max(left, 0.0) / max(1, flat.shape[1] - len(axes)) + 1e-6
        loadings = axes.T * np.sqrt(np.maximum(variances - noise, 0.0))
        return cls(mean.reshape(training.shape[1:]), loadings, noise)

    def completed(self, pictures: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Floats:
        """E[m + W z] given what is seen of pictures [n, y, x, channel], 0..255."""
        seen = np.ones(self.mean.shape, dtype=bool)
        if missing is not None:
            seen &= ~missing[..., None]
        known = (pictures - self.mean)[:, seen]
        loadings = self.loadings[seen.ravel()]
        inner = loadings.T @ loadings + self.noise * np.eye(loadings.shape[1])
        codes = np.linalg.solve(inner, loadings.T @ known.T).T
        return self._pictures(codes)

    def sample(self, number: int, rng: np.random.Generator) -> Floats:
        """New pictures [number, y, x, channel], 0..255."""
        return self._pictures(rng.standard_normal((number, self.loadings.shape[1])))

    def _pictures(self, codes: Floats) -> Floats:
        flat = codes @ self.loadings.T
        return np.clip(flat.reshape(len(codes), *self.mean.shape) + self.mean, 0, 255)


def drawn(pictures: NDArray[Any], seed: int, most: int = MOST) -> NDArray[Any]:
    """At most so many of the pictures, by the seed, in their order."""
    if len(pictures) <= most:
        return pictures
    return pictures[np.sort(np.random.default_rng(seed).choice(len(pictures), most, replace=False))]


def principal_axes(centred: Floats, count: int) -> tuple[Floats, Floats]:
    """The first axes [count, F] of features [m, F], and the variances along them, the largest first."""
    count = min(count, min(centred.shape) - 1)
    start = np.random.default_rng(0).standard_normal(min(centred.shape))
    _, sizes, axes = svds(centred, k=count, v0=start)
    order = np.argsort(sizes)[::-1]
    return axes[order], sizes[order] ** 2 / len(centred)
