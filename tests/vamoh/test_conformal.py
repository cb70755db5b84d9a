"""What a conformal map promises, and that it leaves alone what is calibrated already."""

import pytest
import torch

from vamoh.conformal import ConformalMap, conformal_map, most_probable

AREA = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def fields(count: int, spread: float, seed: int) -> list[torch.Tensor]:
    """Exchangeable fields of four places whose scores depend on each other, and whose size is the field's own."""
    generator = torch.Generator().manual_seed(seed)
    size = (0.5 * torch.randn(count, 1, generator=generator, dtype=torch.float64)).exp()
    common, own = (torch.randn(count, n, generator=generator, dtype=torch.float64) for n in (1, 4))
    return list(spread * size * (0.8 * common + 0.6 * own))


def covered(law: ConformalMap, asked: list[torch.Tensor], level: float) -> float:
    """The share of the area within the central interval of that probability, the mean over fields."""
    nominal = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    return float(((torch.stack(asked).abs() <= law(nominal)).double() @ AREA).mean())


@pytest.mark.parametrize("spread", [0.5, 2.0])
@pytest.mark.parametrize("count", [9, 40])
def test_intervals_of_exchangeable_fields_cover_at_least_what_they_say(count: int, spread: float) -> None:
    found: dict[float, list[float]] = {0.5: [], 0.9: []}
    for trial in range(120):
        drawn = fields(count + 5, spread, seed=trial)
        law = conformal_map(drawn[:count], AREA)
        for level, shares in found.items():
            shares.append(covered(law, drawn[count:], level))
    for level, shares in found.items():
        mean, doubt = torch.tensor(shares).mean().item(), torch.tensor(shares).std().item() / len(shares) ** 0.5
        assert level - 3 * doubt <= mean <= level + 1.5 / (count + 1) + 3 * doubt + 0.02


def test_what_is_calibrated_already_stays_as_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    law = conformal_map(list(torch.randn(1000, 4, generator=generator, dtype=torch.float64)), AREA)
    scores = torch.linspace(-4, 4, 81, dtype=torch.float64)
    assert (law(scores) - scores).abs().max() < 0.15
    assert (law(scores) - scores).abs()[scores.abs() < 1.7].max() < 0.06


def test_it_is_odd_continuous_and_never_decreasing() -> None:
    law = conformal_map(fields(40, 1.5, seed=1), AREA)
    scores = torch.linspace(-6, 6, 24_001, dtype=torch.float64)
    given = law(scores)
    torch.testing.assert_close(given, -given.flip(0))
    steps = given.diff()
    assert (steps >= 0).all() and steps.max() < 0.01
    assert law(torch.zeros(1))[0] == 0


def test_a_spread_that_is_off_by_a_factor_is_mended_by_it() -> None:
    law = conformal_map(list(1.7 * torch.stack(fields(400, 1.0, seed=2))), AREA)
    before = conformal_map(fields(400, 1.0, seed=2), AREA)
    torch.testing.assert_close(torch.tensor(law.radii), 1.7 * torch.tensor(before.radii))


def test_levels_that_so_few_fields_cannot_be_sure_of_are_left_out() -> None:
    assert conformal_map(fields(9, 1.0, seed=3), AREA).levels[-1] == 0.9 == pytest.approx(most_probable(9))
    assert conformal_map(fields(8, 1.0, seed=3), AREA).levels[-1] == 0.8
    assert conformal_map(fields(98, 1.0, seed=3), AREA).levels[-1] == 0.9
    assert conformal_map(fields(99, 1.0, seed=3), AREA).levels[-1] == 0.95
    with pytest.raises(ValueError, match="1 held-out fields are too few"):
        conformal_map(fields(1, 1.0, seed=3), AREA, levels=(0.9,))


def test_places_without_truth_do_not_count() -> None:
    drawn = fields(30, 1.0, seed=4)
    holed = [torch.where(torch.tensor([True, False, True, True]), field, torch.nan) for field in drawn]
    blank = torch.full((4,), torch.nan, dtype=torch.float64)
    seen = [field[[0, 2, 3]] for field in drawn]
    assert conformal_map([*holed, blank], AREA) == conformal_map(seen, AREA[[0, 2, 3]])


def test_single_precision_gives_the_same_scores() -> None:
    law, scores = conformal_map(fields(40, 1.5, seed=1), AREA), torch.linspace(-4, 4, 33)
    assert law(scores).dtype == torch.float32
    torch.testing.assert_close(law(scores).double(), law(scores.double()), rtol=0, atol=1e-5)
