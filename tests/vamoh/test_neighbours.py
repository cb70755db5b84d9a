"""Laws of the neighbours, against brute force, and of their memory."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from vamoh import remembered
from vamoh.neighbours import canonical_order, farthest_points, nearest

# quarters, so that ties and duplicates are common
COORDINATES = st.integers(-8, 8).map(lambda each: each / 4)


def sets(max_points: int = 20) -> st.SearchStrategy[Tensor]:
    """Point sets [n, D] with ties and duplicates."""
    shapes = st.tuples(st.integers(1, max_points), st.just(3))
    return arrays(np.float64, shapes, elements=COORDINATES).map(torch.from_numpy)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    remembered._made.clear()
    yield
    remembered._made.clear()


@settings(max_examples=60, deadline=None)
@given(queries=sets(), points=sets(), count=st.integers(1, 25))
def test_nearest_is_brute_forces(queries: Tensor, points: Tensor, count: int) -> None:
    plan = nearest(queries, points, count)
    every = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
    expected = every.sort(dim=-1).values[:, :count]
    torch.testing.assert_close(plan.distance, expected)
    torch.testing.assert_close(every.gather(1, plan.index), expected)
    torch.testing.assert_close(plan.offset, points[plan.index] - queries[:, None])
    assert all(len(row.unique()) == len(row) for row in plan.index)


@pytest.mark.parametrize(("count", "spread"), [(9, 0.02), (25, 0.02), (25, 0.3), (36, 1.0)])
def test_many_queries_close_together_are_asked_for_as_one_and_get_the_same(count: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(700, 3, generator=generator), dim=-1)
    points[:40] = points[40:80]  # the same place twice
    dense = points[100] + spread * (torch.rand(1500, 3, generator=generator) - 0.5)
    queries = torch.cat([dense, 3 * torch.randn(60, 3, generator=generator), points[:5]])
    plan = nearest(queries, points, count)
    every = torch.cdist(queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected = every.sort(dim=-1).values[:, :count]
    torch.testing.assert_close(every.gather(1, plan.index), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(plan.distance.double(), expected, rtol=1e-5, atol=1e-6)
    assert all(len(row.unique()) == count for row in plan.index)


def test_queries_far_apart_and_sets_without_room_between_points_are_asked_one_by_one() -> None:
    line = torch.zeros(600, 3, dtype=torch.float64)
    line[:, 0] = torch.linspace(-1, 1, 600)
    generator = torch.Generator().manual_seed(1)
    clustered = 1e-12 * torch.randn(80, 3, dtype=torch.float64, generator=generator)
    line[:300] *= 1e-11  # near a set that is as small, so that cells would be
    for points in (clustered, torch.zeros(80, 3, dtype=torch.float64), line):
        plan = nearest(line, points, 9)
        every = torch.cdist(line, points, compute_mode="donot_use_mm_for_euclid_dist")
        torch.testing.assert_close(plan.distance, every.sort(dim=-1).values[:, :9], rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(points=sets(), count=st.integers(1, 25))
def test_farthest_points_are_brute_forces(points: Tensor, count: int) -> None:
    chosen = farthest_points(points, count).tolist()
    assert chosen[0] == 0 and len(chosen) == min(count, len(points))
    if len(points) <= count:
        assert chosen == list(range(len(points)))
        return
    for step in range(1, count):
        apart = torch.cdist(points, points[chosen[:step]]).min(dim=-1).values
        assert apart[chosen[step]] == pytest.approx(apart.max().item(), abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(points=sets(), seed=st.integers(0, 99))
def test_in_canonical_order_a_set_has_no_order_and_ties_are_broken_alike(points: Tensor, seed: int) -> None:
    points = points.unique(dim=0)
    shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))]
    one, other = (each[canonical_order(each)] for each in (points, shuffled))
    assert torch.equal(one, other)
    assert torch.equal(farthest_points(one, 4), farthest_points(other, 4))
    assert torch.equal(nearest(one, one, 4).index, nearest(other, other, 4).index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plans_come_in_the_precision_of_the_queries(dtype: torch.dtype) -> None:
    points = torch.rand(7, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    plan = nearest(points, points, 3)
    assert plan.offset.dtype == plan.distance.dtype == dtype and plan.index.dtype == torch.int64


def test_another_set_of_the_same_shape_is_not_mistaken_for_the_first() -> None:
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(50, 3, generator=generator)
    before = nearest(first, first, 4)
    for change in (first.flip(0), first[torch.randperm(50, generator=generator)], first * 1.5, first.double()):
        plan = nearest(change, change, 4)
        expected = (
            torch.cdist(change, change, compute_mode="donot_use_mm_for_euclid_dist").topk(4, largest=False).values
        )
        torch.testing.assert_close(plan.distance, expected)
    first[7, 1] += 0.5  # changed in place
    torch.testing.assert_close(nearest(first, first, 4).offset, first[nearest(first, first, 4).index] - first[:, None])
    assert nearest(first, first, 4) is not before


def test_a_set_is_recognised_by_its_content_not_by_its_identity() -> None:
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(3))
    assert nearest(points, points, 4) is nearest(points.clone(), points.clone(), 4)
    assert nearest(points, points, 4) is not nearest(points, points, 5)
    assert farthest_points(points, 9) is farthest_points(points.clone(), 9)


def test_the_set_and_the_queries_are_not_confused() -> None:
    one, other = torch.rand(2, 30, 3, generator=torch.Generator().manual_seed(5))
    there, back = nearest(one, other, 2), nearest(other, one, 2)
    torch.testing.assert_close(there.offset, other[there.index] - one[:, None])
    torch.testing.assert_close(back.offset, one[back.index] - other[:, None])


def test_memory_is_bounded_in_plans_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(9)
    used_always = torch.rand(30, 3, generator=generator)
    kept = nearest(used_always, used_always, 4)
    for _ in range(2 * remembered.CACHE_SIZE):
        other = torch.rand(5, 3, generator=generator)
        nearest(other, other, 2)
        assert nearest(used_always, used_always, 4) is kept  # what is used stays
    assert len(remembered._made) == remembered.CACHE_SIZE
    monkeypatch.setattr(remembered, "CACHE_BYTES", 50_000)
    for _ in range(5):
        large = torch.rand(300, 3, generator=generator)
        nearest(large, large, 4)
    assert sum(plan.nbytes for plan in remembered._made.values()) <= 50_000


def test_one_point_is_its_own_neighbour() -> None:
    point = torch.tensor([[0.0, 0.6, 0.8]])
    plan = nearest(point, point, 9)
    assert plan.index.tolist() == [[0]] and plan.distance.tolist() == [[0.0]]
    assert farthest_points(point, 4).tolist() == [0]
