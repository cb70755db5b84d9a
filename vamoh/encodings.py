"""Where a point is, as features: random Fourier features (the paper's), and multiresolution feature grids (learned).

Feature grids are learned tables on lattices of growing resolution, interpolated multilinearly: a place's own features.
On the sphere the lattice is the equiangular cubed sphere, whose faces share their edge vertices, so that longitude has
no seam and the poles are places like any other. Only vertices near the training points (the support) exist; elsewhere
the features are zero, which says "nothing was learned here".

Source: Tancik et al. 2020 (Fourier features); Mueller et al. 2022 (multiresolution grids); Ronchi et al. 1996 (cubed
    sphere).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vamoh.precision import full_precision
from vamoh.remembered import remember

REMEMBERED_BYTES = 2**25


class FourierFeatures(nn.Module):
    """gamma(x) = [cos(2 pi B x), sin(2 pi B x)], B fixed and Gaussian.

    Args:
        num_axes: D.
        num_frequencies: Rows of B; twice as many features come out.
        std: Standard deviation of the entries of B (2.0 in the paper).
        generator: Draws B.

    Source: paper, Section 3; 128 frequencies, std 2.0.
    """

    frequencies: Tensor

    def __init__(self, num_axes: int, num_frequencies: int, std: float, *, generator: torch.Generator) -> None:
        super().__init__()
        self.std = std
        self.register_buffer("frequencies", torch.randn(num_frequencies, num_axes, generator=generator) * std)

    @property
    def num_features(self) -> int:
        """Width of the encoding."""
        return 2 * self.frequencies.shape[0]

    def forward(self, coords: Tensor) -> Tensor:
        """[..., D] -> [..., num_features], within [-1, 1]; remembered where it is not too large."""

        def build() -> Tensor:
            with full_precision(coords):
                phase = 2 * math.pi * coords @ self.frequencies.T
            if phase.requires_grad:
                return torch.cat([phase.cos(), phase.sin()], dim=-1)
            both = torch.stack([phase, phase], dim=-2)  # [..., 2, frequencies]
            both[..., 0, :].cos_()
            both[..., 1, :].sin_()
            return both.flatten(-2)

        if coords.requires_grad or coords.nbytes // coords.shape[-1] * self.num_features > REMEMBERED_BYTES:
            return build()
        return remember(("fourier",), (coords, self.frequencies), build)

    def spread(self, squared_distance: Tensor) -> Tensor:
        """What the features of two places that far apart are expected to differ by, root mean square.

        E (gamma_i(x) - gamma_i(x'))^2 = 1 - exp(-2 pi^2 std^2 |x - x'|^2), over Gaussian frequencies.
        """
        expected = -torch.expm1(-2 * math.pi**2 * self.std**2 * squared_distance)
        return expected.clamp_min(1e-12).sqrt()


def even_places(domain: str, count: int) -> Tensor:
    """`count` places [count, D] spread evenly over a domain: a Fibonacci lattice on the sphere, an R-sequence in a box.

    Source: Swinbank and Purser 2006 (sphere); Roberts 2018, "The unreasonable effectiveness of quasirandom sequences".
    """
    number = torch.arange(count, dtype=torch.float64)
    if domain == "sphere":
        height = 1 - (2 * number + 1) / count
        turn = number * math.pi * (3 - math.sqrt(5))
        ring = (1 - height**2).sqrt()
        return torch.stack([ring * turn.cos(), ring * turn.sin(), height], dim=-1).float()
    num_axes = 3 if domain == "cube" else 2
    base = 1.0
    for _ in range(64):  # the root of base^(D + 1) = base + 1
        base = (1 + base) ** (1 / (num_axes + 1))
    steps = base ** -torch.arange(1, num_axes + 1, dtype=torch.float64)
    return ((0.5 + number[:, None] * steps) % 1 * 2 - 1).float()


def places_within(region: tuple[float, float, float, float], count: int) -> Tensor:
    """`count` places [count, 3] spread evenly over a region of the sphere: an R-sequence in longitude and height.

    Args:
        region: West, south, east, north, degrees; east of west.
        count: Places.
    """
    west, south, east, north = (math.radians(each) for each in region)
    along, up = ((even_places("plane", count).double() + 1) / 2).unbind(dim=-1)
    longitude = west + (east - west) * along
    height = math.sin(south) + (math.sin(north) - math.sin(south)) * up
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * longitude.cos(), ring * longitude.sin(), height], dim=-1).float()


def cubed_sphere_cells(coords: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The four vertices of the cubed-sphere cell around each point, with bilinear weights.

    Args:
        coords: [N, 3], unit vectors (any length will do: only the direction is read).
        resolution: Cells along an edge of the cube, R; a cell is 90/R degrees wide at a face's centre.

    Returns:
        vertices [N, 4] int64, an integer that names a vertex of the cube's surface, the same from every face that
        touches it; weights [N, 4], non-negative, summing to one, continuous everywhere.
    """
    return _face_cells(_on_faces(coords), resolution)


class _OnFaces(NamedTuple):
    """Points on the cube's faces, whatever its resolution.

    Attributes:
        axis, other: [N] and two of [N], the axis that a face is across, and the two along it.
        ahead: [N], one on the face in front and zero on the one behind.
        along: two of [N], where along these a point lies, from 0 to 2.
    """

    axis: Tensor
    other: tuple[Tensor, Tensor]
    ahead: Tensor
    along: tuple[Tensor, Tensor]


def _on_faces(coords: Tensor) -> _OnFaces:
    x, y, z = coords.abs().unbind(dim=-1)
    axis = torch.where(z > torch.maximum(x, y), 2, (y > x).long())  # argmax, which is slow over an axis of three
    other = ((axis + 1) % 3, (axis + 2) % 3)
    major = coords.gather(-1, axis[:, None])[:, 0]
    minor = (coords.gather(-1, each[:, None])[:, 0] for each in other)
    first, second = (torch.atan(each / major.abs()) * (4 / math.pi) + 1 for each in minor)
    return _OnFaces(axis, other, (major > 0).long(), (first, second))


def _face_cells(faces: _OnFaces, resolution: int) -> tuple[Tensor, Tensor]:
    """As `cubed_sphere_cells`."""
    strides = torch.tensor([(resolution + 1) ** 2, resolution + 1, 1], device=faces.axis.device)
    across, along = strides[faces.axis] * faces.ahead * resolution, [strides[each] for each in faces.other]
    low, fraction = [], []
    for each in faces.along:
        position = (each * (resolution / 2)).clamp(0, resolution)
        floor = position.floor().clamp(max=resolution - 1)
        low.append(floor.long())
        fraction.append(position - floor)
    corner = across + low[0] * along[0] + low[1] * along[1]
    vertices = (corner, corner + along[1], corner + along[0], corner + along[0] + along[1])
    before, after = (1 - fraction[0], 1 - fraction[1]), (fraction[0], fraction[1])
    weights = (before[0] * before[1], before[0] * after[1], after[0] * before[1], after[0] * after[1])
    return torch.stack(vertices, dim=-1), torch.stack(weights, dim=-1)


def box_cells(coords: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The 2^D vertices of the cell of [-1, 1]^D around each point, with multilinear weights; see cubed_sphere_cells."""
    num_axes = coords.shape[-1]
    position = ((coords + 1) * (resolution / 2)).clamp(0, resolution)
    low = position.floor().clamp(max=resolution - 1)
    fraction, low = position - low, low.long()
    steps = torch.cartesian_prod(*[torch.arange(2, device=coords.device)] * num_axes).view(-1, num_axes)
    place = low[:, None] + steps
    weights = torch.where(steps == 1, fraction[:, None], 1 - fraction[:, None]).prod(dim=-1)
    strides = (resolution + 1) ** torch.arange(num_axes, device=coords.device)
    return (place * strides).sum(dim=-1), weights


CELLS = {"sphere": cubed_sphere_cells, "cube": box_cells, "plane": box_cells}


class FeatureGrids(nn.Module):
    """Learned tables at several resolutions, summed: features(x) = sum_level interpolate(table_level, x).

    The sum (rather than the concatenation of Mueller et al.) makes the grids a multiresolution decomposition of one
    field of `num_features` values: weight decay then prefers to explain what it can at the coarse levels.

    Args:
        domain: "sphere", "cube" or "plane": which lattice.
        resolutions: Cells along an edge, a level each.
        num_features: Width of the output.
        num_vertices: Vertices of each level that exist; `vertices_near` finds them.
    """

    def __init__(self, domain: str, resolutions: Sequence[int], num_features: int, num_vertices: Sequence[int]) -> None:
        super().__init__()
        self.domain, self.resolutions, self.num_features = domain, tuple(resolutions), num_features
        self.tables = nn.ParameterList([nn.Parameter(torch.zeros(n, num_features)) for n in num_vertices])
        for level, count in enumerate(num_vertices):
            self.register_buffer(f"vertices_{level}", torch.zeros(count, dtype=torch.int64))

    @classmethod
    def around(cls, domain: str, resolutions: Sequence[int], num_features: int, support: Tensor) -> FeatureGrids:
        """Grids whose vertices are those of the cells that hold the points `support` [n, D]."""
        vertices = [vertices_near(domain, resolution, support) for resolution in resolutions]
        grids = cls(domain, resolutions, num_features, [len(v) for v in vertices])
        for level, names in enumerate(vertices):
            getattr(grids, f"vertices_{level}").copy_(names)
        return grids

    @classmethod
    def made(
        cls,
        domain: str,
        resolutions: Sequence[int],
        num_features: int,
        support: Tensor | None,
        vertices: Sequence[int] | None,
    ) -> FeatureGrids:
        """Grids of so many vertices each, whose tables are loaded next; or else around `support`.

        Raises:
            ValueError: If neither is given.
        """
        if vertices is not None:
            return cls(domain, resolutions, num_features, vertices)
        if support is None:
            raise ValueError("a model with feature grids needs `support`: points that cover the training region")
        return cls.around(domain, resolutions, num_features, support)

    def forward(self, coords: Tensor) -> Tensor:
        """[..., D] -> [..., num_features]."""
        flat = coords.reshape(-1, coords.shape[-1])
        total = flat.new_zeros(len(flat), self.num_features)
        faces = _on_faces(flat) if self.domain == "sphere" else None
        for level, (resolution, table) in enumerate(zip(self.resolutions, self.tables, strict=True)):
            names: Tensor = getattr(self, f"vertices_{level}")
            wanted, weights = box_cells(flat, resolution) if faces is None else _face_cells(faces, resolution)
            row = torch.searchsorted(names, wanted).clamp(max=len(names) - 1)
            weights = weights * (names[row] == wanted)
            total = total + nn.functional.embedding_bag(row, table, per_sample_weights=weights, mode="sum")
        return total.view(*coords.shape[:-1], self.num_features)


def vertices_near(domain: str, resolution: int, support: Tensor) -> Tensor:
    """The names, sorted, of the vertices of all cells that hold a point of `support` [n, D]."""
    return torch.unique(CELLS[domain](support, resolution)[0])
