"""Checks of a program against its data: subscripts in range, labels that exist, empty sets."""

from __future__ import annotations

import numpy as np

from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import (
    Align,
    Apply,
    Expr,
    Fill,
    Gather,
    LabelPosition,
    Locate,
    Reduce,
    ScatterSum,
    Size,
)
from bilevelpy.ir.meanings import EvaluationError
from bilevelpy.ir.program import Program
from bilevelpy.ir.types import Axis
from bilevelpy.ir.walk import postorder, program_roots
from bilevelpy.sema.binding.problems import ready, report_empty, report_evaluation
from bilevelpy.sema.binding.state import State


def check_subscripts(state: State) -> None:
    """Evaluate every subscript once; report each that leaves its axis."""
    run = Interpreter(state.data)
    reported: set[Expr] = set()
    for node in postorder(program_roots(state.program)):
        for index, axis in _subscripts(node):
            if not ready(state, index) or axis in state.failed or axis not in state.sizes:
                continue
            try:
                run.run([index])
                if axis is not None and index is not node:
                    run.positions(index, state.sizes[axis], index)
            except EvaluationError as error:
                if error.node not in reported:
                    reported.add(error.node)
                    report_evaluation(state, error, index, user=node, target=axis)


def _subscripts(node: Expr) -> list[tuple[Expr, Axis]]:
    """Position expressions with the axes that they point into."""
    if isinstance(node, Gather):
        return [(i, node.operand.axes[d]) for d, i in enumerate(node.index) if i is not None]
    if isinstance(node, ScatterSum):
        return [(i, node.axes[d]) for d, i in enumerate(node.index)]
    if isinstance(node, LabelPosition | Locate):
        return [(node, node.axis)]
    return []


def check_empty(state: State) -> None:
    """Report empty axes where they hurt: variables, followers, means, extrema (not sums, rows)."""
    program = state.program
    for axis, what in _needed(program):
        if state.sizes.get(axis) == 0:
            report_empty(state, axis, what)
    for node in postorder(program_roots(program)):
        if isinstance(node, Reduce) and node.function in ("max", "min", "logsumexp"):
            for d in node.dims:
                if state.sizes.get(node.operand.axes[d]) == 0:
                    report_empty(state, node.operand.axes[d], f"`{node.function}`", node)
        elif isinstance(node, Apply) and node.function == "recip":
            _check_count(state, node)


def _check_count(state: State, node: Apply) -> None:
    """A mean divides by the size of an axis, or by the number of elements for each outer one."""
    count = node.operands[0]
    if isinstance(count, Size):
        if state.sizes.get(count.axis) == 0:
            report_empty(state, count.axis, "a mean over it", node)
        return
    while isinstance(count, Align):
        count = count.operand
    if isinstance(count, ScatterSum) and isinstance(count.operand, Fill) and ready(state, count):
        empty = np.argwhere(state.value(count) == 0)
        if len(empty):
            places = zip(count.axes, empty[0], strict=True)
            at = ", ".join(f"{a.name} = {state.element(a, k)}" for a, k in places)
            report_empty(state, count.operand.axes[0], f"the mean at {at}", node)


def _needed(program: Program) -> list[tuple[Axis, str]]:
    found = [(a, f"the family `{level.name}`") for level in program.levels for a in level.family]
    found += [
        (a, f"the variable `{v.name}`")
        for level in program.levels
        for v in level.variables
        for a in v.axes
    ]
    return found
