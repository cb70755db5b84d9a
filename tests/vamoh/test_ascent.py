"""Quasi-Newton ascent of many functions at once: each finds its own top, and none ever falls."""

import torch
from torch import Tensor

from vamoh.ascent import Objective, ascend


def quadratics(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Curvatures [B, Z, Z] whose axes differ a thousandfold, and tops [B, Z]."""
    turned = torch.linalg.qr(torch.randn(4, 6, 6, generator=generator, dtype=torch.float64))[0]
    sizes = torch.logspace(-1, 2, 6, dtype=torch.float64)
    return turned @ torch.diag(sizes) @ turned.mT, torch.randn(4, 6, generator=generator, dtype=torch.float64)


def test_the_tops_of_stretched_quadratics_are_found(generator: torch.Generator) -> None:
    curvature, top = quadratics(generator)

    def value(place: Tensor) -> Tensor:
        return -torch.einsum("bi,bij,bj->b", place - top, curvature, place - top)

    found = ascend(value, torch.zeros_like(top), steps=40, longest=10.0)
    torch.testing.assert_close(found, top, atol=1e-4, rtol=0)


def test_no_value_ever_falls_and_no_step_is_too_long(generator: torch.Generator) -> None:
    def value(place: Tensor) -> Tensor:  # bent, with many tops, and not finite far away
        bent = (3 * place).sin().sum(dim=-1) - (place[:, 0] * place[:, 1]) ** 2 + place.sum(dim=-1)
        return torch.where(place.abs().amax(dim=-1) > 3, torch.nan, bent)

    place = torch.randn(9, 3, generator=generator)
    for _ in range(12):
        further = ascend(value, place, steps=1, longest=0.2)
        assert (value(further) >= value(place)).all()
        assert (further - place).abs().max() <= 0.2 + 1e-6
        place = further


def test_a_function_goes_its_own_way_whatever_goes_on_beside_it(generator: torch.Generator) -> None:
    curvature, top = quadratics(generator)

    def value(rows: list[int]) -> Objective:
        def of(place: Tensor) -> Tensor:
            away = place - top[rows]
            return -torch.einsum("bi,bij,bj->b", away, curvature[rows], away) - away.pow(4).sum(dim=-1)

        return of

    together = ascend(value([0, 1, 2, 3]), torch.zeros_like(top), steps=8, longest=0.5)
    for row in range(4):
        alone = ascend(value([row]), torch.zeros_like(top[:1]), steps=8, longest=0.5)
        torch.testing.assert_close(alone[0], together[row], atol=1e-8, rtol=0)
