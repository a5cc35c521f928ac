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
# Conjugate gradients take about sqrt(kappa) products a digit: up to here they are as good as
# curvature pairs (rows 5 and 6 of the same table).
WELL_CONDITIONED = 30.0


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


def _well_conditioned(s: Structure) -> bool:
    return s.condition is not None and s.condition <= WELL_CONDITIONED


RULES: tuple[Rule, ...] = (
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
        "large, well conditioned",
        "aid",
        _well_conditioned,
        "{m} lower variables, condition number about {kappa:.3g}: conjugate gradients are enough",
    ),
    Rule(
        "large, ill conditioned",
        "qnbo",
        lambda s: s.condition is not None and s.condition > WELL_CONDITIONED,
        "{m} lower variables, condition number about {kappa:.3g}: curvature pairs are reused",
    ),
    Rule(
        "large, condition unknown",
        "aid",
        lambda s: True,
        "{m} lower variables, condition number unknown: conjugate gradients stop by their residual",
    ),
)
