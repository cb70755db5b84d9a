"""What pictures are compared by when no two need be alike: colours and edges, or a network that the user has.

By default, of each picture

    64 principal components of the training pictures' pixels            what is where, in which colour
    mean steepness in 8 directions in 4 x 4 cells                       which edges are where

each group divided by its spread over the training pictures, so that both weigh alike. A Frechet distance on these is
not the FID; that needs Inception's features (`inception`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.products.linear_pictures import drawn, principal_axes

Floats = NDArray[np.floating]
Features = Callable[[NDArray[Any]], Floats]  # pictures [n, y, x, channel], 0..255 -> [n, F]

STATED = "64 principal components of the pixels and the steepness in 8 directions in 4 x 4 cells, each of unit spread"
INCEPTION = "Inception, 2048 features"
_INCEPTION_WIDTH = 2048
_COMPONENTS, _CELLS, _DIRECTIONS = 64, 4, 8
_BATCH = 64


@dataclass(frozen=True)
class ColoursAndEdges:
    """The default features, fitted to training pictures.

    Attributes:
        mean: [y x channel], of the pixels.
        axes: [components, y x channel], orthonormal.
        spreads: Root mean square distances of the training pictures from their mean: of the colours, of the edges.
        edge_mean: [cells directions].
    """

    mean: Floats
    axes: Floats
    edge_mean: Floats
    spreads: tuple[float, float]

    @classmethod
    def of(cls, training: NDArray[Any], seed: int = 0) -> ColoursAndEdges:
        """Fit to training pictures [m, y, x, channel], to 5000 of them at most, drawn by the seed."""
        some = drawn(training, seed)
        flat = some.reshape(len(some), -1) / 255.0
        mean = flat.mean(axis=0)
        axes, _ = principal_axes(flat - mean, _COMPONENTS)
        edges = _edges(some)
        colours = (flat - mean) @ axes.T
        spreads = float(np.sqrt((colours**2).sum(axis=1).mean())), float(np.sqrt(edges.var(axis=0).sum()))
        return cls(mean, axes, edges.mean(axis=0), (spreads[0] or 1.0, spreads[1] or 1.0))

    def __call__(self, pictures: NDArray[Any]) -> Floats:
        """[n, y, x, channel] -> [n, 64 + 128]."""
        flat = pictures.reshape(len(pictures), -1) / 255.0
        colours = (flat - self.mean) @ self.axes.T / self.spreads[0]
        return np.hstack([colours, (_edges(pictures) - self.edge_mean) / self.spreads[1]])


def _edges(pictures: NDArray[Any]) -> Floats:
    """How steep pictures are in each cell and direction, on average [n, cells directions].

    Differs from Dalal and Triggs: no cell is normalised, for there the noise of a smooth picture would count as much as
    the edges of another.
    """
    values = pictures.astype(np.float64) / 255.0
    down, right = np.gradient(values, axis=(1, 2))
    steepest = (down**2 + right**2).argmax(axis=-1)[..., None]
    down, right = (np.take_along_axis(slope, steepest, axis=-1)[..., 0] for slope in (down, right))
    turn = np.arctan2(down, right) % np.pi * (_DIRECTIONS / np.pi)
    direction = np.minimum(turn.astype(np.int64), _DIRECTIONS - 1)
    steepness = np.hypot(down, right)
    rows, columns = (np.arange(size) * _CELLS // size for size in pictures.shape[1:3])
    cell = (rows[:, None] * _CELLS + columns) * _DIRECTIONS + direction
    bins = _CELLS * _CELLS * _DIRECTIONS
    number = np.arange(len(pictures))[:, None, None] * bins
    total = np.bincount((number + cell).ravel(), weights=steepness.ravel(), minlength=len(pictures) * bins)
    return total.reshape(len(pictures), bins) * (_CELLS * _CELLS / (pictures.shape[1] * pictures.shape[2]))


def inception(path: str | os.PathLike[str]) -> Features:
    """Features of an Inception network whose weights the user has; the distance on them is the FID.

    Args:
        path: A TorchScript file that takes bytes [n, 3, y, x] and `return_features=True`, and gives [n, 2048]: what the
            authors of StyleGAN hand out as `inception-2015-12-05.pt`.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no TorchScript, or gives other features.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no Inception weights at {os.fspath(path)!r}: give a TorchScript file")
    try:
        network = torch.jit.load(os.fspath(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{os.fspath(path)!r} is no TorchScript: {' '.join(str(error).split())[:150]}") from error

    @torch.no_grad()
    def features(pictures: NDArray[Any]) -> Floats:
        colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3)) if pictures.shape[3] == 1 else pictures
        planes = torch.from_numpy(colour.round().clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2).copy())
        given = torch.cat([network(part, return_features=True) for part in planes.split(_BATCH)])
        if given.ndim != 2 or given.shape[1] != _INCEPTION_WIDTH:
            raise ValueError(
                f"{os.fspath(path)!r} gives {tuple(given.shape)} for {len(pictures)} pictures: expected "
                f"{_INCEPTION_WIDTH} features of each, as Inception has"
            )
        return given.double().numpy()

    return features
