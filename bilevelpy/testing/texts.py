"""The texts of the validation cases."""

from __future__ import annotations

QUADRATIC = """\
model quadratic;
dim n;
param A[n, n], z[n];
upper {
  var x[n] start 2;
  minimize sum((x - z)^2) / 2 + sum(y * (A @ y)) / 2;
}
lower follower {
  var y[n] start 2;
  minimize sum(y * (A @ y)) / 2 - sum(x * y);
}
"""
RIDGE = """\
model ridge;
dim n;
param c[n], b[n];
upper {
  var x in [-10, 10] start 0;
  minimize sum((y - b)^2) / 2;
}
lower fit {
  var y[n];
  minimize sum((y - c)^2) / 2 + exp(x) * sum(y^2) / 2;
}
"""
KINK = """\
model kink;
upper {
  var x start 0.3;
  minimize (y - 2)^2 / 2 + 0.05 * x^2;
}
lower follower {
  var y in [0, 1];
  minimize (y - x)^2 / 2;
}
"""
SIMPLEX = """\
model simplex_response;
dim n;
param t[n];
upper {
  var x[n] start 0;
  minimize sum((y - t)^2) / 2 + 0.05 * sum(x^2);
}
lower follower {
  var y[n] in simplex;
  minimize sum(y^2) / 2 - sum(x * y);
}
"""
CONVEX = """\
model merely_convex;
dim n = 2;
upper {
  var x[n] start 0;
  minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2;
}
lower follower {
  var a[n] start 0;
  var b[n] start 3;
  minimize sum(a^2) / 2 - sum(x * a);
}
"""
QUADRATIC_SUM = """\
model quadratic_sum;
dim k, n;
param A[k, n], z[n];
upper {
  var x[n] start 2;
  minimize sum((x - z)^2) / 2 + sum((A @ y)^2) / 2;
}
lower follower {
  var y[n] start 2;
  minimize sum((A @ y)^2) / 2 - sum(x * y);
}
"""
RIDGE_SUM = """\
model ridge_sum;
dim k, l, n;
param X[k, n], c[k], V[l, n], b[l];
upper {
  var x in [-10, 10] start 0;
  minimize sum((sum(V[i, j] * y[j] for j in n) - b[i])^2 for i in l) / 2;
}
lower fit {
  var y[n];
  minimize sum((X @ y - c)^2) / 2 + exp(x) * sum(y^2) / 2;
}
"""
COUPLED = """\
model coupled_inequality;
upper {
  var x in [0, 3] start 1;
  minimize exp(2 - y) / (2 + cos(6 * x)) + log((4 * x - 2)^2 + 1) / 2;
}
lower follower {
  var y start 0;
  minimize (y - 2 * x)^2;
  subject to cap: y <= x;
}
"""
BALANCE = """\
model coupled_equation;
dim n = 2;
upper {
  var x[n] start 1;
  minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2;
}
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
CONE = """\
model semidefinite;
dim n;
param A[n, n], B[n, n];
upper { var x[1] in [-5, 5] start 0.3; minimize (sum((Y - 2 * A)^2) + x[1]^2) / 2; }
lower fit { var Y[n, n] in psd; minimize sum((Y - x[1] * A + B)^2) / 2; }
"""
TRACE = """\
model semidefinite_trace;
dim n;
param A[n, n], B[n, n];
upper { var x[1] in [-5, 5] start 0.1; minimize sum((Y - 0.8 * A - 0.2 * B)^2) + x[1]^2 / 20; }
lower fit {
  var Y[n, n] in psd;
  minimize sum((Y - x[1] * A)^2) / 2;
  subject to unit: trace(Y) == 1;
}
"""
COUPLED_SQUARE = (
    COUPLED.replace("cos(6 * x)", "cos(4 * x)")
    .replace("+ 1) / 2;", "+ 1) / 2 + x^2;")
    .replace("coupled_inequality", "coupled_inequality_2")
)
GENERAL = """\
model general_quadratic;
dim n;
param A[n, n], C[n, n], a[n], E[n, n], G[n, n], K[n, n], e[n], h[n];
upper {
  var x[n] start 1;
  minimize sum(y * (E @ y)) / 2 + sum(x * (G @ x)) / 2 + sum(x * (K @ y)) + sum(e * y) + sum(h * x);
}
lower follower {
  var y[n] start 1;
  minimize sum(y * (A @ y)) / 2 + sum(x * (C @ y)) + sum(a * y);
}
"""
GAP = """\
model gap_function;
dim n = 2;
upper {
  var x[n] start 0.5;
  minimize sum((a - 2) * (x - 1)) + sum((b + 3)^2);
}
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
PL = """\
model pl;
upper {
  var x in [0, 3] start 1.4;
  minimize cos(4 * y + 2) / (1 + exp(2 - 4 * x)) + log((4 * x - 2)^2 + 1) / 2;
}
lower follower {
  var y start -1;
  minimize (x + y)^2 + x * sin(x + y)^2;
}
"""
MANY = """\
model many_minimisers;
upper {
  var x start 2;
  minimize (x - 2)^2 + (y - 2)^2;
}
lower follower {
  var y start 2;
  minimize sin(x + y);
}
"""
VERTEX = """\
model linear;
upper {
  var x in [0, 10] start 2;
  minimize x - 4 * y;
}
lower follower {
  var y in [0, 20];
  minimize y;
  subject to a: x + y >= 3;
  subject to b: y <= 2 * x;
  subject to c: 2 * x + y <= 12;
  subject to d: 3 * x - 2 * y <= 4;
}
"""
LASSO = """\
model lasso;
upper {
  var x in [0, 2] start 0.2;
  minimize (y - 0.4)^2 / 2;
}
lower fit {
  var y start 0.5;
  minimize (y - 1)^2 / 2 + x * abs(y);
}
"""
GROUP = """\
model group;
param a[2] = {"1": 3, "2": 4};
upper {
  var x in [0, 10] start 1;
  minimize sumsq(y - 0.4 * a) / 2;
}
lower fit {
  var y[2];
  minimize sumsq(y - a) / 2 + x * norm2(y);
}
"""
SET_VALUED = """\
model set_valued;
upper {
  var x in [-1, 1] start 0.5;
  minimize x^2 + y;
}
lower follower {
  var y in [-1, 1] start 0;
  minimize x * y;
}
"""
