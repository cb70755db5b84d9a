"""How much wider members are than a model says: by how far a state lies from those that it learned from.

    variance (b + a h(x, t)) v (u / v)^k (s^2 / u)^q

h is the mean square of what was observed around the place, in units of its covariance: one where the state is like
those of training. A regression on fields with a covariance that is known from few of them has an error that is
Student's t, whose variance grows linearly with h.

s^2 is the variance that the model says, u(x) its mean over training times, v a typical one. Learned from few fields,
the loudest places are held for too loud: k < 1. What the model says of a place beyond what is usual there it has mostly
learned by heart, day by day, and on another day it is worth little: q is far below one. Where the context does not
always lie in the same places nothing is usual, and q = k. a, b and k are fitted on held-out times.

Source: Ding, "On the conditional distribution of the multivariate t distribution", The American Statistician 70 (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """The law.

    Attributes:
        constant, growth: b and a.
        exponent, typical: k and v, in the model's units.
        trust: q.
        usual: [P], u at the points of the training lattice; None where nothing is.
    """

    constant: float = 1.0
    growth: float = 0.0
    exponent: float = 1.0
    typical: float = 1.0
    trust: float = 1.0
    usual: Tensor | None = None

    def factor(self, leverage: Tensor, variance: Tensor, usual: Tensor | None) -> Tensor:
        """What deviations from the mean are multiplied by, of the shape of `variance`.

        Args:
            leverage: h, of a shape that can be expanded to that of the variance.
            variance: s^2.
            usual: u, likewise; None where nothing is.
        """
        base, exponent = (self.constant + self.growth * leverage).sqrt(), self.exponent
        if usual is not None:
            base, exponent = base * (usual / self.typical) ** ((self.exponent - self.trust) / 2), self.trust
        if exponent == 1:
            return base
        return base * ((exponent - 1) / 2 * (variance / self.typical).log2()).exp2()  # cheaper than a power
