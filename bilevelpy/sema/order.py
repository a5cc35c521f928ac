"""The order in which declarations are elaborated: each after what it names. Circles are errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bilevelpy.diagnostics import Label, Span
from bilevelpy.sema.scope import Declaration, Kind, State
from bilevelpy.syntax import ast

ORDERED = (Kind.DIM, Kind.SET, Kind.PARAM, Kind.DEF, Kind.EXTERN, Kind.VAR, Kind.LET)


def names_in(root: Any) -> Iterator[tuple[str, Span]]:
    """Every name used below a node, called functions included, without recursion."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(reversed(node))
        elif isinstance(node, ast.Node):
            if isinstance(node, ast.Name):
                yield node.name, node.span
                continue
            if isinstance(node, ast.Call | ast.Comprehension):
                yield node.function, node.function_span
            for name in reversed(node.__dataclass_fields__):
                child = getattr(node, name)
                if isinstance(child, ast.Node | tuple):
                    stack.append(child)


def _needs(state: State, declaration: Declaration) -> list[tuple[Declaration, Span]]:
    """What must be elaborated before ``declaration``, each with the place that names it."""
    own = state.lowers.get(declaration.level, {})
    hidden = set(declaration.node.parameters) if declaration.kind is Kind.DEF else set()
    found: dict[Declaration, Span] = {}
    for name, span in names_in(declaration.node):
        target = own.get(name) or state.top.get(name)
        if target is None or name in hidden or target.kind not in ORDERED:
            continue
        # A variable is needed for its shape only, which needs no more than axes.
        if target.kind is Kind.VAR and declaration.kind is Kind.VAR:
            continue
        found.setdefault(target, span)
    return list(found.items())


def in_order(state: State) -> list[Declaration]:
    """All dims, sets, params, defs, externs, variables and lets, each after those it names."""
    done: list[Declaration] = []
    status: dict[Declaration, int] = {}
    tables = [state.top, *state.lowers.values()]
    for start in [d for table in tables for d in table.values() if d.kind in ORDERED]:
        if start in status:
            continue
        path: list[tuple[Declaration, Iterator[tuple[Declaration, Span]]]] = []
        status[start] = 1
        path.append((start, iter(_needs(state, start))))
        while path:
            current, rest = path[-1]
            for target, span in rest:
                if target not in status:
                    status[target] = 1
                    path.append((target, iter(_needs(state, target))))
                    break
                if status[target] == 1:
                    members = [d for d, _ in path]
                    _circle(state, members[members.index(target) :], span)
            else:
                status[current] = 2
                done.append(current)
                path.pop()
    return done


def _circle(state: State, members: list[Declaration], span: Span) -> None:
    state.circular.update(members)
    first = members[0]
    chain = " -> ".join(f"`{d.name}`" for d in [*members[:6], first])
    if len(members) > 6:
        chain = " -> ".join(f"`{d.name}`" for d in members[:6]) + f" -> ... -> `{first.name}`"
    places = [Label(d.span, "declared here") for d in members[:3]]
    if all(d.kind is Kind.DEF for d in members):
        label = "this call leads back to it"
        hint = "functions are inlined; write repetition as a comprehension, `prod(x for i in 1..k)`"
        state.error(
            "BLV0206", span, label, secondary=places, hint=hint, name=first.name, chain=chain
        )
    else:
        state.error(
            "BLV0205",
            span,
            "this closes the circle",
            secondary=places,
            name=first.name,
            chain=chain,
        )
