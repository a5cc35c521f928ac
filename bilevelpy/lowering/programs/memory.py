"""How much memory a program takes, from sizes alone: told before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from bilevelpy.diagnostics import Span, diagnostic
from bilevelpy.errors import ModelError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.mapped import VARIABLE, budget, is_mapped, streamed_bytes
from bilevelpy.ir.objectives import lower_objective, upper_objective
from bilevelpy.ir.program import BoundProgram, Program
from bilevelpy.ir.walk import params, postorder
from bilevelpy.system.memory import in_words, machine_memory

# Leaves that exist anyway, and broadcasts, which are never stored.
_FREE = (ir.ParamRef, ir.VarRef, ir.Const, ir.Fill, ir.Align)
# Bytes of rows of files, in float64, that are evaluated at once; the same where second derivatives
# are added up, and the part of the memory for data that those may be.
BLOCK = 1 << 24
LONG, SHARE = 1 << 27, 32
# Vectors over all variables that every run holds: the point, its start, two bounds, a gradient, and
# a step.
VECTORS = 6
# Arrays as large as an intermediate result that there are with it: what it is computed from, what
# is computed from it, and its gradient.
ARRAYS = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes: of the bound data, and of one evaluation of both objectives with their gradients."""

    data: int
    evaluation: int


def widest(bound: BoundProgram, roots: Sequence[Expr]) -> tuple[int, Expr | None]:
    """The node below the roots with the most entries, and their number."""
    best: tuple[int, Expr | None] = (0, None)
    for node in postorder(roots):
        if not isinstance(node, _FREE):
            entries = prod(bound.data.sizes[a] for a in node.axes)
            if entries > best[0]:
                best = (entries, node)
    return best


def forecast(bound: BoundProgram) -> Forecast:
    """What a program will take in float64.

    An evaluation keeps what it has computed until the gradient has used it, and about as much
    again for the gradient: an upper bound, since parts are freed on the way. Data that stays in
    files is not held: an evaluation has a block of its rows, and what belongs to them.
    """
    program, builder = bound.program, bound.program.builder
    objectives = (upper_objective(program)[0], lower_objective(program)[0])
    arrays = list(bound.data.arrays.values())
    streamed = streamed_bytes(arrays)
    data = sum(_bytes(a) for a in arrays if not (streamed and is_mapped(a)))
    evaluation = 0
    for root in objectives:
        moving = [
            prod(bound.data.sizes[a] for a in node.axes)
            for node in postorder(root)
            if not isinstance(node, _FREE) and not builder.is_data(node)
        ]
        evaluation = max(evaluation, 16 * sum(moving))
    if streamed:
        block = min(streamed, long_block())
        evaluation = 2 * block + evaluation * block // streamed
    return Forecast(data, evaluation)


def long_block() -> int:
    """Bytes of rows of files, in float64, that are at most evaluated at once."""
    return max(BLOCK, min(LONG, budget() // SHARE))


def _bytes(array: object) -> int:
    parts = [array, *(getattr(array, name, None) for name in ("data", "indices", "indptr"))]
    sparse = hasattr(array, "indptr")
    return sum(int(getattr(p, "nbytes", 0) or 0) for p in (parts[1:] if sparse else parts[:1]))


def check_memory(bound: BoundProgram) -> None:
    """Refuse a program with variables or an intermediate result that cannot exist here.

    Raises
    ------
    ModelError
        BLV0603, at the variable or the expression that makes the result, with its size.
    """
    _check_variables(bound)
    program = bound.program
    roots = [upper_objective(program)[0], lower_objective(program)[0]]
    roots += [t for level in program.levels for c in level.constraints for t in c.terms]
    entries, node = widest(bound, roots)
    limit = machine_memory()
    size = ARRAYS * 8 * entries
    if node is None or size <= limit:
        return
    sizes = " x ".join(f"{bound.data.sizes[a]:,}" for a in node.axes)
    label = f"{sizes} numbers, and as many before and after them and in the gradient"
    raise _too_large(program, _place(roots, node), label, size, limit)


def _too_large(
    program: Program, span: Span | None, label: str, size: int, limit: int
) -> ModelError:
    error = diagnostic("BLV0603", span, label, size=in_words(size), memory=in_words(limit))
    return ModelError([error], program.sources)


def _check_variables(bound: BoundProgram) -> None:
    """Refuse more variables than a run has vectors for."""
    sizes = bound.data.sizes
    variables = [v for level in bound.program.levels for v in level.variables]
    entries = [prod(sizes[a] for a in v.axes) for v in variables]
    total, limit = VECTORS * 8 * sum(entries), machine_memory()
    if total <= limit:
        return
    count, largest = max(zip(entries, variables, strict=True), key=lambda pair: pair[0])
    label = f"{count:,} numbers, and as many for bounds, start, gradient and step"
    raise _too_large(bound.program, largest.span, label, total, limit)


def check_held(bound: BoundProgram, terms: Sequence[Expr]) -> None:
    """Refuse terms that are evaluated as a whole where the data that they read stays in files.

    Raises
    ------
    ModelError
        BLV0603, at the first term whose arrays are larger than memory, with their size.
    """
    program = bound.program
    limit = budget() if VARIABLE in os.environ else machine_memory()
    for term in terms:
        read = sorted(n for n in params(term) if is_mapped(bound.data.arrays.get(n)))
        size = _held(bound, term) if read else 0
        if size > limit:
            names = ", ".join(f"`{name}`" for name in read)
            label = f"no sum over the rows of {names}, which stay in files: needs all of them"
            raise _too_large(program, _place([term], term), label, size, limit)


def _held(bound: BoundProgram, term: Expr) -> int:
    """Bytes of the data that evaluations of a term hold: params that they look at, and what is
    computed of data once. Of params that are only summed up for that nothing is held.
    """
    builder, arrays = bound.program.builder, bound.data.arrays
    stack, seen, size = [term], set[Expr](), 0
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, ir.ParamRef):
            size += 8 * arrays[node.name].size if is_mapped(arrays[node.name]) else 0
        elif builder.is_data(node) and not isinstance(node, _FREE):
            entries, _ = widest(bound, [node])
            size += 8 * entries
        else:
            stack.extend(node.children)
    return size


def _place(roots: Sequence[Expr], node: Expr) -> Span | None:
    """The text of a node, or of the smallest expression around it that has one."""
    around = {node}
    for parent in postorder(roots):
        if parent in around or any(c in around for c in parent.children):
            if parent.span is not None:
                return parent.span
            around.add(parent)
    return None


def memory_words(bound: BoundProgram, backend: float) -> str:
    """The forecast in one line; ``backend`` are the bytes that the chosen method keeps."""
    found = forecast(bound)
    total = found.data + found.evaluation + int(backend)
    return (
        f"about {in_words(total)} of {in_words(machine_memory())} ({in_words(found.data)} of data, "
        f"up to {in_words(found.evaluation)} for an evaluation, {in_words(backend)} for the method)"
    )
