"""The law of how much wider members are, a function of the state and of what the model says."""

from dataclasses import replace

import torch

from vamoh.leverage import Leverage

LAW = Leverage(constant=0.5, growth=2.0)
STRANGE = torch.tensor([[0.0, 1.75]])


def test_deviations_grow_as_the_root_of_a_line() -> None:
    said = torch.tensor([[0.5, 4.0]])
    torch.testing.assert_close(LAW.factor(STRANGE, said, None), torch.tensor([[0.5**0.5, 2.0]]))
    milder = replace(LAW, exponent=0.5, typical=1.0).factor(STRANGE, said, None)
    torch.testing.assert_close(milder, torch.tensor([[0.5**0.5 * 0.5**-0.25, 2.0 * 4.0**-0.25]]))


def test_what_is_said_beyond_the_usual_counts_by_an_exponent_of_its_own() -> None:
    law = replace(LAW, exponent=0.8, typical=2.0, trust=0.25)
    said, usual = torch.tensor([[0.5, 4.0]]), torch.tensor([0.1, 3.0])
    expected = (0.5 + 2 * STRANGE) * 2 * (usual / 2) ** 0.8 * (said / usual) ** 0.25
    torch.testing.assert_close(law.factor(STRANGE, said, usual) ** 2 * said, expected)
    same = replace(law, trust=0.8)  # then it does not matter what is usual
    torch.testing.assert_close(same.factor(STRANGE, said, usual), same.factor(STRANGE, said, None))


def test_with_a_covariance_that_is_known_from_few_samples_errors_grow_with_it_as_a_line() -> None:
    """Five values and what they say of a sixth, all of Student's t of eight degrees: (nu + J h) / (nu + J - 2)."""
    generator, (nu, size) = torch.Generator().manual_seed(3), (8.0, 5)
    root = torch.randn(size + 1, size + 1, generator=generator, dtype=torch.float64)
    wide = torch.distributions.Chi2(torch.tensor(nu, dtype=torch.float64))
    torch.manual_seed(4)
    drawn = (torch.randn(400_000, size + 1, generator=generator, dtype=torch.float64) @ root.T) * (
        nu / wide.sample((400_000, 1))
    ).sqrt()
    covariance = root @ root.T
    seen, whole = drawn[:, :size], covariance[:size, :size]
    gains = torch.linalg.solve(whole, covariance[:size, size])
    left = covariance[size, size] - gains @ covariance[:size, size]
    strange = torch.einsum("ti,ij,tj->t", seen, torch.linalg.inv(whole), seen) / size
    law = Leverage(constant=nu / (nu + size - 2), growth=size / (nu + size - 2))
    scaled = (drawn[:, size] - seen @ gains) ** 2 / left
    for part in strange.argsort().chunk(8):
        expected = (law.factor(strange[part], torch.ones(len(part)), None) ** 2).mean()
        torch.testing.assert_close(scaled[part].mean(), expected, rtol=0.03, atol=0)
