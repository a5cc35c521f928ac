"""Minimising ``s + sum w_g |y_g| + sum l_j |y_j|``: Newton's method on the support, which block
coordinate steps on a quadratic model of s find.

Both alternate. A Newton step on the support ends groups and entries that it would turn round at 0;
where zeros want to leave, or Newton's step does not descend, the model ``s'd + d'Hd / 2`` with the
norms is minimised over the support and the steepest zeros (proximal Newton, [Lee2014]_), by steps
on one group after another with the largest curvature L of the group [Yang2015]_::

    y_g <- T(y_g - (H y + b)_g / L),    T(v) = (1 - w_g / (L |S(v, l / L)|))_+ S(v, l / L)

Where such steps do not settle, as small weights on many columns have it, a model without groups is
solved along a path of solutions (:mod:`bilevelpy.numerics.lower.absolute_path`), and with groups
Newton's method goes on before further zeros join.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import Face
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.absolute_path import follow
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.grouped import RELEASED, GroupedOracle, SupportCurvature
from bilevelpy.numerics.lower.newton import FINEST, newton
from bilevelpy.numerics.lower.solve import ARMIJO, HALVINGS, VALUE_NOISE, LowerSolution

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# Sweeps over the groups for a model; it may end once the support has stood still for a few.
SWEEPS, STILL = 60, 3
# The same where a path of solutions is the other way, and the entries up to which it is one: every
# change of its support takes a factor.
FEW, PATH = 8, 1000
# A model is solved to this fraction of what its first sweep changed: Newton's method does the rest.
ENOUGH = 1e-2
# Steps in all.
STEPS = 200
# Contraction of chord steps that is worth going on with.
CHORD = 0.3


@dataclass(frozen=True, slots=True)
class _Here:
    """A point with f, the gradient of s, and the shortest subgradient."""

    y: Vec
    f: float
    s_y: Vec
    r: Vec


def minimise(
    oracle: Any,
    x: Vec,
    y: Vec,
    curvature: DenseCurvature,
    *,
    tol: float = 1e-10,
    change: float = 0.0,
    scale: float = 0.0,
) -> LowerSolution:
    """Minimise f(x, .) as :func:`bilevelpy.numerics.lower.newton.newton` does; where the oracle is
    a :class:`GroupedOracle`, or forwards to one, until Newton's step on the support is small.
    """
    if isinstance(curvature, SupportCurvature):
        oracle.counts.lower_solves += 1
        return _Solve(oracle, x, curvature, tol, change, scale).run(y, STEPS)
    return newton(oracle, x, y, curvature, tol=tol, change=change, scale=scale)


class _Solve:
    def __init__(
        self,
        oracle: GroupedOracle,
        x: Vec,
        curvature: SupportCurvature,
        tol: float,
        change: float,
        scale: float,
    ) -> None:
        self.o, self.x, self.curvature = oracle, x, curvature
        self.tol, self.change, self.scale = tol, change, scale
        self.w, self.single = oracle.weights(x)
        free = torch.cat([self.w, self.w.new_zeros(1)])[oracle.group]
        self.loose = (free + self.single) == 0.0
        self.fresh, self.first, self.last = False, 0.0, math.inf
        # Steps of the model's sweeps have not settled: Newton's method goes on before zeros join.
        self.slow = False

    def run(self, y: Vec, max_iter: int) -> LowerSolution:
        """Steps from y until the end."""
        here = self._at(y)
        started = norm(here.r)
        if not math.isfinite(here.f) or not math.isfinite(started):
            return self._end(here, 0, "nonfinite", started)
        if self.curvature.H is None:
            self._refresh(here)
        for iteration in range(max_iter):
            waiting = (here.y == 0.0) & (here.r != 0.0) & ~self.loose
            new, why = None, ""
            if iteration == 1 and self.last > self.scale:
                # The first step was longer than y: a start that x has left far behind, where
                # losses may be flat. At 0 they are not.
                zero = self._at(torch.zeros_like(y))
                if zero.f < here.f:
                    here, self.last = zero, math.inf
                    continue
            held = waiting if self.slow else None
            if self.slow or not bool(waiting.any()):
                new, why = self._newton(here, held)
            if self.slow and new is None:
                self.slow, why = False, "" if bool(waiting.any()) else why
            if why:
                return self._end(here, iteration, why, started)
            if new is None:
                new = self._model(here, waiting)
            if new is None:
                return self._end(here, iteration, "rounding", started)
            here = new
            if here.f < -1e300 or norm(here.y) > 1e30:
                return self._end(here, iteration + 1, "unbounded", started)
        return self._end(here, max_iter, "limit", started)

    # --- Newton on the support --------------------------------------------------------------------

    def _newton(self, here: _Here, held: Vec | None = None) -> tuple[_Here | None, str]:
        """A step on the support, without the zeros that are ``held``, or the word for the end;
        neither where the step fails.
        """
        free = self._support(here)
        if held is not None:
            free = ~held if free is None else free & ~held
        face = Face(self.o.m, free)
        # The part of s_yy on a small support is less work than another gradient over all.
        support = face.dim if face.free is None else int(face.free.sum())
        cheap = support**2 <= self.o.m
        while True:
            if not self.curvature.settle(face):
                return None, "nonfinite"
            p = -self.curvature.solve(here.r)
            size = norm(p)
            self.scale, self.first = max(self.scale, norm(here.y)), self.first or size
            goal = self.tol * self.scale
            if self.change > 0.0:
                goal = max(min(goal, self.change * self.first), FINEST * self.scale)
            if self.fresh or (not cheap and size <= CHORD * self.last):
                break
            self._refresh(here)
        if size <= goal or size == 0.0:
            return None, "reached"
        new = self._along(here, p)
        if new is None and not self.fresh:
            self._refresh(here)
            return self._newton(here, held)
        if new is None:
            small = size <= 1e-7 * self.scale and size >= 0.5 * self.last
            return None, "rounding" if small else ""
        self.last, self.fresh = size, False
        return new, ""

    def _along(self, here: _Here, p: Vec) -> _Here | None:
        """The first point on ``y + t p`` that is low enough; what turns round at 0 ends there."""
        t = 1.0
        for _ in range(8):
            y = self._cut(here.y, here.y + t * p)
            new, slope = self._at(y), dot(here.r, y - here.y)
            if self._falls(here, new, slope):
                return new
            t *= 0.3
        return None

    def _falls(self, here: _Here, new: _Here, slope: float) -> bool:
        if not math.isfinite(new.f):
            return False
        noise = VALUE_NOISE * abs(here.f)
        if slope < 0.0 and new.f <= here.f + ARMIJO * slope and here.f - new.f > noise:
            return True
        if new.f <= here.f + noise and norm(new.r) <= 0.9 * norm(here.r):
            return True
        return here.f - new.f > noise and slope >= 0.0

    def _cut(self, y: Vec, z: Vec) -> Vec:
        """z with 0 where an entry with a weight, or a group, is turned round."""
        z = torch.where((self.single > 0.0) & (y * z < 0.0), 0.0, z)
        along = self.o.parts.totals(y * z)
        ended = (along <= 0.0) & (self.w > 0.0)
        return torch.where(torch.cat([ended, ended.new_zeros(1)])[self.o.group], 0.0, z)

    def _support(self, here: _Here) -> Vec | None:
        free = (here.y != 0.0) | (here.r != 0.0) | self.loose
        return None if bool(free.all()) else free

    # --- the model --------------------------------------------------------------------------------

    def _model(self, here: _Here, waiting: Vec) -> _Here | None:
        """A step towards the minimiser of the model over the support and the steepest zeros."""
        index = self._working(here, waiting)
        if not self.fresh:
            self._refresh(here)
        H = self.curvature.smooth(index)
        if not bool(torch.isfinite(H).all()):
            return None
        z = here.y.clone()
        found, settled = _minimise(
            H.numpy(),
            here.s_y[index].numpy(),
            here.y[index].numpy(),
            self.o.group[index].numpy(),
            torch.cat([self.w, self.w.new_zeros(1)]).numpy(),
            self.single[index].numpy(),
            self.o.parts.count,
        )
        z[index], self.slow = torch.from_numpy(found), not settled
        d = z - here.y
        at = self.o.kinked(self.x, here.y)
        fall = dot(here.s_y, d) + self.o.kinked(self.x, z) - at
        if not fall < 0.0:
            return None
        t = 1.0
        for _ in range(HALVINGS):
            new = self._at(here.y + t * d if t < 1.0 else z)
            noise = VALUE_NOISE * abs(here.f)
            if math.isfinite(new.f) and (
                new.f <= here.f + ARMIJO * t * fall
                or (new.f <= here.f + noise and norm(new.r) <= 0.9 * norm(here.r))
            ):
                # s_yy is that of the old point, the norms bend as at the new one.
                self.curvature.move(new.y)
                self.fresh, self.last = False, math.inf
                return new
            t *= 0.5
        return None

    def _working(self, here: _Here, waiting: Vec) -> Vec:
        """The support, and as many of the zeros that want to leave as it has groups."""
        o, unit = self.o, self.o.units_of_entries
        pull = torch.zeros(o.parts.count + o.m, dtype=torch.float64)
        pull.index_add_(0, unit, torch.where(waiting, here.r, 0.0) ** 2)
        most = max(RELEASED, torch.unique(unit[here.y != 0.0]).numel())
        steepest = torch.argsort(pull, descending=True)[:most]
        chosen = torch.zeros_like(pull, dtype=torch.bool)
        chosen[steepest[pull[steepest] > 0.0]] = True
        kept = (here.y != 0.0) | self.loose | (waiting & chosen[unit])
        return kept.nonzero().squeeze(1)

    # --- points -----------------------------------------------------------------------------------

    def _refresh(self, here: _Here) -> None:
        self.curvature.refresh(self.o, self.x, here.y)
        self.fresh, self.last = True, math.inf

    def _at(self, y: Vec) -> _Here:
        self.o.check_deadline()
        s, s_y = self.o.smooth.value_grad_f(self.x, y)
        return _Here(y, s + self.o.kinked(self.x, y), s_y, self.o.steepest(self.x, y, s_y))

    def _end(self, here: _Here, iterations: int, ended: str, started: float) -> LowerSolution:
        free = self._support(here)
        face = Face(self.o.m, free, weak=self.o.weak(self.x, here.y, here.s_y))
        negative = self.curvature.factor is not None and self.curvature.negative
        return LowerSolution(
            here.y, here.f, here.r, norm(here.r), face, iterations, ended, negative, started
        )


def _minimise(
    H: Array, slope: Array, start: Array, group: Array, w: Array, single: Array, none: int
) -> tuple[Array, bool]:
    """``min slope'(z - start) + (z - start)'H(z - start)/2 + sum w_g |z_g| + sum l_j |z_j|``, to
    the accuracy that the support needs, and whether it was reached; entries of the group number
    ``none`` are in no group.
    """
    z, gradient = start.copy(), slope.copy()
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    blocks = (
        [
            b
            for part in np.split(order, ends)
            for b in (part[:, None] if group[part[0]] == none else part[None, :])
        ]
        if order.size
        else []
    )
    floor = 1e-12 * max(float(H.diagonal().max(initial=0.0)), 1e-300)
    tops = [
        max(float(H[b[0], b[0]] if b.size == 1 else np.linalg.eigvalsh(H[np.ix_(b, b)])[-1]), floor)
        for b in blocks
    ]
    single_only = all(b.size == 1 for b in blocks) and z.size <= PATH
    first, still = 0.0, 0
    for _ in range(FEW if single_only else SWEEPS):
        moved, before = 0.0, z != 0.0
        for b, top in zip(blocks, tops, strict=True):
            if b.size == 1:
                k = int(b[0])
                line = float(single[k] + w[group[k]]) / top
                was = float(z[k])
                to = was - float(gradient[k]) / top
                to = math.copysign(max(abs(to) - line, 0.0), to)
                if to != was:
                    z[k] = to
                    gradient += (to - was) * H[k]
                    moved += top * (to - was) ** 2
                continue
            old = z[b]
            v = old - gradient[b] / top
            lines = single[b]
            if lines.any():
                v = np.sign(v) * np.maximum(np.abs(v) - lines / top, 0.0)
            weight = w[group[b[0]]]
            if weight > 0.0:
                size = math.sqrt(float(v @ v))
                v = v * (1.0 - weight / (top * size)) if size * top > weight else np.zeros_like(v)
            step = v - old
            if step.any():
                z[b] = v
                gradient += step @ H[b]
                moved += top * float(step @ step)
        first = first or moved
        still = still + 1 if np.array_equal(before, z != 0.0) else 0
        if moved == 0.0 or (still >= STILL and moved <= ENOUGH * first):
            return z, True
    if not single_only:
        return z, False
    found = follow(H, slope - H @ start, single + w[group], start)
    return (z, False) if found is None else (found, True)
