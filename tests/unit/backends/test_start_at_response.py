"""Starts at which the lower level is solved already: nothing is learnt of its curvature there.

A method that takes that for "the adjoint is 0" would stop at once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.qnbo import QNBO
from tests.oracles import toy

MODEL = """
model few_upper;
dim n, p;
param a[n] in [0, inf], B[n, p], t[n];
upper { var x[p] start 0; minimize sumsq(y - t)/2 + 0.01*sumsq(x); }
lower L { var y[n]; minimize sum(a*y^2)/2 - dot(B @ x, y); }
"""


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("direct", {}),
        ("aid", {}),
        ("aid", {"variant": "hoag"}),
        ("nbo", {}),
        ("qnbo", {}),
        ("qnbo", {"update": "sr1"}),
        ("qnbo", {"adjoint": "refine"}),
        ("itd", {}),
        ("bagdc", {}),
    ],
)
def test_the_run_goes_on_from_it(backend: str, options: dict) -> None:
    """Closed form: y = R x with R = diag(1/a) B, so x solves (R'R + 0.02 I) x = R't."""
    r = np.random.default_rng(0)
    n, p = 40, 3
    data = {"a": np.geomspace(1, 20, n), "B": r.normal(size=(n, p)), "t": r.normal(size=n)}
    R = data["B"] / data["a"][:, None]
    x = np.linalg.solve(R.T @ R + 0.02 * np.eye(p), R.T @ data["t"])
    result = bl.solve(bl.parse(MODEL, data=data), backend=backend, options=options)
    assert result.status == "converged"
    assert result["x"] == pytest.approx(x, rel=1e-3, abs=1e-5)


def test_an_adjoint_that_is_not_solved_shows_no_stationarity() -> None:
    """u = 0 in the place of the adjoint makes dF/dx the hypergradient, which is 0 at x = z0."""
    o = toy(10, n=6)
    backend = QNBO()
    x = torch.ones_like(o.x0)
    state = backend.init(o, x, o.y0, backend.options.from_mapping({}, "qnbo"), torch.Generator())
    assert backend.measure(o, state).lower_accuracy <= 1e-3
    nothing = replace(state.point.adjoint, u=torch.zeros_like(o.y0), residual=1.0)
    state.point = replace(state.point, adjoint=nothing, gradient=torch.zeros_like(x))
    assert backend.measure(o, state).stationarity == 0.0
    assert backend.measure(o, state).lower_accuracy == 1.0
