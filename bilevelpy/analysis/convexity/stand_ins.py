"""Stand-ins of the nodes below a term, on which cvxpy's rules tell curvature.

Whether disciplined rules prove a function convex does not depend on sizes, so every tensor is two
entries here and every scalar one. What is affine in the moving variables is an affine stand-in
whatever it computes, what does not move is a parameter without a value, of the sign that its domain
(or the bound data) gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.bounds.signs import Signs
from bilevelpy.analysis.convexity.log_convex import is_log_convex
from bilevelpy.analysis.convexity.monotone_products import common_argument
from bilevelpy.analysis.convexity.norms import is_sum_of_squares
from bilevelpy.analysis.convexity.offence import Offence, shape_words
from bilevelpy.analysis.convexity.plain import plain_sign
from bilevelpy.analysis.convexity.quadratic import is_psd_form
from bilevelpy.analysis.convexity.relative_entropy import log_product
from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.ir import expr as ir

if TYPE_CHECKING:
    from bilevelpy.analysis.forms.form import Forms

PRODUCT = "a product of factors that both depend on these variables"

Stand = Any  # cvxpy ships no types


class StandIns:
    """The stand-ins of the nodes below one term."""

    def __init__(self, forms: Forms, signs: Signs, signed: bool) -> None:
        self.forms = forms
        self.scope: Scope = forms.scope
        self.signs = signs
        self.signed = signed
        self.declared = False
        self._known: dict[ir.Expr, Stand] = {}

    @cached_property
    def cp(self) -> Any:
        """The judge, loaded when the first rule of its own is needed."""
        import cvxpy

        return cvxpy

    def stand(self, root: ir.Expr) -> Stand:
        """The stand-in of a moving node; raises :class:`Offence` where its curvature is unknown."""
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in self._known:
                continue
            if self.forms.is_affine(node):
                self._known[node] = self._affine(node)
            elif not ready and (made := self._relative_entropy(node)) is not None:
                self._known[node] = self._fit(made, node)
            elif ready:
                made = self._fit(self._visit(node), node)
                if not (made.is_convex() or made.is_concave()):
                    raise Offence(node, self._why(node))
                self._known[node] = self._alike(made)
            else:
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(node.children) if c in self.scope.moving)
        return self._known[root]

    def _shape(self, node: ir.Expr) -> tuple[int, ...]:
        return (2,) if node.axes else ()

    def _fit(self, made: Stand, node: ir.Expr) -> Stand:
        """Bring a stand-in to the node's shape: a tensor of equal entries, or the sum of the
        entries.
        """
        if made.shape == self._shape(node):
            return made
        return self.cp.hstack([made, made]) if node.axes else self.cp.sum(made)

    def _alike(self, made: Stand) -> Stand:
        """A small expression of the same shape, curvature and sign, which are all that rules read:
        cvxpy walks a whole expression by recursion for every node that is put on top.
        """
        cp, shape = self.cp, made.shape
        above, below = made.is_nonneg(), made.is_nonpos()
        if made.is_affine():
            return cp.Variable(shape, nonneg=above, nonpos=below and not above)
        one = cp.square(cp.Variable(shape))
        if made.is_concave():
            one, above, below = -one, below, above
        # Convex and nonpositive, or concave and nonnegative, are no squares.
        if below:
            return -cp.sqrt(cp.Variable(shape)) if made.is_convex() else cp.sqrt(cp.Variable(shape))
        return one if above else one + cp.Variable(shape)

    def _affine(self, node: ir.Expr) -> Stand:
        if node not in self.scope.moving:
            return self._parameter(node)
        sign = self.signs.of(node) if self.signed else "?"
        return self.cp.Variable(self._shape(node), nonneg=sign == "+", nonpos=sign == "-")

    def _parameter(self, node: ir.Expr) -> Stand:
        sign = self.signs.of(node)
        return self.cp.Parameter(self._shape(node), nonneg=sign in "+0", nonpos=sign == "-")

    def _operand(self, node: ir.Expr) -> Stand:
        if node not in self._known:
            self._known[node] = self._affine(node)
        return self._known[node]

    def _visit(self, node: ir.Expr) -> Stand:
        match node:
            case ir.Apply():
                return self._apply(node)
            case ir.Einsum():
                return self._product(node)
            case ir.Reduce():
                return self._reduce(node)
            case ir.Align() | ir.Gather() | ir.ScatterSum() | ir.Diag():
                return self._operand(node.children[0])
            case ir.Concat():
                parts = [self._operand(o) for o in node.operands]
                return sum(self.cp.multiply(self.cp.Parameter(2, nonneg=True), p) for p in parts)
            case ir.MapLast(function="logsoftmax"):
                inner = self._operand(node.operand)
                return inner - self.cp.log_sum_exp(inner)
            case ir.Matrix():
                return self._matrix(node)
            case ir.ExternCall():
                return self._extern(node)
            case _:
                raise Offence(node, "the curvature of this function is unknown")

    def _apply(self, node: ir.Apply) -> Stand:
        cp = self.cp
        if self._is_norm(node):
            return cp.norm2(cp.Variable(2))
        if node.function in ("log", "log1p"):  # the latter of 1 + its argument
            below = node.operands[0]
            if is_log_convex(self.forms, self.signs, below, self._operand):
                # At least 0 where the argument of log1p is; of unknown sign for log.
                one = cp.square(cp.Variable(self._shape(node)))
                return one if node.function == "log1p" else one + cp.Variable(self._shape(node))
        args = [self._operand(o) for o in node.operands]
        simple: dict[str, Callable[..., Stand]] = {
            "neg": lambda a: -a,
            "square": cp.square,
            "sqrt": cp.sqrt,
            "exp": cp.exp,
            "expm1": lambda a: cp.exp(a) - 1,
            "log": cp.log,
            "log1p": cp.log1p,
            "abs": cp.abs,
            "maximum": cp.maximum,
            "minimum": cp.minimum,
            "relu": cp.pos,
            "softplus": cp.logistic,
            "cosh": lambda a: cp.exp(a) + cp.exp(-a),
            "entr": cp.entr,
        }
        if node.function in simple:
            return simple[node.function](*args)
        if node.function == "add":
            return sum(args[1:], args[0])
        if node.function == "recip":
            return self._reciprocal(node, node.operands[0])
        if node.function == "pow":
            return self._power(node)
        if node.function == "huber" and self.signs.of(node.operands[1]) == "+":
            return cp.huber(args[0], 1)
        if node.function == "select" and node.operands[0] not in self.scope.moving:
            pick = cp.Parameter(self._shape(node), nonneg=True)
            return cp.multiply(pick, args[1]) + cp.multiply(pick, args[2])
        raise Offence(node, f"`{node.function}` is neither convex nor concave")

    def _is_norm(self, node: ir.Apply) -> bool:
        """Whether an entry is the root of a sum of squares."""
        if node.function == "pow":
            root = self.signs.measured.bounds(node.operands[1]) == (0.5, 0.5)
        else:
            root = node.function == "sqrt"
        return root and is_sum_of_squares(self.forms, self.signs, node.operands[0])

    def _reciprocal(self, node: ir.Expr, below: ir.Expr) -> Stand:
        sign = self.signs.of(below)
        if sign == "+":
            return self.cp.inv_pos(self._operand(below))
        if sign == "-":
            return -self.cp.inv_pos(-self._operand(below))
        raise Offence(node, "one over an expression of unknown sign")

    def _power(self, node: ir.Apply) -> Stand:
        base, exponent = node.operands
        if exponent in self.scope.moving:
            raise Offence(node, "a power with a moving exponent")
        low, high = self.signs.measured.bounds(exponent)
        whole = low == high == int(low) if abs(low) < 100 else False
        even = whole and low > 0 and int(low) % 2 == 0
        # cvxpy restricts bases to where its rule holds; ours may be negative wherever the exponent
        # is whole.
        fractional = low == high and not whole
        if not even and not fractional and self.signs.of(base) != "+":
            raise Offence(node, "a power that is not even, of an expression that may be negative")
        for fits, representative in (
            (low >= 1, 1.5),
            (low >= 0 and high <= 1, 0.5),
            (high <= 0, -1.0),
        ):
            if fits:
                return self.cp.power(self._operand(base), 2 if even else representative)
        raise Offence(node, "a power whose exponent may lie on both sides of 0 or 1")

    def _product(self, node: ir.Einsum) -> Stand:
        cp = self.cp
        fixed = tuple(o for o in node.operands if o not in self.scope.moving)
        moving = [o for o in node.operands if o in self.scope.moving]
        curved = plain_sign(self.forms, self.signs, node)
        if curved in ("+", "-"):
            square = cp.sum_squares(cp.Variable(2))
            if not is_psd_form(self.scope, self.signs, node):
                square = square + cp.Variable()
            return square if curved == "+" else -square
        sign = self.signs.product(fixed)
        core = self._operand(moving[0]) if len(moving) == 1 else self._special_product(node, moving)
        weight = cp.Parameter(nonneg=sign in "+0", nonpos=sign == "-")
        made = weight * core
        if not (made.is_convex() or made.is_concave()):
            raise Offence(node, "the sign of its coefficient is not known")
        return made

    def _special_product(self, node: ir.Einsum, moving: list[ir.Expr]) -> Stand:
        """Products of moving factors with a rule of their own: ``x log x``, ``x^2 / y``, and those
        of functions of one argument that rise together.
        """
        cp = self.cp
        beside = {
            s for o, s in zip(node.operands, node.subscripts, strict=True) if o in moving and o.axes
        }
        if len(moving) == 2:
            for a, b in (moving, moving[::-1]):
                if (
                    isinstance(b, ir.Apply)
                    and b.function == "log"
                    and b.operands[0] is a
                    and len(beside) <= 1
                ):
                    return -cp.entr(self._operand(a))
                if (
                    isinstance(b, ir.Apply)
                    and b.function == "recip"
                    and _squared(a) is not None
                    and len(beside) <= 1
                ):
                    top, below = _squared(a), b.operands[0]
                    if (
                        self._is_affine(top)
                        and self._is_affine(below)
                        and self.signs.of(below) == "+"
                    ):
                        return self._fit(cp.quad_over_lin(cp.Variable(), cp.Variable()), a)
        together = len(beside) <= 1 and all(self._operand(o).is_convex() for o in moving)
        if together and common_argument(self.forms, self.signs, moving) is not None:
            return cp.square(cp.Variable(self._shape(moving[0])))
        raise Offence(node, PRODUCT)

    def _relative_entropy(self, node: ir.Expr) -> Stand | None:
        """``p log(p/q)`` and its like, whose parts are neither convex nor concave by themselves."""
        if not isinstance(node, ir.Einsum):
            return None
        found = log_product(self.forms, self.signs, node)
        sign = "?" if found is None else found.curvature(self.signs)
        if sign == "?":
            return None
        one = -self.cp.entr(self.cp.Variable())
        return one if sign == "+" else -one

    def _is_affine(self, node: ir.Expr | None) -> bool:
        return node is not None and self.forms.is_affine(node)

    def _reduce(self, node: ir.Reduce) -> Stand:
        inner = self._operand(node.operand)
        function = {
            "sum": self.cp.sum,
            "max": self.cp.max,
            "min": self.cp.min,
            "logsumexp": self.cp.log_sum_exp,
            "norm2": self.cp.norm2,
        }.get(node.function)
        if function is None:
            raise Offence(node, f"`{node.function}` is neither convex nor concave")
        return function(inner)

    def _matrix(self, node: ir.Matrix) -> Stand:
        if not self.forms.is_affine(node.operand):
            raise Offence(node, f"`{node.function}` of a matrix that is not affine")
        if node.function == "logdet":
            return self.cp.log_det(self.cp.Variable((2, 2), symmetric=True))
        return self.cp.sigma_max(self.cp.Variable((2, 2)))

    def _extern(self, node: ir.ExternCall) -> Stand:
        extern = self.scope.bound.program.externs[node.name]
        convex_in = {
            a for name, arguments in extern.properties if name == "convex" for a in arguments
        }
        for argument, operand in zip(extern.arguments, node.operands, strict=True):
            if operand not in self.scope.moving:
                continue
            if argument.name not in convex_in or not self.forms.is_affine(operand):
                raise Offence(
                    node, f"extern `{node.name}` is not declared convex in `{argument.name}`"
                )
        if len([o for o in node.operands if o in self.scope.moving]) > 1:
            raise Offence(
                node, f"extern `{node.name}` is declared convex in each argument, not jointly"
            )
        self.declared = True
        # A convex function of unknown sign and monotonicity.
        return self.cp.sum_squares(self.cp.Variable(2)) + self.cp.Variable()

    def _why(self, node: ir.Expr) -> str:
        """What kept the rules from telling the curvature of a node, in words."""
        inner = [self._known[c] for c in node.children if c in self.scope.moving]
        kinds = {"convex" if a.is_convex() else "concave" for a in inner if not a.is_affine()}
        if isinstance(node, ir.Apply) and node.function == "add":
            return "a sum of a convex and a concave part: curvature unknown"
        name = getattr(node, "function", None)
        if name and len(kinds) == 1:
            return f"{shape_words(node)}`{name}` of a {kinds.pop()} argument: curvature unknown"
        return "curvature unknown"


def _squared(node: ir.Expr) -> ir.Expr | None:
    return node.operands[0] if isinstance(node, ir.Apply) and node.function == "square" else None
