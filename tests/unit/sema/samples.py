"""The three models of the language's description, and the ways to check a text."""

from __future__ import annotations

from bilevelpy.diagnostics import Source
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Program
from bilevelpy.sema import CheckResult, check

RIDGE = """\
## Per-feature ridge penalties tuned on a validation split.
model ridge "Per-feature ridge regularisation";

dim n, m, p;                         # sizes: inferred from the bound arrays
param X[n, p], y[n];                 # bound by the caller
param Xv[m, p] = file("valid.npz", "X"), yv[m] = file("valid.npz", "y");
param cap in [0, inf] = 100;

def mse(A, b, w) = mean((A @ w - b)^2);

upper optimistic {
  var lam[p] in [-10, 10] start 0;
  minimize mse(Xv, yv, w);
  subject to
    budget: sum(exp(lam)) <= cap;
}

lower fit {
  var w[p];
  minimize mse(X, y, w)/2 + sum(exp(lam) * w^2)/2;
}
report train_mse = mse(X, y, w);
"""

TOLL = """\
model toll "Toll setting on a network";
set ARC = 1..20;
set OD = {"a-b", "a-c"};
param cost[ARC] in [0, inf], demand[OD], inc[OD, ARC];
upper {
  var t[ARC] in [0, 5] start 1;
  maximize sum(t[a] * flow.f[k, a] for k in OD, a in ARC where a > 3 and a != 7);
  subject to
    fair[k in OD]: dual(flow.meet)[k] <= 40;
    cap: 0 <= sum(t) <= 30;
}
lower flow[k in OD] {
  var f[ARC] in [0, inf];
  minimize sum((cost[a] + t[a]) * f[a] for a in ARC);
  subject to
    meet: sum(inc[k, a] * f[a] for a in ARC) == demand[k];
  assume unique;
}
"""

FIRMS = """\
include "common.blv";
model firms "One leader, a family of followers";
set FIRM;
dim k = 3;
param c[FIRM] in [0, inf], D[k, k] in psd, a = norm2(D)^2;
extern net(theta[k], Z[k, k]) -> [] : smooth, convex(theta);
upper pessimistic {
  var q0 in [0, 10] start 1, z in binary, u in integers(0, 5);
  let total = q0 + sum(firm.q[i] for i in FIRM);
  maximize (a - total) * q0 - 2*q0^2;
  subject to
    price: 0 <= a - total <= 50;
    shadow: dual(firm.cap)["x"] <= 0;
}
lower firm[i in FIRM] {
  var q in [0, inf], s[k] in simplex;
  let r[j in k where j > 1] = D[j, j-1] * s[j];
  minimize c[i]*q + q^2 + s' @ D @ s - dot(D[:, 1], s) + net(s, D');
  subject to
    cap: q + q0 <= 20;
    bal[j in k where j > 1 and not j == 3]: s[j] - s[j-1] <= 1e-3;
  assume strongly_convex(1), unique;
}
report welfare = sum(c[i] * firm.q[i] for i in FIRM where i != "b");
"""


def checked(text: str) -> CheckResult:
    """Check a text that stands in no folder."""
    return check(Source("model.blv", text), loader=lambda path: Source(path, "# empty\n"))


def program(text: str) -> Program:
    """The program of a text that must have no errors."""
    result = checked(text)
    assert result.program is not None, result.diagnostics
    return result.program


def codes(text: str) -> list[str]:
    """Codes of all diagnostics of a text, in its order."""
    return [d.code for d in checked(text).diagnostics]


def reports(head: str, *expressions: str) -> list[Expr]:
    """The nodes of expressions in a model that starts with ``head``."""
    lines = [f"report r{k} = {e};" for k, e in enumerate(expressions)]
    made = program("\n".join([head, *lines]))
    return [made.reports[f"r{k}"].value for k in range(len(expressions))]
