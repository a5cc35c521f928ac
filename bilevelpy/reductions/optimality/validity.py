"""When optimality conditions may stand for a follower, and the reason where they may not.

For every x the follower has to be convex in continuous variables: a positive semidefinite quadratic
form (an eigenvalue test at the bound data), rows that are affine in y, or convex on the side that
they bound. What is no polynomial of degree two is judged by the analysis of the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.diagnostics.diagnostic import diagnostic
from bilevelpy.ir.types import Stance
from bilevelpy.reductions.refusal import Refused

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.diagnostics.diagnostic import Diagnostic
    from bilevelpy.ir.program import Program
    from bilevelpy.reductions.rows import Follower, System

# Eigenvalues above this fraction of the largest entry below zero are rounding.
ROUNDING = 1e-9
DENSE_LIMIT = 1500
"""Largest quadratic form whose eigenvalues are found from a dense matrix."""


def require_optimistic(system: System, target: str) -> None:
    """Refuse the pessimistic stance: a single-level program lets the leader pick; and followers
    whose answer is the end of some steps, which no condition describes.
    """
    program = system.bound.program
    refuse_steps(program, target)
    if program.stance is Stance.PESSIMISTIC and program.lowers:
        found = diagnostic(
            "BLV0704",
            program.upper.span,
            hint="json and latex hold both; the stances agree where lower solutions are unique",
            target=target,
        )
        raise Refused(found, program)


def refuse_steps(program: Program, target: str) -> None:
    """Refuse followers that declare ``assume steps(T, s);``."""
    stated = [a for level in program.lowers for a in level.assumptions if a.name == "steps"]
    if stated:
        hint = "json, latex and blv hold it; drop the assumption to export the lower problem"
        what = "a follower whose answer is the end of some steps"
        found = diagnostic("BLV0701", stated[0].span, hint=hint, target=target, what=what)
        raise Refused(found, program)


def require_convex(system: System, force: bool = False) -> tuple[str, ...]:
    """Check that every follower may be replaced by its optimality conditions.

    Returns
    -------
    tuple of str
        Warnings, where ``force`` lets a follower through that is not known to be convex.

    Raises
    ------
    Refused
        BLV0703 for whole numbers, BLV0702 without convexity.
    """
    program = system.bound.program
    warnings: list[str] = []
    for k, follower in enumerate(system.followers):
        whole = np.flatnonzero((system.columns.owner == k + 1) & system.columns.integer)
        if whole.size:
            block = system.columns.block_of(int(whole[0]))
            span = block.span if block is not None else follower.span
            found = diagnostic(
                "BLV0703",
                span,
                "a whole number",
                hint="mps-aux holds a follower with whole numbers",
                level=follower.level,
            )
            raise Refused(found, program)
    for follower, span, why in _offences(system):
        found = _not_convex(follower, span, why)
        if not force:
            raise Refused(found, program)
        warnings.append(
            f"{follower.name} is not known to be convex ({why}): "
            "solutions may be stationary points that are no minima"
        )
    return tuple(warnings)


def _not_convex(follower: Follower, span: Span | None, why: str) -> Diagnostic:
    return diagnostic(
        "BLV0702",
        span or follower.span,
        why,
        notes=("the conditions hold at every stationary point, also where nothing is minimal",),
        hint="`force` writes it all the same, with a warning in the file",
        level=follower.level,
    )


def _offences(system: System) -> list[tuple[Follower, Span | None, str]]:
    found: list[tuple[Follower, Span | None, str]] = []
    objectives, rows = system.lower_objectives, system.lower_rows
    own = [np.flatnonzero(system.columns.owner == k + 1) for k in range(len(system.followers))]
    nonlinear = False
    for k, follower in enumerate(system.followers):
        level = system.bound.program.level(follower.level)
        nonlinear = nonlinear or k in objectives.trees
        if k in objectives.quadratic:
            least = least_eigenvalue(objectives.quadratic[k], own[k])
            if least < 0:
                why = f"its Hessian has the eigenvalue {least:.3g} at this data"
                found.append((follower, level.objective.span, why))
    for r in range(rows.count):
        k = int(rows.follower[r]) - 1
        if r in rows.functions.trees:
            nonlinear = True
        if r not in rows.functions.quadratic:
            continue
        q = rows.functions.quadratic[r]
        if np.isfinite(rows.upper[r]) and least_eigenvalue(q, own[k]) < 0:
            found.append((system.followers[k], rows.spans[r], f"`{rows.names[r]}` is not convex"))
        elif np.isfinite(rows.lower[r]) and least_eigenvalue(-q, own[k]) < 0:
            found.append((system.followers[k], rows.spans[r], f"`{rows.names[r]}` is not concave"))
    return found or (_judged_by_text(system) if nonlinear else [])


def _judged_by_text(system: System) -> list[tuple[Follower, Span | None, str]]:
    """What the analysis of the text says of followers that are no polynomials of degree two."""
    from bilevelpy.analysis.analyze import analyze

    structure = analyze(system.bound)
    first = system.followers[0]
    if not structure.is_convex:
        return [(first, structure.convexity.span, structure.convexity.reason)]
    if structure.lower.constraints.value == "nonconvex":
        return [(first, structure.lower.constraints.span, structure.lower.constraints.reason)]
    return []


def is_definite(system: System) -> bool:
    """Whether every follower has one best response: its objective is a positive definite quadratic
    form of its variables, which are real numbers in a convex set. In games the form
    ``z' (d/dy grad f) z`` of all players has to be positive definite together, so that there is one
    equilibrium (Rosen 1965).
    """
    objectives, columns = system.lower_objectives, system.columns
    if bool(columns.integer[system.lower_columns].any()):
        return False
    players = [k for k, follower in enumerate(system.followers) if follower.nash]
    for k in range(len(system.followers)):
        own = np.flatnonzero(columns.owner == k + 1)
        q = objectives.quadratic.get(k)
        if k in objectives.trees or (q is None and own.size):
            return False
        if q is not None and not _is_positive(q[own][:, own]):
            return False
    if players:
        parts = [np.flatnonzero(columns.owner == k + 1) for k in players]
        order, slopes = np.concatenate(parts), []
        for k, part in zip(players, parts, strict=True):
            if part.size:
                slopes.append(objectives.quadratic[k].tocsr()[part][:, order])
        game = sp.vstack(slopes)
        if not _is_positive(0.5 * (game + game.T)):
            return False
    return not _offences(system)


def _is_positive(block: Any) -> bool:
    """Whether a symmetric matrix is positive definite, beyond rounding."""
    if block.shape[0] > DENSE_LIMIT:
        return False
    dense = block.toarray()
    return bool(np.linalg.eigvalsh(dense)[0] > ROUNDING * abs(dense).max())


def least_eigenvalue(matrix: Any, chosen: Any) -> float:
    """The least eigenvalue of a symmetric block; 0 where it is negative by rounding only."""
    block = matrix[chosen][:, chosen]
    used = np.unique(block.tocoo().row)
    if not used.size:
        return 0.0
    block = block[used][:, used]
    scale = float(np.abs(block.data).max())
    if used.size <= DENSE_LIMIT:
        least = float(np.linalg.eigvalsh(block.toarray())[0])
    else:
        from scipy.sparse.linalg import eigsh

        least = float(eigsh(block, k=1, which="SA", return_eigenvectors=False)[0])
    return 0.0 if least >= -ROUNDING * scale * max(1, used.size) else least
