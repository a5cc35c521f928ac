"""``phi = (1 - mu) f + mu F`` as the lower objective: strongly convex in y wherever F is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.blended import Blended


class Aggregated(Blended):
    """The problem of an oracle with phi in the place of f; ``mu`` may change during a run."""

    def __init__(self, oracle: Oracle, mu: float) -> None:
        super().__init__(oracle, 1.0 - mu, mu)
        self.f_sign = 1.0  # both levels are minimised in phi

    def carried(self) -> dict[str, Any]:
        """The weight."""
        return {"mu": self.mu}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same weight."""
        self.mu = float(known["mu"])

    @property
    def mu(self) -> float:
        """The weight of F."""
        return self.b

    @mu.setter
    def mu(self, mu: float) -> None:
        self.a, self.b = 1.0 - mu, mu
