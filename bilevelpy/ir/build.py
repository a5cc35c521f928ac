"""The maker of IR nodes: one canonical form for equal meanings, one object for equal nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.leaves import Leaves
from bilevelpy.ir.products import product
from bilevelpy.ir.recognise import WRITTEN, recognised
from bilevelpy.ir.types import Axes, Axis

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span

# Sums of so many terms are taken apart wherever they stand in others. Longer ones, which names
# stand for, are so until this number of terms has been copied, and as many again as there are
# nodes: a chain of them, or rows that share one, would be written out in the square of their text.
SHORT, COPIES = 8, 2_000

_FOLD: dict[str, Callable[..., float]] = {
    "recip": lambda a: 1.0 / a,
    "pow": lambda a, b: math.pow(a, b),
    "square": lambda a: a * a,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "abs": abs,
    "maximum": max,
    "minimum": min,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
}


class Builder(Leaves):
    """Makes and interns the nodes of one program.

    Shapes are the caller's duty (the front end reports errors in the user's words before it calls
    this); wrong ones raise ``ValueError`` here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copied = 0

    # --- elementwise ------------------------------------------------------------------------------

    def raw_apply(
        self, function: str, operands: tuple[Expr, ...], span: Span | None = None
    ) -> ir.Apply:
        """An `Apply` node as given, checked for equal axes."""
        axes: Axes = ()
        for operand in operands:
            if operand.axes:
                if axes and operand.axes != axes:
                    raise ValueError(f"{function}: axes {operand.axes} and {axes}")
                axes = operand.axes
        return self._intern(
            lambda: ir.Apply(axes, span, function, operands), (), "apply", function, axes, operands
        )

    def apply(self, function: str, *operands: Expr, span: Span | None = None) -> Expr:
        """An elementwise function of operands with equal axes or scalars, in canonical form."""
        if function == "add":
            return self.add(operands, span)
        if function == "neg":
            return self.scale(-1.0, operands[0], span)
        if function == "pow" and isinstance(operands[1], ir.Const):
            exponent = operands[1].value
            if exponent == 0.0:
                return self.fill(1.0, operands[0].axes, span)
            if exponent == 1.0:
                return operands[0]
            special = {2.0: "square", 0.5: "sqrt", -1.0: "recip"}.get(exponent)
            if special:
                return self.apply(special, operands[0], span=span)
        if (
            function == "square"
            and isinstance(operands[0], ir.Apply)
            and operands[0].function in ("neg", "abs")
        ):
            return self.apply("square", operands[0].operands[0], span=span)
        if function == "maximum" and operands[1] is self.scale(-1.0, operands[0]):
            return self.apply("abs", operands[0], span=span)
        if function in _FOLD and all(isinstance(o, ir.Const) for o in operands):
            try:
                value = _FOLD[function](*(o.value for o in operands if isinstance(o, ir.Const)))
            except (ValueError, OverflowError, ZeroDivisionError):
                value = math.nan
            if not math.isnan(value):
                return self.const(value, span)
        named = recognised(self, function, operands[0], span) if function in WRITTEN else None
        return self.raw_apply(function, operands, span) if named is None else named

    def add(self, terms: Sequence[Expr], span: Span | None = None) -> Expr:
        """The sum of terms with equal axes or scalars: flat, numbers collected, ordered."""
        flat: list[Expr] = []
        constant = 0.0
        axes: Axes = ()
        stack = list(reversed(terms))
        while stack:
            term = stack.pop()
            axes = axes or term.axes
            if isinstance(term, ir.Const | ir.Fill):
                constant += term.value
            elif self._opens(term):
                stack.extend(reversed(term.children))
            elif (
                isinstance(term, ir.Apply)
                and term.function == "neg"
                and self._opens(term.operands[0])
            ):
                inner = term.operands[0]
                stack.extend(self.scale(-1.0, t) for t in reversed(inner.children))
            else:
                flat.append(term)
        if constant != 0.0 or not flat:
            flat.append(self.const(constant))
        if not any(t.axes for t in flat) and axes:
            return self.align(self.add(flat, span), (None,) * len(axes), axes)
        if len(flat) == 1:
            return flat[0]
        ordered = tuple(sorted(flat, key=self.digest))
        return self.raw_apply("add", ordered, span)

    def _opens(self, term: Expr) -> bool:
        """Whether a term is a sum that is written out in the one that it stands in."""
        if not (isinstance(term, ir.Apply) and term.function == "add"):
            return False
        count = len(term.operands)
        if count > SHORT:
            self._copied += count
        return count <= SHORT or self._copied <= COPIES + len(self._nodes)

    def sub(self, left: Expr, right: Expr, span: Span | None = None) -> Expr:
        """``left - right``."""
        return self.add((left, self.scale(-1.0, right)), span)

    def scale(self, factor: float, operand: Expr, span: Span | None = None) -> Expr:
        """A number times a tensor."""
        labels = tuple(range(operand.rank))
        axis_of = dict(enumerate(operand.axes))
        return product(self, [(self.const(factor), ()), (operand, labels)], labels, axis_of, span)

    def mul(self, *factors: Expr, span: Span | None = None) -> Expr:
        """The elementwise product of factors with equal axes or scalars."""
        axes: Axes = next((f.axes for f in factors if f.axes), ())
        labels = tuple(range(len(axes)))
        pairs = [(f, labels if f.axes else ()) for f in factors]
        if any(f.axes and f.axes != axes for f in factors):
            raise ValueError(f"mul: axes {[f.axes for f in factors]}")
        return product(self, pairs, labels, dict(enumerate(axes)), span)

    def product(
        self,
        factors: Sequence[tuple[Expr, tuple[int, ...]]],
        output: tuple[int, ...],
        axis_of: dict[int, Axis],
        span: Span | None = None,
    ) -> Expr:
        """The sum over the labels outside ``output`` of a product; see
        :mod:`bilevelpy.ir.products`.
        """
        return product(self, list(factors), output, axis_of, span)

    def einsum(
        self,
        factors: Sequence[tuple[Expr, tuple[int, ...]]],
        output: tuple[int, ...],
        span: Span | None = None,
    ) -> ir.Einsum:
        """An `Einsum` node as given; labels are renamed in order of appearance, output first."""
        rename: dict[int, int] = {}
        for label in (*output, *(s for _, labels in factors for s in labels)):
            rename.setdefault(label, len(rename))
        axis_of = {s: a for node, labels in factors for s, a in zip(labels, node.axes, strict=True)}
        axes = tuple(axis_of[s] for s in output)
        operands = tuple(node for node, _ in factors)
        subscripts = tuple(tuple(rename[s] for s in labels) for _, labels in factors)
        out = tuple(rename[s] for s in output)
        return self._intern(
            lambda: ir.Einsum(axes, span, operands, subscripts, out),
            (subscripts, out),
            "einsum",
            repr((subscripts, out)),
            axes,
            operands,
        )

    # --- shape ------------------------------------------------------------------------------------

    def align(
        self, operand: Expr, source: tuple[int | None, ...], axes: Axes, span: Span | None = None
    ) -> Expr:
        """Permute and broadcast; see :class:`~bilevelpy.ir.expr.Align`."""
        if isinstance(operand, ir.Align):
            source = tuple(None if s is None else operand.source[s] for s in source)
            operand = operand.operand
        if source == tuple(range(operand.rank)):
            return operand
        if isinstance(operand, ir.Const | ir.Fill):
            return self.fill(operand.value, axes, span)
        inner = operand
        return self._intern(
            lambda: ir.Align(axes, span, inner, source),
            (source,),
            "align",
            repr(source),
            axes,
            (inner,),
        )

    def raw_reduce(
        self, function: str, operand: Expr, dims: tuple[int, ...], span: Span | None = None
    ) -> ir.Reduce:
        """A `Reduce` node as given."""
        axes = tuple(a for d, a in enumerate(operand.axes) if d not in dims)
        text = f"{function}{dims}"
        return self._intern(
            lambda: ir.Reduce(axes, span, function, operand, dims),
            (function, dims),
            "reduce",
            text,
            axes,
            (operand,),
        )

    def reduce(
        self, function: str, operand: Expr, dims: tuple[int, ...], span: Span | None = None
    ) -> Expr:
        """A reduction over ``dims`` in canonical form; "mean" is a sum over sizes."""
        if not dims:
            return operand
        if function == "mean":
            sizes = [self.apply("recip", self.size(operand.axes[d])) for d in dims]
            total = self.reduce("sum", operand, dims, span)
            return self.mul(*sizes, total, span=span)
        if function != "sum":
            return self.raw_reduce(function, operand, tuple(sorted(dims)), span)
        labels = tuple(range(operand.rank))
        output = tuple(d for d in labels if d not in dims)
        return product(self, [(operand, labels)], output, dict(enumerate(operand.axes)), span)

    def map_last(self, function: str, operand: Expr, span: Span | None = None) -> ir.MapLast:
        """Softmax or logsoftmax over the last axis."""
        return self._intern(
            lambda: ir.MapLast(operand.axes, span, function, operand),
            (),
            "map",
            function,
            operand.axes,
            (operand,),
        )

    def matrix(self, function: str, operand: Expr, span: Span | None = None) -> ir.Matrix:
        """A scalar function of the last two axes."""
        axes = operand.axes[:-2]
        return self._intern(
            lambda: ir.Matrix(axes, span, function, operand),
            (),
            "matrix",
            function,
            axes,
            (operand,),
        )

    def diag(self, operand: Expr, span: Span | None = None) -> ir.Diag:
        """A diagonal matrix."""
        axes = (*operand.axes, operand.axes[-1])
        return self._intern(lambda: ir.Diag(axes, span, operand), (), "diag", "", axes, (operand,))

    def gather(self, operand: Expr, index: Sequence[Expr | None], span: Span | None = None) -> Expr:
        """Static indexing; see :class:`~bilevelpy.ir.expr.Gather`."""
        given = [i for i in index if i is not None]
        if not given:
            return operand
        front = given[0].axes
        if any(i.axes != front for i in given):
            raise ValueError("gather: indices of different axes")
        axes = (*front, *(a for a, i in zip(operand.axes, index, strict=True) if i is None))
        pattern = tuple(i is None for i in index)
        return self._intern(
            lambda: ir.Gather(axes, span, operand, tuple(index)),
            pattern,
            "gather",
            repr(pattern),
            axes,
            (operand, *given),
        )

    def scatter_sum(
        self, operand: Expr, index: Sequence[Expr], axes: Axes, span: Span | None = None
    ) -> ir.ScatterSum:
        """Sum dimension 0 into ``axes``; see :class:`~bilevelpy.ir.expr.ScatterSum`."""
        full = (*axes, *operand.axes[1:])
        return self._intern(
            lambda: ir.ScatterSum(full, span, operand, tuple(index)),
            (len(index),),
            "scatter",
            "",
            full,
            (operand, *index),
        )

    def concat(self, operands: Sequence[Expr], axis: Axis, span: Span | None = None) -> ir.Concat:
        """Operands one after another along their first axis."""
        axes = (axis, *operands[0].axes[1:])
        return self._intern(
            lambda: ir.Concat(axes, span, tuple(operands)), (), "concat", "", axes, operands
        )

    def extern(
        self, name: str, operands: Sequence[Expr], axes: Axes, span: Span | None = None
    ) -> ir.ExternCall:
        """A call of an extern function."""
        return self._intern(
            lambda: ir.ExternCall(axes, span, name, tuple(operands)),
            (name,),
            "extern",
            name,
            axes,
            operands,
        )
