"""Which backend is preferred for which structure: one table, first match wins.

The thresholds are constants here, so that a benchmark can measure them and the documentation can
show them. A rule prefers; whether a backend can take a model at all is its own ``accepts``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bilevelpy.analysis.structure import Structure

# A dense Hessian of this size takes 32 MB, its Cholesky factor some tenths of a second on two
# cores, and the hypergradient is exact. The number is that of row 4 of the methods' decision table.
DENSE = 2000
# Where f_yy moves with y, every Newton step assembles it anew. One product per variable is too much
# beyond some 500 of them; where f has affine predictors, a Hessian is a few passes and a product
# with the data (digits, 650 variables and 10 classes: 24 s, against 50 s by conjugate gradients).
DENSE_MOVING = 500
FEW_PASSES = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: where ``when`` holds, ``backend`` is preferred for the reason ``why`` (formatted with
    the sizes).
    """

    name: str
    backend: str
    when: Callable[[Structure], bool]
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _eliminates(s: Structure) -> bool:
    """A quadratic lower level without constraints whose Hessian never moves: one factor in the
    whole run.
    """
    return (
        s.lower_hessian.value == "constant"
        and s.lower.constraints.value == "none"
        and s.lower.form.value in ("linear", "quadratic")
        and s.dim_y <= DENSE
    )


def _is_set(s: Structure) -> bool:
    return s.lower.constraints.value == "bounds"


def _small(s: Structure) -> bool:
    moves = s.lower_hessian.value in ("depends on y", "depends on both")
    passes = s.hessian_passes.value if s.hessian_passes is not None else None
    structured = passes is not None and passes <= FEW_PASSES
    return s.dim_y <= (DENSE_MOVING if moves and not structured else DENSE)


# What only a backend that takes a program as a whole can solve.
_WHOLE = frozenset(
    {
        "lower_constraints",
        "upper_constraints",
        "coupling",
        "duals",
        "nash",
        "discrete",
        "moving_bounds",
    }
)


def _is_whole(s: Structure) -> bool:
    """Constraints and the like; and linear followers, whose responses jump between vertices."""
    return bool(_WHOLE & s.unsupported.keys()) or s.lower.form.value == "linear"


RULES: tuple[Rule, ...] = (
    Rule(
        "constrained",
        "exact",
        _is_whole,
        "constraints, multipliers, integers or a linear follower: solved to global optimality",
    ),
    Rule(
        "constant quadratic",
        "direct",
        _eliminates,
        "the lower Hessian is constant: one Cholesky factor of size {m} serves the whole run",
        {"constant_hessian": True},
    ),
    Rule(
        "simple set, small",
        "direct",
        lambda s: _is_set(s) and _small(s),
        "{m} lower variables in a simple set: Newton on the free face, exact adjoint there",
    ),
    Rule(
        "small",
        "direct",
        lambda s: _small(s),
        "{m} lower variables: a dense Newton solve and an exact Cholesky adjoint are cheap",
    ),
    Rule(
        "large",
        "aid",
        lambda s: s.condition is not None,
        "{m} lower variables, condition number about {kappa:.3g}: Newton and adjoint systems by "
        "conjugate gradients that share a preconditioner",
    ),
    Rule(
        "large, condition unknown",
        "aid",
        lambda s: True,
        "{m} lower variables, condition number unknown: conjugate gradients stop by their residual",
    ),
)
