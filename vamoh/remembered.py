"""What depends on coordinates alone, made once for each set of them: plans of neighbours, orders, Fourier features.

A field that stays on its grid pays for these once. The key is a digest of the coordinates themselves: another mask,
subset or order is another set, and gets its own.

Differs: the public code keys its cache on the layer, so that a plan outlives the random subset it was made for.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CACHE_SIZE = 64
CACHE_BYTES = 256 * 2**20


class Sized(Protocol):
    """Something that says how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Sized)
_made: OrderedDict[tuple[object, ...], Any] = OrderedDict()
_lock = threading.Lock()  # batches are prepared in another thread


def remember(key: tuple[object, ...], tensors: tuple[Tensor, ...], build: Callable[[], T]) -> T:
    """What `build` makes of the content of `tensors` on their device; what was used last is kept."""
    # It goes by the content itself, so it is not compiled. `torch.compiler.disable` would import the compiler in every
    # process, which takes 1.5 s; where something is compiled it has been imported.
    return (_untraced if torch.compiler.is_compiling() else _remember)(key, tensors, build)


def _remember(key: tuple[object, ...], tensors: tuple[Tensor, ...], build: Callable[[], T]) -> T:
    full_key = (*key, *(_digest(t) for t in tensors), str(tensors[0].device), tensors[0].dtype)
    with _lock:
        made = _made.pop(full_key, None)
    if made is None:
        with torch.inference_mode(False):  # what is kept may be needed where gradients are
            made = build()
    with _lock:
        _made[full_key] = made  # the last one used stands at the end
        held = sum(each.nbytes for each in _made.values())
        while len(_made) > CACHE_SIZE or (held > CACHE_BYTES and len(_made) > 1):
            held -= _made.popitem(last=False)[1].nbytes
    return made


_untraced: Any = torch._disable_dynamo(_remember)  # type: ignore[no-untyped-call,unused-ignore]


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Its content in memory order."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(as_numpy(tensor).tobytes(), digest_size=16)
    digest.update(str(tuple(tensor.shape)).encode())
    return digest.digest()
