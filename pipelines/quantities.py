"""What a validation gives: by which of it the best checkpoint may be chosen, and of which system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Quantity = Literal["validation_crps", "validation_rmse", "validation_log_score", "validation_elbo", "validation_energy"]
# The least of what is multiplied by it is the best.
SIGNS: dict[Quantity, float] = {
    "validation_crps": 1.0,
    "validation_rmse": 1.0,
    "validation_log_score": -1.0,
    "validation_elbo": -1.0,
    "validation_energy": 1.0,
}
# Of a system of whole functions.
QUANTITIES: Mapping[str, tuple[Quantity, ...]] = {
    "vamoh": tuple(SIGNS),
    "functa": ("validation_crps", "validation_rmse", "validation_log_score", "validation_energy"),
    "gasp": ("validation_energy",),
}


def check_quantity(select: Quantity, system: str, *, downscales: bool) -> None:
    """Refuse to choose by what a system does not have.

    Raises:
        ValueError: Then.
    """
    if downscales and select == "validation_elbo":
        raise ValueError(
            "training.select: validation_elbo is of the classic model; a downscaling model's validation_log_score "
            "is of what it says before it sees the truth"
        )
    if downscales and select == "validation_energy":
        raise ValueError("training.select: validation_energy is of samples of whole functions, not of downscaling")
    if select not in QUANTITIES[system]:
        raise ValueError(f"training.select: {system} has no {select}, expected one of {', '.join(QUANTITIES[system])}")
