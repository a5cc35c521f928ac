"""Quasi-Newton approximations of an inverse Hessian: BFGS by the two-loop recursion, and SR1."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.linalg.lapack import dtrtrs

from bilevelpy.numerics.linear_solve import LinearSolution, Operator, dot, norm

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# A pair is used only if its curvature is positive beyond rounding.
CURVATURE = 1e-12
# Vectors up to this length go through the compact form.
SHORT = 1000
# SR1 denominators below this fraction of ||w|| ||g|| are skipped.
SR1_SKIP = 1e-8


def updated(B: Array, s: Array, g: Array) -> Array:
    """The BFGS update of a Hessian by a step and a change of the gradient with ``s'g > 0`` (J.
    Nocedal and S. Wright, Numerical Optimization, 2006, (6.19))::

        B - B s s'B / s'Bs + g g' / s'g
    """
    Bs = B.dot(s)
    found: Array = B - (Bs / s.dot(Bs))[:, None] * Bs
    found += (g / s.dot(g))[:, None] * g
    return found


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

    Vectors of diverging solves may overflow in products, to inf and nan and without a warning, as
    in torch: callers look at the answer.
    """

    __slots__ = ("_new", "_table", "memory", "pairs", "rescale", "scale", "version")

    def __init__(self, scale: float = 1.0, memory: int = 30, *, rescale: bool = False) -> None:
        self.scale = scale
        self.memory = memory
        self.rescale = rescale
        # Counts the changes, so that results can be kept.
        self.version = 0
        self.pairs: deque[tuple[Vec, Vec, float]] = deque(maxlen=memory)
        # The same pairs side by side where vectors are short; None where they are long. Those that
        # are new wait until somebody multiplies.
        self._table: Pairs | None = None
        self._new: list[tuple[Array, Array]] = []

    def apply(self, d: Vec) -> Vec:
        """O(memory * m): four products with matrices where vectors are short, else the two-loop
        recursion.
        """
        array = d.numpy()
        table = self._side_by_side()
        if table is not None and table.count >= 2:
            with np.errstate(over="ignore", invalid="ignore"):
                found = table.compact().apply(array, self.scale)
            if found is not None:
                return torch.from_numpy(found)
        return torch.from_numpy(self._two_loops(array))

    @np.errstate(over="ignore", invalid="ignore")
    def _two_loops(self, d: Array) -> Array:
        q = d.copy()
        weights = []
        arrays = [(s.numpy(), g.numpy(), rho) for s, g, rho in self.pairs]
        for s, g, rho in reversed(arrays):
            a = rho * float(s.dot(q))
            weights.append(a)
            q -= a * g
        q *= self.scale
        for (s, g, rho), a in zip(arrays, reversed(weights), strict=True):
            q += (a - rho * float(g.dot(q))) * s
        return q

    def update(self, s: Vec, g: Vec) -> bool:
        """Append ``(s, g)`` unless ``s'g`` is not safely positive; the oldest pair is dropped at
        the limit.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            a, b = s.numpy(), g.numpy()
            sg, gg = float(a.dot(b)), float(b.dot(b))
        if not sg > CURVATURE * norm(s) * gg**0.5 or not gg < float("inf"):
            return False
        self.version += 1
        self.pairs.append((s, g, 1.0 / sg))
        if a.size <= SHORT:
            self._new.append((a, b))
        if self.rescale:
            self.scale = sg / gg
        return True

    def _side_by_side(self) -> Pairs | None:
        if self._new and self._table is None:
            self._table = Pairs(self.memory, self._new[0][0].size)
        for s, g in self._new:
            assert self._table is not None
            self._table.add(s, g)
        self._new.clear()
        return self._table

    @np.errstate(over="ignore", invalid="ignore")
    def restricted(self, project: Operator, d: Vec) -> Vec:
        """``(P B P)^+ d``: the model of :meth:`apply` on a subspace, for a d in it.

        B is the inverse of what :meth:`apply` multiplies by; pairs count with their parts outside
        the subspace too (R. H. Byrd, P. Lu, J. Nocedal and C. Zhu, SIAM J. Sci. Comput. 16, 1995,
        (5.11)). ``project`` is P, for the rows of matrices too.
        """
        h, array = self.scale, d.numpy()
        plain = torch.from_numpy(h * array)
        if not self.pairs:
            return plain
        table = self._side_by_side()
        if table is not None:
            S, G = table.rows
            SG = table.SG[: len(S), : len(S)]
        else:
            S = np.array([s.numpy() for s, _, _ in self.pairs])
            G = np.array([g.numpy() for _, g, _ in self.pairs])
            SG = S @ G.T
        k = len(S)
        inside = project(torch.from_numpy(np.concatenate([S, G]))).numpy()
        inner_S, inner_G = inside[:k], inside[k:]
        outer_S = S - inner_S
        K = np.empty((2 * k, 2 * k))
        K[:k, :k] = outer_S @ outer_S.T / h
        K[:k, k:] = np.tril(SG, -1) - inner_S @ inner_G.T
        K[k:, :k] = K[:k, k:].T
        K[k:, k:] = -h * (inner_G @ inner_G.T)
        K[range(k, 2 * k), range(k, 2 * k)] -= SG.diagonal()
        # Pairs of long and of short steps on one scale.
        size = 1.0 / np.sqrt(np.concatenate([(S * S).sum(1) / h, SG.diagonal()]))
        right = np.concatenate([inner_S @ array / h, inner_G @ array])
        try:
            z = size * np.linalg.solve(size[:, None] * K * size, size * right)
        except np.linalg.LinAlgError:
            return plain
        z[:k] /= h
        found = h * array + h * h * (z @ inside)
        return torch.from_numpy(found) if 0.0 < float(found.dot(array)) < np.inf else plain

    def reset(self) -> None:
        """Forget all pairs."""
        self.version += 1
        self.pairs.clear()
        self._new.clear()
        self._table = None

    def carried(self) -> dict[str, Any]:
        """The pairs; of their table what is not in them: products, whose rounding has a history."""
        t = self._side_by_side()
        k = 0 if t is None else t.count
        return {
            "scale": self.scale,
            "memory": self.memory,
            "rescale": self.rescale,
            "version": self.version,
            "pairs": list(self.pairs),
            "table": None if t is None else (t.SG[:k, :k].copy(), t.GG[:k, :k].copy()),
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As they were."""
        self.scale, self.memory = float(known["scale"]), int(known["memory"])
        self.rescale, self.version = bool(known["rescale"]), int(known["version"])
        pairs = [(s, g, float(rho)) for s, g, rho in known["pairs"]]
        if len({part.shape for s, g, _ in pairs for part in (s, g)}) > 1:
            raise ValueError("the vectors of pairs have different lengths")
        self.pairs, self._table, self._new = deque(pairs, maxlen=self.memory), None, []
        if known["table"] is None:
            return
        self._table = t = Pairs(self.memory, pairs[0][0].numel() if pairs else 0)
        t.count = k = len(pairs)
        for row, (s, g, _) in enumerate(pairs):
            t.stacked[0, row], t.stacked[1, row] = s.numpy(), g.numpy()
        t.SG[:k, :k], t.GG[:k, :k] = known["table"]


class Pairs:
    """The newest pairs, oldest first, in rows of S and G, with ``S G'`` and ``G G'``: one more
    pair costs three products.
    """

    __slots__ = ("GG", "SG", "count", "memory", "stacked")

    def __init__(self, memory: int, size: int) -> None:
        self.memory, self.count = memory, 0
        self.stacked = np.empty((2, memory, size))
        self.SG, self.GG = np.empty((memory, memory)), np.empty((memory, memory))

    def add(self, s: Array, g: Array) -> None:
        """Append a pair; the oldest one leaves at the limit."""
        k = self.count
        if k == self.memory:
            k -= 1
            self.stacked[:, :k] = self.stacked[:, 1:]
            for table in (self.SG, self.GG):
                table[:k, :k] = table[1:, 1:]
        self.stacked[0, k], self.stacked[1, k] = s, g
        self.count = k + 1
        S, G = self.rows
        self.SG[k, : k + 1] = G @ s
        self.SG[: k + 1, k] = S @ g
        self.GG[k, : k + 1] = self.GG[: k + 1, k] = G @ g

    @property
    def rows(self) -> tuple[Array, Array]:
        """S and G."""
        return self.stacked[0, : self.count], self.stacked[1, : self.count]

    def compact(self) -> Compact:
        """Their compact form."""
        k = self.count
        S, G = self.rows
        R = self.SG[:k, :k]
        return Compact(S, G, R, R.diagonal(), self.GG[:k, :k])


@dataclass(frozen=True, slots=True)
class Compact:
    """The BFGS matrix of pairs in the rows of S and G in its compact form (R. H. Byrd, J. Nocedal
    and R. B. Schnabel, Math. Programming 63, 1994)::

        C d = h d + S'v - h G'u,   u = R^-1 S d,   v = R^-T ((D + h G G') u - h G d)

    with D the diagonal and R the upper triangle of S G'.
    """

    S: Array
    G: Array
    R: Array
    D: Array
    GG: Array

    def apply(self, d: Array, h: float) -> Array | None:
        """Multiply; None where pairs are so nearly dependent that nothing certain comes out."""
        # LAPACK reads columns: R' is lower there, without a copy.
        R = np.ascontiguousarray(self.R).T
        u, failed = dtrtrs(R, self.S @ d, lower=1, trans=1)
        if failed:
            return None
        w = self.D * u + h * (self.GG @ u - self.G @ d)
        v, _ = dtrtrs(R, w, lower=1)
        out: Array = h * d + v @ self.S - h * (u @ self.G)
        value = float(out.dot(d))
        return out if 0.0 < value < np.inf else None


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
