"""``kkt``: Newton's method and the adjoint of the KKT system, for lower levels with rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import (
    UPPER_ROWS,
    refuse_other_than_rows,
    refuse_shape,
    with_epigraphs,
    with_smooth_upper,
    without_upper_rows,
)
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.backends.constrained.feasible_starts import feasible_starts, no_feasible_start
from bilevelpy.backends.constrained.further import Further, described, note, search
from bilevelpy.backends.constrained.starts import RowsState, begin_rows, widened
from bilevelpy.backends.constrained.upper_rows import measure_rows, step_rows
from bilevelpy.backends.loop import check_range
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.lower.response import NO_SOLUTION
from bilevelpy.numerics.rows.piece_sample import ENTRIES
from bilevelpy.numerics.rows.piece_sample import LARGEST as LARGEST_PIECES
from bilevelpy.numerics.rows.response import (
    FLOOR,
    ConstrainedLower,
    constrained_lower,
    rows_response,
)
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.numerics.upper.optimizer import UpperState, advance, begin, measure
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

ALONE = (
    "the lower level is convex, not strongly: with its rows its solution has to be unique, which "
    "is checked at the end"
)
# Shadow prices are multipliers, which are known and differentiable where rows are independent.
PRICES = frozenset({"duals", "reported_duals"})
TIED = (
    "the shadow prices that the leader reads are not unique at the start (the rows that hold the "
    "response depend on one another), and this method does not choose among them: `nlp` does, or "
    "a `start` of the upper variables at which they are unique"
)
# Lower variables and rows: the system is dense.
LARGEST = 6000
# Steps in which the hypergradient becomes smaller than this part of what it was, or zigzags.
WHILE, SMALLER = 25, 0.3
# Upper variables and rows of the quadratic programs of steps within upper rows.
LARGEST_UPPER = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class KKTOptions(BackendOptions):
    """Options of ``kkt``: ``lower_tol``, the Newton step, relative to y, at which the lower level
    counts as solved; ``starts``, how many are tried where the upper level has rows.
    """

    lower_tol: float = 1e-10
    starts: int = 4

    def __post_init__(self) -> None:
        check_range(self, "kkt", 0.0, 1.0, "lower_tol", closed=False)
        check_range(self, "kkt", 1, 1000, "starts")


class KKT:
    """Exact hypergradients of lower levels with equations and inequalities that are affine in y, by
    the KKT system [Gould2016]_ [Amos2017]_.

    With ``L = f + l'c`` and the rows A that push at the response::

        [ f_yy  A' ] [u]   [ dF/dy ]
        [ A     0  ] [r] = [   0   ]      dPhi/dx = dF/dx - L_xy u - A_x' r

    The response is solved by sequential quadratic programming with the Hessian at every step, and
    what holds the last one is where the next begins; the upper variables move by projected L-BFGS
    with a Wolfe search. Where the upper level has rows, which may read the response, they move by
    sequential quadratic programs, with the derivatives of the rows from the same system. Where what
    holds changes, ``F(x, y(x))`` has a kink; kinks of F itself are taken in the same way. The
    system is regular where f curves upwards in every direction that the rows leave open, which
    slack variables and epigraphs have from their rows.

    Cost per upper step: one to five values, gradients, Hessians and dense systems of the lower
    variables and the rows that hold (cubic in their number), one adjoint.
    """

    name: ClassVar[str] = "kkt"
    title: ClassVar[str] = "Newton and adjoint of the KKT system for lower constraints"
    reference: ClassVar[str] = "Amos2017"
    options: ClassVar[type[BackendOptions]] = KKTOptions
    # Its solves end by themselves in single precision too.
    in_single: ClassVar[bool] = True
    # It is given rows in place of kinks, where epigraphs can stand for them.
    takes_epigraphs: ClassVar[bool] = True

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A convex lower level that is not linear, with bounds or rows affine in its variables, m +
        rows <= 6000; it is smooth, or rows can take the place of its kinks.
        """
        structure = with_epigraphs(structure)
        alone = without_upper_rows(structure)
        told = {k: v for k, v in alone.unsupported.items() if k not in PRICES}
        alone = with_smooth_upper(replace(alone, unsupported=told))
        upper = bool(structure.unsupported.keys() & UPPER_ROWS)
        shape = structure.lower.constraints.value
        if shape == "bounds" or (upper and shape == "none"):
            refusal = refuse_shape(alone)
        else:
            refusal = refuse_other_than_rows(alone, "`direct` is the method without them")
        if refusal is not None:
            return refusal
        if upper and max(structure.dim_x, structure.upper_constraints) > LARGEST_UPPER:
            return Reject(
                f"takes at most {LARGEST_UPPER} upper variables, and as many rows, where the upper "
                "level has rows",
                structure.upper.constraints,
            )
        if not structure.is_convex:
            return Reject("needs a convex lower level", structure.convexity)
        if structure.lower.form.value == "linear":
            return Reject(
                "needs a response that moves with x: that of a linear lower level jumps",
                structure.lower.form,
            )
        if structure.lower.constraints.value not in ("none", "bounds", "linear"):
            return Reject(
                "needs lower constraints that are affine in the lower variables",
                structure.lower.constraints,
            )
        if structure.lower.domains.value - {"free", "box", "simplex"}:
            return Reject("takes free, box and simplex variables", structure.lower.domains)
        size = structure.dim_y + structure.lower_constraints
        if size > LARGEST:
            return Reject(
                f"factorises a dense system: at most {LARGEST} lower variables and rows, found "
                f"{size}",
                None,
            )
        one = structure.has_one_response
        reason = "exact hypergradients from the KKT system of the lower level"
        return Accept(reason, () if one else (ALONE,))

    def cost(self, structure: Structure) -> Cost:
        """Dense systems of variables and rows."""
        structure = with_epigraphs(structure)
        size = structure.dim_y + structure.lower_constraints
        return Cost(
            gradients=5.0,
            products=2.0 * structure.dim_y + 2.0,
            flops=2.0 * size**3,
            memory=40.0 * size**2,
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: KKTOptions, rng: torch.Generator
    ) -> Further:
        """Evaluate Phi and dPhi/dx at the start, or where the lower rows can be met; where there
        are upper rows, at further starts.
        """
        state = Further(_begun(oracle, x, y, options, options.starts, rng))
        note(state, _measured(oracle, state.inner), options.tol)
        return state

    def step(self, oracle: Oracle, state: Further, options: KKTOptions) -> Further:
        """One accepted step of the upper optimizer; after the end of a run, the search for another
        start.
        """
        if state.pending is not None:
            rng = torch.Generator().manual_seed(0)

            def begin_at(x: Vec, y: Vec) -> UpperState | RowsState:
                return _begun(oracle, x, y, options, 1, rng)

            search(state, oracle, _measured(oracle, state.inner), begin_at)
        else:
            state.inner = _stepped(oracle, state.inner, options)
        if state.over is None:
            note(state, _measured(oracle, state.inner), options.tol)
        return state

    def measure(self, oracle: Oracle, state: Further) -> Measure:
        """Read the state."""
        return described(state, _measured(oracle, state.inner))


def _begun(
    oracle: Oracle, x: Vec, y: Vec, options: KKTOptions, starts: int, rng: torch.Generator
) -> UpperState | RowsState:
    """A run at its start."""
    functions: Any = oracle
    if functions.G.size:
        sampler = RowsSampler(constrained_lower(oracle, options.lower_tol))
        rows = begin_rows(oracle, x, y, options.tol, starts, rng, sampler)
        if rows.here is None and _is_tied(oracle, sampler.solver, x, y):
            rows.finish = Finish(Status.STALLED, TIED)
        return rows
    state = begin(rows_response(oracle, options.lower_tol), x, y, options.tol)
    if state.point.lower.ended != "infeasible":
        priced = hasattr(oracle, "are_unique")
        if priced and state.finish is not None and math.isnan(state.point.F):
            state.finish = Finish(Status.STALLED, TIED)
        return state
    for at in feasible_starts(oracle, state.point.x, rng):
        found = begin(rows_response(oracle, options.lower_tol), at, y, options.tol)
        if found.point.lower.ended != "infeasible":
            return found
    state.finish = no_feasible_start(oracle, state.point.x)
    return state


def _stepped(
    oracle: Oracle, state: UpperState | RowsState, options: KKTOptions
) -> UpperState | RowsState:
    """A step of a run, which may go on by others."""
    if isinstance(state, RowsState):
        return step_rows(state)
    state = advance(state)
    stuck = state.finish is not None and state.finish.status is not Status.UNBOUNDED
    if stuck and state.stationarity() > options.tol:
        on = _along_edge(oracle, state, options)
        if on is None and state.finish is not None and state.finish.status is Status.STALLED:
            on = _over_kinks(oracle, state, options)
        return on or state
    if state.finish is None and _zigzags(state):
        return _over_kinks(oracle, state, options) or state
    return state


def _measured(oracle: Oracle, state: UpperState | RowsState) -> Measure:
    return measure_rows(oracle, state) if isinstance(state, RowsState) else measure(state)


def _is_tied(oracle: Oracle, solver: ConstrainedLower, x: Vec, y: Vec) -> bool:
    """Whether the leader reads shadow prices that are not unique at the response to x."""
    are_unique = getattr(oracle, "are_unique", None)
    if are_unique is None:
        return False
    lower = solver.respond(x, y, replace(FLOOR))
    return lower.ended not in NO_SOLUTION and not are_unique(x, lower.y)


def _zigzags(state: UpperState) -> bool:
    """Whether the hypergradient has not become smaller for a while: steps go to and fro across
    kinks.
    """
    norms = state.norms
    if len(norms) < 2 * WHILE or len(norms) % WHILE:
        return False
    return min(norms[-WHILE:]) > SMALLER * min(norms[:-WHILE])


def _over_kinks(oracle: Oracle, state: UpperState, options: KKTOptions) -> RowsState | None:
    """The run by steps that go from piece to piece of the response; None where these are too large,
    or it has no value there.
    """
    lower, functions = state.response.method, cast("Any", oracle)
    size = oracle.n * (2 * oracle.m + functions.g.size)
    if not isinstance(lower, ConstrainedLower) or oracle.n > LARGEST_PIECES or size > ENTRIES:
        return None
    rng = torch.Generator().manual_seed(0)
    sampler = RowsSampler(lower)
    at = begin_rows(oracle, state.point.x, state.point.y, options.tol, 1, rng, sampler)
    return None if at.here is None else at


def _along_edge(oracle: Oracle, state: UpperState, options: KKTOptions) -> RowsState | None:
    """The run with the row of x that stopped it; None where it was none: at an x beyond, the lower
    rows cannot be met.
    """
    lower = state.response.method
    if not isinstance(lower, ConstrainedLower) or lower.unmet is None:
        return None
    sampler = RowsSampler(lower)
    sampler.learn(oracle, lower.unmet, state.point.x)
    if not sampler.cuts:
        return None
    rng = torch.Generator().manual_seed(0)
    at = begin_rows(oracle, state.point.x, state.point.y, options.tol, 1, rng, sampler)
    if at.here is None:
        return None
    widened(at)
    return at
