"""Walks over expressions: iterative, so that depth never matters, and each shared node is seen
once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from bilevelpy.ir.expr import DualRef, Expr, ParamRef, VarRef

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import Level, Program

R = TypeVar("R")


def postorder(roots: Expr | Iterable[Expr], done: Container[Expr] = frozenset()) -> Iterator[Expr]:
    """Every node below the roots once, operands before the nodes that use them; nodes that are
    ``done`` are passed over with all below them.
    """
    seen: set[Expr] = set()
    start = [roots] if isinstance(roots, Expr) else list(roots)
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(start)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen and node not in done:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.children) if child not in seen)


def fold(root: Expr, visit: Callable[[Expr, tuple[R, ...]], R]) -> R:
    """Compute a value for ``root`` from the values of its children, bottom up, once per shared
    node.
    """
    values: dict[Expr, R] = {}
    for node in postorder(root):
        values[node] = visit(node, tuple(values[c] for c in node.children))
    return values[root]


def place(node: Expr) -> Span | None:
    """The place of a node in the source: its own, or that of the first operand that has one."""
    stack = [node]
    while stack:
        top = stack.pop()
        if top.span is not None:
            return top.span
        stack.extend(reversed(top.children))
    return None


def variables(roots: Expr | Iterable[Expr]) -> set[tuple[str, str]]:
    """(level, name) of every variable below the roots."""
    return {(n.level, n.name) for n in postorder(roots) if isinstance(n, VarRef)}


def duals(roots: Expr | Iterable[Expr]) -> set[tuple[str, str]]:
    """(level, constraint) of every dual below the roots."""
    return {(n.level, n.constraint) for n in postorder(roots) if isinstance(n, DualRef)}


def params(roots: Expr | Iterable[Expr]) -> set[str]:
    """Names of the params below the roots."""
    return {n.name for n in postorder(roots) if isinstance(n, ParamRef)}


def level_roots(level: Level) -> list[Expr]:
    """Every expression of a level: objective, constraint terms, starts and bounds."""
    roots = [level.objective]
    roots += [t for c in level.constraints for t in c.terms]
    for v in level.variables:
        roots += [
            e for e in (v.start, v.domain.lower, v.domain.upper, v.domain.radius) if e is not None
        ]
    roots += [a for fact in level.assumptions for a in fact.arguments]
    return roots


def program_roots(program: Program) -> list[Expr]:
    """Every expression of a program, those of its axes and params included."""
    roots = [e for level in program.levels for e in level_roots(level)]
    roots += [r.value for r in program.reports.values()]
    roots += [e.value for e in program.expects if isinstance(e.value, Expr)]
    for p in program.params.values():
        roots += [e for e in (p.domain.lower, p.domain.upper, p.domain.radius) if e is not None]
        if isinstance(p.default, Expr):
            roots.append(p.default)
    for axis in program.axes.values():
        roots += [e for e in (axis.size, axis.low, axis.high) if e is not None]
    return roots
