"""Products of an affine function and logarithms: relative entropies, however they are written.

``a log(a/u)`` is convex in ``a >= 0`` and ``u > 0`` together, being the perspective of ``-log``
(S. Boyd and L. Vandenberghe, Convex Optimization, 2004, example 3.19), and so is ``a log a``.
Hence::

    a (c log a - d_1 log u_1 - d_2 log u_2 - ...)    with d_k >= 0 and d_1 + d_2 + ... <= c

for affine a and u_k, of which those that do not move may have weights of either sign: they add what
is affine. Disciplined rules see a product of two moving factors.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.analysis.forms.terms import Term

Labels = tuple[int, ...]
Factor = tuple[ir.Expr, Labels]

# Sums of weights that are 0 but for rounding.
ROUNDING = 1e-12
# Products and sums within each other beyond this depth are not looked into.
DEEPEST = 20


@dataclass(frozen=True, slots=True)
class LogProduct:
    """``scale`` times the ``fixed`` factors times ``own`` times the sum of ``weights[u] log u``,
    summed over all labels of the factors.
    """

    scale: float
    fixed: tuple[Factor, ...]
    own: Factor
    weights: dict[Factor, float]

    def curvature(self, signs: Signs) -> str:
        """The sign of the curvature: "+" where it is convex, "-" where it is concave, else "?"."""
        fixed = signs.product(tuple(node for node, _ in self.fixed))
        if fixed not in ("+", "-"):
            return "?"
        turned = self.scale < 0.0
        turned ^= fixed == "-"
        for sign in ("+", "-"):
            w = [v if sign == "+" else -v for u, v in self.weights.items() if u != self.own]
            c = self.weights.get(self.own, 0.0) * (1.0 if sign == "+" else -1.0)
            if all(v <= ROUNDING for v in w) and c + sum(w) >= -ROUNDING:
                return sign if not turned else {"+": "-", "-": "+"}[sign]
        return "?"


def log_product(forms: Forms, signs: Signs, node: ir.Expr) -> LogProduct | None:
    """``node`` as such a product; None where it is none."""
    return _Reader(forms, signs).read(node)


def convex_together(forms: Forms, signs: Signs, terms: Sequence[Term]) -> set[int]:
    """The numbers of those terms that are convex together with others: ``p log p - p log r``."""
    groups: dict[object, list[tuple[int, LogProduct]]] = defaultdict(list)
    for k, term in enumerate(terms):
        found = None if term.selects else log_product(forms, signs, term.core)
        if found is None or any(f.axes for f in term.factors):
            continue
        order = {label: d for d, label in enumerate(found.own[1])}
        parts = [found.own, *found.fixed, *found.weights]
        if any(label not in order for _, labels in parts for label in labels):
            continue  # sums over more than the entries of a
        placed = [(node, tuple(order[i] for i in labels)) for node, labels in parts]
        fixed = placed[1 : 1 + len(found.fixed)]
        weights = dict(zip(placed[1 + len(found.fixed) :], found.weights.values(), strict=True))
        factors = (*fixed, *((f, ()) for f in term.factors))
        key = placed[0], _counted(factors), _counted(term.axes)
        one = LogProduct(found.scale * term.sign, tuple(factors), placed[0], weights)
        groups[key].append((k, one))
    together = set()
    for group in groups.values():
        total: dict[Factor, float] = defaultdict(float)
        for _, part in group:
            for u, weight in part.weights.items():
                total[u] += part.scale * weight
        first = group[0][1]
        if LogProduct(1.0, first.fixed, first.own, dict(total)).curvature(signs) == "+":
            together |= {k for k, _ in group}
    return together


def _counted(things: Iterable[object]) -> frozenset[tuple[object, int]]:
    return frozenset(Counter(things).items())


class _Reader:
    """Reads products and logarithms; labels tell which entries of tensors meet."""

    def __init__(self, forms: Forms, signs: Signs) -> None:
        self.forms, self.signs, self.moving = forms, signs, forms.scope.moving
        self._fresh = itertools.count(1_000_000)

    def read(self, node: ir.Expr) -> LogProduct | None:
        labels = tuple(range(len(node.axes)))
        if isinstance(node, ir.Apply) and node.function == "entr":
            own = node.operands[0], labels
            return LogProduct(-1.0, (), own, {own: 1.0}) if self.forms.is_affine(own[0]) else None
        if not isinstance(node, ir.Einsum):
            return None
        scale, factors = self._factors(node, labels, sums=True)
        fixed = tuple(f for f in factors if f[0] not in self.moving)
        moving = [f for f in factors if f[0] in self.moving]
        if len(moving) != 2:
            return None
        for own, other in (moving, moving[::-1]):
            weights: dict[Factor, float] = defaultdict(float)
            if self.forms.is_affine(own[0]) and self._logs(*other, 1.0, weights):
                return LogProduct(scale, fixed, own, dict(weights))
        return None

    def _factors(
        self, node: ir.Expr, labels: Labels, *, sums: bool, depth: int = 0
    ) -> tuple[float, list[Factor]]:
        """A number and the factors of a product; with ``sums`` those of one that is summed, too."""
        # What is affine, a sum as well, may stand inside of a logarithm as it is.
        sums = sums and not self.forms.is_affine(node)
        if depth < DEEPEST and isinstance(node, ir.Einsum) and (sums or not node.contracts):
            names = dict(zip(node.output, labels, strict=True))
            scale, found = 1.0, list[Factor]()
            for operand, subscript in zip(node.operands, node.subscripts, strict=True):
                for label in subscript:
                    if label not in names:
                        names[label] = next(self._fresh)
                inner = self._factors(
                    operand, tuple(names[i] for i in subscript), sums=sums, depth=depth + 1
                )
                scale, found = scale * inner[0], found + inner[1]
            return scale, found
        if isinstance(node, ir.Apply) and node.function == "neg":
            scale, found = self._factors(node.operands[0], labels, sums=sums, depth=depth)
            return -scale, found
        if sums and isinstance(node, ir.Reduce) and node.function == "sum":
            outer, count = iter(labels), len(node.operand.axes)
            places = tuple(
                next(self._fresh) if d in node.dims else next(outer) for d in range(count)
            )
            return self._factors(node.operand, places, sums=True, depth=depth)
        if isinstance(node, ir.Align):
            below = _below(node, labels)
            return self._factors(node.operand, below, sums=sums, depth=depth)
        if isinstance(node, ir.Const):
            return float(node.value), []
        return 1.0, [(node, labels)]

    def _logs(
        self, node: ir.Expr, labels: Labels, scale: float, weights: dict[Factor, float]
    ) -> bool:
        """Add the weights of the logarithms that a node is a sum of; False where it is none."""
        if node not in self.moving:
            return True  # times a it is affine
        if isinstance(node, ir.Apply) and node.function == "add":
            return all(
                self._logs(o, labels if o.axes else (), scale, weights) for o in node.operands
            )
        if isinstance(node, ir.Apply) and node.function == "log":
            powers = list(self._powers(node.operands[0], labels, 1.0))
            known = [p for p in powers if p is not None]
            if len(known) < len(powers):
                return False
            # All but one are positive, and so that one is, where there is a logarithm.
            if sum(self.signs.of(factor[0]) != "+" for factor, _ in known) > 1:
                return False
            for factor, power in known:
                if factor[0] in self.moving:
                    weights[factor] += scale * power
            return True
        size, factors = self._factors(node, labels, sums=False)
        if factors == [(node, labels)] or len(factors) != 1:
            return False
        return self._logs(*factors[0], scale * size, weights)

    def _powers(
        self, node: ir.Expr, labels: Labels, power: float
    ) -> Iterator[tuple[Factor, float] | None]:
        """The factors of the argument of a logarithm, with 1 or -1 for their side of the fraction;
        None for what is not affine.
        """
        scale, factors = self._factors(node, labels, sums=False)
        if not scale > 0.0:
            yield None
        for factor, places in factors:
            if isinstance(factor, ir.Apply) and factor.function == "recip":
                yield from self._powers(factor.operands[0], places, -power)
            elif self.forms.is_affine(factor) or factor not in self.moving:
                yield (factor, places), power
            else:
                yield None


def _below(node: ir.Align, labels: Labels) -> Labels:
    """The labels of the operand of a permutation."""
    places = {s: labels[d] for d, s in enumerate(node.source) if s is not None}
    return tuple(places[s] for s in range(len(node.operand.axes)))
