"""Where an objective lacks derivatives: the atoms with kinks, and the forms in which a kink
disappears.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from bilevelpy.analysis.bounds.ranges import Ranges
from bilevelpy.analysis.forms.form import Forms
from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, MATRICES, REDUCTIONS
from bilevelpy.ir.walk import place, postorder

ABSOLUTE = "`abs` of a variable has a kink"
GROUPS = "`norm2` of variables has a kink"
HALFWAY = "one derivative everywhere; the second one jumps (Huber function or squared hinge)"

_NAMES = {
    "abs": "abs",
    "relu": "relu (max with 0)",
    "maximum": "max",
    "minimum": "min",
    "norm2": "norm2",
}

# Convex or concave functions that are piecewise linear.
_PIECEWISE = frozenset({"abs", "relu", "maximum", "minimum", "max", "min", "norm1", "norminf"})


def _even_square(node: ir.Expr) -> ir.Expr | None:
    """The operand of a square or of a power of at least 2."""
    if isinstance(node, ir.Apply) and node.function == "square":
        return node.operands[0]
    if (
        isinstance(node, ir.Apply)
        and node.function == "pow"
        and isinstance(node.operands[1], ir.Const)
    ):
        return node.operands[0] if node.operands[1].value >= 2 else None
    return None


def _is_hinge(node: ir.Expr) -> bool:
    if not isinstance(node, ir.Apply):
        return False
    zero = any(isinstance(o, ir.Const) and o.value == 0.0 for o in node.operands)
    return node.function in ("relu", "abs") or (node.function in ("maximum", "minimum") and zero)


def smooth_fact(forms: Forms, ranges: Ranges, roots: Iterable[ir.Expr], whose: str) -> Fact[bool]:
    """Whether the objectives have two derivatives (almost everywhere, for Huber and squared
    hinges).

    Where all kinks are those of absolute values of variables the reason is :data:`ABSOLUTE`, where
    norms of groups of variables are among them :data:`GROUPS`; else it is that of another kink.
    """
    scope = forms.scope
    excused: set[ir.Expr] = set()
    halfway: list[ir.Expr] = []
    kinks: dict[str, ir.Expr] = {}
    nodes = [n for n in postorder(roots) if n in scope.moving]
    for node in nodes:
        inner = _even_square(node)
        if inner is None:
            continue
        if isinstance(inner, ir.Reduce) and inner.function == "norm2":
            excused.add(inner)
        elif _is_hinge(inner):
            excused.add(inner)
            halfway.append(node)
    for node in nodes:
        found = _kink(node, scope, forms, ranges)
        if found == "huber":
            halfway.append(node)
        elif found and not _excused(node, excused, nodes):
            kinks.setdefault(found, node)
        elif isinstance(node, ir.ExternCall):
            declared = {name for name, _ in scope.bound.program.externs[node.name].properties}
            if "smooth" not in declared:
                reason = f"extern `{node.name}` is not declared smooth"
                return Fact(False, Evidence.DECLARED, reason, place(node))
    if kinks:
        known = {k: n for k, n in kinks.items() if k in (ABSOLUTE, GROUPS)}
        others = {k: n for k, n in kinks.items() if k not in known}
        worst = next(iter(others), GROUPS if GROUPS in known else ABSOLUTE)
        return Fact(False, Evidence.PROVED, worst, place(kinks[worst]))
    if halfway:
        return Fact(True, Evidence.PROVED, HALFWAY, place(halfway[0]))
    externs = [n for n in nodes if isinstance(n, ir.ExternCall)]
    if externs:
        return Fact(
            True,
            Evidence.DECLARED,
            f"extern `{externs[0].name}` is declared smooth",
            place(externs[0]),
        )
    return Fact(
        True, Evidence.PROVED, f"every function of the {whose} variables has two derivatives"
    )


def is_analytic(fact: Fact[bool]) -> bool:
    """Whether the functions of a smooth fact have all derivatives: none of another kind is known to
    the language, and externs may be anything.
    """
    return fact.value and fact.evidence is Evidence.PROVED and fact.reason != HALFWAY


def pieces_fact(forms: Forms, ranges: Ranges, roots: Iterable[ir.Expr]) -> Fact[int] | None:
    """How many scalar kinks there are, where all are those of ``abs``, ``max``, ``min``, ``relu``
    and norms of affine expressions: each is worth a variable with the rows of its epigraph. None
    where there are none, or others.
    """
    scope = forms.scope
    count, first = 0, None
    for node in postorder(roots):
        kink = _kink(node, scope, forms, ranges) if node in scope.moving else ""
        if kink in ("", "huber"):
            continue
        operands = node.children
        if getattr(node, "function", "") not in _PIECEWISE or not all(
            map(forms.is_affine, operands)
        ):
            return None
        first = first or node
        size = max(prod(scope.bound.data.sizes[a] for a in o.axes) for o in operands)
        count += size
    if first is None:
        return None
    reason = f"{count:,} kinks of piecewise linear terms"
    return Fact(count, Evidence.PROVED, reason, place(first))


def _excused(node: ir.Expr, excused: set[ir.Expr], nodes: list[ir.Expr]) -> bool:
    """Whether the node only occurs under a square that removes its kink."""
    return node in excused and all(
        _even_square(user) is not None for user in nodes if node in user.children
    )


def _kink(node: ir.Expr, scope: Scope, forms: Forms, ranges: Ranges) -> str:
    """Why the node has a kink, "huber", or an empty string."""
    match node:
        case ir.Apply(function="huber"):
            return "huber"
        case ir.Apply(function="sqrt") if _is_root_of_squares(node, scope):
            return GROUPS
        case ir.Apply(function="sqrt"):
            # sqrt of an affine expression ends its domain at 0; sqrt of a sum of squares has its
            # kink inside.
            if not forms.is_affine(node.operands[0]) and ranges.bounds(node.operands[0])[0] <= 0:
                return "`sqrt` of an expression that can reach 0 has a kink there"
        case ir.Apply(function="pow"):
            base, exponent = node.operands
            low, _ = ranges.bounds(exponent)
            whole = isinstance(exponent, ir.Const) and exponent.value == int(exponent.value)
            if not whole and low < 2 and not forms.is_affine(base) and ranges.bounds(base)[0] <= 0:
                return "a power below 2 of an expression that can reach 0 has a kink there"
        case ir.Apply(function="select"):
            # Its condition reads data only, so it picks between functions entry by entry and adds
            # no kink.
            return ""
        case ir.Apply(function="abs") if isinstance(node.operands[0], ir.VarRef):
            return ABSOLUTE
        case ir.Apply():
            if not ELEMENTWISE[node.function].smooth:
                return f"`{_NAMES.get(node.function, node.function)}` has a kink"
        case ir.Reduce(function="norm2") if _is_selection(node.operand, scope):
            return GROUPS
        case ir.Reduce():
            if not REDUCTIONS[node.function].smooth:
                return f"`{_NAMES.get(node.function, node.function)}` has a kink"
        case ir.Matrix():
            if not MATRICES[node.function].smooth:
                return "the spectral norm has kinks"
        case _:
            return ""
    return ""


def _is_root_of_squares(node: ir.Apply, scope: Scope) -> bool:
    """Whether this is the root of nothing but sums of squares of variables, each by itself."""
    below = node.operands[0]
    while isinstance(below, ir.Reduce | ir.ScatterSum | ir.Align):
        if isinstance(below, ir.Reduce) and below.function != "sum":
            return False
        below = below.children[0]
    square = isinstance(below, ir.Apply) and below.function == "square"
    return square and _is_selection(below.children[0], scope)


def _is_selection(node: ir.Expr, scope: Scope) -> bool:
    """Whether every entry of a node is one lower variable, perhaps times data."""
    if isinstance(node, ir.VarRef):
        return node in scope.moving
    if isinstance(node, ir.Align):
        return _is_selection(node.operand, scope)
    if isinstance(node, ir.Gather):
        return _is_selection(node.operand, scope)
    if not isinstance(node, ir.Einsum):
        return False
    moving = [k for k, o in enumerate(node.operands) if o in scope.moving]
    if len(moving) != 1 or any(o in scope.shifting for o in node.operands):
        return False
    kept = set(node.subscripts[moving[0]]) <= set(node.output)
    summed = {s for part in node.subscripts for s in part} - set(node.output)
    return kept and not summed and _is_selection(node.operands[moving[0]], scope)
