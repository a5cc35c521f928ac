"""What is legal and hardly meant: variables that nothing depends on, constraints that constrain
nothing.
"""

from __future__ import annotations

from bilevelpy.diagnostics import Label
from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.program import Level, Program, Variable
from bilevelpy.ir.walk import postorder, variables
from bilevelpy.sema.scope import State


def warn(state: State, program: Program) -> None:
    """Warn about a checked program."""
    for level in program.lowers:
        _idle_constraints(state, level)
        _idle_variables(state, level)
    _unread_upper(state, program)


def _idle_constraints(state: State, level: Level) -> None:
    own = {v.name for v in level.variables}
    # In one walk: constraints may share what they read, and that may be long.
    reads: dict[Expr, bool] = {}
    for node in postorder(t for c in level.constraints for t in c.terms):
        mine = isinstance(node, VarRef) and node.level == level.name and node.name in own
        reads[node] = mine or any(reads[c] for c in node.children)
    for constraint in level.constraints:
        if not any(reads[t] for t in constraint.terms):
            state.error(
                "BLV0530",
                constraint.span,
                f"no variable of `{level.name}` in it",
                secondary=[
                    Label(v.span, "a variable of this level") for v in level.variables[:1] if v.span
                ],
                hint="move it to `upper` if it restricts the leader",
                name=constraint.name,
                level=level.name,
            )


def _idle_variables(state: State, level: Level) -> None:
    """A lower variable that neither objective nor constraint reads: the follower does not care what
    it is.
    """
    roots = [level.objective, *(t for c in level.constraints for t in c.terms)]
    read = variables(roots)
    for variable in level.variables:
        if (level.name, variable.name) not in read:
            _unread(state, variable, level.name, "neither its objective nor its constraints")


def _unread_upper(state: State, program: Program) -> None:
    roots = [lv.objective for lv in program.levels]
    roots += [t for lv in program.levels for c in lv.constraints for t in c.terms]
    read = {n for lv, n in variables(postorder(roots)) if lv == "upper"}
    for variable in program.upper.variables:
        if variable.name not in read:
            _unread(state, variable, "upper", "no objective and no constraint")


def _unread(state: State, variable: Variable, level: str, reading: str) -> None:
    state.error(
        "BLV0531",
        variable.span,
        "every value of it is optimal",
        name=variable.name,
        level=level,
        reading=reading,
    )
