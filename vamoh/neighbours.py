"""Which points are near which: nearest neighbours and farthest-point sampling, remembered by the points' content.

A plan depends on coordinates alone, so a field that stays on its grid pays for it once. The key is a digest of the
coordinates themselves: another mask, subset or order is another set, and gets its own plan.

Differs: the public code keys its cache on the layer, so that a plan outlives the random subset it was made for.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

CACHE_SIZE = 64
CACHE_BYTES = 256 * 2**20

T = TypeVar("T", bound="Tensor | Neighbours")


@dataclass(frozen=True)
class Neighbours:
    """The J nearest points of a set for each of N queries, nearest first.

    Attributes:
        index: [N, J] int64 into the set.
        offset: [N, J, D], set point minus query point.
        distance: [N, J].
    """

    index: Tensor
    offset: Tensor
    distance: Tensor


def nearest(queries: Tensor, points: Tensor, count: int) -> Neighbours:
    """The `count` points of `points` [M, D] that are nearest to each of `queries` [N, D]; fewer where M < count."""
    count = min(count, len(points))

    def build() -> Neighbours:
        near, far = _as_numpy(points), _as_numpy(queries)
        _, index = cKDTree(near).query(far, k=np.arange(1, count + 1))
        offset = near[index] - far[:, None]
        distance = np.sqrt((offset**2).sum(axis=-1))
        return Neighbours(
            torch.from_numpy(index).to(queries.device),
            torch.from_numpy(offset).to(queries),
            torch.from_numpy(distance).to(queries),
        )

    return _remember(("nearest", count), (queries, points), build)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Farthest-point sampling: `count` indices [count] into `points` [N, D], spread evenly, beginning with the first.

    Where N <= count, all of them in their order.
    """
    if len(points) <= count:
        return torch.arange(len(points), device=points.device)

    def build() -> Tensor:
        where = _as_numpy(points)
        chosen = np.zeros(count, dtype=np.int64)
        distance = np.full(len(where), np.inf)
        for step in range(1, count):
            np.minimum(distance, ((where - where[chosen[step - 1]]) ** 2).sum(axis=1), out=distance)
            chosen[step] = distance.argmax()
        return torch.from_numpy(chosen).to(points.device)

    return _remember(("farthest", count), (points,), build)


def canonical_order(points: Tensor) -> Tensor:
    """The permutation [N] that sorts `points` [N, D] by coordinates, so that what follows cannot see their order."""

    def build() -> Tensor:
        where = _as_numpy(points)
        return torch.from_numpy(np.lexsort(where.T[::-1]).copy()).to(points.device)

    return _remember(("order",), (points,), build)


_plans: OrderedDict[tuple[object, ...], Tensor | Neighbours] = OrderedDict()
_lock = threading.Lock()  # batches are prepared in another thread


def _remember(key: tuple[object, ...], tensors: tuple[Tensor, ...], build: Callable[[], T]) -> T:
    full_key = (*key, *(_digest(t) for t in tensors), str(tensors[0].device), tensors[0].dtype)
    with _lock:
        plan = _plans.pop(full_key, None)
    plan = build() if plan is None else plan
    with _lock:
        _plans[full_key] = plan  # the last one used stands at the end
        held = sum(map(_num_bytes, _plans.values()))
        while len(_plans) > CACHE_SIZE or (held > CACHE_BYTES and len(_plans) > 1):
            held -= _num_bytes(_plans.popitem(last=False)[1])
    return plan  # type: ignore[return-value]


def _num_bytes(plan: Tensor | Neighbours) -> int:
    return plan.nbytes if isinstance(plan, Tensor) else plan.index.nbytes + plan.offset.nbytes + plan.distance.nbytes


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(_as_numpy(tensor).tobytes(), digest_size=16)
    digest.update(str(tuple(tensor.shape)).encode())
    return digest.digest()


def _as_numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
