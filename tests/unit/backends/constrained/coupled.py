"""Models whose lower level has coupled constraints, with closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.model import Model
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.driver.loop import RunResult, run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate

# Active coupled inequality (the toys of BLOCC): y* = x with the multiplier 2x, so that the
# hyper-objective is F(x, x); its local minima were found by scanning it.
ACTIVE = """
model active;
param w, q, x0;
upper {
  var x in [0, 3] start x0;
  minimize exp(2 - y) / (2 + cos(w * x)) + log((4 * x - 2)^2 + 1) / 2 + q * x^2;
}
lower follower { var y start 0; minimize (y - 2 * x)^2; subject to cap: y <= x; }
"""
# Merely convex with a coupled equation (toy of LV-HBA): x = -0.3, a = 0.7, b = -0.4, F = 0.05 n.
EQUATION = """
model equation;
dim n;
upper { var x[n] start 0; minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2; }
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
# Toy of BiC-GAFFA: x = 1, a = 2, b = -3, F = 0 for every p.
CUBIC = """
model cubic;
dim n;
param p;
upper { var x[n] start 0; minimize sum((a - 2) * (x - 1)) + sum((b + 3)^2); }
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x^p) + sum(a) + sum(b) == 0;
}
"""
# Random strongly convex quadratic followers with coupled inequalities.
QUADRATIC = """
model quadratic;
dim n;
dim m;
dim p;
param A[m, m], C[n, m], G[p, m], E[p, n], b[p], t[m];
upper { var x[n] in [-3, 3] start 1; minimize sum((y - t)^2) / 2 + sum(x^2) / 2; }
lower follower {
  var y[m] start 0;
  minimize sum(y * (A @ y)) / 2 + sum(x * (C @ y));
  subject to rows: G @ y + E @ x <= b;
}
"""


def quadratic_data(seed: int, n: int = 3, m: int = 4, p: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, m))
    return {
        "A": A @ A.T + np.eye(m),
        "C": rng.standard_normal((n, m)),
        "G": rng.standard_normal((p, m)),
        "E": rng.standard_normal((p, n)),
        "b": 0.1 * rng.standard_normal(p),
        "t": rng.standard_normal(m),
    }


def model(text: str, **data: Any) -> Model:
    return bl.parse(text, data=data)


def oracle(text: str, **data: Any) -> TorchOracle:
    return solving.oracle(model(text, **data))


def solve(
    backend: Any, made: Model, max_iter: int = 200, **options: Any
) -> tuple[RunResult, Certificate]:
    """Run and certify."""
    o, facts = solving.oracle(made), solving.structure(made, 0)
    assert backend.accepts(facts)
    settings = SolveOptions(max_iter=max_iter, backend_options=options)
    raw = run(o, backend, facts, settings)
    rng = torch.Generator().manual_seed(0)
    return raw, examine_rows(o, raw.x, raw.y, facts, settings, rng)[0]
