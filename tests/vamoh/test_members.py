"""Members are what the model says, however they are worked out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vamoh import FunctionBatch, ModelSpec, VAMoH
from vamoh.members import Members
from vamoh.normal_mixture import NormalMixtures

SPEC = Callable[..., ModelSpec]
PLACES = Callable[[int], Tensor]
BUILD = Callable[..., FunctionBatch]
WAKE = Callable[[VAMoH], VAMoH]


@pytest.mark.parametrize(
    "changes",
    [
        {"components": 2},
        {"components": 1},
        {"components": 3},
        {"components": 2, "compat": True},
        {"components": 2, "generator": (6,), "gating": (5,)},
        {"components": 3, "generator": (6, 5, 4), "gating": (5, 6, 7)},
    ],
)
def test_members_are_the_mixtures_that_the_model_gives(
    downscaling: SPEC, awake: WAKE, places: PLACES, functions: BUILD, changes: dict[str, object]
) -> None:
    model = awake(VAMoH(downscaling(channels=1, **changes), support=places(300)).double()).eval()
    asked = functions(1, context=True, num_points=11)
    latent = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        placed = model.place(asked)
        assert placed.added is not None
        members = Members(model.generators, model.hypernetworks(latent), model.gating, latent)
        for row in range(2):
            shape = (model.spec.components, 2, 5, 7)  # of two times, of which one is filled
            whole = NormalMixtures(*(torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(3)))
            found = NormalMixtures(*(each[:, row] for each in whole))
            part = slice(3, 10)
            members.fill(found, placed.features.seen(row, part), placed.added[row, :, part])
            expected = model.mixture(latent, placed.rows(row, row + 1).at(part))
            torch.testing.assert_close(found.weights, expected.weights[..., 0].transpose(0, 1))
            torch.testing.assert_close(found.mean, expected.components.mean[..., 0].transpose(0, 1))
            torch.testing.assert_close(found.scale, expected.components.stddev[..., 0].transpose(0, 1))
            score = torch.linspace(-3, 3, 35, dtype=torch.float64).view(5, 7)
            torch.testing.assert_close(found.at_score(score), expected.at_score(score[..., None])[..., 0])
            assert all(bool(each[:, 1 - row].isnan().all()) for each in whole)


def test_log_scales_are_kept_within_what_the_family_allows(downscaling: SPEC, places: PLACES, functions: BUILD) -> None:
    model = VAMoH(downscaling(channels=1, components=2), support=places(300)).double().eval()
    assert model.local is not None
    with torch.no_grad():
        model.local.everywhere[4:8] = torch.tensor([0.0, 90.0, 0.0, -90.0])  # after R=4 kernels: mean and log scale
        placed = model.place(functions(1, context=True))
        latent = torch.zeros(1, 4, dtype=torch.float64)
        found = NormalMixtures(*(torch.empty(2, 1, 7, dtype=torch.float64) for _ in range(3)))
        assert placed.added is not None
        Members(model.generators, model.hypernetworks(latent), model.gating, latent).fill(
            found, placed.features.seen(0), placed.added[0]
        )
        expected = torch.tensor([12.0, -12.0], dtype=torch.float64).exp()[:, None, None].expand(2, 1, 7)
        torch.testing.assert_close(found.scale, expected)
