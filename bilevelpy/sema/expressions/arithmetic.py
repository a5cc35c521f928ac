"""Sums, products, signs, powers and transposes: each wants axes that agree or a scalar."""

from __future__ import annotations

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axes, Axis
from bilevelpy.sema.lookup import axes_text, visible
from bilevelpy.sema.names import place_of
from bilevelpy.sema.scope import Context, Kind, State, Steps
from bilevelpy.sema.values import Chain, Value, elementwise, total
from bilevelpy.syntax import ast

# Iterators of an example.
LETTERS = "ijklpq"


def mismatch(
    state: State,
    context: Context,
    operator: str,
    left: tuple[ast.Expr, Value],
    right: tuple[ast.Expr, Value],
) -> None:
    """Report operands of different positional axes."""
    secondary = [
        Label(place, axes_text(value.axes))
        for node, value in (left, right)
        if (place := place_of(state, context, node)) is not None
    ]
    same_rank = len(left[1].axes) == len(right[1].axes)
    if same_rank:
        hint: str | None = "if they are the same axis, declare both with one `dim`"
    elif {len(left[1].axes), len(right[1].axes)} == {1, 2} and operator == "*":
        hint = "`*` goes entry by entry; a product of a matrix and a vector is written `A @ x`"
    else:
        hint = _by_index(left[1].axes, operator, right[1].axes)
    state.error(
        "BLV0303",
        left[0].span.to(right[0].span),
        "only a scalar is broadcast",
        context=context,
        secondary=secondary,
        notes=("equal lengths do not make equal axes",) if same_rank else (),
        hint=hint,
        operator=operator,
        left=axes_text(left[1].axes),
        right=axes_text(right[1].axes),
    )


def _by_index(left: Axes, operator: str, right: Axes) -> str | None:
    """How to add what has some of the axes to each slice of what has all, as a bias to the rows of
    scores; None where an axis is missing or stands twice.
    """
    whole = left if len(left) > len(right) else right
    if {*left, *right} != set(whole) or not len(set(whole)) == len(whole) <= len(LETTERS):
        return None
    letters = dict(zip(whole, LETTERS, strict=False))
    ranges = ", ".join(f"{letters[axis]} in {axis.name}" for axis in whole)
    A, b = (", ".join(letters[axis] for axis in axes) for axes in (left, right))
    return f"written with indices: `let Z[{ranges}] = A[{A}] {operator} B[{b}];`"


def add(state: State, context: Context, node: ast.Sum) -> Steps:
    """`a + b - c`: equal axes, or scalars."""
    values: list[Value] = []
    first: tuple[ast.Expr, Value] | None = None
    wrong = False
    for k, term in enumerate(node.terms):
        value = yield term, context
        if value is None:
            wrong = True
            continue
        values.append(value)
        if not value.axes:
            continue
        if first is None:
            first = (term, value)
        elif first[1].axes != value.axes:
            mismatch(state, context, node.operators[k - 1], first, (term, value))
            wrong = True
    if wrong:
        return None
    signs = [1.0, *(1.0 if o == "+" else -1.0 for o in node.operators)]
    return total(state.builder, values, signs, node.span)


def multiply(state: State, context: Context, node: ast.Product) -> Steps:
    """`a * b / c` entry by entry, `a @ b` over the last and the first axis."""
    chain: Chain | None = Chain(state.builder)
    shown: tuple[ast.Expr, Value] | None = None
    for k, factor in enumerate(node.factors):
        operator = node.operators[k - 1] if k else "*"
        value = yield factor, context
        if value is None or chain is None:
            chain = None
            continue
        if operator == "@":
            if not _contractible(state, context, node, k, chain, value):
                chain = None
                continue
            chain.contract(value)
        else:
            if value.axes and chain.axes and value.axes != chain.axes:
                left = shown if shown is not None and shown[1].axes == chain.axes else None
                if left is None:
                    so_far = chain.finish(None)
                    left = (_prefix(node, k), so_far)
                mismatch(state, context, operator, left, (factor, value))
                chain = None
                continue
            inverse = (
                elementwise(state.builder, "recip", [value], factor.span)
                if operator == "/"
                else value
            )
            chain.times(inverse)
        if value.axes:
            shown = (factor, value)
    return chain.finish(node.span) if chain is not None else None


def _prefix(node: ast.Product, k: int) -> ast.Expr:
    """The first ``k`` factors as an expression of their own."""
    if k == 1:
        return node.factors[0]
    span = node.factors[0].span.to(node.factors[k - 1].span)
    return ast.Product(
        span, node.factors[:k], node.operators[: k - 1], node.operator_spans[: k - 1]
    )


def _contractible(
    state: State, context: Context, node: ast.Product, k: int, chain: Chain, value: Value
) -> bool:
    """Check the operands of the ``@`` before factor ``k``."""
    left_node, right_node = _prefix(node, k), node.factors[k]
    span = left_node.span.to(right_node.span)
    left, right = chain.axes, value.axes
    left_text, right_text = state.text(left_node.span), state.text(right_node.span)
    if not left or not right:
        scalar = left_text if not left else right_text
        state.error(
            "BLV0302",
            span,
            f"`{scalar}` is a scalar",
            context=context,
            hint="a product with a scalar is written `*`",
            scalar=scalar,
        )
        return False
    if left[-1] is right[0]:
        return True
    guesses = [
        f"`{left_text} @ {n}` with `{n}[{left[-1].name}]`"
        for n in _vectors(state, context, left[-1])
    ]
    if len(left) == 2 and left[0] is right[0]:
        guesses.append(f"`{_transposed(left_node, left_text)} @ {right_text}`")
    elif len(right) == 2 and right[-1] is left[-1]:
        guesses.append(f"`{left_text} @ {_transposed(right_node, right_text)}`")
    hint = f"did you mean {', or '.join(guesses)}?" if guesses else None
    if left == right:
        hint = f"an entry-by-entry product is written `{left_text} * {right_text}`"
    secondary = [
        Label(place, axes_text(axes))
        for item, axes in ((right_node, right), (left_node, left))
        if (place := place_of(state, context, item)) is not None
    ]
    state.error(
        "BLV0301",
        span,
        f"last axis of `{left_text}` is `{left[-1].name}`, "
        f"first axis of `{right_text}` is `{right[0].name}`",
        context=context,
        secondary=secondary,
        hint=hint,
        left=axes_text(left),
        right=axes_text(right),
    )
    return False


def _vectors(state: State, context: Context, axis: Axis) -> list[str]:
    """The variable over ``axis`` that an expression in ``context`` most likely means, if there is
    just one.
    """
    if context.trail:
        return []
    known = visible(state, context)
    found = [n for n, d in known.items() if d.kind is Kind.VAR and state.shapes.get(d) == (axis,)]
    nearest = [n for n in found if known[n].level == context.level]
    return nearest if len(nearest) == 1 else found if len(found) == 1 else []


def _transposed(node: ast.Expr, text: str) -> str:
    """The transpose as it would be written."""
    if isinstance(node, ast.Transpose):
        return text.removesuffix("'")
    plain = isinstance(node, ast.Name | ast.Index | ast.Member | ast.Call)
    return f"{text}'" if plain else f"({text})'"


def negate(state: State, context: Context, node: ast.Negate) -> Steps:
    """`-a`."""
    value = yield node.operand, context
    if value is None or node.sign == "+":
        return value
    return Value(state.builder.scale(-1.0, value.expr, node.span), value.iters)


def raise_to(state: State, context: Context, node: ast.Power) -> Steps:
    """`a ^ b` of an expression; :func:`power` of values."""
    base = yield node.base, context
    exponent = yield node.exponent, context
    if base is None or exponent is None:
        return None
    if base.axes and exponent.axes and base.axes != exponent.axes:
        mismatch(state, context, "^", (node.base, base), (node.exponent, exponent))
        return None
    return power(state, base, exponent, node.span)


def power(state: State, base: Value, exponent: Value, span: Span) -> Value:
    """`base ^ exponent`; the square of a Euclidean norm is a sum of squares, smooth at 0."""
    node = base.expr
    square = isinstance(exponent.expr, ir.Const) and exponent.expr.value == 2.0
    if square and isinstance(node, ir.Reduce) and node.function == "norm2":
        squares = state.builder.apply("square", node.operand, span=span)
        return Value(state.builder.reduce("sum", squares, node.dims, span), base.iters)
    return elementwise(state.builder, "pow", [base, exponent], span)


def transpose(state: State, context: Context, node: ast.Transpose) -> Steps:
    """`a'`: the axes of a matrix change places."""
    value = yield node.operand, context
    if value is None or len(value.axes) < 2:
        return value
    if len(value.axes) > 2:
        state.error(
            "BLV0308",
            node.span,
            f"axes {axes_text(value.axes)}",
            context=context,
            what="`'`",
            need="a vector or a matrix",
            found=f"{len(value.axes)} axes",
        )
        return None
    front = len(value.iters)
    source = (*range(front), front + 1, front)
    axes = tuple(value.expr.axes[d] for d in source)
    return Value(state.builder.align(value.expr, source, axes, node.span), value.iters)
