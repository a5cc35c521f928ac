"""Quasi-Newton approximations of an inverse Hessian: BFGS by the two-loop recursion, and SR1."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import torch

from bilevelpy.numerics.linear_solve import LinearSolution, Operator, dot, norm

Vec = torch.Tensor

# A pair is used only if its curvature is positive beyond rounding.
CURVATURE = 1e-12
# SR1 denominators below this fraction of ||w|| ||g|| are skipped.
SR1_SKIP = 1e-8


class InverseHessian(Protocol):
    """``apply(d)`` multiplies by the approximation; ``update(s, g)`` makes it satisfy ``H g =
    s``.
    """

    scale: float

    def apply(self, d: Vec) -> Vec:
        """Multiply."""
        ...

    def update(self, s: Vec, g: Vec) -> bool:
        """Learn a pair; False where it was skipped."""
        ...

    def reset(self) -> None:
        """Forget all pairs."""
        ...


class BFGS:
    """Limited-memory inverse BFGS ``C_b(d; h I, pairs)``.

    With ``rescale`` the initial scalar h is set to ``s'g / g'g`` of the newest pair (usual in
    L-BFGS); without, it keeps the value given, as subroutine B of [Fang2025]_ needs (h = 1/L).
    """

    __slots__ = ("memory", "pairs", "rescale", "scale")

    def __init__(self, scale: float = 1.0, memory: int = 30, *, rescale: bool = False) -> None:
        self.scale = scale
        self.memory = memory
        self.rescale = rescale
        self.pairs: deque[tuple[Vec, Vec, float]] = deque(maxlen=memory)

    def apply(self, d: Vec) -> Vec:
        """Two-loop recursion: O(memory * m)."""
        q = d
        weights = []
        for s, g, rho in reversed(self.pairs):
            a = rho * dot(s, q)
            weights.append(a)
            q = q - a * g
        r = self.scale * q
        for (s, g, rho), a in zip(self.pairs, reversed(weights), strict=True):
            r = r + (a - rho * dot(g, r)) * s
        return r

    def update(self, s: Vec, g: Vec) -> bool:
        """Append ``(s, g)`` unless ``s'g`` is not safely positive; the oldest pair is dropped at
        the limit.
        """
        sg, gg = dot(s, g), dot(g, g)
        if not sg > CURVATURE * norm(s) * gg**0.5 or not gg < float("inf"):
            return False
        self.pairs.append((s, g, 1.0 / sg))
        if self.rescale:
            self.scale = sg / gg
        return True

    def reset(self) -> None:
        """Forget all pairs."""
        self.pairs.clear()


class SR1:
    """Symmetric rank one ``C_s(d; h I, pairs)``: ``h d + sum_i w_i (w_i'd) / c_i``.

    ``w = s - C_s(g)``, ``c = w'g``; may be indefinite, so callers safeguard the directions. At the
    memory limit the approximation starts afresh, because its terms build on one another.
    """

    __slots__ = ("memory", "scale", "terms")

    def __init__(self, scale: float = 1.0, memory: int = 60) -> None:
        self.scale = scale
        self.memory = memory
        self.terms: list[tuple[Vec, float]] = []

    def apply(self, d: Vec) -> Vec:
        """O(terms * m)."""
        r = self.scale * d
        for w, c in self.terms:
            r = r + (dot(w, d) / c) * w
        return r

    def update(self, s: Vec, g: Vec) -> bool:
        """Append the term of ``(s, g)`` unless its denominator is too small."""
        w = s - self.apply(g)
        c = dot(w, g)
        if not abs(c) > SR1_SKIP * norm(w) * norm(g):
            return False
        if len(self.terms) >= self.memory:
            self.terms.clear()
            w = s - self.scale * g
            c = dot(w, g)
            if not abs(c) > SR1_SKIP * norm(w) * norm(g):
                return False
        self.terms.append((w, c))
        return True

    def reset(self) -> None:
        """Forget all terms."""
        self.terms.clear()


def quasi_newton_solve(
    H: Operator,
    d: Vec,
    memory: InverseHessian,
    *,
    iterations: int,
    tol: float = 0.0,
    u0: Vec | None = None,
) -> LinearSolution:
    """Subroutine B of [Fang2025]_: unit quasi-Newton steps on ``u'Hu/2 - d'u`` with pairs ``(p, H
    p)``.

    ``u = H_0 d`` or a warm start; then ``p = -C(r), u += p, r += H p``. The body is our reading of
    the paper. One product per iteration and one for the first residual. ``tol`` is absolute.
    """
    u = memory.apply(d) if u0 is None else u0
    r = H(u) - d
    products, residual = 1, norm(r)
    for _ in range(iterations):
        if residual <= tol or not residual < float("inf"):
            break
        p = -memory.apply(r)
        Hp = H(p)
        products += 1
        u, r = u + p, r + Hp
        last, residual = residual, norm(r)
        # Without a new pair the next step would only repeat this one.
        if not memory.update(p, Hp) and not residual < last:
            break
    return LinearSolution(u, residual, products, residual <= tol)
