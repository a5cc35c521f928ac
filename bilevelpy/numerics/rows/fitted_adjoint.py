"""The KKT adjoint at a response, with multipliers fitted to what is tight there.

With the active rows c_I (bounds of y included) and multipliers l that fit ``f_y + c_I,y' l = 0``::

    [ H       c_I,y' ] [w]   [ p_y ]
    [ c_I,y   0      ] [r] = [  0  ]      dp/dx = p_x - L_xy w - c_I,x' r,   H = (f + l'c)_yy

for a function p of both levels along the responses. Nothing comes from the run that led here;
second derivatives of c are differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.linear_solve import norm, unit
from bilevelpy.numerics.qp.saddle import least_squares, saddle
from bilevelpy.system.deadline import TooLong, check, time_left

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Rows this close to their bound, relative to the size of y, are active.
ACTIVE = 1e-6
# Multipliers below this fraction of the largest are weakly active: the response has a kink there.
WEAK = 1e-6
# Gaps, relative to y, that rounding makes.
ROUNDING = 1e-12
# What prices may leave of the slope, relative to it, and by how much they may pull.
LEFT = 1e-5
# Seconds of a decomposition for the cube of its side: nothing ends it on the way.
FLOPS = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """The derivatives by y of what is tight, which rows of the model come first in it, the
    variables that no bound holds, and the multipliers of all rows, if they are unique.
    """

    A: Array
    active: list[int]
    free: Array
    multipliers: Vec | None


@dataclass(frozen=True, slots=True)
class FittedAdjoint:
    """The adjoint for one problem; ``affine``: its lower rows are affine in y."""

    oracle: TorchOracle
    affine: bool

    def along(self, x: Vec, y: Vec, slopes: Array) -> tuple[list[Vec], list[Vec], bool]:
        """``L_xy w`` and ``c_I,x' r`` for every row of ``slopes`` (k, m) in the place of p_y, and
        whether a row is weakly active.
        """
        o = self.oracle
        A, A_x, active, held, inequality, gaps = self._tight(x, y)
        free, g, fit, rank = self._fitted(x, y, A, held)
        bounds = (g + A.T @ fit)[held]
        prices = torch.zeros(o.g.size, dtype=torch.float64)
        prices[active] = torch.from_numpy(fit[: len(active)].copy())
        H = self._curvature(x, y, prices).numpy()
        # Beside a kink rows are near that hold nothing there: of multiplier and gap one is zero.
        pulls = np.abs(fit) / max(float(np.abs(fit).max(initial=0.0)), 1e-300)
        holding = (pulls >= gaps) | (gaps <= ROUNDING) | ~np.array(inequality, dtype=bool)
        whole, A, A_x = A, A[holding], A_x[holding]
        still = np.zeros((len(A), len(slopes)))
        every = np.arange(len(A))
        solved = saddle(H, A, free, every, slopes[:, free].T, still, nearest=True)
        assert solved is not None
        crosses, alongs = [], []
        for v, r in zip(solved[0].T, solved[1].T, strict=True):
            w = torch.zeros(o.m, dtype=torch.float64)
            w[torch.from_numpy(free)] = torch.from_numpy(v.copy())
            crosses.append(self._cross(x, y, prices, w))
            alongs.append(torch.from_numpy(A_x.T @ r))
        pushing = np.abs(np.concatenate([fit[inequality], bounds]))
        # Where nothing pushes, multipliers are rounding of what f's slope is made of.
        size = float(np.abs(np.concatenate([g, H @ y.numpy(), fit, bounds])).max(initial=0.0))
        # More of them than there is room for (equations may follow from others): so is each.
        always = whole[[not i for i in inequality]]
        room = np.linalg.matrix_rank(always) if len(always) else 0
        weak = bool((pushing <= WEAK * size).any()) or rank < room + sum(inequality)
        return crosses, alongs, weak

    def prices(self, x: Vec, y: Vec) -> Vec | None:
        """The multipliers of the lower rows at a response; None where they are not unique, or pull:
        the point is none then.
        """
        return self.priced(x, y).multipliers

    def priced(self, x: Vec, y: Vec) -> Priced:
        """The same, with what they are fitted to."""
        A, _, active, held, inequality, _ = self._tight(x, y)
        free, g, fit, rank = self._fitted(x, y, A, held)
        # Where nothing pushes, the slope is rounding of its terms.
        terms = self.oracle.hvp(x, y)(y).numpy()
        size = max(float(np.abs(np.concatenate([g, terms, fit])).max(initial=0.0)), 1e-300)
        left = np.abs(A[:, free].T @ fit + g[free]).max(initial=0.0)
        if rank < len(A) or left > LEFT * size or (fit[inequality] < -LEFT * size).any():
            return Priced(A, active, free, None)
        found = torch.zeros(self.oracle.g.size, dtype=torch.float64)
        found[active] = torch.from_numpy(fit[: len(active)].copy())
        return Priced(A, active, free, found)

    def _fitted(self, x: Vec, y: Vec, A: Array, held: list[int]) -> tuple[Array, Array, Array, int]:
        """The variables that no bound holds, f_y, the multipliers that fit it on them, and the rank
        of their equations.
        """
        o = self.oracle
        free = np.setdiff1d(np.arange(o.m), held)
        if FLOPS * (free.size + len(A)) ** 3 > time_left():
            raise TooLong
        # The slopes of free variables tell the multipliers of rows, the rest those of bounds.
        g = o.grad_f(x, y).numpy()
        fit, rank = least_squares(A[:, free].T, -g[free])
        return free, g, fit, rank

    def _tight(
        self, x: Vec, y: Vec
    ) -> tuple[Array, Array, list[int], list[int], list[bool], Array]:
        """The derivatives by y and by x of what is tight, which rows and variables at bounds these
        are, which of the rows are inequalities, and their gaps relative to y. Equations that hold
        always stand behind.
        """
        o = self.oracle
        scale, sums = max(norm(y), 1e-3), o.domain_y.sums()
        values, c_x, c_y = derivatives(o.g, x, y)
        check()
        slack = values / torch.linalg.vector_norm(c_y, dim=1).clamp(min=1e-300)
        active = [i for i in range(o.g.size) if o.g.equality[i] or slack[i] > -ACTIVE * scale]
        low, high = y - o.domain_y.lower, o.domain_y.upper - y
        held = torch.nonzero(torch.minimum(low, high) <= ACTIVE * scale).flatten().tolist()
        A = np.concatenate([c_y[active].numpy(), sums])
        A_x = np.concatenate([c_x[active].numpy(), np.zeros((len(sums), o.n))])
        inequality = [not bool(o.g.equality[i]) for i in active] + [False] * len(sums)
        gaps = np.append(np.abs(slack.numpy()[active]) / scale, np.zeros(len(sums)))
        return A, A_x, active, held, inequality, gaps

    def _slope(self, x: Vec, y: Vec, prices: Vec) -> tuple[Vec, Vec]:
        """``(c_x' l, c_y' l)``."""
        return self.oracle.g.vjp(x, y)(prices)

    def _curvature(self, x: Vec, y: Vec, prices: Vec) -> Vec:
        """``(f + l'c)_yy``."""
        o = self.oracle
        H = o.hessian(x, y).clone()
        if self.affine or not bool(prices.any()):
            return H
        e = 1e-5 * (1.0 + norm(y))
        for j in range(o.m):
            check()
            step = e * unit(o.m, j)
            up, down = (self._slope(x, y + s * step, prices)[1] for s in (1.0, -1.0))
            H[:, j] += (up - down) / (2.0 * e)
        return 0.5 * (H + H.T)

    def _cross(self, x: Vec, y: Vec, prices: Vec, w: Vec) -> Vec:
        """``(f + l'c)_xy w``."""
        o = self.oracle
        size = norm(w)
        cross = o.cross(x, y)(w)
        if size == 0.0 or not bool(prices.any()):
            return cross
        e = 1e-5 * (1.0 + norm(y)) / size
        up, down = (self._slope(x, y + s * e * w, prices)[0] for s in (1.0, -1.0))
        return cross + (up - down) / (2.0 * e)
