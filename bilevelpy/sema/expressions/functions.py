"""The functions of the language, rewritten into the primitives of the IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bilevelpy.diagnostics import Label
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.expressions.reductions import reduce_all
from bilevelpy.sema.lookup import axes_text, shape_text
from bilevelpy.sema.scope import Context, State
from bilevelpy.sema.values import Chain, Value, elementwise, one_after_another, take, total
from bilevelpy.syntax import ast

Apply = Callable[[State, Context, ast.Call, list[Value]], "Value | None"]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function with the least and most number of its arguments (None: any)."""

    parameters: int
    most: int | None
    apply: Apply


def _need(
    state: State, context: Context, node: ast.Call, position: int, need: str, value: Value
) -> None:
    span = node.arguments[position].span if position < len(node.arguments) else node.span
    found = axes_text(value.axes) if value.axes else "a scalar"
    label = f"axes {found}" if value.axes else "a scalar"
    state.error(
        "BLV0308", span, label, context=context, what=f"`{node.function}`", need=need, found=found
    )


def _same(state: State, context: Context, node: ast.Call, values: Sequence[Value]) -> bool:
    """Check that arguments have equal axes or are scalars."""
    shown: Value | None = None
    for value, item in zip(values, node.arguments, strict=False):
        if not value.axes:
            continue
        if shown is not None and shown.axes != value.axes:
            state.error(
                "BLV0303",
                node.span,
                "only a scalar is broadcast",
                context=context,
                secondary=[Label(item.span, axes_text(value.axes))],
                operator=node.function,
                left=axes_text(shown.axes),
                right=axes_text(value.axes),
            )
            return False
        shown = shown or value
    return True


def _elementwise(function: str) -> Apply:
    def apply(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
        return elementwise(state.builder, function, args, node.span)

    return apply


def _huber(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    if not _same(state, context, node, args):
        return None
    delta = args[1] if len(args) == 2 else Value(state.builder.const(1.0))
    return elementwise(state.builder, "huber", [args[0], delta], node.span)


def _square(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    return elementwise(state.builder, "square", args, node.span)


def _reduction(function: str) -> Apply:
    def apply(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
        return reduce_all(state.builder, function, args[0], node.span)

    return apply


def _extreme(function: str) -> Apply:
    pairwise = "maximum" if function == "max" else "minimum"

    def apply(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
        if len(args) == 1:
            return reduce_all(state.builder, function, args[0], node.span)
        if not _same(state, context, node, args):
            return None
        result = args[0]
        for other in args[1:]:
            result = elementwise(state.builder, pairwise, [result, other], node.span)
        return result

    return apply


def _norm2(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    value = args[0]
    if len(value.axes) == 2:
        return Value(state.builder.matrix("spectral_norm", value.expr, node.span), value.iters)
    return reduce_all(state.builder, "norm2", value, node.span)


def _entropy(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    terms = elementwise(state.builder, "entr", args, node.span)
    return reduce_all(state.builder, "sum", terms, node.span)


def _dot(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    for k, value in enumerate(args):
        if not value.axes:
            _need(state, context, node, k, "two vectors", value)
            return None
    if not _same(state, context, node, args):
        return None
    chain = Chain(state.builder)
    chain.times(args[0])
    chain.times(args[1])
    chain.open = ()
    return chain.finish(node.span)


def _is_square(value: Value) -> bool:
    return len(value.axes) == 2 and value.axes[0] is value.axes[1]


def _diagonal(state: State, value: Value, node: ast.Call, summed: bool) -> Value:
    chain = Chain(state.builder)
    label = chain.fresh(value.axes[0])
    chain.add(value, (label, label))
    chain.open = () if summed else (label,)
    return chain.finish(node.span)


def _diag(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    value = args[0]
    if len(value.axes) == 1:
        return Value(state.builder.diag(value.expr, node.span), value.iters)
    if not _is_square(value):
        _need(state, context, node, 0, "a vector, or a matrix with the same axis twice", value)
        return None
    return _diagonal(state, value, node, summed=False)


def _trace(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    if not _is_square(args[0]):
        _need(state, context, node, 0, "a matrix with the same axis twice", args[0])
        return None
    return _diagonal(state, args[0], node, summed=True)


def _logdet(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    if not _is_square(args[0]):
        _need(state, context, node, 0, "a matrix with the same axis twice", args[0])
        return None
    return Value(state.builder.matrix("logdet", args[0].expr, node.span), args[0].iters)


def _quad(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    x, matrix = args
    if len(x.axes) != 1:
        _need(state, context, node, 0, "a vector, then a matrix", x)
        return None
    if matrix.axes != (x.axes[0], x.axes[0]):
        _need(
            state,
            context,
            node,
            1,
            f"a matrix with axes ({x.axes[0].name}, {x.axes[0].name})",
            matrix,
        )
        return None
    chain = Chain(state.builder)
    left, right = chain.fresh(x.axes[0]), chain.fresh(x.axes[0])
    chain.add(x, (left,))
    chain.add(matrix, (left, right))
    chain.add(x, (right,))
    return chain.finish(node.span)


def _map_last(function: str) -> Apply:
    def apply(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
        if not args[0].axes:
            _need(state, context, node, 0, "a vector or a tensor", args[0])
            return None
        return Value(state.builder.map_last(function, args[0].expr, node.span), args[0].iters)

    return apply


def _cross_entropy(
    state: State, context: Context, node: ast.Call, args: list[Value]
) -> Value | None:
    """Losses along the last axis: -sum(target * logsoftmax(Z)), or logsumexp(Z) - Z[target]."""
    scores, target = args
    builder = state.builder
    if not scores.axes:
        _need(state, context, node, 0, "a tensor of scores", scores)
        return None
    last = scores.axes[-1]
    if target.axes == scores.axes:
        logs = Value(builder.map_last("logsoftmax", scores.expr, node.span), scores.iters)
        chain = Chain(builder)
        labels = tuple(chain.fresh(a) for a in scores.axes)
        chain.add(target, labels)
        chain.add(logs, labels)
        chain.open = labels[:-1]
        value = chain.finish(node.span)
        return Value(builder.scale(-1.0, value.expr, node.span), value.iters)
    if target.axes != scores.axes[:-1] or not builder.is_data(target.expr):
        state.error(
            "BLV0307",
            node.arguments[1].span,
            shape_text(target.axes),
            context=context,
            name=f"{node.function}(target)",
            expected=f"{shape_text(scores.axes)}, or data with {shape_text(scores.axes[:-1])}",
            found=shape_text(target.axes),
        )
        return None
    # The remaining axes of the scores become iterators, which line up with those of the target.
    rows = tuple(state.iterator(f"row{k + 1}", a, None) for k, a in enumerate(scores.axes[:-1]))
    front = (*scores.iters, *rows)
    picked = Value(builder.locate(last, (target.expr,), True, node.span), (*target.iters, *rows))
    flat = Value(scores.expr, front)
    right = take(builder, flat, [*(None for _ in front), picked], node.span)
    everything = builder.reduce("logsumexp", flat.expr, (len(front),), node.span)
    losses = total(builder, [Value(everything, front), right], [1.0, -1.0], node.span)
    return Value(losses.expr, tuple(i for i in losses.iters if i not in rows))


def _concat(state: State, context: Context, node: ast.Call, args: list[Value]) -> Value | None:
    """One after another along the first positional axis; a scalar counts as one element."""
    builder = state.builder
    one = builder.size_axis(1)
    rest = next((v.axes[1:] for v in args if v.axes), ())
    for k, value in enumerate(args):
        if value.axes[1:] != rest or (not value.axes and rest):
            _need(
                state,
                context,
                node,
                k,
                f"equal axes after the first, here {axes_text(rest)}",
                value,
            )
            return None
    firsts = tuple(v.axes[0] if v.axes else one for v in args)
    parts = [(v, (first, *rest)) for v, first in zip(args, firsts, strict=True)]
    return one_after_another(builder, parts, concat_axis(state, firsts), node.span)


def concat_axis(state: State, parts: tuple[Axis, ...]) -> Axis:
    """The axis of a concatenation; equal parts give the same axis."""
    key = ("concat", tuple(id(p) for p in parts))
    if key not in state.anonymous:
        name = " + ".join(p.name for p in parts)
        state.anonymous[key] = Axis(name, AxisKind.CONCAT, parents=parts)
    return state.anonymous[key]


ELEMENTWISE = [
    "exp",
    "log",
    "log1p",
    "expm1",
    "sqrt",
    "abs",
    "relu",
    "softplus",
    "sigmoid",
    "tanh",
    "sin",
    "cos",
    "tan",
    "atan",
    "sinh",
    "cosh",
]

BUILTINS: dict[str, Builtin] = {
    **{name: Builtin(1, 1, _elementwise(name)) for name in ELEMENTWISE},
    "square": Builtin(1, 1, _square),
    "logistic": Builtin(1, 1, _elementwise("softplus")),
    "huber": Builtin(1, 2, _huber),
    "entropy": Builtin(1, 1, _entropy),
    **{name: Builtin(1, 1, _reduction(name)) for name in ("sum", "mean", "prod", "logsumexp")},
    **{name: Builtin(1, 1, _reduction(name)) for name in ("norm1", "norminf", "sumsq")},
    "norm2": Builtin(1, 1, _norm2),
    "max": Builtin(1, None, _extreme("max")),
    "min": Builtin(1, None, _extreme("min")),
    "dot": Builtin(2, 2, _dot),
    "diag": Builtin(1, 1, _diag),
    "trace": Builtin(1, 1, _trace),
    "logdet": Builtin(1, 1, _logdet),
    "quad": Builtin(2, 2, _quad),
    "softmax": Builtin(1, 1, _map_last("softmax")),
    "logsoftmax": Builtin(1, 1, _map_last("logsoftmax")),
    "softmax_cross_entropy": Builtin(2, 2, _cross_entropy),
    "concat": Builtin(1, None, _concat),
}
