"""`dual(follower.constraint)`: shadow prices of lower constraints."""

from __future__ import annotations

from itertools import islice

from bilevelpy.diagnostics import Label
from bilevelpy.ir.atoms import CALLS
from bilevelpy.sema.lookup import axes_text, wrong_arguments
from bilevelpy.sema.scope import REPORTS, UPPER, Context, Declaration, State
from bilevelpy.sema.values import Value
from bilevelpy.syntax import ast


def _lower_constraints(state: State) -> str:
    """The first few constraints that have a shadow price."""
    shown = []
    below = (d for level in state.lowers for d in state.constraints.get(level, {}).values())
    for declaration in islice(below, 6):
        rows = state.rows.get(declaration)
        kind = "equality" if "==" in declaration.node.operators else "inequality"
        axes = (
            f"axis {rows[0].name}, "
            if rows and len(rows) == 1
            else f"axes {axes_text(rows)}, "
            if rows
            else ""
        )
        shown.append(f"`{declaration.level}.{declaration.name}` ({axes}{kind})")
    return ", ".join(shown)


def dual(state: State, context: Context, node: ast.Call) -> Value | None:
    """`dual(follower.constraint)`: its shadow price."""
    if len(node.arguments) != 1 or node.keywords:
        wrong_arguments(
            state, context, node, CALLS["dual"][0], f"{len(node.arguments)} arguments", None
        )
        return None
    argument = node.arguments[0]
    if context.reads_only:
        state.error(
            "BLV0221",
            node.span,
            "a dual",
            context=context,
            name="dual(...)",
            where=context.reads_only,
        )
        return None
    if context.level not in (UPPER, REPORTS):
        state.error(
            "BLV0215",
            node.span,
            f"inside `{context.level}`",
            context=context,
            hint="the upper level reacts to it; a follower does not know its own prices",
            level=context.level,
        )
        return None
    found = dual_target(state, argument)
    if found is not None:
        axes = state.rows.get(found)
        if axes is None:
            return None
        return Value(state.builder.dual(found.level, found.name, axes, node.span))
    _no_such_price(state, context, argument)
    return None


def _no_such_price(state: State, context: Context, argument: ast.Expr) -> None:
    listed = _lower_constraints(state)
    hint = (
        f"lower constraints in this file: {listed}"
        if listed
        else "this file has no constraint in a `lower`"
    )
    note = "a dual is the shadow price of the row as written; see docs/global.md"
    text = state.text(argument.span)
    if isinstance(argument, ast.Name) and argument.name in state.constraints.get(UPPER, {}):
        declared = state.constraints[UPPER][argument.name]
        label = "this is a constraint of `upper`"
        secondary = [Label(declared.span, "declared here")]
    else:
        last = text.rpartition(".")[2]
        label, secondary = f"no lower level has a constraint `{last}`", []
        if last in state.missing:
            return
        names = (f"{k}.{n}" for k in state.lowers for n in state.constraints.get(k, {}))
        guess = state.guess(text, names)
        if guess:
            note, hint = hint, f"did you mean `{guess}`?"
    state.error(
        "BLV0216",
        argument.span,
        label,
        context=context,
        secondary=secondary,
        hint=hint,
        notes=(note,),
    )


def dual_target(state: State, node: ast.Expr) -> Declaration | None:
    """The lower constraint that `flow.meet`, or `meet` where it is unique, names."""
    if isinstance(node, ast.Member) and isinstance(node.base, ast.Name):
        if node.base.name == UPPER:
            return None
        return state.constraints.get(node.base.name, {}).get(node.name)
    if isinstance(node, ast.Name):
        found = [
            state.constraints[k][node.name]
            for k in state.lowers
            if node.name in state.constraints.get(k, {})
        ]
        return found[0] if len(found) == 1 else None
    return None
