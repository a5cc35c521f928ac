"""A finite difference of Phi(x) = F(x, y(x)) against the hypergradient, and kinks that explain one
that does not fit.
"""

from __future__ import annotations

import torch

from bilevelpy.numerics.certificate.case import Case
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.linear_solve import dot, norm

Vec = torch.Tensor

# Mismatch of finite difference and hypergradient that is still taken for rounding and curvature.
MISMATCH = 1e-3
# A second step, in parts of the first one, where that does not agree.
FINER = 0.1
# Radius of probes, relative to the size of x, and the longest step in parts of it.
PROBE, STEP = 1e-3, 0.1
# What values of F are known to, relative.
NOISE = 1e-11


class Difference:
    """Differences along one random direction at ``base``; ``scale`` is a hypergradient that is not
    small there.

    ``move`` is the step of the last difference, ``behind`` are the hypergradients at both its ends
    where a kink lies on it.
    """

    def __init__(self, case: Case, solver: Resolver, base: Answer, scale: float) -> None:
        self.case, self.solver, self.base, self.scale = case, solver, base, scale
        self.move: Vec = torch.zeros_like(case.x)
        self.behind: list[Vec] = []

    def mismatch(self) -> float | None:
        """Relative to the slopes; None where x cannot be moved on its face, or without values."""
        case, base, domain = self.case, self.base, self.case.oracle.domain_x
        if not case.oracle.n:
            return None
        face = domain.face(case.x, base.gradient)
        v = torch.randn(case.oracle.n, generator=case.rng, dtype=torch.float64)
        v = face.project(v / norm(v) + base.gradient / max(norm(base.gradient), 1e-300))
        size = norm(v)
        if size < 1e-8:
            return None
        v = v / size
        step = min(PROBE * STEP * case.extent, 0.5 * domain.longest_step(case.x, v))
        step = min(step, 0.5 * domain.longest_step(case.x, -v))
        if step <= 1e-9 * case.extent:
            return None
        self.move = step * v
        found = self._along(self.move)
        if found is None or found <= MISMATCH:
            return found
        # What a third derivative adds vanishes with the step, a wrong hypergradient does not: near
        # the end of a wide domain the extent is no scale of Phi.
        finer = self._along(FINER * self.move, clear=True)
        if finer is None:
            return found
        self.move = FINER * self.move
        return finer

    def is_beside_kink(self) -> bool:
        """Whether the last difference has crossed a kink: on either side the slope lies between
        that here and that at the end, and they differ.

        A minimum at a kink may be a smooth one from this side of it; what lies behind is for probes
        to see.
        """
        base, jumps = self.base, False
        behind: list[Vec] = []
        step = norm(self.move)
        v = self.move / step
        for sign in (1.0, -1.0):
            end = self.solver.answer(self.case.x + sign * self.move, base.lower.y, base)
            if end is None:
                return False
            slope = sign * (end.value - base.value) / step
            low, high = sorted((dot(base.gradient, v), dot(end.gradient, v)))
            room = MISMATCH * max(abs(slope), abs(low), abs(high), 0.1 * self.scale)
            room += NOISE * abs(base.value) / step
            if not low - room <= slope <= high + room:
                return False
            jumps = jumps or high - low > room
            behind.append(end.gradient)
        if jumps:
            self.behind = behind
        return jumps

    def _along(self, move: Vec, clear: bool = False) -> float | None:
        """That of a step; None without values, or where ``clear`` is asked for and rounding might
        hide one.
        """
        base, x, step = self.base, self.case.x, norm(move)
        up, down = (self.solver.value(x + s * move, base) for s in (1.0, -1.0))
        if up is None or down is None:
            return None
        slope, expected = (up - down) / (2 * step), dot(base.gradient, move) / step
        size = max(abs(slope), abs(expected), 0.1 * self.scale)
        noise = NOISE * abs(base.value) / step
        if clear and noise > 0.1 * MISMATCH * size:
            return None
        return max(abs(slope - expected) - noise, 0.0) / size
