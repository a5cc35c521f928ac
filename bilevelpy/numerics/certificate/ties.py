"""Lower levels with many solutions: the one that is best for F, and how much F differs between
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.grouped import is_grouped
from bilevelpy.numerics.lower.krylov import lbfgs
from bilevelpy.numerics.lower.selected import Selected, weight_for
from bilevelpy.numerics.quasi_newton import BFGS

Vec = torch.Tensor

# Gradient of f + w F that may be left, relative to the part that w F has in it.
SELECTED = 1e-2
# Values of f within this fraction of its size count as equal.
EQUAL = 1e-9
# Multiples of the distance of two solutions at which the line through them is searched further.
REACHES = (10.0, 1e3, 1e6)
MOST = 300


@dataclass(frozen=True, slots=True)
class Choice:
    """The best lower solution for F with its hypergradient, and F between the solutions found.

    ``answer`` is of the problem ``solver.oracle``, whose lower solution is unique; ``lowest`` and
    ``highest`` are values of F (minimised) at equally good responses, infinite where F has no
    bound on the rays that were followed.
    """

    solver: Resolver
    answer: Answer
    lowest: float
    highest: float


class NoBest(Exception):
    """No lower solution is best for F: it has no lower bound among them (``unbounded``), or could
    not be minimised over them.
    """

    def __init__(self, unbounded: bool) -> None:
        super().__init__()
        self.unbounded = unbounded


def choose(
    oracle: Oracle, x: Vec, responses: Sequence[Vec], spread: float, bend: float, rng: Any
) -> Choice:
    """The optimistic response at x, from every one of ``responses``.

    Minimises ``f + w F`` from each of them, keeps what is as good as the best f, and takes the
    least F. On a convex lower level this is the best of all solutions, elsewhere the best of those
    near the ones found.

    Parameters
    ----------
    responses
        Lower solutions, equally good up to rounding.
    spread
        The size of f's values, for comparisons.
    bend
        A typical curvature of f at x.

    Raises
    ------
    NoBest
        Where none can be selected.
    """
    size = max(norm(y) for y in responses) or 1.0
    best_f = min(oracle.f(x, y) for y in responses)
    large = not Resolver.is_small(oracle)
    # One weight for all, so that their problems are the same one.
    weight = weight_for(oracle, x, responses[0], bend, size, large)
    problem: Any = Selected(oracle, weight, size)
    if is_grouped(oracle):
        whole: Any = oracle
        problem = whole.with_smooth(Selected(whole.smooth, weight, size))
    found: tuple[Answer, Resolver] | None = None
    sampled = _sample(oracle, x, responses, best_f + EQUAL * spread)
    if min(sampled) == -math.inf:
        raise NoBest(unbounded=True)
    for start in responses:
        solver = Resolver(problem, x, start, rng)
        answer = _settled(solver, x, start, weight)
        if answer is None:
            continue
        f = oracle.f(x, answer.lower.y)
        if f > best_f + max(1e-6 * spread, 1e3 * weight * abs(answer.F)):
            continue
        if found is None or answer.F < found[0].F:
            found = answer, solver
    if found is None:
        raise NoBest(unbounded=False)
    answer, solver = found
    return Choice(solver, answer, min(answer.F, *sampled), max(answer.F, *sampled))


def _settled(solver: Resolver, x: Vec, y: Vec, weight: float) -> Answer | None:
    """The answer whose lower solution really minimises ``f + w F``."""
    answer = solver.answer(x, y)
    if answer is None or answer.lower.ended == "unbounded":
        return None
    o = solver.oracle
    slope = weight * max(norm(o.grad_F(x, y)[1]), norm(o.grad_F(x, answer.lower.y)[1]))
    allowed = SELECTED * slope + 1e-15 * solver.gradient_scale
    if answer.lower.residual <= allowed:
        return answer
    # Newton steps ignore what a singular Hessian cannot answer (an F that is linear in y).
    q = o.domain_y.projected_gradient(answer.lower.y, answer.lower.gradient)
    bend = dot(q, o.hvp(x, answer.lower.y)(q)) / max(dot(q, q), 1e-300)
    flat = not bend > 1e-3 * weight
    # Where nothing bends, a step as long as y is the only length that there is.
    first = (norm(y) or 1.0) / max(norm(q), 1e-300) if flat else 1.0 / bend
    memory = BFGS(first, 20, rescale=True)
    better = lbfgs(o, x, answer.lower.y, tol=0.1 * allowed, max_iter=MOST, memory=memory)
    if better.ended == "unbounded" or not math.isfinite(better.f):
        return None
    answer = solver.answer(x, better.y)
    return answer if answer is not None and answer.lower.residual <= allowed else None


def _sample(oracle: Oracle, x: Vec, responses: Sequence[Vec], equal: float) -> list[float]:
    """F at the responses, and on the lines through two of them as far as f stays as good."""
    values = [oracle.F(x, y) for y in responses]
    first, domain = responses[0], oracle.domain_y
    for other in responses[1:]:
        d = other - first
        if norm(d) == 0.0:
            continue
        for way, start in ((d, other), (-d, first)):
            edge = domain.longest_step(start, way)
            reaches = [r for r in REACHES if r < edge] or ([edge] if edge > 0 else [])
            along = []
            for reach in reaches:
                y = domain.project(start + reach * way)
                if norm(y - start - reach * way) > 1e-9 * norm(y) or oracle.f(x, y) > equal:
                    break
                along.append(oracle.F(x, y))
            if len(along) == len(REACHES) and abs(along[-1]) > 1e2 * abs(along[-2]) > 0.0:
                along.append(math.copysign(math.inf, along[-1]))
            values += along
    return values
