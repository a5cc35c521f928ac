"""Models of one level with semidefinite matrices: a program over cones, by Clarabel.

    min  v'H v / 2 + q'v   s.t.  rows of v, norms of affine functions below others, Y in the cone

A convex program is solved to its global optimum, and a bound by duality is computed from the
multipliers (:mod:`bilevelpy.numerics.cones.program`). Absolute values, maxima and norms where less
is better become further variables.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import clarabel  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp
import torch

from bilevelpy.backends.whole import ProgramAnswer
from bilevelpy.errors import BackendError
from bilevelpy.lowering.programs.layout import domain, layout
from bilevelpy.numerics.certificate.constrained import (
    Claim,
    examine_point,
    verdict,
    without_point,
)
from bilevelpy.numerics.cones.program import ConeAnswer, ConeProgram
from bilevelpy.numerics.cones.semidefinite import cone_rows
from bilevelpy.reductions.refusal import Refused, refuse
from bilevelpy.reductions.rewriting.fixing import polynomial
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.norms import Norm, Norms
from bilevelpy.reductions.rows import Rows, System, system, without_constants
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.lowering.domains.product import ProductSet
    from bilevelpy.options import SolveOptions

Array = np.ndarray[Any, np.dtype[Any]]
# Rows A, ends b and the cones that b - A v lies in.
Part = tuple[Any, Array, list[Any]]

# Eigenvalues above this fraction of the largest one below 0 are rounding; multipliers may leave
# their cone by as much as the second number (relative).
ROUNDING, INSIDE = 1e-9, 1e-7
# A gap (relative) of so many tolerances counts as proved.
CLOSE = 10.0


def solve_matrices(bound: BoundProgram, options: SolveOptions, verify: bool) -> ProgramAnswer:
    """The global optimum of a convex model of one level.

    Raises
    ------
    BackendError
        Where the objective or a row is not convex, or no cone of Clarabel; the text names it.
    """
    began = time.perf_counter()
    try:
        stated = system(bound, matrices=True)
        blocks = domain(bound, layout(bound, [bound.program.upper]))
        program = _program(lift(stated, leader=True), blocks)
    except Refused as error:
        raise BackendError(str(error)) from error
    found = program.solve(options.time_limit - (time.perf_counter() - began))
    return _answer(stated, blocks, program, found, options, verify, began)


def _answer(
    stated: System,
    blocks: ProductSet,
    program: ConeProgram,
    found: ConeAnswer,
    options: SolveOptions,
    verify: bool,
    began: float,
) -> ProgramAnswer:
    solved = time.perf_counter() - began
    count = stated.columns.count
    v = found.v[:count]
    certificate = None
    if not np.isfinite(v).all():
        status, message = _without(found.status)
        proved = found.status == "infeasible"
        if verify:
            certificate = without_point(message, {}, proved)
        return ProgramAnswer(stated, v, {}, status, message, certificate, 1, (), solved)
    v = blocks.project(torch.from_numpy(v)).numpy()
    value = program.value(found.v)
    gap = found.gap / max(1.0, abs(value))
    constant = float(stated.objective.constant[0])
    proved = found.outside <= INSIDE and gap <= CLOSE * options.tol
    if verify:
        claim = Claim(proved, value + constant - found.gap, gap)
        certified = verdict(stated, claim, examine_point(stated, v))
        certificate = _with_domains(certified, blocks, v)
    if found.status == "time_limit":
        status, message = Status.TIME_LIMIT, "the point that Clarabel had when the time was up"
    elif certificate is not None and certificate.kind == "global":
        status, message = Status.CONVERGED, f"global optimum, gap {gap:.1e}"
    else:
        why = "not verified" if certificate is None else "; ".join(certificate.reasons)
        status, message = Status.STALLED, f"Clarabel calls the point optimal; {why}"
    return ProgramAnswer(stated, v, {}, status, message, certificate, 1, (), solved)


def _with_domains(made: Certificate, blocks: ProductSet, v: Array) -> Certificate:
    """A certificate that has looked at the cones, too."""
    off = blocks.violation(torch.from_numpy(v))
    worst = max(made.upper_feasibility, float(off))
    if off <= 1e-7 * max(float(np.linalg.norm(v)), 1.0):
        return replace(made, upper_feasibility=worst)
    reasons = (f"upper variables leave their domain by {off:.1e}", *made.reasons)
    return replace(made, kind="none", upper_feasibility=worst, reasons=reasons)


def _without(status: str) -> tuple[Status, str]:
    ends = {
        "infeasible": (
            Status.INFEASIBLE,
            "no point satisfies the constraints within the domains of the variables: Clarabel "
            "found multipliers that contradict them",
        ),
        "unbounded": (Status.UNBOUNDED, "the objective has no bound within the constraints"),
        "time_limit": (Status.TIME_LIMIT, "no point was found within the time limit"),
    }
    return ends.get(status, (Status.STALLED, "Clarabel met numerical trouble"))


# --- the program ----------------------------------------------------------------------------------


def _program(lifted: System, blocks: ProductSet) -> ConeProgram:
    """Rows, norms and domains as cones."""
    # Domains are cones of their own.
    stated = [
        r
        for r in range(lifted.upper_rows.count)
        if lifted.upper_rows.origin[r] is not None
        or lifted.upper_rows.names[r].startswith("epigraph.")
    ]
    rows = lifted.upper_rows.take(stated)
    upper = lifted.bound.program.upper
    norms = Norms(lifted, lifted.columns.count)
    for tree in lifted.objective.trees.values():
        norms.watch(tree, 0, 1.0)
    whole = (upper.objective.span or upper.span, "the objective")
    if not norms.regular:
        raise _refused(lifted, *whole)
    for r, tree in rows.functions.trees.items():
        for sign, end in ((1.0, rows.upper[r]), (-1.0, rows.lower[r])):
            if math.isfinite(end):
                norms.watch(tree, 0, sign)
        if not norms.regular:
            raise _refused(lifted, rows.spans[r], f"the constraint `{rows.names[r]}`")
    leader = np.zeros(max(rows.count, 1), dtype=np.int64)
    width = lifted.columns.count + len(norms.names)
    objective = norms.read(lifted.objective.widened(width), leader)
    functions = norms.read(rows.functions.widened(width), leader)
    rows = without_constants(replace(rows, functions=functions))
    if objective.trees:
        raise _refused(lifted, *whole)
    parts = [_linear(rows, width), _domains(blocks, width)]
    parts += [_round(lifted, rows, r, width) for r in sorted(rows.functions.quadratic)]
    parts += [_norm(norm, width) for norm in norms.made]
    for r in rows.functions.trees:
        raise _refused(lifted, rows.spans[r], f"the constraint `{rows.names[r]}`")
    H = sp.csc_array(objective.quadratic.get(0, sp.csr_array((width, width))))
    _require_convex(lifted, H, blocks)
    return ConeProgram(
        H,
        np.asarray(objective.linear.toarray()).reshape(-1),
        sp.csc_array(sp.vstack([matrix for matrix, _, _ in parts])),
        np.concatenate([ends for _, ends, _ in parts]),
        [cone for _, _, cones in parts for cone in cones],
    )


def _linear(rows: Rows, width: int) -> Part:
    """The linear rows."""
    curved = set(rows.functions.quadratic) | set(rows.functions.trees)
    plain = rows.take(r for r in range(rows.count) if r not in curved)
    equal = plain.lower == plain.upper
    up, down = np.isfinite(plain.upper) & ~equal, np.isfinite(plain.lower) & ~equal
    linear = sp.csr_array(plain.functions.linear)
    linear.resize((plain.count, width))
    which = [np.flatnonzero(chosen) for chosen in (equal, up, down)]
    matrix = sp.vstack([linear[which[0]], linear[which[1]], -linear[which[2]]])
    ends = np.concatenate([plain.upper[equal], plain.upper[up], -plain.lower[down]])
    cones = [clarabel.ZeroConeT(which[0].size)]
    return matrix, ends, [*cones, clarabel.NonnegativeConeT(which[1].size + which[2].size)]


def _domains(blocks: ProductSet, width: int) -> Part:
    matrix, ends, cones = cone_rows(blocks)
    wide = sp.csr_array(matrix)
    wide.resize((ends.size, width))
    return wide, ends, cones


def _round(lifted: System, rows: Rows, r: int, width: int) -> Part:
    """``|L v|^2 + l'v <= u`` as ``|(2 L v, 1 + l'v - u)| <= 1 - l'v + u``."""
    sign, end = (1.0, rows.upper[r]) if math.isfinite(rows.upper[r]) else (-1.0, -rows.lower[r])
    both = math.isfinite(rows.upper[r]) and math.isfinite(rows.lower[r])
    curved = sign * rows.functions.quadratic[r]
    used = np.unique(curved.tocoo().row)
    values, vectors = np.linalg.eigh(curved[used][:, used].toarray())
    if both or values[0] < -ROUNDING * float(np.abs(values).max()):
        raise _refused(lifted, rows.spans[r], f"the constraint `{rows.names[r]}`")
    kept = values > ROUNDING * values[-1]
    root = np.sqrt(0.5 * values[kept])[:, None] * vectors.T[kept]
    place = (root.ravel(), (np.repeat(np.arange(len(root)), used.size), np.tile(used, len(root))))
    L = sp.csr_array(place, shape=(len(root), width))
    slope = sp.csr_array(sign * rows.functions.linear[[r]])
    ends = np.concatenate([[1.0 + end], np.zeros(len(root)), [1.0 - end]])
    matrix = sp.vstack([slope, -2.0 * L, -slope])
    return matrix, ends, [clarabel.SecondOrderConeT(ends.size)]


def _norm(norm: Norm, width: int) -> Part:
    """``(t, v)`` in a second-order cone."""
    entries: list[tuple[int, int, float]] = [(0, norm.height, -1.0)]
    ends = np.zeros(1 + len(norm.parts))
    for n, part in enumerate(norm.parts):
        terms = polynomial(part)
        assert terms is not None  # affine in all that there is
        for key, value in terms.items():
            if key:
                entries.append((n + 1, key[0], -value))
            else:
                ends[n + 1] = value
    i, j, c = zip(*entries, strict=True)
    matrix = sp.csr_array((c, (i, j)), shape=(ends.size, width))
    return matrix, ends, [clarabel.SecondOrderConeT(ends.size)]


def _require_convex(lifted: System, H: Any, blocks: ProductSet) -> None:
    """Only the symmetric part of a matrix counts."""
    used = np.unique(H.tocoo().row)
    if not used.size:
        return
    mean = sp.eye_array(H.shape[0], format="lil")
    for block in blocks.matrices:
        for k in range(block.count):
            first = block.start + k * block.size
            for i in range(block.side):
                for j in range(i):
                    one, two = first + i * block.side + j, first + j * block.side + i
                    mean[one, one] = mean[two, two] = mean[one, two] = mean[two, one] = 0.5
    middle = sp.csr_array(mean)
    whole = (middle @ sp.csr_array(H) @ middle).tocsr()
    used = np.unique(whole.tocoo().row)
    values = np.linalg.eigvalsh(whole[used][:, used].toarray()) if used.size else np.zeros(1)
    if values[0] < -ROUNDING * float(np.abs(values).max()):
        upper = lifted.bound.program.upper
        raise _refused(lifted, upper.objective.span or upper.span, "the objective")


def _refused(lifted: System, span: Span | None, what: str) -> Refused:
    return refuse(
        lifted.bound.program,
        "BLV0701",
        span,
        "neither affine, nor convex and quadratic, nor a norm where less is better",
        hint="other functions of a matrix, `-logdet(Y)` among them, may be the objective of a "
        "`lower` level, below an upper variable that nothing reads",
        target="a model of one level with semidefinite matrices",
        what=what,
    )
