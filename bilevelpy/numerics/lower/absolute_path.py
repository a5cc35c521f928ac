"""Quadratics with weighted absolute values, by a path of solutions: exact after finitely many
steps.

``q(z) = b'z + z'Hz / 2 + sum_j l_j |z_j|`` is followed through ``q(z) + t c'z`` from ``t = 1``,
where c makes a known point the solution, to ``t = 0``. On a support S with signs e the solution is
linear in t::

    H_SS z_S = -(b_S + l_S e_S) - t c_S,      |(b + Hz + t c)_j| <= l_j  outside of S

until an entry of S meets 0 and leaves, or one of the inequalities ends and its entry joins:
parametric active sets (H. J. Ferreau, H. G. Bock, M. Diehl, Int. J. Robust Nonlinear Control 18,
2008); with ``c = -b`` it is the homotopy of M. R. Osborne, B. Presnell, B. A. Turlach (IMA J.
Numer. Anal. 20, 2000). One entry after another, as coordinate steps go, takes thousands of sweeps
where weights are small and columns are many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

Array = np.ndarray[Any, np.dtype[np.float64]]

# Of an entry that joins: curvature that its support leaves it, relative to its own, that is none.
NONE = 1e-11
# Changes of the support: so many per entry, and so many besides.
EACH, BESIDES = 10, 100
# Changes of t below this fraction of it are rounding, and slacks that move by less stand still.
TIED = 1e-12


def follow(H: Array, b: Array, weights: Array, start: Array) -> Array | None:
    """The minimiser of ``b'z + z'Hz / 2 + weights'|z|``, in few steps where it has much of the
    support of ``start``.

    Parameters
    ----------
    H
        (k, k), positive semidefinite.
    b, weights, start
        (k,), the weights >= 0.

    Returns
    -------
    numpy.ndarray or None
        (k,); None where the path ends before ``t = 0``: at a singular face without weights, or
        after too many changes.
    """
    loose = weights == 0.0
    for z in (start, np.zeros_like(start)):
        support = (z != 0.0) | loose
        found = _Path(H, b, weights, z, support)
        if found.settle():
            return found.end()
    return None


class _Path:
    def __init__(self, H: Array, b: Array, weights: Array, z: Array, support: Any) -> None:
        self.H, self.b, self.l, self.t = H, b, weights, 1.0
        self.inside = support.copy()
        self.sign = np.where(weights > 0.0, np.sign(z), 0.0)
        slope = b + H[:, support] @ z[support]
        # Entries that are to join start at different distances from their inequality: no ties.
        share = np.random.default_rng(0).uniform(0.5, 0.95, b.size)
        held = np.clip(slope, -share * weights, share * weights)
        self.c = np.where(support, -(slope + weights * self.sign), held - slope)

    def settle(self) -> bool:
        """Solve on the support: ``z_S = u - t v``; False where H is singular there."""
        self.S = np.flatnonzero(self.inside)
        S = self.S
        if S.size:
            part = self.H[np.ix_(S, S)]
            try:
                self.factor = cho_factor(part, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                return False
            pivots = self.factor[0].diagonal() ** 2
            if not bool((pivots > NONE * part.diagonal()).all()):
                return False
            right = np.stack([-(self.b + self.l * self.sign)[S], self.c[S]], 1)
            both = cho_solve(self.factor, right, check_finite=False)
        else:
            both = np.zeros((0, 2))
        self.u, self.v = both[:, 0], both[:, 1]
        return True

    def end(self) -> Array | None:
        """Go to ``t = 0``."""
        for _ in range(EACH * self.b.size + BESIDES):
            leaving, out = self._first_zero()
            joining, into = self._first_slack()
            self.t = max(out, into)
            if self.t <= 0.0:
                z = np.zeros_like(self.b)
                z[self.S] = self.u
                return z
            if out >= into:
                self._leave(leaving)
            elif not self._join(joining):
                return None
            if not self.settle():
                return None
        return None

    def _first_zero(self) -> tuple[int, float]:
        """The entry of the support that meets 0 next, and where."""
        can = (self.sign[self.S] != 0.0) & (self.v * self.sign[self.S] < 0.0)
        at = np.where(can, np.divide(self.u, self.v, where=can, out=np.zeros_like(self.u)), 0.0)
        return self._last(self.S, at)

    def _first_slack(self) -> tuple[int, float]:
        """The entry outside whose inequality ends next, and where."""
        Z = np.flatnonzero(~self.inside)
        rows = self.H[np.ix_(Z, self.S)]
        base, along = self.b[Z] + rows @ self.u, self.c[Z] - rows @ self.v
        # As t falls the slope rises where ``along`` is negative.
        can = np.abs(along) * self.t > TIED * self.l[Z]
        to = -np.sign(along) * self.l[Z]
        at = np.divide(to - base, along, where=can, out=np.zeros_like(base))
        return self._last(Z, at)

    def _last(self, which: Any, at: Array) -> tuple[int, float]:
        """The largest t below the present one."""
        at = np.where(at < self.t * (1.0 - TIED), at, 0.0)
        if not at.size or at.max() <= 0.0:
            return -1, 0.0
        k = int(np.argmax(at))
        return int(which[k]), float(at[k])

    def _leave(self, k: int) -> None:
        self.inside[k], self.sign[k] = False, 0.0

    def _join(self, k: int) -> bool:
        """Take an entry in; where its column depends on those of the support, in the place of the
        first one that meets 0 on the way along the dependence.
        """
        S, z = self.S, self.u - self.t * self.v
        slope = self.b[k] + self.H[k, S] @ z + self.t * self.c[k]
        sign = -float(np.sign(slope))
        column = self.H[S, k]
        against = cho_solve(self.factor, column, check_finite=False) if S.size else column
        if self.H[k, k] - column @ against <= NONE * self.H[k, k]:
            move = -sign * against
            can = move * self.sign[S] < 0.0
            if not can.any():
                return False
            reach = np.where(can, np.divide(-z, move, where=can, out=np.zeros_like(z)), np.inf)
            self._leave(int(S[np.argmin(reach)]))
        self.inside[k], self.sign[k] = True, sign
        return True
