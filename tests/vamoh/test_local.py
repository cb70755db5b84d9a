"""Laws of the local read-out: blind to a shift, continuous, the same however the points are asked for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.local import CELL, LocalReadout, LocalTerms
from vamoh.neighbours import nearest

BUILD = Callable[..., FunctionBatch]
SPEC = Callable[..., ModelSpec]
PLACES = Callable[[int], Tensor]
WAKE = Callable[[VAMoH], VAMoH]


def on_sphere(latitude_deg: Tensor, longitude_deg: Tensor) -> Tensor:
    """Unit vectors [..., 3]."""
    latitude, longitude = torch.deg2rad(latitude_deg.double()), torch.deg2rad(longitude_deg.double())
    level = latitude.cos()
    return torch.stack([level * longitude.cos(), level * longitude.sin(), latitude.sin()], dim=-1)


def lattice(step_deg: float) -> Tensor:
    """A global grid without the crowd at its poles."""
    rows = []
    for latitude in torch.arange(90, -90.1, -step_deg, dtype=torch.float64):
        count = max(1, round(360 / step_deg * torch.cos(torch.deg2rad(latitude)).item()))
        longitude = torch.arange(count, dtype=torch.float64) * 360 / count
        rows.append(on_sphere(latitude.expand(count), longitude))
    return torch.cat(rows)


def smooth(coords: Tensor) -> Tensor:
    """Two smooth fields on the sphere: [N, 3] -> [2, N, 2]."""
    x, y, z = coords.unbind(-1)
    fields = [torch.stack([3 * z + x * y, torch.sin(4 * x) - y], dim=-1), torch.stack([x * x - z, 2 * y * z], dim=-1)]
    return torch.stack(fields)


@pytest.fixture
def model(downscaling: SPEC, awake: WAKE) -> VAMoH:
    """A model with random tables over the whole sphere, float64."""
    return awake(VAMoH(downscaling(), support=lattice(10)).double())


@pytest.fixture
def local(model: VAMoH) -> LocalReadout:
    """Its read-out."""
    assert model.local is not None
    return model.local


@pytest.fixture
def asked(places: PLACES, generator: torch.Generator) -> FunctionBatch:
    """Two smooth fields on a 10 degree lattice with weather on top and gaps that differ, asked for at 7 places."""
    whole = question(lattice(10), places(7), generator)
    assert whole.context is not None
    observed = torch.rand(2, whole.context.num_points, generator=generator) > torch.tensor([[0.2], [0.4]])
    return replace(whole, context=replace(whole.context, observed=observed))


def question(coarse: Tensor, coords: Tensor, generator: torch.Generator) -> FunctionBatch:
    """What is asked: coords, a base that is close to the context, and the context."""
    weather = 0.5 * torch.randn(2, len(coarse), 2, generator=generator, dtype=torch.float64)
    return FunctionBatch(
        coords=coords[None],
        covariates=torch.zeros(1, len(coords), 2, dtype=torch.float64),
        base=smooth(coords),
        context=FunctionBatch(coords=coarse[None], values=smooth(coarse) + weather),
    )


def assert_same(ours: LocalTerms, theirs: LocalTerms, *, but: str = "", atol: float = 1e-10) -> None:
    """Every term equal."""
    for name in LocalTerms._fields:
        if name != but:
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=atol, msg=name)


def test_the_readout_is_the_formula_in_its_docstring(local: LocalReadout, asked: FunctionBatch) -> None:
    terms, context = local(asked), asked.context
    assert context is not None and context.values is not None and asked.base is not None
    spec, near = local.spec, nearest(asked.coords[0], context.coords[0], local.spec.neighbours)
    place = local.grids(asked.coords[0]) + local.everywhere
    for n in range(7):
        cell, end = near.distance[n, :4].mean() / CELL, near.distance[n, -1]
        own = place[n, : 2 * spec.kernels].view(2, -1)  # a kernel for each of C=2 channels
        phi = torch.cat([own, local.shared])  # and the ones that are the same everywhere
        read = torch.zeros(2, len(phi), dtype=torch.float64)
        for j, distance in enumerate(near.distance[n]):
            seen_as = torch.cat([near.offset[n, j] / cell, torch.log(cell / spec.spacing)[None]])
            kernel = phi @ local.weight_net(seen_as) / spec.kernels**0.5
            fade = ((1 - distance / end) / 0.15).clamp(0, 1)
            decay = torch.exp(-distance / cell / (2 * spec.reach)) / (distance / cell + 0.3) * fade**2 * (3 - 2 * fade)
            for i, weight in enumerate(kernel):
                difference = context.values[:, near.index[n, j], i % 2] - asked.base[:, n, i % 2]
                read[:, i] += decay * weight * difference * context.mask[:, near.index[n, j]]
        torch.testing.assert_close(terms.readout[:, n], read[:, :2])
        torch.testing.assert_close(terms.shared[:, n], read[:, 2:])
        torch.testing.assert_close(terms.location[0, n], place[n, -spec.location_features :])


def test_adding_a_constant_to_context_and_base_changes_nothing(local: LocalReadout, asked: FunctionBatch) -> None:
    shift = torch.tensor([[[30.0, -7.0]], [[-250.0, 4.0]]], dtype=torch.float64)  # by function and channel
    assert asked.context is not None and asked.context.values is not None and asked.base is not None
    shifted = replace(
        asked, base=asked.base + shift, context=replace(asked.context, values=asked.context.values + shift)
    )
    assert_same(local(shifted), local(asked))


def test_the_whole_model_is_blind_to_a_shift(model: VAMoH, asked: FunctionBatch, generator: torch.Generator) -> None:
    shift = torch.tensor([[[30.0, -7.0]], [[-250.0, 4.0]]], dtype=torch.float64)
    assert asked.context is not None and asked.context.values is not None and asked.base is not None
    seen = replace(asked, values=asked.base + torch.randn(2, 7, 2, generator=generator, dtype=torch.float64))
    assert seen.values is not None and seen.base is not None
    shifted = replace(
        seen,
        values=seen.values + shift,
        base=seen.base + shift,
        context=replace(asked.context, values=asked.context.values + shift),
    )
    noise = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    for name in ("reconstruction", "kl_z", "kl_c", "predictive"):
        ours, theirs = (getattr(model.elbo(each, noise=noise, predictive=True), name) for each in (shifted, seen))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.sample(noise[0], shifted).mean, model.sample(noise[0], seen).mean + shift)


def test_in_pieces_and_in_one_go_are_the_same(local: LocalReadout, asked: FunctionBatch) -> None:
    whole = local(asked)
    pieces = [local(asked.at(torch.tensor(index))) for index in ([4], [0, 6, 2], [1, 3, 5])]
    back = torch.tensor([4, 0, 6, 2, 1, 3, 5]).argsort()
    for name in ("readout", "offset", "shared", "location"):
        joined = torch.cat([getattr(piece, name) for piece in pieces], dim=1)[:, back]
        torch.testing.assert_close(joined, getattr(whole, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scored", [False, True])
def test_many_functions_at_once_are_each_of_them_alone_and_so_are_gradients(
    scored: bool, local: LocalReadout, asked: FunctionBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vamoh.local.IN_CACHE", 2**12)  # a few places at a time
    assert asked.context is not None and asked.context.values is not None and asked.base is not None
    scale = torch.linspace(0.5, 2.0, 40, dtype=torch.float64)[:, None, None]  # of 40 functions: kernels are made first
    many = replace(
        asked,
        values=scale * asked.base[:1] if scored else None,
        base=scale * asked.base[:1],
        context=replace(asked.context, values=scale * asked.context.values[:1], observed=asked.context.mask[:1]),
    )
    together, alone = local(many), [local(many.rows(row, row + 1)) for row in range(40)]
    for name in ("readout", "shared"):
        torch.testing.assert_close(getattr(together, name), torch.cat([getattr(each, name) for each in alone]))
    torch.testing.assert_close(together.penalty, alone[0].penalty)
    assert (together.penalty > 0) == scored
    weights = list(local.parameters())
    sums = [sum((t.readout**2).sum() + t.shared.sin().sum() for t in terms) for terms in ([together], alone)]
    sums = [total + together.penalty if scored else total for total in sums]
    for one, other in zip(*(torch.autograd.grad(each, weights, retain_graph=True) for each in sums), strict=True):
        torch.testing.assert_close(one, other)


def test_a_grid_and_the_same_points_as_a_list_agree(local: LocalReadout, generator: torch.Generator) -> None:
    latitude, longitude = torch.linspace(60, 50, 5), torch.linspace(-12, 7, 6)
    rows = torch.cartesian_prod(latitude, longitude)
    order = torch.randperm(len(rows), generator=generator)
    grid = question(lattice(10), on_sphere(*rows.T), torch.Generator().manual_seed(1))
    listed = question(lattice(10), on_sphere(*rows[order].T), torch.Generator().manual_seed(1))
    there, here = local(listed), local(grid)
    for name in ("readout", "offset", "shared", "location"):
        torch.testing.assert_close(getattr(there, name), getattr(here, name)[:, order], rtol=1e-10, atol=1e-12)


def test_the_order_of_the_context_does_not_matter(
    local: LocalReadout, asked: FunctionBatch, generator: torch.Generator
) -> None:
    assert asked.context is not None
    order = torch.randperm(asked.context.num_points, generator=generator)
    assert_same(local(replace(asked, context=asked.context.at(order))), local(asked))


def test_where_longitude_begins_does_not_matter(local: LocalReadout) -> None:
    latitude = torch.linspace(-85, 85, 35, dtype=torch.float64)
    longitude = torch.linspace(-180, 179, 35, dtype=torch.float64)
    coarse_longitude = torch.arange(0, 360, 10, dtype=torch.float64)
    rows = torch.cartesian_prod(torch.arange(-80, 81, 10, dtype=torch.float64), coarse_longitude)
    asked = question(on_sphere(*rows.T), on_sphere(latitude, longitude), torch.Generator().manual_seed(1))
    turned = question(
        on_sphere(rows[:, 0], rows[:, 1] - 360), on_sphere(latitude, longitude + 720), torch.Generator().manual_seed(1)
    )
    assert_same(local(asked), local(turned), atol=1e-8)


def test_a_turn_of_the_globe_leaves_neighbours_and_decay_as_they_were(
    local: LocalReadout, asked: FunctionBatch, generator: torch.Generator
) -> None:
    assert asked.context is not None
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    near = nearest(asked.coords[0], asked.context.coords[0], 9)
    turned = nearest(asked.coords[0] @ turn, asked.context.coords[0] @ turn, 9)
    assert torch.equal(near.index, turned.index)
    torch.testing.assert_close(local._told(near)[1], local._told(turned)[1])


@pytest.mark.parametrize(
    ("towards", "start"),
    [((0.0, 0.0, 1.0), 1.2), ((0.0, 1.0, 0.0), 2.8), ((0.0, 0.9, 0.45), 0.3)],
    ids=["over the north pole", "along the equator over the seam", "askew"],
)
def test_a_fine_transect_has_no_jumps_where_neighbours_change(
    towards: tuple[float, float, float], start: float, local: LocalReadout
) -> None:
    along, across = torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor(towards).double()
    jumps = []
    for steps in (3_000, 12_000):
        angle = torch.linspace(start, start + 0.7, steps, dtype=torch.float64)
        coords = torch.nn.functional.normalize(angle.cos()[:, None] * along + angle.sin()[:, None] * across, dim=-1)
        terms = local(question(lattice(6), coords, torch.Generator().manual_seed(1)))
        index = nearest(coords, lattice(6), local.spec.neighbours).index.sort(dim=-1).values
        assert (index.diff(dim=0) != 0).any(dim=-1).sum() > 10  # neighbours do change on the way
        values = torch.cat(
            [terms.readout, terms.shared, terms.location.expand(2, -1, -1), terms.offset.flatten(2).expand(2, -1, -1)],
            dim=-1,
        )
        jumps.append(values.diff(dim=1).abs().amax())
    # a continuous function moves a quarter as far in a quarter of the step; a jump stays as large
    assert jumps[1] < 0.35 * jumps[0]


def test_masked_context_points_do_not_matter(
    local: LocalReadout, asked: FunctionBatch, generator: torch.Generator
) -> None:
    context = asked.context
    assert context is not None and context.values is not None
    seen = torch.rand(2, context.num_points, generator=generator) > 0.4
    clean = local(replace(asked, context=replace(context, observed=seen)))
    for rubbish in (1e30, torch.nan, torch.inf):
        dirty = torch.where(seen[..., None], context.values, rubbish)
        assert_same(local(replace(asked, context=replace(context, values=dirty, observed=seen))), clean)
    everything = replace(context, values=context.values, observed=None)
    assert not torch.equal(clean.readout, local(replace(asked, context=everything)).readout)


def test_nan_in_a_masked_context_value_leaks_into_no_gradient(model: VAMoH, asked: FunctionBatch) -> None:
    context = asked.context
    assert context is not None and context.values is not None
    values, seen = context.values.clone(), torch.ones(2, context.num_points, dtype=torch.bool)
    seen[0, ::3], values[0, ::3] = False, torch.nan
    seen[1] = False  # the whole field of one function missing
    values[1] = torch.nan
    batch = replace(asked, values=asked.base, context=replace(context, values=values, observed=seen))
    model.elbo(batch, predictive=True).elbo.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_context_points_one_of_them_where_it_is_asked_give_numbers(
    count: int, local: LocalReadout, places: PLACES, generator: torch.Generator
) -> None:
    coarse = places(count)
    asked = question(coarse, torch.cat([coarse, places(3)]), generator)
    for terms in (local(asked), local(question(coarse.float().double(), coarse.float().double(), generator))):
        assert all(torch.isfinite(each).all() for each in terms)


def test_the_penalty_is_that_of_the_kernels_and_of_each_places_own_scales(
    local: LocalReadout, asked: FunctionBatch
) -> None:
    assert asked.context is not None
    near = nearest(asked.coords[0], asked.context.coords[0], local.spec.neighbours)
    learned = local.grids(asked.coords[0])
    own = (learned + local.everywhere)[:, : 2 * local.spec.kernels].view(7, 2, -1)
    kernels = torch.zeros((), dtype=torch.float64)
    for n, basis in enumerate(local._basis(local._told(near)[0])):
        kernels = kernels + ((basis @ own[n].T) ** 2).sum() / 7
    first = 2 * local.spec.kernels
    offsets = learned[:, first : first + local.components * local.outputs].view(7, local.components, local.outputs)
    scales = (offsets[..., 2:] ** 2).sum() / 7
    assert kernels > 0 and scales > 0
    expected = local.spec.penalty * kernels + local.spec.scale_penalty * scales
    scored = replace(asked, values=asked.base)
    torch.testing.assert_close(local(scored).penalty, expected)
    assert local(asked).penalty == 0  # where nothing is scored


def test_at_the_start_the_field_is_the_interpolated_context(downscaling: SPEC, asked: FunctionBatch) -> None:
    model = VAMoH(downscaling(), support=lattice(10)).double()
    assert model.local is not None
    terms = model.local(asked)
    assert (terms.readout == 0).all()
    torch.testing.assert_close(model.sample(torch.zeros(2, 4).double(), asked).mean, asked.base, rtol=0, atol=0.3)


def test_a_context_is_refused_where_every_function_has_its_own_points(
    local: LocalReadout, asked: FunctionBatch
) -> None:
    with pytest.raises(ValueError, match="one set of points for the whole batch"):
        local(replace(asked, coords=asked.coords.expand(2, -1, -1)))


def test_a_context_is_refused_for_a_likelihood_without_a_mean_to_add_it_to(downscaling: SPEC) -> None:
    with pytest.raises(ValueError, match="normal likelihood"):
        downscaling("continuous_bernoulli")
