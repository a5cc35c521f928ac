"""Bounds that best responses keep, against responses that Clarabel finds."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.response_bounds import response_bounds
from bilevelpy.reductions.rows import system

FREE = """
dim n = 2, m = 3, r = 2;
param Q[m, m] in psd, C[n, m], c[m], A[r, m], B[r, n], b[r], q[m], R[n, m];
upper { var x[n] in [0, 3]; minimize dot(q, y) + x @ R @ y; }
lower l { var y[m]; minimize quad(y, Q)/2 + x @ C @ y + dot(c, y);
          subject to rows[i in r]:
            sum(A[i, j] * y[j] for j in m) + sum(B[i, k] * x[k] for k in n) <= b[i]; }
"""


def data(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape).astype(float)

    L = whole(3, 3)
    return {
        "Q": L.T @ L + np.eye(3), "C": whole(2, 3), "c": whole(3), "A": whole(2, 3),
        "B": whole(2, 2), "b": rng.integers(12, 20, 2).astype(float), "q": whole(3),
        "R": whole(2, 3) / 2,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_every_best_response_lies_inside(seed: int) -> None:
    d = data(seed)
    made = system(bl.parse(FREE, **d).bound)
    low, high = response_bounds(made)
    own = made.lower_columns
    assert np.isfinite(low[own]).all()
    for x in np.random.default_rng(seed).choice([0.0, 1.5, 3.0], (6, 2)):
        y = cp.Variable(3)
        f = cp.quad_form(y, cp.psd_wrap(d["Q"])) / 2 + (x @ d["C"] + d["c"]) @ y
        cp.Problem(cp.Minimize(f), [d["A"] @ y + d["B"] @ x <= d["b"]]).solve("CLARABEL")
        assert (y.value >= low[own] - 1e-6).all()
        assert (y.value <= high[own] + 1e-6).all()


def test_no_bounds_where_none_are_known() -> None:
    """x has no bound; the follower's objective is linear; no response suits every x."""
    for domain, objective, row in [
        ("", "(y - x)^2", "y >= -1"),
        ("in [0, 1]", "y", "y >= x"),
        ("in [0, 9]", "y^2", "y == x"),
    ]:
        text = f"""
        upper {{ var x {domain}; minimize y; }}
        lower l {{ var y; minimize {objective}; subject to c: {row}; }}
        """
        made = system(bl.parse(text).bound)
        low, high = response_bounds(made)
        assert not np.isfinite(low[made.lower_columns]).any()
        assert not np.isfinite(high[made.lower_columns]).any()


def test_a_follower_without_bounds_is_solved_with_proof() -> None:
    """Products of x and y have no envelope without ends of y."""
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(FREE, **data(1)), backend="exact", time_limit=60)
    assert result.success, result.message
    assert result.certificate is not None
    assert result.certificate.kind == "global"
