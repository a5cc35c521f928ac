"""A backend that works in other units than the model's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Backend, Cost, Reject
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.numerics.upper.optimizer import UpperState

Vec = torch.Tensor

# The backends that see nothing of a problem but the functions of the protocol.
SCALABLE = frozenset({"direct", "aid", "qnbo", "nbo", "bagdc", "f2ba", "pbgd", "meha", "slbamm"})


@dataclass(slots=True)
class RescaledState:
    """The state of the backend inside, and the problem that it sees."""

    inner: Any
    oracle: ScaledOracle

    def inherit(self, earlier: object) -> None:
        """As the state inside."""
        if isinstance(earlier, RescaledState) and hasattr(self.inner, "inherit"):
            self.inner.inherit(earlier.inner)


class Rescaled:
    """``backend``, one of :data:`SCALABLE`, on the problem in ``units``; points and norms are given
    in those of the model.
    """

    def __init__(self, backend: Backend[Any], units: Units) -> None:
        self.backend, self.units = backend, units
        self.name, self.title = backend.name, backend.title
        self.reference, self.options = backend.reference, backend.options

    def accepts(self, structure: Structure) -> Accept | Reject:
        """As the backend inside."""
        return self.backend.accepts(structure)

    def cost(self, structure: Structure) -> Cost:
        """As the backend inside."""
        return self.backend.cost(structure)

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator
    ) -> RescaledState:
        """The state at the start, in scaled variables."""
        seen = ScaledOracle(oracle, self.units)
        u = self.units
        return RescaledState(self.backend.init(seen, x / u.x, y / u.y, options, rng), seen)

    def step(self, oracle: Oracle, state: RescaledState, options: Any) -> RescaledState:
        """One step of the backend inside."""
        state.inner = self.backend.step(state.oracle, state.inner, options)
        return state

    def measure(self, oracle: Oracle, state: RescaledState) -> Measure:
        """Its measure in the units of the model."""
        m = self.backend.measure(state.oracle, state.inner)
        size = m.hypergradient_norm
        inner = state.inner
        if isinstance(inner, UpperState) and inner.point.gradient is not None:
            pg = inner.projected_gradient
            if pg.numel() == self.units.x.numel():  # else it is that of x and y together
                size = norm(pg / self.units.x)
        return replace(self._placed(m), hypergradient_norm=size)

    def _placed(self, m: Measure) -> Measure:
        """The same with its points in the units of the model."""
        rival = None if m.rival is None else self._placed(m.rival)
        return replace(m, x=self.units.x * m.x, y=self.units.y * m.y, rival=rival)
