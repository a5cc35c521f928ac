"""Derivatives of expressions as expressions: reverse accumulation on the IR.

The derivative of a program is another program, found once for a text and compiled like any other:
evaluating it needs no tape, shares every common part (nodes are interned), and costs two to three
times the value (A. Griewank and A. Walther, "Evaluating Derivatives", SIAM 2008, section 3.3).
Applied to ``<df/dy, v>`` it gives ``f_yy v`` and ``f_xy v``. Where a function has no rule here
(determinants, products of entries, extern functions) the answer is None and the caller
differentiates at run time.

The conventions at kinks are those of the kernels: 0 for `abs` and `relu` at 0, halves for ties of
`max`, 0 for the Euclidean norm at 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.kernels import TINY
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

# Contributions of a node to its operands: (operand, cotangent).
Parts = list[tuple[Expr, Expr]]


class Unknown(Exception):
    """A function has no rule."""


def derivatives(
    builder: Builder, root: Expr, wanted: Sequence[ir.VarRef]
) -> tuple[Expr, ...] | None:
    """The gradient of a scalar expression by each of the variables, zeros where it has none.

    None where a function between the root and a variable has no rule.
    """
    check()
    reached = _reached(root, frozenset(wanted))
    if root not in reached:
        return tuple(builder.fill(0.0, v.axes) for v in wanted)
    pending: dict[Expr, list[Expr]] = {root: [builder.const(1.0)]}
    order = [node for node in postorder(root) if node in reached]
    try:
        for node in reversed(order):
            found = pending.get(node)
            if not found or isinstance(node, ir.VarRef):
                continue
            total = _total(builder, found, node)
            for operand, part in _parts(builder, node, total, reached):
                if operand in reached and not _is_zero(part):
                    pending.setdefault(operand, []).append(part)
    except Unknown:
        return None
    return tuple(
        _total(builder, pending[v], v) if pending.get(v) else builder.fill(0.0, v.axes)
        for v in wanted
    )


def _reached(root: Expr, wanted: frozenset[ir.VarRef]) -> set[Expr]:
    """The nodes that read one of the variables."""
    found: set[Expr] = set()
    for node in postorder(root):
        if node in wanted or any(c in found for c in node.children):
            found.add(node)
    return found


def _total(builder: Builder, parts: list[Expr], node: Expr) -> Expr:
    total = builder.add(parts) if len(parts) > 1 else parts[0]
    return total if total.axes == node.axes else _spread(builder, total, node)


def _spread(builder: Builder, scalar: Expr, like: Expr) -> Expr:
    """A number repeated over the axes of a node."""
    return builder.align(scalar, (None,) * like.rank, like.axes)


def _is_zero(node: Expr) -> bool:
    return isinstance(node, ir.Const | ir.Fill) and node.value == 0.0


def _parts(builder: Builder, node: Expr, w: Expr, reached: set[Expr]) -> Parts:
    rule = _RULES.get(type(node))
    if rule is None:
        raise Unknown(type(node).__name__)
    return rule(builder, node, w, reached)


# --- elementwise ----------------------------------------------------------------------------------


def _apply(b: Builder, node: ir.Apply, w: Expr, reached: set[Expr]) -> Parts:
    if node.function == "add":
        return [(o, _to(b, o, w)) for o in node.operands if o in reached]
    if node.function == "select":
        condition, yes, no = node.operands
        if condition in reached:
            raise Unknown("select")
        zero = b.const(0.0)
        return [
            (yes, _to(b, yes, b.raw_apply("select", (condition, w, zero)))),
            (no, _to(b, no, b.raw_apply("select", (condition, zero, w)))),
        ]
    if node.function in COMPARISONS:
        return []
    if node.function in ("maximum", "minimum"):
        return _extreme(b, node, w)
    if node.function in ("pow", "huber") and node.operands[1] in reached:
        base = node.operands[0]
        if not (node.function == "pow" and isinstance(base, ir.Const) and base.value > 0.0):
            raise Unknown(node.function)
        rate = math.log(base.value)
        return [(node.operands[1], _to(b, node.operands[1], b.mul(w, b.scale(rate, node))))]
    slope = _SLOPES.get(node.function)
    if slope is None:
        raise Unknown(node.function)
    return [(node.operands[0], _to(b, node.operands[0], b.mul(w, slope(b, node))))]


def _to(b: Builder, operand: Expr, w: Expr) -> Expr:
    """A cotangent in the axes of an operand: a scalar operand was repeated, so its parts add up."""
    if operand.axes or not w.axes:
        return w
    return b.reduce("sum", w, tuple(range(w.rank)))


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not")


def _extreme(b: Builder, node: ir.Apply, w: Expr) -> Parts:
    """The larger or smaller of two: the chosen one takes all, a tie halves (against a number of the
    data the variable takes all, as clamping does).
    """
    left, right = node.operands
    above, below = ("gt", "lt") if node.function == "maximum" else ("lt", "gt")
    parts: Parts = []
    for this, other, strict in ((left, right, above), (right, left, below)):
        if not other.axes and b.is_data(other):
            chosen: Expr = b.raw_apply(_LOOSE[above], (this, other))
        else:
            tie = b.scale(0.5, b.raw_apply("eq", (left, right)))
            chosen = b.add((b.raw_apply(strict, (left, right)), tie))
        parts.append((this, _to(b, this, b.mul(w, chosen))))
    return parts


_LOOSE = {"gt": "ge", "lt": "le"}


def _one_minus(b: Builder, node: Expr) -> Expr:
    return b.add((b.const(1.0), b.scale(-1.0, node)))


def _pow(b: Builder, node: ir.Apply) -> Expr:
    base, exponent = node.operands
    if isinstance(exponent, ir.Const):
        lower: Expr = b.const(exponent.value - 1.0)
    else:
        lower = b.add((exponent, b.const(-1.0)))
    return b.mul(exponent, b.apply("pow", base, lower))


def _sign(b: Builder, x: Expr) -> Expr:
    zero = b.const(0.0)
    return b.sub(b.raw_apply("gt", (x, zero)), b.raw_apply("lt", (x, zero)))


def _huber(b: Builder, node: ir.Apply) -> Expr:
    r, d = node.operands
    return b.apply("minimum", b.apply("maximum", r, b.scale(-1.0, d)), d)


def _entr(b: Builder, node: ir.Apply) -> Expr:
    """``-log x - 1``, held where the kernel holds it."""
    x, tiny = node.operands[0], b.const(TINY)
    log = b.apply("log", b.apply("maximum", x, tiny))
    return b.scale(-1.0, b.add((log, b.raw_apply("ge", (x, tiny)))))


# The derivative of an elementwise function in its first operand.
_SLOPES: dict[str, Callable[[Builder, ir.Apply], Expr]] = {
    "neg": lambda b, n: b.const(-1.0),
    "recip": lambda b, n: b.scale(-1.0, b.apply("square", n)),
    "pow": _pow,
    "square": lambda b, n: b.scale(2.0, n.operands[0]),
    "sqrt": lambda b, n: b.scale(0.5, b.apply("recip", n)),
    "exp": lambda b, n: n,
    "expm1": lambda b, n: b.apply("exp", n.operands[0]),
    "log": lambda b, n: b.apply("recip", n.operands[0]),
    "log1p": lambda b, n: b.apply("recip", b.add((b.const(1.0), n.operands[0]))),
    "abs": lambda b, n: _sign(b, n.operands[0]),
    "relu": lambda b, n: b.raw_apply("gt", (n.operands[0], b.const(0.0))),
    "softplus": lambda b, n: b.apply("sigmoid", n.operands[0]),
    "sigmoid": lambda b, n: b.mul(n, _one_minus(b, n)),
    "tanh": lambda b, n: _one_minus(b, b.apply("square", n)),
    "sin": lambda b, n: b.apply("cos", n.operands[0]),
    "cos": lambda b, n: b.scale(-1.0, b.apply("sin", n.operands[0])),
    "tan": lambda b, n: b.add((b.const(1.0), b.apply("square", n))),
    "atan": lambda b, n: b.apply("recip", b.add((b.const(1.0), b.apply("square", n.operands[0])))),
    "sinh": lambda b, n: b.apply("cosh", n.operands[0]),
    "cosh": lambda b, n: b.apply("sinh", n.operands[0]),
    "huber": _huber,
    "entr": _entr,
}

# --- products -------------------------------------------------------------------------------------


def _einsum(b: Builder, node: ir.Einsum, w: Expr, reached: set[Expr]) -> Parts:
    axis_of = node.axis_of
    factors = list(zip(node.operands, node.subscripts, strict=True))
    # The same factor has the same part wherever it stands: a power written as a product of
    # thousands of factors is one part, not thousands of as many factors.
    times = Counter(factors)
    parts: Parts = []
    for k, (operand, labels) in enumerate(factors):
        check()
        count = times.pop((operand, labels), 0)
        if not count or operand not in reached:
            continue
        if len(set(labels)) < len(labels):
            if labels == (0, 0) and len(factors) == 1:
                parts.append((operand, b.diag(w)))
                continue
            raise Unknown("a diagonal in a product")
        others = [f for j, f in enumerate(factors) if j != k]
        used = {*labels, *node.output, *(s for _, ls in others for s in ls)}
        axes = {s: a for s, a in axis_of.items() if s in used}
        part = b.product([(w, node.output), *others], labels, axes)
        parts.append((operand, part if count == 1 else b.scale(float(count), part)))
    return parts


# --- shape ----------------------------------------------------------------------------------------


def _align(b: Builder, node: ir.Align, w: Expr, reached: set[Expr]) -> Parts:
    labels = tuple(range(node.rank))
    place = {s: d for d, s in enumerate(node.source) if s is not None}
    output = tuple(place[d] for d in range(node.operand.rank))
    return [(node.operand, b.product([(w, labels)], output, dict(enumerate(node.axes))))]


def _again(b: Builder, value: Expr, node: ir.Reduce) -> Expr:
    """A reduced value repeated over the dims that were reduced."""
    kept = iter(range(value.rank))
    source = tuple(None if d in node.dims else next(kept) for d in range(node.operand.rank))
    return b.align(value, source, node.operand.axes)


def _reduce(b: Builder, node: ir.Reduce, w: Expr, reached: set[Expr]) -> Parts:
    x, wide = node.operand, _again(b, w, node)
    match node.function:
        case "sum":
            return [(x, wide)]
        case "max" | "min":
            chosen = b.raw_apply("eq", (x, _again(b, node, node)))
            count = b.apply("recip", b.reduce("sum", chosen, node.dims))
            return [(x, b.mul(wide, chosen, _again(b, count, node)))]
        case "logsumexp":
            if node.dims == (x.rank - 1,):
                share: Expr = b.map_last("softmax", x)
            else:
                share = b.apply("exp", b.sub(x, _again(b, node, node)))
            return [(x, b.mul(wide, share))]
        case "norm2":
            # 0 at 0: the entries are 0 there, and the norm is replaced by 1.
            size = b.add((node, b.raw_apply("eq", (node, b.const(0.0)))))
            return [(x, b.mul(wide, x, _again(b, b.apply("recip", size), node)))]
        case "any":
            return []
    raise Unknown(node.function)


def _map_last(b: Builder, node: ir.MapLast, w: Expr, reached: set[Expr]) -> Parts:
    x, last = node.operand, (node.rank - 1,)
    source = (*range(node.rank - 1), None)
    if node.function == "softmax":
        mean = b.reduce("sum", b.mul(w, node), last)
        return [(x, b.mul(node, b.sub(w, b.align(mean, source, node.axes))))]
    total = b.align(b.reduce("sum", w, last), source, node.axes)
    return [(x, b.sub(w, b.mul(b.map_last("softmax", x), total)))]


def _gather(b: Builder, node: ir.Gather, w: Expr, reached: set[Expr]) -> Parts:
    given = [(d, i) for d, i in enumerate(node.index) if i is not None]
    kept = [d for d, i in enumerate(node.index) if i is None]
    x, front = node.operand, given[0][1].rank
    if front > 1:
        raise Unknown("a gather over several axes")
    axes = tuple(x.axes[d] for d, _ in given)
    if front == 1:
        back: Expr = b.scatter_sum(w, [i for _, i in given], axes)
    else:
        # One entry: a product of unit vectors stands for the place it came from.
        factors = [
            (b.raw_apply("eq", (b.position(a), i)), (k,))
            for k, (a, (_, i)) in enumerate(zip(axes, given, strict=True))
        ]
        labels = tuple(range(len(axes), x.rank))
        axis_of = dict(enumerate((*axes, *(x.axes[d] for d in kept))))
        back = b.product([(w, labels), *factors], tuple(range(x.rank)), axis_of)
    order = [*(d for d, _ in given), *kept]
    return [(x, b.align(back, tuple(order.index(d) for d in range(x.rank)), x.axes))]


def _scatter(b: Builder, node: ir.ScatterSum, w: Expr, reached: set[Expr]) -> Parts:
    rest = (None,) * (node.rank - len(node.index))
    return [(node.operand, b.gather(w, (*node.index, *rest)))]


def _concat(b: Builder, node: ir.Concat, w: Expr, reached: set[Expr]) -> Parts:
    parts: Parts = []
    before: Expr = b.const(0.0)
    for operand in node.operands:
        axis = operand.axes[0]
        if operand in reached:
            index = b.add((b.position(axis), before))
            parts.append((operand, b.gather(w, (index, *(None,) * (node.rank - 1)))))
        before = b.add((before, b.size(axis)))
    return parts


def _diag(b: Builder, node: ir.Diag, w: Expr, reached: set[Expr]) -> Parts:
    front = tuple(range(node.rank - 1))
    return [
        (
            node.operand,
            b.product([(w, (*front, front[-1]))], front, dict(enumerate(node.operand.axes))),
        )
    ]


_RULES: dict[type[Expr], Callable[..., Parts]] = {
    ir.Apply: _apply,
    ir.Einsum: _einsum,
    ir.Align: _align,
    ir.Reduce: _reduce,
    ir.MapLast: _map_last,
    ir.Gather: _gather,
    ir.ScatterSum: _scatter,
    ir.Concat: _concat,
    ir.Diag: _diag,
}
