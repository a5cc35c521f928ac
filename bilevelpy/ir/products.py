"""The canonical form of sums of products.

Every product of the language (``*``, ``/``, ``@``, ``dot``, comprehension or matrix form) ends
here, so that ``sum(X[i, j] * w[j] for j in p)`` and ``X @ w`` are the same node. Factors are
flattened, scalar numbers collected, equal factors squared; what is summed is contracted pairwise,
always taking the pair with the smallest result. The choice looks at ranks only: sizes are data.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bilevelpy.ir.contraction import Contraction, Factor, Labels
from bilevelpy.ir.expr import Align, Apply, Const, Einsum, Expr, Fill

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.types import Axis


def product(
    builder: Builder,
    factors: list[Factor],
    output: Labels,
    axis_of: dict[int, Axis],
    span: Span | None,
) -> Expr:
    """The sum over all labels outside ``output`` of the product of ``factors``.

    ``axis_of`` gives the axis of each label; a label that no factor carries is broadcast (or,
    summed, counts).
    """
    coefficient, flat = _flatten(factors)
    carried = {label for _, labels in flat for label in labels}
    for label in sorted(set(axis_of) - carried - set(output)):
        flat.append((builder.size(axis_of[label]), ()))
    if carried - set(output):
        flat, output, axis_of = _relabel(builder, flat, output, axis_of)
    flat = _contract(builder, _squares(builder, flat), output, axis_of, span)
    # Contraction can bring new equal factors or numbers to the surface.
    more, flat = _flatten(flat)
    flat = _squares(builder, flat)
    return _elementwise(builder, coefficient * more, flat, output, axis_of, span)


def _relabel(
    builder: Builder, factors: list[Factor], output: Labels, axis_of: dict[int, Axis]
) -> tuple[list[Factor], Labels, dict[int, Axis]]:
    """Number the labels by where they stand, so that the caller's numbering leaves no trace."""
    digests = [builder.digest(node) for node, _ in factors]
    times = Counter(digests)
    rename = {label: k for k, label in enumerate(output)}

    def key(k: int) -> tuple[int, str, tuple[int, ...]]:
        # Factors that occur once come first: they tell the labels of equal factors apart.
        return (
            times[digests[k]],
            digests[k],
            tuple(rename.get(s, len(axis_of)) for s in factors[k][1]),
        )

    for k in sorted(range(len(factors)), key=key):
        for label in factors[k][1]:
            rename.setdefault(label, len(rename))
    renamed = [(node, tuple(rename[s] for s in labels)) for node, labels in factors]
    return (
        renamed,
        tuple(rename[s] for s in output),
        {rename[s]: a for s, a in axis_of.items() if s in rename},
    )


def _flatten(factors: list[Factor]) -> tuple[float, list[Factor]]:
    """Take numbers, signs, broadcasts and inner products apart."""
    coefficient = 1.0
    flat: list[Factor] = []
    stack = list(reversed(factors))
    while stack:
        node, labels = stack.pop()
        if isinstance(node, Const | Fill):
            coefficient *= node.value
        elif isinstance(node, Apply) and node.function == "neg":
            coefficient = -coefficient
            stack.append((node.operands[0], labels))
        elif isinstance(node, Align):
            inner: dict[int, int] = {
                s: labels[d] for d, s in enumerate(node.source) if s is not None
            }
            stack.append((node.operand, tuple(inner[d] for d in range(node.operand.rank))))
        elif isinstance(node, Einsum) and not node.contracts:
            rename = dict(zip(node.output, labels, strict=True))
            for operand, subscript in reversed(
                list(zip(node.operands, node.subscripts, strict=True))
            ):
                stack.append((operand, tuple(rename[s] for s in subscript)))
        else:
            flat.append((node, labels))
    return coefficient, flat


def _squares(builder: Builder, factors: list[Factor]) -> list[Factor]:
    """Replace pairs of the same factor by its square; order the factors canonically."""
    ordered = sorted(factors, key=lambda f: _key(builder, f))
    result: list[Factor] = []
    for factor in ordered:
        if result and result[-1] == factor:
            node, labels = result.pop()
            result.append((builder.apply("square", node), labels))
        else:
            result.append(factor)
    return sorted(result, key=lambda f: _key(builder, f))


def _contract(
    builder: Builder,
    factors: list[Factor],
    output: Labels,
    axis_of: dict[int, Axis],
    span: Span | None,
) -> list[Factor]:
    """Sum out every label that is not in ``output``."""
    keep = set(output)
    if not any(
        len(set(labels)) < len(labels) or not keep.issuperset(labels) for _, labels in factors
    ):
        return factors
    carriers = Counter(label for _, labels in factors for label in set(labels))
    factors = [_sum_alone(builder, f, carriers, keep, span) for f in factors]
    # The first choice is made in the order given, each further one in the canonical order.
    run = Contraction(enumerate(factors), keep)
    first = run.take()
    if first is None:
        return factors
    pair: tuple[Factor, Factor] | None = first
    canonical = Contraction(((_key(builder, f), f) for f in run.rest()), keep)
    while pair is not None:
        both = dict.fromkeys((*pair[0][1], *pair[1][1]))
        rest = sorted(
            (s for s in both if canonical.carried(s)),
            key=lambda s: (output.index(s) if s in keep else len(output), s),
        )
        if len(rest) < len(both):
            node: Expr = builder.einsum(pair, tuple(rest), span)
        else:
            squares = _squares(builder, list(pair))
            node = _elementwise(builder, 1.0, squares, tuple(rest), axis_of, span)
        made = (node, tuple(rest))
        canonical.put(_key(builder, made), made, pair)
        pair = canonical.take()
    return canonical.rest()


def _key(builder: Builder, factor: Factor) -> tuple[str, Labels]:
    """The canonical place of a factor."""
    return builder.digest(factor[0]), factor[1]


def _sum_alone(
    builder: Builder, factor: Factor, carriers: Counter[int], keep: set[int], span: Span | None
) -> Factor:
    """Sum a factor over labels that only it carries; a repeated label becomes a diagonal first."""
    node, labels = factor
    if len(set(labels)) < len(labels):
        unique = tuple(dict.fromkeys(labels))
        node, labels = builder.einsum([(node, labels)], unique, span), unique
    dims = tuple(d for d, s in enumerate(labels) if carriers[s] == 1 and s not in keep)
    if not dims:
        return node, labels
    kept = tuple(s for d, s in enumerate(labels) if d not in dims)
    return builder.raw_reduce("sum", node, dims, span), kept


def _elementwise(
    builder: Builder,
    coefficient: float,
    factors: list[Factor],
    output: Labels,
    axis_of: dict[int, Axis],
    span: Span | None,
) -> Expr:
    """The product of factors that are not summed any more, times a number, over ``output``."""
    axes = tuple(axis_of[s] for s in output)
    carried = tuple(s for s in output if any(s in labels for _, labels in factors))
    if not factors:
        return builder.fill(coefficient, axes) if axes else builder.const(coefficient)
    negative = coefficient == -1.0
    if len(factors) == 1 and (coefficient == 1.0 or negative):
        node, labels = factors[0]
        if len(set(labels)) < len(labels):
            node, labels = builder.einsum([(node, labels)], carried, span), carried
        elif labels != carried:
            node = builder.align(
                node, tuple(labels.index(s) for s in carried), tuple(axis_of[s] for s in carried)
            )
    else:
        scalars: list[Factor] = (
            [] if coefficient == 1.0 or negative else [(builder.const(coefficient), ())]
        )
        node = builder.einsum([*scalars, *factors], carried, span)
    if negative:
        node = builder.raw_apply("neg", (node,), span)
    if carried != output:
        node = builder.align(
            node, tuple(carried.index(s) if s in carried else None for s in output), axes
        )
    return node
