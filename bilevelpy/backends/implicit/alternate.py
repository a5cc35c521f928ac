"""One round of lower step, dual step and hypergradient: what the single loops with a multiplier
share.
"""

from __future__ import annotations

import math

from bilevelpy.backends.loop import LoopState
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.krylov import on_face

ORDERS = ("sequential", "parallel")
DUALS = ("line-search", "constant")
BENT = "negative curvature of the lower level was met on the way"


def alternate(problem: Oracle, state: LoopState, *, order: str, dual: str, eta: float) -> None:
    """Update y and v, and the hypergradient h, at the present x::

        y <- y - beta f_y,   r = H v - F_y,   v <- v - eta r,   h = F_x - f_xy v

    ``order``: sequential (v and h see the new y and v) or parallel (all see the old ones).
    ``dual``: constant (eta as given) or line-search (``eta = r'r / r'H r``; as given where the
    curvature is not positive).
    """
    x, y, v = state.x, state.y, state.u
    domain = problem.domain_y
    g = problem.grad_f(x, y)
    state.residual = domain.projected_gradient_norm(y, g)
    face = domain.face(y, g)
    y_next = domain.project(y - state.beta * g)
    sequential = order == "sequential"
    at = y_next if sequential else y
    H = on_face(problem.hvp(x, at), face)
    gF_x, gF_y = problem.grad_F(x, at)
    d, v = face.project(gF_y), face.project(v)
    r = H(v) - d
    rr = dot(r, r)
    if dual == "line-search" and rr > 0:
        bend = dot(r, H(r))
        if bend < 0:
            state.warn(BENT)
        eta = rr / bend if bend > 0 else eta
    v_next = v - eta * r
    cross = problem.cross(x, at)(v_next if sequential else v)
    state.y, state.u, state.h = y_next, v_next, gF_x - cross
    state.size = norm(gF_x) + norm(cross)
    size = norm(d)
    state.adjoint = min(math.sqrt(rr) / size, 1.0) if size > 0 else 0.0
    state.k += 1
