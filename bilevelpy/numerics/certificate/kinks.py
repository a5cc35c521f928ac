"""Clarke's condition at a kink of Phi: ``0`` in the hull of the hypergradients around x and the
normal cone of the upper domain (F. Clarke, Optimization and Nonsmooth Analysis, 1983, 2.4.3).
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from scipy.optimize import nnls

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.numerics.certificate.case import Case
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# Where gradients around x are taken, relative to its extent.
RADIUS = 1e-6
# Gradients a step of that length apart that agree to this fraction belong to a smooth point.
SMOOTH = 0.01
# A hull that comes this close to 0, relative to its longest gradient, is stationary.
STATIONARY = 1e-2
GRADIENTS = 30
# Responses to a tiny step that differ by this part of themselves have jumped.
JUMP = 0.01
# A shortest vector that shortens by less has learnt nothing from the last gradient.
LEARNT = 1e-9
# Normals up to which a shortest vector takes tenths of a second at most.
NORMALS = 1000


class Normals:
    """The normal cone of ``domain`` at z, bounds within ``near`` of z included.

    A bound adds minus or plus the unit vector of its entry, a simplex the row of its sum with
    either sign, a sphere its outward normal. Semidefinite matrices, whose cones have no such
    generators, and more than :data:`NORMALS` of them are represented by the face that holds z as
    it follows ``-g``.
    """

    def __init__(self, domain: ProductSet, z: Vec, g: Vec, near: float) -> None:
        self.face = domain.face(z, g)
        self.curved = bool(domain.matrices)
        alone = torch.ones(domain.dim, dtype=torch.bool)
        lines = [row for sums in domain.sums() for row in (sums, -sums)]
        for b in domain.balls:
            alone[b.start : b.stop] = False
            for k, row in enumerate(b.rows(z)):
                first = b.start + k * b.size
                if norm(row) >= float(domain.upper[first]) - near and norm(row) > 0.0:
                    line = np.zeros(domain.dim)
                    line[first : first + b.size] = (row / norm(row)).numpy()
                    lines.append(line)
        self.lines = np.array(lines).reshape(len(lines), domain.dim)
        self.low = (alone & (z <= domain.lower + near)).numpy()
        self.high = (alone & (z >= domain.upper - near)).numpy()
        self.summed = np.zeros(domain.dim, dtype=bool)
        for b in domain.simplices:
            self.summed[b.start : b.stop] = True

    def shortest(self, rows: Vec) -> Vec:
        """The shortest sum of a vector in the hull of the rows G and a normal: the weights solve

            min_{w, v >= 0}  |G'w + N'v|^2 + t^2 (sum(w) - 1)^2,    t the length of the longest row,

        and are divided by the sum of w.
        """
        G = rows.numpy()
        # A bound takes a slope that all gradients push against it, and is nothing to one that
        # none does: only the others need a normal (in a simplex all: its price moves them).
        push, pull = (G > 0.0).any(0), (G < 0.0).any(0)
        held = ~self.summed & ((self.low & ~pull) | (self.high & ~push))
        low = self.low & ~held & (self.summed | push)
        high = self.high & ~held & (self.summed | pull)
        count = int(low.sum()) + int(high.sum())
        if self.curved or count > NORMALS:
            G, N = self.face.project(rows).numpy(), np.zeros((0, G.shape[1]))
        else:
            unit = np.zeros((count, G.shape[1]))
            places = np.concatenate([np.flatnonzero(low), np.flatnonzero(high)])
            unit[np.arange(count), places] = np.where(np.arange(count) < low.sum(), -1.0, 1.0)
            G, N = np.where(held, 0.0, G), np.vstack([unit, self.lines])
        with np.errstate(over="ignore"):
            top = math.sqrt(float(np.square(G).sum(1).max()))
        if not 0.0 < top < math.inf:
            return torch.from_numpy(G[0])
        known = np.vstack([G / top, N]).T
        if len(known) > 2 * known.shape[1]:
            known = scipy.linalg.qr(known, mode="r")[0][: known.shape[1]]
        sums = np.concatenate([np.ones(len(G)), np.zeros(len(N))])
        goal = np.zeros(len(known) + 1)
        goal[-1] = 1.0
        w, _ = nnls(np.vstack([known, sums]), goal)
        total = w[: len(G)].sum()
        return torch.from_numpy((w[: len(G)] @ G + top * (w[len(G) :] @ N)) / total)


def is_kink(case: Case, solver: Resolver, base: Answer, beyond: list[Vec]) -> bool:
    """Whether Clarke's condition holds (almost) at x, where it does not by one gradient alone.

    Each shortest vector h found so far leads to a gradient at ``x - radius h / |h|``. Responses
    there that are far from that at x are added to ``beyond``.
    """
    o, x = solver.oracle, case.x
    radius = RADIUS * case.extent
    cone = Normals(o.domain_x, x, base.gradient, radius)
    gradients: list[Vec] = []
    gradient, longest, last = base.gradient, 0.0, math.inf
    for _ in range(min(2 * o.n, GRADIENTS) + 2):
        longest = max(longest, norm(cone.shortest(gradient.unsqueeze(0))))
        if not math.isfinite(longest * longest):
            return False  # no products of such vectors are numbers
        gradients.append(gradient)
        h = cone.shortest(torch.stack(gradients))
        size = norm(h)
        if size <= STATIONARY * longest:
            return True
        if size >= (1.0 - LEARNT) * last:
            return False
        last = size
        there = solver.answer(o.domain_x.project(x - radius * h / size), base.lower.y, base)
        if there is None:
            return False
        if norm(there.lower.y - base.lower.y) > JUMP * norm(base.lower.y):
            beyond.append(there.lower.y)
        if len(gradients) == 1 and norm(there.gradient - gradient) <= SMOOTH * size:
            return False
        gradient = there.gradient
    return False
