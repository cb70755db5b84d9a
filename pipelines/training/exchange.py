"""Gradients on their way between the workers, who do something else meanwhile.

Workers are never equally fast. A step that waits for the slowest one's gradient at once loses what all the faster ones
had left; one that draws its next batch first loses only what is longer than that.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed, nn


class Exchange:
    """Adds up, over all workers, a model's gradients and some sums; it begins at once.

    Differs: torch's DistributedDataParallel sends gradients while others are still computed, but then waits for them in
        the backward pass. These models have few parameters: there is little to send, and more to wait for.

    Args:
        model: Whose parameters have this worker's gradients; the same ones have some on every worker.
        sums: Of this worker, numbers.
    """

    def __init__(self, model: nn.Module, sums: Mapping[str, Tensor]) -> None:
        self._names = list(sums)
        self._values = torch.stack([value.double() for value in sums.values()])
        self._parameters: list[nn.Parameter] = []
        self._parts: tuple[Tensor, ...] = ()
        self._under_way = []
        if _others():
            self._parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
            gradients = [parameter.grad.flatten() for parameter in self._parameters if parameter.grad is not None]
            together = torch.cat(gradients)
            self._parts = together.split([len(gradient) for gradient in gradients])
            self._under_way = [distributed.all_reduce(each, async_op=True) for each in (self._values, together)]

    def wait(self) -> dict[str, float]:
        """The sums over all workers; the model's gradients are those over all workers then."""
        for each in self._under_way:
            each.wait()
        for parameter, part in zip(self._parameters, self._parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return dict(zip(self._names, self._values.tolist(), strict=True))


def same_everywhere(model: nn.Module) -> None:
    """Give all workers the first one's weights; seeds make them the same, but not on machines of several kinds."""
    if _others():
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def _others() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1
