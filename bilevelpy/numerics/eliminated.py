"""Quadratic upper levels on quadratic lower ones: y is eliminated, and one Newton step solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

if TYPE_CHECKING:
    from bilevelpy.lowering.joint_quadratic import JointQuadratic
    from bilevelpy.numerics.quadratic_lower import QuadraticLower

Array = np.ndarray[Any, np.dtype[np.float64]]
# Variables of either level up to which dy/dx, a column for each upper one, costs less than steps.
LARGEST = 600


def eliminated(oracle: Any, lower: QuadraticLower) -> Eliminated | None:
    """Newton's step for Phi where it is a quadratic: without bounds below, which make it one in
    pieces only, with local minima that longer steps pass over.
    """
    if max(oracle.n, oracle.m) > LARGEST or not oracle.domain_y.is_free:
        return None
    known: JointQuadratic | None = getattr(oracle, "joint_quadratic", None)
    return None if known is None else Eliminated(known, lower)


@dataclass(slots=True)
class Eliminated:
    """``Phi''^-1 g``, with ``R = dy/dx = -f_yy^-1 f_yx`` and Phi'' computed once in a run."""

    known: JointQuadratic
    lower: QuadraticLower
    _matrix: Array | None = None
    _factor: tuple[bytes, Array | None] | None = None

    def step(self, g: Array, free: np.ndarray | None) -> Array | None:
        """On the free upper variables, 0 elsewhere; None where Phi'' is not positive definite."""
        if self._matrix is None:
            R = self.lower.columns(self.known.f_yx)
            if R is None:
                return None
            self._matrix = self.known.reduced(R)
        key = b"" if free is None else free.tobytes()
        if self._factor is None or self._factor[0] != key:
            H = self._matrix if free is None else self._matrix[np.ix_(free, free)]
            factor, failed = dpotrf(H, lower=1, clean=0) if len(H) else (H, 1)
            self._factor = (key, None if failed else factor)
        factor = self._factor[1]
        if factor is None:
            return None
        found: Array = dpotrs(factor, g if free is None else g[free], lower=1)[0]
        if free is None:
            return found
        out = np.zeros_like(g)
        out[free] = found
        return out
