"""Laws of the Fourier features and of the feature grids."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from vamoh.encodings import (
    FeatureGrids,
    FourierFeatures,
    box_cells,
    cubed_sphere_cells,
    even_places,
    places_within,
    vertices_near,
)

PLACES = Callable[[int], Tensor]


def on_sphere(latitude_deg: Tensor, longitude_deg: Tensor) -> Tensor:
    """Unit vectors [..., 3], float64."""
    latitude, longitude = torch.deg2rad(latitude_deg.double()), torch.deg2rad(longitude_deg.double())
    level = latitude.cos()
    return torch.stack([level * longitude.cos(), level * longitude.sin(), latitude.sin()], dim=-1)


def learned(domain: str, resolutions: tuple[int, ...], support: Tensor, generator: torch.Generator) -> FeatureGrids:
    """Grids of three random features around `support`, float64."""
    grids = FeatureGrids.around(domain, resolutions, 3, support).double()
    with torch.no_grad():
        for table in grids.tables:
            table.copy_(torch.randn(table.shape, generator=generator, dtype=torch.float64))
    return grids


def whole_sphere(resolution: int) -> Tensor:
    """A point in every cell of the cubed sphere of this resolution."""
    middle = math.pi / 4 * (2 * (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution - 1)
    a, b = torch.cartesian_prod(middle.tan(), middle.tan()).T
    one = torch.ones_like(a)
    faces = [torch.stack([sign * one, a, b], dim=-1).roll(turn, -1) for sign in (-1, 1) for turn in range(3)]
    return torch.cat(faces)


def test_fourier_features_are_cosines_and_sines_of_random_projections(
    places: PLACES, generator: torch.Generator
) -> None:
    fourier = FourierFeatures(3, 5, 2.0, generator=generator).double()
    coords = places(7)
    for point, features in zip(coords, fourier(coords), strict=True):
        phases = [
            2 * math.pi * sum(f * x for f, x in zip(row, point.tolist(), strict=True))
            for row in fourier.frequencies.tolist()
        ]
        expected = [math.cos(p) for p in phases] + [math.sin(p) for p in phases]
        torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64))
    assert fourier.num_features == 10


def test_random_frequencies_have_the_spread_that_was_asked_for(generator: torch.Generator) -> None:
    fourier = FourierFeatures(3, 20_000, 2.0, generator=generator)
    assert fourier.frequencies.std().item() == pytest.approx(2, rel=0.02)


def test_autocast_does_not_coarsen_coordinates(places: PLACES, generator: torch.Generator) -> None:
    fourier = FourierFeatures(3, 128, 2.0, generator=generator)
    coords = places(50).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = fourier(coords)
    torch.testing.assert_close(features, fourier(coords), rtol=0, atol=0)


@pytest.mark.parametrize("resolution", [1, 2, 5, 64])
def test_cubed_sphere_weights_are_a_partition_of_unity(resolution: int, places: PLACES) -> None:
    vertices, weights = cubed_sphere_cells(places(500), resolution)
    assert (weights >= 0).all() and vertices.shape == (500, 4)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(500, dtype=torch.float64))


@pytest.mark.parametrize("resolution", [1, 2, 5])
def test_the_cubes_faces_share_their_edge_vertices(resolution: int) -> None:
    names = vertices_near("sphere", resolution, whole_sphere(resolution))
    assert len(names) == 6 * resolution**2 + 2  # Euler: vertices of a quadrangulated sphere


def test_grids_of_ones_are_one_everywhere_on_the_globe(places: PLACES, generator: torch.Generator) -> None:
    grids = learned("sphere", (1, 2, 6), whole_sphere(6), generator)
    with torch.no_grad():
        for table in grids.tables:
            table.fill_(1.0)
    torch.testing.assert_close(grids(places(300)), torch.full((300, 3), 3.0, dtype=torch.float64))


def test_grids_are_continuous_along_great_circles_across_edges_seam_and_poles(generator: torch.Generator) -> None:
    grids = learned("sphere", (1, 3, 8), whole_sphere(8), generator)
    steepest = 3 * 8 * 4 * max(table.abs().max().item() for table in grids.tables)  # cells a radian, levels, corners
    angle = torch.linspace(0, 2 * math.pi, 40_001, dtype=torch.float64)
    step = angle[1] - angle[0]
    circles = [[[1.0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 1]], [[0.6, 0.8, 0], [0, 0, 1]], [[1, 1, 1], [1, -1, 0]]]
    for axes in circles:
        first, second = torch.nn.functional.normalize(torch.tensor(axes, dtype=torch.float64), dim=-1)
        values = grids(angle.cos()[:, None] * first + angle.sin()[:, None] * second)
        assert values.diff(dim=0).abs().max() < steepest * step
        torch.testing.assert_close(values[0], values[-1], rtol=0, atol=1e-9)


def test_grids_have_no_seam_and_one_value_at_a_pole(generator: torch.Generator) -> None:
    grids = learned("sphere", (1, 3, 8), whole_sphere(8), generator)
    latitude = torch.linspace(-89.9, 89.9, 199)
    for origin in (-180.0, 0.0, 45.0, 315.0):
        east, west = (on_sphere(latitude, torch.full((199,), origin + each)) for each in (1e-9, -1e-9))
        torch.testing.assert_close(grids(east), grids(west), rtol=0, atol=1e-6)
    longitude = torch.linspace(0, 359, 360)
    for pole in (-90.0, 90.0):
        around = grids(on_sphere(torch.full((360,), pole * (1 - 1e-12)), longitude))
        torch.testing.assert_close(around, around[:1].expand_as(around), rtol=0, atol=1e-9)


def test_the_longitudes_convention_does_not_matter(generator: torch.Generator) -> None:
    grids = learned("sphere", (2, 7), whole_sphere(7), generator)
    latitude, longitude = (torch.linspace(-end, end, 73, dtype=torch.float64) for end in (80, 179))
    torch.testing.assert_close(grids(on_sphere(latitude, longitude)), grids(on_sphere(latitude, longitude + 360)))


def test_grids_are_exact_at_their_vertices(generator: torch.Generator) -> None:
    resolution = 4
    grids = learned("sphere", (resolution,), whole_sphere(resolution), generator)
    for row, name in enumerate(grids.get_buffer("vertices_0").tolist()):
        place = [name // 25, name // 5 % 5, name % 5]  # lattice coordinates on the cube, 0..4
        angles = [math.pi / 4 * (2 * each / resolution - 1) for each in place]
        vector = torch.tensor([[math.tan(angle) for angle in angles]], dtype=torch.float64)
        torch.testing.assert_close(grids(vector)[0], grids.tables[0][row], rtol=0, atol=1e-9)


@pytest.mark.parametrize("domain", ["sphere", "cube"])
def test_features_are_zero_where_nothing_was_learned(domain: str, generator: torch.Generator) -> None:
    support = torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.15, 0.2]], dtype=torch.float64)
    grids = learned(domain, (8, 16), support, generator)
    assert (grids(support) != 0).all()
    assert torch.equal(grids(-support), torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(("domain", "num_axes"), [("plane", 2), ("cube", 3)])
def test_the_box_lattice_is_scipys_interpolation(domain: str, num_axes: int, generator: torch.Generator) -> None:
    resolution = 5
    corners = torch.cartesian_prod(*[torch.linspace(-0.99, 0.99, 40, dtype=torch.float64)] * num_axes)
    grids = learned(domain, (resolution,), corners, generator)
    # a vertex is named by its place, the first axis fastest
    assert torch.equal(grids.get_buffer("vertices_0"), torch.arange((resolution + 1) ** num_axes))
    table = grids.tables[0].detach().numpy().reshape(*[resolution + 1] * num_axes, 3)
    table = table.transpose(*reversed(range(num_axes)), num_axes)
    coords = 2 * torch.rand(200, num_axes, generator=generator, dtype=torch.float64) - 1
    coords[:2] = torch.tensor([-1.0, 1.0])[:, None]
    expected = RegularGridInterpolator([np.linspace(-1, 1, resolution + 1)] * num_axes, table)(coords.numpy())
    torch.testing.assert_close(grids(coords), torch.from_numpy(expected))


def test_outside_the_box_its_edge_goes_on() -> None:
    outside = torch.tensor([[1.7, 0.3], [-4.0, 9.0]])
    for ours, theirs in zip(box_cells(outside, 4), box_cells(outside.clamp(-1, 1), 4), strict=True):
        assert torch.equal(ours, theirs)


def test_levels_add_up(places: PLACES, generator: torch.Generator) -> None:
    coords = places(7)
    both = learned("sphere", (1, 4), whole_sphere(4), generator)
    total = torch.zeros(7, 3, dtype=torch.float64)
    for level, resolution in enumerate((1, 4)):
        vertices, weights = cubed_sphere_cells(coords, resolution)
        rows = torch.searchsorted(getattr(both, f"vertices_{level}"), vertices)
        total += (both.tables[level][rows] * weights[..., None]).sum(dim=1)
    torch.testing.assert_close(both(coords.view(1, 7, 3))[0], total)


def test_a_grids_derivative_is_that_of_its_interpolation(places: PLACES, generator: torch.Generator) -> None:
    grids = learned("sphere", (2, 5), whole_sphere(5), generator)
    coords = places(7).requires_grad_()
    assert torch.autograd.gradcheck(grids, (coords,), eps=1e-7, atol=1e-4)


def test_given_vertices_a_saved_grid_is_restored(places: PLACES, generator: torch.Generator) -> None:
    grids = learned("sphere", (1, 4), places(20), generator)
    empty = FeatureGrids("sphere", (1, 4), 3, [len(table) for table in grids.tables]).double()
    empty.load_state_dict(grids.state_dict())
    coords = places(50)
    assert torch.equal(empty(coords), grids(coords))


@pytest.mark.parametrize(("domain", "num_axes"), [("sphere", 3), ("cube", 3), ("plane", 2)])
def test_even_places_cover_their_domain_without_crowding(domain: str, num_axes: int) -> None:
    places = even_places(domain, 200).double()
    assert places.shape == (200, num_axes) and places.abs().max() <= 1
    assert places.mean(dim=0).abs().max() < 0.03  # of random ones each has a standard deviation of 0.041
    apart = torch.cdist(places, places) + 9 * torch.eye(200, dtype=torch.float64)
    share = {"sphere": (4 * math.pi / 200) ** 0.5, "cube": (8 / 200) ** (1 / 3), "plane": (4 / 200) ** 0.5}[domain]
    assert apart.min() > 0.5 * share  # of random ones the closest pair is some ten times closer
    if domain == "sphere":
        torch.testing.assert_close(places.norm(dim=-1), torch.ones(200, dtype=torch.float64))
    if domain != "sphere":
        assert torch.equal(even_places(domain, 1), torch.zeros(1, num_axes))


def test_features_are_remembered_for_a_set_of_places_and_its_frequencies(generator: torch.Generator) -> None:
    coords = torch.rand(50, 3, generator=generator)
    one, other = (FourierFeatures(3, 8, 2.0, generator=generator) for _ in range(2))
    assert one(coords) is one(coords.clone()) and not torch.equal(one(coords), other(coords))
    with torch.no_grad():
        one.frequencies.add_(1.0)
    phase = 2 * torch.pi * coords @ one.frequencies.T
    torch.testing.assert_close(one(coords), torch.cat([phase.cos(), phase.sin()], dim=-1))
    with torch.inference_mode():
        remembered = one(coords[:7])
    weight = torch.ones(16, requires_grad=True)
    (one(coords[:7]) @ weight).sum().backward()  # what was made in inference can be used where gradients are
    torch.testing.assert_close(weight.grad, remembered.sum(dim=0))


def test_places_within_a_region_are_spread_evenly_over_its_area() -> None:
    at = places_within((-10.0, 50.0, 2.0, 58.0), 400).double()
    torch.testing.assert_close(at.norm(dim=1), torch.ones(400, dtype=torch.float64), atol=1e-6, rtol=0)
    longitude, latitude = torch.rad2deg(torch.atan2(at[:, 1], at[:, 0])), torch.rad2deg(at[:, 2].asin())
    assert longitude.min() >= -10 and longitude.max() <= 2 and latitude.min() >= 50 and latitude.max() <= 58
    assert longitude.min() < -9.5 and longitude.max() > 1.5 and latitude.min() < 50.5 and latitude.max() > 57.5
    lower = math.degrees(math.asin((math.sin(math.radians(50)) + math.sin(math.radians(58))) / 2))  # half of the area
    assert abs(int((latitude < lower).sum()) - 200) <= 4 and abs(int((longitude < -4).sum()) - 200) <= 4
