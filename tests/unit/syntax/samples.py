"""The three sample models of the language document, and helpers on trees."""

from __future__ import annotations

import dataclasses
from typing import Any

from bilevelpy.diagnostics import Source, Span
from bilevelpy.syntax import ast
from bilevelpy.syntax.parser import ParseResult, parse

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

# Every form that the three samples lack.
FORMS = """\
set NODE = {"a", "b", "c"};
set ARC within NODE * NODE = {("a", "b"), ("b", "c")};
set SUB within NODE = NODE diff {"a"} union {"b"} inter NODE;
set T = -2..3;
set YEAR = {2020, -1, 1.5};
set N = card(ARC)..(2 + 3);
set P, Q within P = {"p"}, R = 1..2;
param cost[NODE] = {"a": 1, "b": -2.5, "c": inf}, len[ARC] = {("a", "b"): 3, ("b", "c"): 4};
param M[2, 2] = [[1, 2], [3, 4]], g = if card(NODE) > 2 then 1 else if 1 < 2 < 3 then 2 else 3;
def f(a, b) = -a^-2^b' + huber(a, d = 2) * (b - 1)';
extern h(x) -> [2];
upper {
  var x[NODE] in [0, 1], y start -1;
  minimize sum(x[i] for (i, j) in ARC, t in 1..3 where (i != "a" or t > 2) and not (t == 1));
  subject
    to
    c[(i, j) in ARC]: x[i] - x[j] <= len[i, j];
    d: 1 >= x["a"] >= 0;
}
lower one[i in NODE diff {"a"}] nash {
  var z in ball(2), w[2] in psd;
  minimize sum(one.z[j] for j in NODE) + (if 1 > 0 then 1 else 0);
  subject to
    r: z <= 1;
  assume dual(r) in [-1, 1], smooth(2), convex;
}
expect upper.objective == -6.1333 within 1e-4;
expect one.objective == 2 within 0.5;
"""

SAMPLES = {"ridge": RIDGE, "toll": TOLL, "firms": FIRMS, "forms": FORMS}


def read(text: str) -> ParseResult:
    return parse(Source("model.blv", text))


def codes(text: str) -> list[str]:
    return [found.code for found in read(text).diagnostics]


def tree(text: str) -> ast.File:
    result = read(text)
    assert result.diagnostics == []
    return result.file


def expression(text: str) -> Any:
    """The tree of one expression."""
    item = tree(f"report r = {text};").items[0]
    assert isinstance(item, ast.ReportDecl)
    return item.value


def plain(node: Any) -> Any:
    """A tree as nested tuples without spans, for comparisons."""
    if isinstance(node, ast.Node):
        values = (
            plain(getattr(node, field.name))
            for field in dataclasses.fields(node)
            if not field.name.endswith(("span", "spans"))
        )
        return (type(node).__name__, *values)
    if isinstance(node, tuple):
        return tuple(plain(child) for child in node)
    assert not isinstance(node, Span)
    return node
