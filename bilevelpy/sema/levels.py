"""Levels: families, variables, lets, objectives, constraints and assumptions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bilevelpy.diagnostics import Fix, Label
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Constraint, Level, Variable
from bilevelpy.ir.types import FREE, Axes, Domain, DomainKind, Relation, Sense
from bilevelpy.sema.assumptions import assumptions
from bilevelpy.sema.axes import axes_of
from bilevelpy.sema.domains import domain_of, fitted
from bilevelpy.sema.expressions.binders import Bound, bind
from bilevelpy.sema.expressions.elaborate import drive, evaluate
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.names import decided
from bilevelpy.sema.scope import UPPER, Context, Declaration, Frame, Kind, State
from bilevelpy.sema.values import Value, shape, spread, union
from bilevelpy.syntax import ast


def open_level(state: State, name: str, block: ast.Upper | ast.Lower) -> Frame:
    """The frame of a level; a wrong family leaves its iterators poisoned."""
    if isinstance(block, ast.Upper):
        return Frame(name, block, Context(UPPER), (), ())
    context = Context(name, nash=block.nash)
    bound: Bound | None = Bound(context, ())
    if block.generators is not None:
        bound = drive(state, bind(state, context, block.generators, "family"))
    if bound is None or (block.generators is not None and not bound.iters):
        names = [n for b in block.generators.binders for n in b.names] if block.generators else []
        state.families[name] = None
        return Frame(name, block, context.bind(dict.fromkeys(names)), (), ())
    family = tuple(i.axis for i in bound.iters)
    state.families[name] = family
    return Frame(name, block, replace(bound.context, own=bound.iters), family, bound.iters)


def shapes(state: State, frame: Frame) -> None:
    """The axes of all variables of a level, family first."""
    for declaration in own_declarations(state, frame, Kind.VAR):
        own = drive(
            state, axes_of(state, frame.context.data("an axis is data"), declaration.node.axes)
        )
        broken = own is None or state.families.get(frame.name, ()) is None
        state.shapes[declaration] = None if broken or own is None else (*frame.family, *own)


def own_declarations(state: State, frame: Frame, kind: Kind) -> list[Declaration]:
    """Declarations of a level in the order of the text."""
    table = state.top if frame.name == UPPER else state.lowers[frame.name]
    return [d for d in table.values() if d.level == frame.name and d.kind is kind]


def let(state: State, frame: Frame, declaration: Declaration) -> None:
    """The value of a `let`; its own iterators become its axes."""
    node: ast.LetDecl = declaration.node
    if declaration in state.circular:
        return
    bound: Bound | None = Bound(frame.context, ())
    if node.generators is not None:
        bound = drive(state, bind(state, frame.context, node.generators, "family"))
    if bound is None:
        return
    value = evaluate(state, bound.context, node.value)
    if value is None or (node.generators is not None and not bound.iters):
        return
    outer = tuple(i for i in value.iters if i not in bound.iters)
    node_ = spread(state.builder, value, (*outer, *bound.iters), value.axes)
    state.lets[declaration] = Value(node_, outer)


def variables(state: State, frame: Frame) -> list[Variable]:
    """The variables of a level with their domains and starts."""
    found: list[Variable] = []
    for declaration in own_declarations(state, frame, Kind.VAR):
        node: ast.VarItem = declaration.node
        axes = state.shapes.get(declaration)
        if axes is None:
            continue
        domain = domain_of(state, frame.context, node.domain, axes, frame.iters) or FREE
        start = _start(state, frame, node, axes, domain)
        found.append(Variable(node.name, frame.name, axes, domain, start, node.span, node.doc))
    return found


def _start(
    state: State, frame: Frame, node: ast.VarItem, axes: Axes, domain: Domain
) -> ir.Expr | None:
    if node.start is None:
        return None
    context = frame.context.data("a start is data")
    value = evaluate(state, context, node.start)
    if value is None:
        return None
    if not state.builder.is_data(value.expr):
        decided(state, context, node.start, context.reads_only)
        return None
    start = fitted(
        state, context, value, axes, node.start.span, node.name, "start", node.span, frame.iters
    )
    if start is None:
        return None
    numbers = (
        start.values
        if isinstance(start, ir.Array)
        else (start.value,)
        if isinstance(start, ir.Const)
        else ()
    )
    low, high = domain.lower, domain.upper
    for number in numbers:
        below = isinstance(low, ir.Const) and number < low.value
        above = isinstance(high, ir.Const) and number > high.value
        fraction = domain.is_discrete and number % 1 != 0
        if below or above or fraction:
            place = domain.span or node.name_span
            state.error(
                "BLV0325",
                node.start.span,
                f"{number:g}",
                secondary=[Label(place, "must lie in this domain")],
                name=node.name,
                found=f"{number:g}",
                domain=state.text(place),
            )
            return None
    if domain.kind is DomainKind.SIMPLEX and isinstance(start, ir.Array) and min(start.values) < 0:
        place = domain.span or node.name_span
        state.error(
            "BLV0325",
            node.start.span,
            "negative entries",
            secondary=[Label(place, "the simplex")],
            name=node.name,
            found="negative entries",
            domain="simplex",
        )
        return None
    return start


def objective(state: State, frame: Frame) -> tuple[Sense, ir.Expr] | None:
    """Sense and objective; one value per element of the family."""
    node = next((s for s in frame.block.statements if isinstance(s, ast.Objective)), None)
    if node is None:
        return None
    value = evaluate(state, frame.context, node.value)
    if value is None:
        return None
    if value.axes:
        state.error(
            "BLV0324",
            node.value.span,
            f"axes {axes_text(value.axes)}",
            level=frame.name,
            axes=axes_text(value.axes),
            hint="say how its entries become one number: `sum(...)`, `mean(...)`, `max(...)`",
        )
        return None
    expr = spread(state.builder, value, frame.iters, ()) if frame.iters else value.expr
    state.objectives[frame.name] = Value(expr)
    return Sense(node.sense), expr


def constraint_nodes(frame: Frame) -> Iterable[ast.Constraint]:
    """The constraints of a level in the order of the text."""
    for statement in frame.block.statements:
        if isinstance(statement, ast.SubjectTo):
            yield from statement.constraints


def constraints(state: State, frame: Frame) -> list[Constraint]:
    """All constraints of a level."""
    found: list[Constraint] = []
    for node in constraint_nodes(frame):
        made = _constraint(state, frame, node)
        declaration = state.constraints[frame.name][node.name]
        if declaration.node is node:
            state.rows[declaration] = made.axes if made is not None else None
        if made is not None:
            found.append(made)
    return found


def _relations_fit(state: State, node: ast.Constraint) -> bool:
    fit = True
    for operator, span in zip(node.operators, node.operator_spans, strict=True):
        if operator in ("<", ">"):
            fix = Fix(f"replace `{operator}` with `{operator}=`", span, f"{operator}=")
            state.error(
                "BLV0222",
                span,
                "strict",
                fix=fix,
                operator=operator,
                right=f"{operator}=",
                notes=("a strict bound has no nearest point, so an optimum need not exist",),
            )
            fit = False
        elif operator == "!=":
            state.error(
                "BLV0222", span, "leaves out a point", operator=operator, right="<=` or `>="
            )
            fit = False
    if (
        fit
        and len(node.operators) == 2
        and (node.operators[0] != node.operators[1] or node.operators[0] == "==")
    ):
        first, second = node.operators
        label = f"`{first}`, then `{second}`"
        span = node.operator_spans[0].to(node.operator_spans[1])
        state.error("BLV0232", span, label, name=node.name, hint="write two constraints")
        return False
    return fit


def _constraint(state: State, frame: Frame, node: ast.Constraint) -> Constraint | None:
    fit = _relations_fit(state, node)
    bound: Bound | None = Bound(frame.context, ())
    if node.generators is not None:
        bound = drive(state, bind(state, frame.context, node.generators, "family"))
    if bound is None:
        return None
    values: list[Value] = []
    shown: tuple[ast.Expr, Value] | None = None
    for k, item in enumerate(node.operands):
        value = evaluate(state, bound.context, item)
        if value is None:
            fit = False
            continue
        values.append(value)
        if not value.axes:
            continue
        if shown is not None and shown[1].axes != value.axes:
            state.error(
                "BLV0303",
                shown[0].span.to(item.span),
                "only a scalar is broadcast",
                operator=node.operators[k - 1],
                secondary=[
                    Label(shown[0].span, axes_text(shown[1].axes)),
                    Label(item.span, axes_text(value.axes)),
                ],
                left=axes_text(shown[1].axes),
                right=axes_text(value.axes),
            )
            fit = False
        shown = shown or (item, value)
    if not fit or (node.generators is not None and not bound.iters):
        return None
    iters = (*frame.iters, *bound.iters)
    own = shape(values)
    assert set(union(values)) <= set(iters)
    axes = (*(i.axis for i in iters), *own)
    terms = tuple(spread(state.builder, v, iters, own) if v.expr.axes else v.expr for v in values)
    relations = tuple(Relation(o) for o in node.operators)
    return Constraint(node.name, axes, terms, relations, node.span, node.doc)


def level(state: State, frame: Frame) -> Level | None:
    """Everything of a level but its lets, which come before."""
    made_variables = variables(state, frame)
    goal = objective(state, frame)
    rows = constraints(state, frame)
    facts = assumptions(state, frame)
    if goal is None:
        return None
    block = frame.block
    nash = isinstance(block, ast.Lower) and block.nash
    return Level(
        frame.name,
        frame.family,
        tuple(made_variables),
        goal[0],
        goal[1],
        tuple(rows),
        tuple(facts),
        nash,
        block.span,
        block.doc,
    )
