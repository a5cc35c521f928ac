"""Errors of evaluation in the user's words: which element, of which axis, what was sought."""

from __future__ import annotations

from typing import Any

from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir.elements import first_number
from bilevelpy.ir.expr import Expr, Gather, LabelPosition, Locate, Reduce, ScatterSum
from bilevelpy.ir.meanings import Array, EvaluationError
from bilevelpy.ir.types import Axis
from bilevelpy.ir.walk import params as params_of
from bilevelpy.ir.walk import postorder
from bilevelpy.sema.binding.shapes import node_axes
from bilevelpy.sema.binding.state import State, close_to, label_text, listed, number_text


def evaluation_problem(state: State, expr: Expr, poison: Any) -> Array | None:
    """The value of a data expression; None after reporting why it has none."""
    try:
        return state.value(expr)
    except EvaluationError as error:
        report_evaluation(state, error, expr, poison)
    except (MemoryError, ValueError) as error:
        state.report(
            "BLV0425", expr.span, "", poison=poison, what=_what(state, expr), notes=(str(error),)
        )
    return None


def ready(state: State, root: Expr) -> bool:
    """Whether everything below ``root`` has a value."""
    if any(name not in state.arrays for name in params_of(root)):
        return False
    return all(axis in state.sizes for axis in node_axes([root]))


def report_evaluation(
    state: State,
    error: EvaluationError,
    root: Expr,
    poison: Any = None,
    user: Expr | None = None,
    target: Axis | None = None,
) -> None:
    """Report the failure of one node below ``root``."""
    node = error.node
    span = (user.span if user is not None else None) or node.span or root.span
    if isinstance(node, LabelPosition):
        labels = state.labels.get(node.axis, ())
        similar = (
            close_to(node.label, [k for k in labels if isinstance(k, str)])
            if isinstance(node.label, str)
            else None
        )
        places = (Place(node.axis.span, "declared here"),) if node.axis.span else ()
        state.report(
            "BLV0415",
            span,
            "",
            poison=poison,
            secondary=places,
            element=label_text(node.label),
            axis=node.axis.name,
            notes=(_elements(state, node.axis),),
            hint=f"did you mean {label_text(similar)}?" if similar else None,
        )
    elif isinstance(node, Locate) and error.place is not None:
        found = error.found if isinstance(error.found, tuple) else (error.found,)
        wanted = ", ".join(
            number_text(v)
            if node.by_number
            else state.element(p, int(v))
            if 0 <= int(v) < state.sizes[p]
            else number_text(v)
            for v, p in zip(found, node.axis.parents or (node.axis,), strict=False)
        )
        _outside(state, span, node, node.axis, error.place, wanted, poison)
    elif error.place is not None:
        axis = target or _target(root, node)
        wanted = number_text(error.found)
        if (
            axis is not None
            and axis.is_numeric
            and axis in state.sizes
            and axis not in state.members
        ):
            wanted = number_text(float(error.found) + first_number(axis, state.value))  # type: ignore[arg-type]
        _outside(state, span, node, axis, error.place, wanted, poison)
    elif isinstance(node, Reduce):
        empty = next(
            node.operand.axes[d] for d in node.dims if not state.sizes[node.operand.axes[d]]
        )
        if poison is not None:
            state.failed.add(poison)
        report_empty(state, empty, f"`{node.function}`", node)
    else:
        state.report(
            "BLV0425",
            span,
            "",
            poison=poison,
            what=_what(state, user or node),
            notes=(error.reason,),
        )


def report_empty(state: State, axis: Axis, what: str, expr: Expr | None = None) -> None:
    """Report an axis without elements where one is needed, once."""
    if axis in state.failed:
        return
    setter = state.setters.get(axis)
    state.report(
        "BLV0420",
        (expr.span if expr is not None else None) or axis.span,
        "",
        poison=axis,
        axis=axis.name,
        what=what,
        notes=(f"its size comes from {setter.text}",) if setter is not None else (),
    )


def _outside(
    state: State,
    span: Any,
    node: Expr,
    axis: Axis | None,
    place: tuple[int, ...],
    wanted: str,
    poison: Any,
) -> None:
    at = listed(
        (f"{a.name} = {state.element(a, k)}" for a, k in zip(node.axes, place, strict=True)), 4
    )
    label = (f"at {at} " if at else "") + f"it asks for element {wanted}"
    name = axis.name if axis is not None else "its axis"
    state.report(
        "BLV0414",
        span,
        label,
        poison=poison,
        text=state.source_text(span) or "this subscript",
        axis=name,
        notes=(_elements(state, axis),) if axis is not None else (),
        hint=_counted(node, axis, wanted, state) or _left_out(axis),
    )


def _left_out(axis: Axis | None) -> str:
    """What to do about elements that an axis lacks."""
    if axis is not None and len(axis.parents) > 1:
        names = ", ".join("ijklmn"[: len(axis.parents)])
        return f"run over its elements, `for ({names}) in {axis.name}`, or leave out the others"
    return "leave that element out with a `where`"


def _counted(node: Expr, axis: Axis | None, wanted: str, state: State) -> str | None:
    """A hint for numbers of elements that are data: those of Python count from 0."""
    data = next(iter(params_of(node)), None)
    if data is None or axis is None or not axis.is_numeric or axis not in state.sizes:
        return None
    if float(wanted) != float(wanted):
        return None
    if not float(wanted).is_integer():
        return f"elements have whole numbers: round `{data}`"
    first = state.element(axis, 0)
    if float(wanted) != 0.0 or first != "1":
        return None
    return f"elements count from 1: where `{data}` counts from 0, bind `{data} + 1`"


def _elements(state: State, axis: Axis) -> str:
    size = state.sizes.get(axis, 0)
    if not size:
        return f"`{axis.name}` has no elements"
    if axis.is_numeric and axis not in state.members:
        return (
            f"`{axis.name}` runs from {state.element(axis, 0)} to {state.element(axis, size - 1)}"
        )
    shown = listed((state.element(axis, k) for k in range(min(size, 1000))), 6)
    return f"elements of `{axis.name}`: {shown}"


def _target(root: Expr, node: Expr) -> Axis | None:
    """The axis that an index expression below ``root`` points into."""
    for user in postorder(root):
        if isinstance(user, Gather):
            for d, index in enumerate(user.index):
                if index is node:
                    return user.operand.axes[d]
        elif isinstance(user, ScatterSum):
            for d, index in enumerate(user.index):
                if index is node:
                    return user.axes[d]
    return None


def _what(state: State, expr: Expr) -> str:
    text = state.source_text(expr.span)
    return f"`{text}`" if text else "an expression over data"
