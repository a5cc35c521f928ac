"""Dims, sets, params, externs and variables: their axes, domains and defaults."""

from __future__ import annotations

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Extern, ExternArgument, Param, Read
from bilevelpy.ir.program import Table as ParamTable
from bilevelpy.ir.types import FREE, Axes, Axis, AxisKind
from bilevelpy.ir.types import Label as Element
from bilevelpy.sema.axes import (
    DEEP,
    axes_of,
    counted,
    too_deep,
)
from bilevelpy.sema.domains import domain_of, fitted, unknown_word
from bilevelpy.sema.expressions.calls import READS
from bilevelpy.sema.expressions.elaborate import drive, evaluate
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.paths import leaves_folder
from bilevelpy.sema.scope import AT_TOP, Declaration, Kind, State, closest, element_text
from bilevelpy.sema.sets import _width, set_axis
from bilevelpy.syntax import ast

PROPERTIES = ("smooth", "convex", "concave", "nonnegative", "increasing", "decreasing", "affine")


def declare(state: State, declaration: Declaration) -> None:
    """Elaborate one declaration of the top level."""
    if declaration in state.circular:
        return
    node = declaration.node
    match declaration.kind:
        case Kind.DIM:
            state.axes[declaration] = _dim(state, node)
        case Kind.SET:
            axis = drive(state, set_axis(state, node))
            if axis is not None and too_deep(axis):
                inner = axis.parents[0].name if axis.parents else axis.name
                state.error(
                    "BLV0319",
                    node.span,
                    DEEP,
                    operator="set",
                    left=f"`{node.name}`",
                    right=f"`{inner}`",
                )
                axis = None
            state.axes[declaration] = axis
        case Kind.PARAM:
            _param(state, declaration)
        case Kind.EXTERN:
            _extern(state, node)
        case _:
            pass


def _dim(state: State, node: ast.DimItem) -> Axis | None:
    size: ir.Expr | None = None
    if node.value is not None:
        value = evaluate(state, AT_TOP, node.value)
        if value is None:
            return None
        number = value.expr.value if isinstance(value.expr, ir.Const) else None
        if value.axes or (number is not None and (number < 1 or number % 1 != 0)):
            text = state.text(node.value.span)
            state.error("BLV0311", node.value.span, "not a whole number from 1 on", text=text)
            return None
        size = value.expr
    return Axis(node.name, AxisKind.DIM, span=node.name_span, size=size, doc=node.doc)


# --- params and externs
# -----------------------------------------------------------------------------------


def _param(state: State, declaration: Declaration) -> None:
    node: ast.ParamItem = declaration.node
    axes = drive(state, axes_of(state, AT_TOP, node.axes))
    state.shapes[declaration] = axes
    domain = domain_of(state, AT_TOP, node.domain, axes, ()) if axes is not None else FREE
    default = _default(state, node, axes)
    if axes is not None:
        state.params[node.name] = Param(
            node.name,
            axes,
            domain or FREE,
            default,
            node.span,
            node.doc,
            _literal_shape(node.default),
        )


def _literal_shape(value: object) -> tuple[int, ...]:
    """The shape of an array in brackets; that its rows are equally long is checked elsewhere."""
    shape: list[int] = []
    while isinstance(value, ast.Array) and value.elements:
        shape.append(len(value.elements))
        value = value.elements[0]
    return tuple(shape)


def _default(
    state: State, node: ast.ParamItem, axes: Axes | None
) -> ir.Expr | Read | ParamTable | None:
    value = node.default
    if value is None:
        return None
    if isinstance(value, ast.Table):
        return _table(state, node, value, axes)
    if isinstance(value, ast.Call) and value.function in READS:
        return _read(state, value)
    found = evaluate(state, AT_TOP, value)
    if found is None or axes is None:
        return None
    return fitted(state, AT_TOP, found, axes, value.span, node.name, "default", node.span)


def _table(
    state: State, node: ast.ParamItem, table: ast.Table, axes: Axes | None
) -> ParamTable | None:
    values: dict[Element, float] = {}
    spans: dict[Element, Span] = {}
    for key, value, span in zip(table.keys, table.values, table.key_spans, strict=True):
        if key in values:
            state.error(
                "BLV0320",
                span,
                "again",
                secondary=[Label(spans[key], "first here")],
                element=state.text(span),
            )
        values[key] = value
        spans[key] = span
        if axes is not None:
            _check_key(state, key, span, axes, node)
    return ParamTable(values, table.span)


def _check_key(state: State, key: Element, span: Span, axes: Axes, node: ast.ParamItem) -> None:
    if len(axes) == 1 and axes[0].labels is not None:
        if key not in axes[0].labels:
            _not_in(state, key, span, axes[0])
        return
    parts = key if isinstance(key, tuple) else (key,)
    width = _width(axes)
    if len(parts) != width:
        shown = axes_text(axes) if axes else "a scalar"
        state.error(
            "BLV0313",
            span,
            f"{len(parts)} label{'s' if len(parts) > 1 else ''}",
            secondary=[Label(node.name_span, shown)],
            name=node.name,
            what="table",
            found=counted(len(parts), "label") + " as a key",
            expected=f"axes {shown}" if axes else shown,
        )
        return
    if len(axes) > 1:
        for item, axis in zip(parts, axes, strict=True):
            if state.excludes(axis, item):
                _not_in(state, item, span, axis)


def _not_in(state: State, key: Element, span: Span, axis: Axis) -> None:
    guess = closest(str(key), [x for x in axis.labels or () if isinstance(x, str)])
    state.error(
        "BLV0306",
        span,
        f"not in {axis.name}",
        secondary=[Label(axis.span, "declared here")] if axis.span else [],
        hint=f'did you mean "{guess}"?' if guess else None,
        found=element_text(key),
        axis=axis.name,
    )


def _read(state: State, node: ast.Call) -> Read | None:
    texts = [a for a in node.arguments if isinstance(a, ast.String)]
    if node.keywords or len(texts) != len(node.arguments) or not 1 <= len(texts) <= 2:
        state.error(
            "BLV0218",
            node.span,
            "these arguments do not fit",
            name=node.function,
            hint=f'it is called as `{node.function}("data/{{file}}", "name")`'.replace(
                "{file}", "values.npz"
            ),
        )
        return None
    path = texts[0].value
    reason = leaves_folder(path)
    if reason is not None:
        state.error(
            "BLV0413",
            texts[0].span,
            reason,
            path=f'"{path}"',
            hint="put the file beside the model, or bind the data from outside (`data=`, `--data`)",
        )
        return None
    key = texts[1].value if len(texts) == 2 else None
    return Read(node.function, path, key, state.folders.get(node.span.file), node.span)


def _extern(state: State, node: ast.ExternDecl) -> None:
    arguments: list[ExternArgument] = []
    result = drive(state, axes_of(state, AT_TOP, node.result))
    wrong = result is None
    names = {a.name for a in node.arguments}
    for argument in node.arguments:
        axes = drive(state, axes_of(state, AT_TOP, argument.axes))
        wrong = wrong or axes is None
        arguments.append(ExternArgument(argument.name, axes or ()))
    properties: list[tuple[str, tuple[str, ...]]] = []
    for item in node.properties:
        if item.name not in PROPERTIES:
            unknown_word(state, item.span, item.name, "a property of a function", PROPERTIES)
            continue
        words: list[str] = []
        for inner in item.arguments:
            if isinstance(inner, ast.Name) and inner.name in names:
                words.append(inner.name)
            else:
                state.error(
                    "BLV0218",
                    inner.span,
                    "not an argument of it",
                    name=item.name,
                    hint=f"it is called as `{item.name}(a)` with `a` among "
                    + ", ".join(f"`{n}`" for n in sorted(names)),
                )
        properties.append((item.name, tuple(words)))
    if not wrong:
        state.externs[node.name] = Extern(
            node.name, tuple(arguments), result or (), tuple(properties), node.span, node.doc
        )
