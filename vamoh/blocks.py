"""How much is evaluated at once: what a core's cache holds, of as many functions at as many points as that allows.

A batch's hidden layers are far larger than a cache, and are read and written many times: cut into blocks, a training
step on a CPU is several times faster. Nothing else changes. A GPU takes far more at once.
"""

from __future__ import annotations

import torch

NUMBERS = {"cpu": 2**20}
ELSEWHERE = 2**27


def blocks(num_functions: int, num_points: int, width: int, device: torch.device) -> tuple[int, int]:
    """Functions and points of a block in which every point of a function has `width` numbers.

    >>> blocks(64, 4140, 3 * 64, torch.device("cpu"))
    (1, 4140)
    >>> blocks(1, 32768, 3 * 64, torch.device("cpu"))
    (1, 5461)
    """
    allowed = max(1, NUMBERS.get(device.type, ELSEWHERE) // width)
    points = min(num_points, allowed)
    return min(num_functions, max(1, allowed // points)), points
