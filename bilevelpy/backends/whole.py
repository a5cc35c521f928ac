"""Backends that take a program as a whole and bring their own certificate, and what they answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.rows import System

Named = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ProgramAnswer:
    """What a :class:`ProgramBackend` found: ``values`` of the columns of ``system`` (NaN without a
    point), shadow prices by ``level.constraint``, the final status and the certificate. ``seconds``
    passed before the certificate.
    """

    system: System
    values: np.ndarray
    duals: Mapping[str, np.ndarray]
    status: Status
    message: str
    certificate: Certificate | None
    iterations: int
    warnings: tuple[str, ...]
    seconds: float

    @property
    def has_point(self) -> bool:
        """Whether there are values."""
        return bool(np.isfinite(self.values).all())

    def variables(self) -> tuple[Named, dict[str, Named]]:
        """Upper variables by name, lower ones by level and name."""
        upper: Named = {}
        lower: dict[str, Named] = {level.name: {} for level in self.system.bound.program.lowers}
        for block in self.system.columns.blocks:
            if not block.is_dual:
                part = self.values[block.offset : block.offset + block.size].reshape(block.shape)
                (upper if block.level == "upper" else lower[block.level])[block.name] = part
        return upper, lower

    def objectives(self) -> tuple[float, dict[str, float]]:
        """F and the objective of every follower, in the senses of the model; of a family, the
        sum.
        """
        s = self.system
        totals = dict.fromkeys((level.name for level in s.bound.program.lowers), math.nan)
        if not self.has_point:
            F = -math.inf if self.status is Status.UNBOUNDED else math.nan
            return s.sign * F, totals
        totals = dict.fromkeys(totals, 0.0)
        below = s.lower_objectives.value(self.values)
        for k, follower in enumerate(s.followers):
            totals[follower.level] += follower.sign * float(below[k])
        return s.sign * float(s.objective.value(self.values)[0]), totals


@runtime_checkable
class ProgramBackend(Protocol):
    """A backend that takes a program as a whole and brings its own certificate."""

    def solve(
        self, bound: BoundProgram, options: SolveOptions, settings: Any, verify: bool
    ) -> ProgramAnswer:
        """Solve a bound program."""
        ...
