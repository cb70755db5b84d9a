"""FunctionBatch: the one type that crosses from the data into the model, validated once, here.

A function is a set of points: where they are, what was seen there, and what is known everywhere about them. The set is
unordered, of any size, on any grid or on none. A batch without values is a question: the places where a model is asked.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FunctionBatch:
    """B functions seen at N points.

    Coordinates, masks and covariates that are the same for every function have a leading dimension of one; they are
    broadcast, never copied.

    Attributes:
        coords: [B or 1, N, D], unit vectors on the sphere, or positions in [-1, 1]^D. N is at least 1.
        values: [B, N, C] in the model's units, or None where values are asked for. What stands at unobserved points
            is never read, NaN included.
        observed: [B or 1, N] bool; None means everywhere.
        covariates: [B or 1, N, A], known at every point (time of day, elevation); None for the classic model.
        base: [B or 1, N, C], the field that the model corrects: what is made of the context beforehand. None for the
            classic model.
        context: the coarse field as a set of its own, M points; None for the classic model.
    """

    coords: Tensor
    values: Tensor | None = None
    observed: Tensor | None = None
    covariates: Tensor | None = None
    base: Tensor | None = None
    context: FunctionBatch | None = None

    def __post_init__(self) -> None:
        if self.coords.ndim != 3:
            raise ValueError(f"coords must be [B or 1, N, D], got shape {tuple(self.coords.shape)}")
        if self.num_points == 0:
            raise ValueError("a function needs at least one point, got none: mark what is missing in `observed`")
        for name in ("values", "observed", "covariates", "base"):
            tensor = getattr(self, name)
            if tensor is None:
                continue
            rank = 2 if name == "observed" else 3
            if tensor.ndim != rank or tensor.shape[1] != self.num_points:
                raise ValueError(
                    f"{name} must have {rank} dimensions with {self.num_points} points in the second, "
                    f"got shape {tuple(tensor.shape)}"
                )
            if len({tensor.shape[0], self.batch_size, 1}) > 2:
                raise ValueError(f"{name} is for {tensor.shape[0]} functions where the batch holds {self.batch_size}")
            if tensor.device != self.coords.device:
                raise ValueError(f"{name} lies on {tensor.device}, the coordinates on {self.coords.device}")
        if self.observed is not None and self.observed.dtype != torch.bool:
            raise ValueError(f"observed must be bool, got {self.observed.dtype}")
        if (self.base is None) != (self.context is None):
            raise ValueError("a context and the base interpolated from it come together: one of them is missing")
        for name in ("coords", "covariates", "base"):
            tensor = getattr(self, name)
            if tensor is not None and not _finite(tensor):
                raise ValueError(f"{name} must be finite at every point, observed or not: leave such points out")
        if self.values is not None:
            safe = torch.where(self.mask[..., None], self.values, torch.zeros_like(self.values))
            if not _finite(safe):
                raise ValueError("values are not finite at observed points: mark missing points in `observed`")
            object.__setattr__(self, "values", safe)

    @property
    def batch_size(self) -> int:
        """B, the largest leading dimension."""
        tensors = (self.coords, self.values, self.observed, self.covariates, self.base)
        own = max(t.shape[0] for t in tensors if t is not None)
        return own if self.context is None else max(own, self.context.batch_size)

    @property
    def num_points(self) -> int:
        """N."""
        return self.coords.shape[1]

    @property
    def mask(self) -> Tensor:
        """[B or 1, N] bool: where values were seen."""
        if self.observed is not None:
            return self.observed
        return torch.ones(1, self.num_points, dtype=torch.bool, device=self.coords.device)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FunctionBatch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> FunctionBatch:
        """The same batch in memory from which a GPU copies by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> FunctionBatch:
        """Every tensor changed, those of the context too; their content stays, so nothing is validated again."""
        changed = copy.copy(self)
        for name in ("coords", "values", "observed", "covariates", "base"):
            tensor = getattr(self, name)
            object.__setattr__(changed, name, None if tensor is None else change(tensor))
        object.__setattr__(changed, "context", None if self.context is None else self.context._each(change))
        return changed

    def rows(self, first: int, last: int) -> FunctionBatch:
        """The functions from `first` up to `last`."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or len(tensor) == 1 < self.batch_size else tensor[first:last]

        coords = self.coords if len(self.coords) == 1 < self.batch_size else self.coords[first:last]
        return FunctionBatch(
            coords=coords,
            values=pick(self.values),
            observed=pick(self.observed),
            covariates=pick(self.covariates),
            base=pick(self.base),
            context=None if self.context is None else self.context.rows(first, last),
        )

    def at(self, index: Tensor | slice) -> FunctionBatch:
        """The points `index` ([n], a slice, or each function's own [B, n]); the context stays whole."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or isinstance(index, slice) or index.ndim == 1:
                return None if tensor is None else tensor[:, index]
            rows = tensor.expand(len(index), *tensor.shape[1:])
            return rows.gather(1, index if tensor.ndim == 2 else index[..., None].expand(-1, -1, tensor.shape[2]))

        coords = pick(self.coords)
        assert coords is not None
        return replace(
            self,
            coords=coords,
            values=pick(self.values),
            observed=pick(self.observed),
            covariates=pick(self.covariates),
            base=pick(self.base),
        )


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are, in one pass: a NaN among them is both the least and the greatest."""
    return tensor.numel() == 0 or all(map(math.isfinite, torch.stack(tensor.detach().aminmax()).tolist()))
