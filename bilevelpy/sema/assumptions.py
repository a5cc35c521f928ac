"""`assume`: facts that the modeller declares, and bounds on duals."""

from __future__ import annotations

from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import MODULI, Assumption
from bilevelpy.sema.domains import domain_of
from bilevelpy.sema.expressions.duals import dual_target
from bilevelpy.sema.expressions.elaborate import evaluate
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.scope import UPPER, Declaration, Frame, State, closest
from bilevelpy.syntax import ast

FACTS = {"convex": 0, "strongly_convex": 1, "smooth": 1, "unique": 0, "licq": 0, "steps": 2}
_FORMS = {"strongly_convex": "(mu)", "smooth": "(L)", "steps": "(T, s)"}


def assumptions(state: State, frame: Frame) -> list[Assumption]:
    """Declared facts of a level."""
    found: list[Assumption] = []
    for statement in frame.block.statements:
        if isinstance(statement, ast.Assume):
            for fact in statement.facts:
                made = (
                    _dual_bounds(state, frame, fact)
                    if isinstance(fact, ast.AssumeDual)
                    else _fact(state, frame, fact)
                )
                if made is not None:
                    found.append(made)
    return found


def _fact(state: State, frame: Frame, node: ast.Property) -> Assumption | None:
    if node.name not in FACTS:
        guess = closest(node.name, FACTS)
        state.error(
            "BLV0224",
            node.span,
            "not known",
            notes=("known: " + ", ".join(f"`{f}`" for f in FACTS),),
            hint=f"did you mean `{guess}`?" if guess else None,
            name=node.name,
            what="a fact that can be assumed",
        )
        return None
    if node.name == "steps" and frame.name == UPPER:
        state.error(
            "BLV0224",
            node.span,
            "`upper` takes no steps",
            hint="write it in the `lower` whose answer the steps are",
            name=node.name,
            what="a fact of `upper`",
        )
        return None
    arguments: list[ir.Expr] = []
    context = frame.context.data("an assumption reads data only")
    for item in node.arguments:
        value = evaluate(state, context, item)
        if value is None:
            return None
        if value.axes or value.iters:
            state.error(
                "BLV0308",
                item.span,
                "not a number",
                what=f"`{node.name}`",
                need="a number",
                found=axes_text(value.expr.axes),
            )
            return None
        if node.name in MODULI and isinstance(value.expr, ir.Const):
            number = value.expr.value
            if not 0 <= number < float("inf"):
                state.error(
                    "BLV0308",
                    item.span,
                    "no such modulus",
                    what=f"`{node.name}`",
                    need="a finite number from 0 on",
                    found=f"{number:g}",
                )
                return None
        arguments.append(value.expr)
    if len(arguments) != FACTS[node.name]:
        form = node.name + _FORMS.get(node.name, "")
        state.error(
            "BLV0218",
            node.span,
            f"{len(arguments)} arguments",
            name=node.name,
            hint=f"it is written `{form}`",
        )
        return None
    return Assumption(node.name, tuple(arguments), span=node.span)


def _dual_bounds(state: State, frame: Frame, node: ast.AssumeDual) -> Assumption | None:
    own = state.constraints.get(frame.name, {})
    target = node.constraint
    if isinstance(target, ast.Name) and target.name in own:
        found: Declaration | None = own[target.name]
    else:
        found = dual_target(state, target)
        found = found if found is not None and found.level == frame.name else None
    if found is None or frame.name == UPPER:
        where = "upper" if frame.name == UPPER else frame.name
        label = (
            "bounds on duals stand in the follower itself"
            if frame.name == UPPER
            else f"not a constraint of `{where}`"
        )
        listed = ", ".join(f"`{n}`" for n in list(own)[:6])
        state.error(
            "BLV0216",
            target.span,
            label,
            hint=f"constraints of `{where}`: {listed}" if listed and frame.name != UPPER else None,
        )
        return None
    rows = state.rows.get(found)
    if rows is None:
        return None
    domain = domain_of(state, frame.context, node.domain, rows, frame.iters)
    if domain is None:
        return None
    low = domain.lower or state.builder.const(float("-inf"))
    high = domain.upper or state.builder.const(float("inf"))
    return Assumption("dual", (low, high), found.name, node.span)
