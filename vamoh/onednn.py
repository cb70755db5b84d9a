"""Matrix products where nothing is differentiated: on a CPU oneDNN's, with what follows them.

Torch is built with two libraries, and takes its products of single precision from MKL, which leaves half of what a
processor of another maker than its own can do (AVX-512). oneDNN does not, and adds a bias and bends the result while it
is still in a register.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# As torch's compiler emits it. Torch promises nothing of it: where it is missing, torch's own products do.
_FUSED = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None, *, slope: float = 1.0) -> Tensor:
    """features [n, in] times weight [out, in] transposed, plus bias [out], then LeakyReLU of a slope: [n, out].

    With the two exchanged, `linear(weight, features)` is [out, n]: the points last.
    """
    if _FUSED is not None and features.dtype == torch.float32 and features.device.type == "cpu":
        bend = ("leaky_relu", [slope]) if slope != 1 else ("none", [])
        found: Tensor = _FUSED(features, weight, bias, *bend, "")
        return found
    found = nn.functional.linear(features, weight, bias)
    return nn.functional.leaky_relu_(found, slope) if slope != 1 else found
