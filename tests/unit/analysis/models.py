"""Models as texts with data: the validation cases of the field and typical learning problems."""

from __future__ import annotations

import numpy as np

from bilevelpy.analysis import analyze
from bilevelpy.diagnostics import Source
from bilevelpy.sema.bind import bind
from bilevelpy.sema.check import check


def check_program(text):
    result = check(Source("model.blv", text))
    assert result.program is not None, [d.message for d in result.diagnostics]
    return result.program


def bound(text, **data):
    return bind(check_program(text), data)


def facts(text, *, probed=True, **data):
    """The structure of a model, probed through its compiled functions unless told otherwise."""
    made = bound(text, **data)
    if not probed:
        return analyze(made)
    from bilevelpy.lowering.oracle import TorchOracle

    return analyze(made, TorchOracle(made))


RNG = np.random.default_rng(7)
X, XV = RNG.standard_normal((20, 4)), RNG.standard_normal((10, 4))
T, TV = RNG.standard_normal(20), RNG.standard_normal(10)

RIDGE = """
model ridge;
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper { var lam[p] in [-10, 10] start 0; minimize mean((Xv @ w - yv)^2); }
lower fit { var w[p]; minimize mean((X @ w - y)^2)/2 + sum(exp(lam) * w^2)/2; }
"""
RIDGE_DATA = {"X": X, "y": T, "Xv": XV, "yv": TV}

LOGISTIC = """
model logistic_ridge;
dim n, p;
param X[n, p], t[n];
upper { var lam in [-5, 5]; minimize mean(logistic(-t * (X @ w))); }
lower fit { var w[p]; minimize mean(logistic(-t * (X @ w))) + exp(lam)*sumsq(w); }
"""

CLEANING = """
model cleaning;
dim n, p; set C = 1..3;
param X[n, p], T[n, C] in [0, 1];
upper { var a[n]; minimize mean(softmax_cross_entropy(X @ W, T)); }
lower fit {
  var W[p, C];
  minimize mean(sigmoid(a) * softmax_cross_entropy(X @ W, T)) + 0.001*sumsq(W);
}
"""
LABELS = np.eye(3)[np.arange(20) % 3]

QUADRATIC = """
model toy; dim n; param A[n, n]{domain}, B[n, n], z[n];
upper {{ var x[n] start 2; minimize sumsq(x - z)/2 + sumsq(y)/2; }}
lower fit {{ var y[n] start 2; minimize y' @ A @ y/2 - dot(x, B @ y); }}
"""

MERELY_CONVEX = """
model counterexample; dim n = 3;
upper { var x[n]; minimize sumsq(x - y2)/2 + sum((y1 - 1)^2)/2; }
lower L { var y1[n], y2[n]; minimize sumsq(y1)/2 - dot(x, y1); }
"""

PL = """
model pl;
upper { var x in [0, 3]; minimize cos(4*y + 2)/(1 + exp(2 - 4*x)) + log((4*x - 2)^2 + 1)/2; }
lower L { var y; minimize (x + y)^2 + x*sin(x + y)^2; }
"""

BOX = """
model box; upper { var x; minimize (y - 2)^2/2 + 0.05*x^2; }
lower L { var y in [0, 1]; minimize (y - x)^2/2; }
"""

SIMPLEX = """
model simplex; dim n = 5; param t[n];
upper { var x[n]; minimize sumsq(y - t)/2 + 0.05*sumsq(x); }
lower L { var y[n] in simplex; minimize sumsq(y)/2 - dot(x, y); }
"""

LASSO = """
model lasso; upper { var x in [0, 3]; minimize (y - 1)^2/2; }
lower L { var y; minimize (y - 2)^2/2 + x*abs(y); }
"""

KINKED = """
model kinked; upper { var x in [0, 3]; minimize (y - 1)^2/2; }
lower L { var y; minimize (y - 2)^2/2 + x*max(y, -2*y); }
"""

LINEAR = """
model linear; upper { var x in [0, 10]; minimize x - 4*y; }
lower L {
  var y in [0, inf]; minimize y;
  subject to a: x + y >= 3; b: 0 <= 2*x - y <= 12;
}
"""

FIRMS = """
model firms; set F = {"a", "b", "c"}; param c[F];
upper { var q0 in [0, 10]; maximize (10 - q0 - sum(firm.q[i] for i in F))*q0; }
lower firm[i in F] { var q in [0, inf]; maximize (10 - q0 - q)*q - c[i]*q; }
"""
