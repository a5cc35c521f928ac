"""Models of one level with semidefinite matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.errors import BackendError

C = np.array([[1.0, 0.6, 0.2], [0.6, -1.0, 0.5], [0.2, 0.5, 0.3]])
HEAD = "dim n; param C[n, n]; upper {{ var Y[n, n] in psd, z[2] in [-1, 2]; {body} }}"

Written = Callable[[Any, Any], tuple[Any, list[Any]]]
MODELS: dict[str, tuple[str, Written]] = {
    "cut": (
        "minimize sum(C*Y); subject to one[i in n]: Y[i,i] == 1; other: z[1] + z[2] == 0;",
        lambda Y, z: (cp.Minimize(cp.trace(C @ Y)), [cp.diag(Y) == 1]),
    ),
    "nearest": (
        "maximize z[1] - sum((Y - C)^2);subject to total: trace(Y) + z[1] <= 1; low: Y[1,2] >= -1;",
        lambda Y, z: (
            cp.Maximize(z[0] - cp.sum_squares(Y - C)),
            [cp.trace(Y) + z[0] <= 1, Y[0, 1] >= -1],
        ),
    ),
    "norms": (
        "minimize sum(C*Y) + 2*norm2([Y[1,2] - 1, z[1]]) + sum(abs(z)) - z[2];"
        "subject to cone: norm2(z) + trace(Y) <= 3; pair: z[2] <= Y[1,3];",
        lambda Y, z: (
            cp.Minimize(
                cp.trace(C @ Y) + 2 * cp.norm(cp.hstack([Y[0, 1] - 1, z[0]])) + cp.norm1(z) - z[1]
            ),
            [cp.norm(z) + cp.trace(Y) <= 3, z[1] <= Y[0, 2]],
        ),
    ),
    "round": (
        "minimize sum(C*Y) + z[1]; subject to ball: sum(Y^2) + z[1]^2 - z[2] <= 1;",
        lambda Y, z: (
            cp.Minimize(cp.trace(C @ Y) + z[0]),
            [cp.sum_squares(Y) + cp.square(z[0]) - z[1] <= 1],
        ),
    ),
}


@pytest.mark.parametrize(
    ("name", "unit"), [*((name, 1.0) for name in MODELS), ("cut", 1e-5), ("cut", 1e6)]
)
def test_against_cvxpy(name: str, unit: float) -> None:
    body, written = MODELS[name]
    Y, z = cp.Variable((3, 3), symmetric=True), cp.Variable(2)
    objective, rows = written(Y, z)
    least = cp.Problem(objective, [*rows, Y >> 0, z >= -1, z <= 2]).solve(solver="CLARABEL")
    result = bl.solve(bl.parse(HEAD.format(body=body), C=unit * C))
    assert result.success, result.message
    assert result.backend == "exact"
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(unit * least, rel=1e-5, abs=1e-6 * unit) == result.F
    assert np.linalg.eigvalsh(result["Y"]).min() > -1e-12
    assert pytest.approx(result.F, rel=1e-5) == result.certificate.details["bound"]


def test_what_has_no_point_and_no_bound() -> None:
    none = HEAD.format(body="minimize sum(C*Y); subject to r: trace(Y) <= -1;")
    result = bl.solve(bl.parse(none, C=C))
    assert result.status.value == "infeasible"
    free = HEAD.format(body="minimize sum(C*Y); subject to r: Y[1,1] == 1;")
    assert bl.solve(bl.parse(free, C=C)).status.value == "unbounded"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("minimize -sumsq(z) + sum(C*Y);", "the objective"),
        ("minimize sum(C*Y); subject to r: sum(Y^2) >= 1;", "the constraint `r"),
        ("minimize sum(C*Y); subject to r: norm2(z) >= 1;", "the constraint `r"),
        ("minimize sum(C*Y) - logdet(Y);", "the objective"),
    ],
)
def test_what_is_not_convex_is_refused(body: str, what: str) -> None:
    with pytest.raises(BackendError, match=what):
        bl.solve(bl.parse(HEAD.format(body=body), C=C))


def test_a_function_of_a_matrix_below_a_leader_without_variables() -> None:
    # What the refusal suggests; log det Y - <C, Y> is greatest at the inverse of C.
    data = C + 2.0 * np.eye(3)
    text = """
    dim n; param C[n, n];
    upper { var s in [0, 1]; minimize s; }
    lower f { var Y[n, n] in psd start eye(n); minimize sum(C*Y) - logdet(Y); assume unique; }
    """
    result = bl.solve(bl.parse(text, C=data))
    assert result.success
    assert result["Y"] == pytest.approx(np.linalg.inv(data), abs=1e-6)
