r"""Whether generated pictures are like real ones as a whole: a Frechet distance, and precision and recall.

Of Gaussians that are fitted to features of both, with means m and covariances S,

    d = |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^{1/2}

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; on the features of
Inception it is the FID (Heusel et al., 2017). Few pictures make it larger: compare numbers of as many only.

Precision is the share of generated pictures that lie within the manifold of the real ones, recall that of real ones
within the manifold of the generated; a manifold is the union of balls around its pictures that reach to their k-th
neighbour.
Source: Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
NEIGHBOURS = 3


def frechet_distance(one: Floats, other: Floats) -> float:
    """Between Gaussians fitted to features [n, F] and [m, F]; at least two of each.

    With centred features A, B scaled by 1 / sqrt(n - 1), tr (S_1 S_2)^{1/2} is the sum of the singular values of A B^T:
    exact, also where there are fewer pictures than features.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"a Frechet distance needs at least two pictures of each kind, got {len(one)} and {len(other)}"
        )
    means = one.mean(axis=0), other.mean(axis=0)
    first = (one - means[0]) / np.sqrt(len(one) - 1)
    second = (other - means[1]) / np.sqrt(len(other) - 1)
    # The singular values of A B^T are those of R_A R_B^T, with triangles no larger than the features.
    shared = np.linalg.svd(_triangle(first) @ _triangle(second).T, compute_uv=False).sum()
    apart = ((means[0] - means[1]) ** 2).sum()
    return float(max(0.0, apart + (first**2).sum() + (second**2).sum() - 2 * shared))


def _triangle(features: Floats) -> Floats:
    return np.asarray(np.linalg.qr(features, mode="r")) if len(features) > features.shape[1] else features


def precision_and_recall(generated: Floats, real: Floats, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Of generated features [n, F] against real ones [m, F]; both in 0..1.

    Raises:
        ValueError: If there are too few for that many neighbours.
    """
    if min(len(generated), len(real)) <= neighbours:
        raise ValueError(
            f"precision and recall of {neighbours} neighbours need more pictures of each kind, got {len(generated)} "
            f"and {len(real)}"
        )
    between = _distances(generated, real)
    precision = (between <= _reach(real, neighbours)[None]).any(axis=1).mean()
    recall = (between <= _reach(generated, neighbours)[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def _reach(features: Floats, neighbours: int) -> Floats:
    """Squared distance of each to its k-th neighbour, itself not counted."""
    own = _distances(features, features)
    np.fill_diagonal(own, np.inf)
    return np.partition(own, neighbours - 1, axis=1)[:, neighbours - 1]


def _distances(one: Floats, other: Floats) -> Floats:
    """Squared distances [n, m], never below zero."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
    return np.maximum(squares, 0.0)
