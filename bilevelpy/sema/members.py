"""What ``level.name`` means."""

from __future__ import annotations

from bilevelpy.diagnostics import Label
from bilevelpy.sema.names import declared_value, not_a_value, other_follower
from bilevelpy.sema.scope import REPORTS, UPPER, Context, Declaration, Kind, State, closest
from bilevelpy.sema.values import Value
from bilevelpy.syntax import ast


def member_value(state: State, context: Context, node: ast.Member) -> Value | None:
    """The value of `level.name`."""
    found = member_declaration(state, context, node)
    if found is None:
        return None
    if isinstance(found, Value):
        return found
    if found.kind is Kind.LET or found.level not in state.lowers or found.level != context.level:
        return declared_value(state, context, found, node.span)
    # Inside its own follower, `firm.q` means the whole family, which is a game unless it is indexed
    # by the own element.
    if state.families.get(found.level) == () or context.reads_only:
        return declared_value(state, context, found, node.span)
    if not context.nash:
        other_follower(state, context, found, node.span)
        return None
    axes = state.shapes.get(found)
    return (
        None if axes is None else Value(state.builder.var(found.level, found.name, axes, node.span))
    )


def member_declaration(
    state: State, context: Context, node: ast.Member
) -> Declaration | Value | None:
    """The declaration behind `level.name`; in reports also the value of `level.objective`."""
    level = node.base.name if isinstance(node.base, ast.Name) else None
    if level is None or (level != UPPER and level not in state.lowers):
        if level in state.missing:
            return None
        known = sorted([*state.lowers, UPPER])
        guess = closest(level, known) if level else None
        hint = f"did you mean `{guess}.{node.name}`?" if guess else None
        if node.name in ("T", "transpose") and guess is None:
            hint = f"the transpose is written `{state.text(node.base.span)}'`"
        state.error(
            "BLV0229",
            node.base.span,
            "no level of this name" if level else "not a level",
            context=context,
            hint=hint,
            name=state.text(node.base.span),
            levels=", ".join(f"`{k}`" for k in known),
        )
        return None
    if node.name == "objective":
        if context.level == REPORTS and not context.reads_only:
            return state.objectives.get(level)
        state.error(
            "BLV0230", node.span, "an objective value", context=context, name=f"{level}.objective"
        )
        return None
    declared = state.lowers.get(level, state.top).get(node.name)
    if declared is not None and declared.level == level:
        return declared
    constraint = state.constraints.get(level, {}).get(node.name)
    if constraint is not None:
        hint = f"its shadow price is `dual({level}.{node.name})`" if level != UPPER else None
        not_a_value(state, context, constraint, node.span, hint)
        return None
    if node.name not in state.missing:
        known_here = state.lowers.get(level, state.top)
        table = {n: d for n, d in known_here.items() if d.level == level}
        guess = closest(node.name, table)
        secondary = [Label(table[guess].span, f"`{guess}` is declared here")] if guess else []
        names = ", ".join(f"`{n}`" for n in list(table)[:6])
        state.error(
            "BLV0231",
            node.name_span,
            f"not declared in `{level}`",
            context=context,
            secondary=secondary,
            notes=(f"names of `{level}`: {names}",) if names else (),
            hint=f"did you mean `{level}.{guess}`?" if guess else None,
            level=level,
            name=node.name,
        )
    return None
