"""What the rows of the decision table ask of a structure: named tests, for rules and for readers.

The thresholds are measured by ``python -m benchmarks.dispatch_thresholds``;
``docs/dispatch_measured.md`` shows the figures behind each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bilevelpy.analysis.forms.smooth import ABSOLUTE, GROUPS
from bilevelpy.analysis.structure import Structure

# A dense Hessian that never changes is factorised once (on sets: once for every face): up to the
# largest that the backend takes, on sets to where conjugate gradients are as fast.
DENSE_CONSTANT, DENSE = 5000, 800
# One that moves is assembled anew at every point. Conjugate gradients are faster beyond these sizes
# where it comes from passes over the data, and where it takes a product per variable; the former
# twice as late where the condition number at the start is above ILL, each block by itself.
DENSE_MOVING, DENSE_BY_PRODUCTS, ILL = 400, 200, 30.0
# The same where x alone moves it and y is free: data and matrix are kept, factors give responses to
# rounding, and Newton's steps above end where those by pairs meet their limit. Blocks of at most so
# many variables come from their terms.
DENSE_KEPT, BLOCK_KEPT = 1200, 200
# One in classes comes in blocks, each the size of a class: dense up to here.
DENSE_CLASSES, ONE_CLASS = 800, 2
# Independent blocks of at most so many variables are factorised as a batch, however many there are:
# beyond, conjugate gradients are as fast where the blocks are well conditioned.
BLOCK = 50
# Upper variables for which a lower solve per direction is affordable.
FEW_UPPER = 10
# Lower variables that restarts can look for everywhere, and that a global solver settles at once.
FEW_LOWER = 10
# Lower variables of which cuts by best responses still prove an optimum in seconds.
SOME_LOWER = 10
# Terms of a sum over data, each an own function that is no polynomial, from which a search for the
# global optimum finds nothing: robust losses of regressions.
LONG_SUM = 20
# Lower variables from which a sum that is not convex is a trained model: no solve of it ends, and
# batches move both levels meanwhile.
MANY_LOWER = 5000
# The same where a function comes from outside: its derivatives cost several times as much.
MANY_FOREIGN = 200
# The same below few upper variables: their few, accurate steps are worth longer solves.
TRAINED = 10_000
# Terms of a sum up to which gradients of all of them are ahead of those of batches, and lower
# variables from which such a sum is a trained model.
SHORT_SUM, MANY_SHORT = 1000, 8000
# Lower variables and rows (complementarity pairs) up to which branch and bound ends within seconds.
PAIRS = 150
# Entries of semidefinite matrices, whose faces are dense projectors: products beyond.
MATRICES = 150
# Lower variables and constraints of an optimality system, by the memory of its factor: `nlp` ends
# where `blocc` does not, so that there is no crossing.
KKT = 2000
# Variables and rows of epigraphs up to which a lower solve is affordable.
WRITTEN = 10_000


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of the structure, and its name in words."""

    words: str
    holds: Callable[[Structure], bool]

    def __call__(self, structure: Structure) -> bool:
        """Whether the structure passes."""
        return self.holds(structure)


def _small(s: Structure) -> bool:
    if "psd" in s.lower.domains.value and s.dim_y > MATRICES:
        return False
    few = s.blocks > 1 and s.dim_y <= BLOCK * s.blocks
    if s.lower.is_flat and (few or s.bands is not None):
        return True
    if s.lower_hessian.value == "constant":
        return s.dim_y <= DENSE
    if s.lower_hessian.value == "depends on x" and s.lower.constraints.value == "none":
        most = BLOCK_KEPT * s.blocks if s.blocks > 1 else DENSE_KEPT
        if s.dim_y <= most:
            return True
    passes = s.hessian_passes.value if s.hessian_passes is not None else None
    if passes is not None and passes > ONE_CLASS and s.dim_y <= DENSE_CLASSES:
        return True
    ill = s.condition is not None and s.condition > ILL
    # Conjugate gradients take as long for all blocks as for the worst of them.
    size = s.dim_y / max(1, s.blocks) if ill else s.dim_y
    if s.lower_hessian.value != "depends on x" and passes is None:
        return size <= DENSE_BY_PRODUCTS
    return size <= (2 if ill else 1) * DENSE_MOVING


def _trained(s: Structure) -> int:
    """Lower variables from which a sum that is not convex is a trained model."""
    if s.dim_x <= FEW_UPPER:
        return TRAINED
    if s.externs.value:
        return MANY_FOREIGN
    return MANY_SHORT if s.longest_sum <= SHORT_SUM else MANY_LOWER


def _form(s: Structure) -> str:
    """The class of the lower objective, beside kinks that rows can stand for."""
    return s.lower.form.value if s.epigraphs is None else s.epigraphs.value.form


def _kinks(s: Structure) -> int | None:
    """Scalar kinks, where all are those of piecewise linear terms."""
    if s.epigraphs is not None:
        return s.epigraphs.value.variables
    return None if s.pieces is None else s.pieces.value


# Lower variables of boxes, and upper ones, between which F has so many kinks that steps over pieces
# of the response end lower, and dense systems with what holds it take no longer; beyond so many
# lower ones that is worth it with so many upper ones. A Hessian that moves is assembled at every
# step of it: up to so many lower variables, without passes over much data.
BOXED, BOXED_UPPER, BOXED_FEW = (20, 600), (2, 200), (200, 20)
BOXED_MOVING = 300

# Lower variables of simplices, and upper ones, up to which a search by continuation follows the end
# of a descent.
SHARES, SHARERS = 400, 200

# What only a backend that takes a program as a whole can solve.
_WHOLE = frozenset({"duals", "reported_duals", "nash", "discrete", "moving_bounds"})
_CONSTRAINED = frozenset({"lower_constraints", "upper_constraints", "coupling"})

ALWAYS = Condition("any model", lambda s: True)
WHOLE = Condition(
    "multipliers, whole numbers, games, or bounds that move",
    lambda s: bool(_WHOLE & s.unsupported.keys()),
)
SEMIDEFINITE = Condition("semidefinite matrices", lambda s: "psd" in s.unsupported)
LINEAR_BELOW = Condition("linear follower", lambda s: s.lower.form.value == "linear")
CONSTRAINED = Condition(
    "constraints in either level", lambda s: bool(_CONSTRAINED & s.unsupported.keys())
)
FEW_ROWS = Condition(
    f"at most {PAIRS:,} lower variables, constraints and kinks",
    lambda s: s.lower_constraints + s.dim_y + (_kinks(s) or 0) <= PAIRS,
)
POLYNOMIAL = Condition(
    "linear or quadratic levels",
    lambda s: (
        s.lower.form.value in ("linear", "quadratic")
        and s.upper.form.value in ("linear", "quadratic")
    ),
)
AFFINE_ROWS = Condition(
    "rows below, if any, that are affine in the lower variables",
    lambda s: s.lower.constraints.value in ("none", "bounds", "linear"),
)
CURVED = Condition(
    "convex below, not linear",
    lambda s: s.is_convex and s.lower.form.value != "linear",
)
BEYOND_SEARCH = Condition(
    f"a lower objective that is no polynomial, of more than {FEW_LOWER} variables or in sums of at "
    f"least {LONG_SUM} terms",
    lambda s: _form(s) == "nonlinear" and (s.dim_y > FEW_LOWER or s.longest_sum >= LONG_SUM),
)
SMALL_SYSTEM = Condition(
    f"at most {KKT:,} lower variables and constraints",
    lambda s: s.dim_y + s.lower_constraints <= KKT,
)
CONSTANT = Condition(
    f"quadratic, constant Hessian, free, at most {DENSE_CONSTANT:,} lower variables",
    lambda s: (
        s.lower_hessian.value == "constant"
        and s.lower.constraints.value == "none"
        and s.lower.form.value in ("linear", "quadratic")
        and s.dim_y <= DENSE_CONSTANT
    ),
)
SIMPLE_SET = Condition(
    "box, simplex or ball below", lambda s: s.lower.constraints.value == "bounds"
)
MANY_BOUNDS = Condition(
    f"bounds on {BOXED[0]} to {BOXED[1]} lower variables that hang together (below fewer than "
    f"{BOXED_FEW[1]} upper ones at most {BOXED_FEW[0]}), with a constant Hessian, or up to "
    f"{BOXED_MOVING} of them and in sums of at most {SHORT_SUM:,} terms with one that moves; "
    f"{BOXED_UPPER[0]} to {BOXED_UPPER[1]} upper variables",
    lambda s: (
        s.lower.constraints.value == "bounds"
        and (
            s.lower_hessian.value == "constant"
            or (s.dim_y <= BOXED_MOVING and s.longest_sum <= SHORT_SUM)
        )
        and s.lower.domains.value <= {"free", "box"}
        and BOXED[0] <= s.dim_y <= BOXED[1]
        and BOXED_UPPER[0] <= s.dim_x <= BOXED_UPPER[1]
        and (s.dim_y <= BOXED_FEW[0] or s.dim_x >= BOXED_FEW[1])
        and s.blocks <= 1
        and not s.externs.value
    ),
)
SHARED = Condition(
    f"at most {SHARES} lower variables, simplices among them, with a constant Hessian, and at most "
    f"{SHARERS} upper ones",
    lambda s: (
        s.lower.constraints.value == "bounds"
        and s.lower_hessian.value == "constant"
        and "simplex" in s.lower.domains.value <= {"free", "box", "simplex"}
        and s.dim_y <= SHARES
        and 0 < s.dim_x <= SHARERS
        and s.blocks <= 1
        and not s.externs.value
    ),
)
SMALL = Condition(
    f"at most {DENSE:,} lower variables with a constant Hessian, {DENSE_MOVING} with one that "
    f"moves ({DENSE_KEPT:,} where y is free and only x moves it, or {BLOCK_KEPT} in each block; "
    f"{DENSE_CLASSES} in classes; beyond condition number {ILL:g} twice as many, in each "
    f"block), {DENSE_BY_PRODUCTS} where it takes a product for each, independent blocks of at most "
    f"{BLOCK}, or a narrow band",
    _small,
)
FEW_UPPERS = Condition(f"at most {FEW_UPPER} upper variables", lambda s: 0 < s.dim_x <= FEW_UPPER)
FEW_LOWERS = Condition(f"at most {FEW_LOWER} lower variables", lambda s: 0 < s.dim_y <= FEW_LOWER)
SOME_LOWERS = Condition(
    f"at most {SOME_LOWER} lower variables, or constraints",
    lambda s: s.dim_y <= SOME_LOWER or bool(_CONSTRAINED & s.unsupported.keys()),
)
TINY = Condition(
    f"at most {FEW_LOWER} variables of each level",
    lambda s: s.dim_x <= FEW_LOWER and s.dim_y <= FEW_LOWER,
)
FINITE_SUM = Condition("sums over data", lambda s: bool(s.finite_sum_lower.value))
NO_LONG_SUM = Condition(
    f"polynomials, kinks, constraints, or sums of fewer than {LONG_SUM} terms",
    lambda s: (
        s.longest_sum < LONG_SUM
        or s.lower.form.value != "nonlinear"
        or not s.lower.smooth.value
        or bool(_CONSTRAINED & s.unsupported.keys())
    ),
)
UNIQUE = Condition(
    "strongly convex below, or one solution by assumption",
    lambda s: s.has_one_response,
)
SMOOTH = Condition("smooth lower level", lambda s: s.lower.smooth.value)
NONSMOOTH = Condition("lower level with kinks", lambda s: not s.lower.smooth.value)
FEW_KINKS = Condition(
    f"kinks that are worth at most {PAIRS:,} variables and rows, or cannot be counted",
    lambda s: _kinks(s) is None or s.dim_y + 3 * (_kinks(s) or 0) <= PAIRS,
)
PIECEWISE_LINEAR = Condition(
    f"convex below, with piecewise linear terms worth at most {WRITTEN:,} variables and rows",
    lambda s: s.pieces is not None and s.dim_y + 3 * s.pieces.value <= WRITTEN and s.is_convex,
)
EPIGRAPHS = Condition(
    "convex below, not linear, once rows stand for its kinks",
    lambda s: s.epigraphs is not None and _form(s) != "linear" and s.is_convex,
)
ABSOLUTE_VALUES = Condition(
    "convex below but for kinks of `abs` of single variables",
    lambda s: s.lower.smooth.reason == ABSOLUTE and s.is_convex,
)
GROUP_NORMS = Condition(
    "convex below but for kinks of norms of groups of variables",
    lambda s: s.lower.smooth.reason == GROUPS and s.is_convex,
)
MERELY_CONVEX = Condition(
    "convex below, not strongly; several solutions",
    lambda s: s.convexity.value == "convex" and not s.unique.value,
)
NOT_CONVEX = Condition(
    "not known to be convex below",
    lambda s: (
        s.convexity.value == "nonconvex" or (s.convexity.value == "unknown" and not s.unique.value)
    ),
)
MANY_LOWERS = Condition(
    f"at least {MANY_LOWER:,} lower variables ({MANY_FOREIGN} where a function is `extern`, "
    f"{MANY_SHORT:,} where no sum has more than {SHORT_SUM:,} terms; {TRAINED:,} below {FEW_UPPER} "
    "upper ones or fewer)",
    lambda s: s.dim_y >= _trained(s),
)
FEW_TERMS = Condition(
    f"sums of at most {SHORT_SUM:,} terms without `extern` functions; more than {FEW_UPPER} upper "
    "variables",
    lambda s: s.longest_sum <= SHORT_SUM and not s.externs.value and s.dim_x > FEW_UPPER,
)
STEPS = Condition("the answer below is what some steps reach", lambda s: s.steps is not None)
STREAMED = Condition(
    "data larger than memory, in sums over its rows below",
    lambda s: s.streamed is not None and bool(s.finite_sum_lower.value),
)
FREE_BELOW = Condition("free lower variables", lambda s: s.lower.constraints.value == "none")
KNOWN_CONDITION = Condition("condition number known", lambda s: s.condition is not None)
