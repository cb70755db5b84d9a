"""Where half precision ends: coordinates, the flow and the bound are computed in float32 or wider under any autocast.

bfloat16 has eight bits: a quarter of a degree is lost in a coordinate, and whole nats in a sum over many points.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """A block in which autocast is off on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)
