"""Models of every kind, with optima from closed forms or from a grid over the leader's variable."""

import numpy as np
import problems

QUARTIC = """
model quartic "the answer is a cube root";
upper { var x in [0.1, 2] start 1; minimize (x - 1.5)^2 + y; }
lower f { var y in [0.1, 2] start 1; minimize y^4/4 - x*y; }
"""
LOGISTIC = """
model logistic_follower;
upper { var x in [0.1, 3] start 1; minimize (y - 1)^2 + 0.1*x; }
lower f { var y in [-4, 4]; minimize logistic(-2*y) + 0.5*x*y^2; }
"""
RANGE = """
model range "free variables, an equation and a row with two ends";
upper { var x in [-9, 9]; minimize (x - 3)^2 + y1; }
lower f {
  var y1, y2;
  minimize y1^2 + y2^2;
  subject to
    both: y1 + y2 == x;
    apart: -1 <= y1 - y2 <= 1;
}
"""
TWO = """
model two "two followers of different levels, one of which maximises";
upper { var x in [-5, 5]; minimize (y - 1)^2 + (z - 2)^2; }
lower a { var y in [-9, 9]; minimize (y - x)^2; }
lower b { var z in [-9, 9]; maximize -(z + x)^2; }
"""
NEGATIVE = """
model negative "bounds below zero, a constant in the objective";
upper { var x in [-9, -2]; minimize x + 2*y + 3; }
lower f { var y in [-20, -1]; minimize y; subject to c: y >= x - 1; }
"""
WHOLE = """
model whole "whole numbers of the leader, followers of a family";
set S = {"a", "b c", "d"};
param weight[S] = {"a": 2, "b c": 3, "d": 4};
param want[S] = {"a": 0.6, "b c": 1.4, "d": 2.2};
upper {
  var x[S] in integers(0, 3);
  maximize -sum(weight[s] * (f.y[s] - want[s])^2 for s in S);
  subject to total: sum(x) <= 4;
}
lower f[s in S] { var y in [0, 9]; minimize (y - x[s])^2; }
"""
IDLE = """
model idle "the leader's objective reads no variable of the follower";
upper { var x in [0, 4], z in [0, 1]; minimize -x + z; subject to c: y <= 2; }
lower f { var y in [0, 9]; minimize y; subject to r: y >= x - 1; }
"""
MIXED = """
model mixed "a product of the levels in a row, indexed by pairs";
set I = {"p", "q"};
set ARC within I * I = {("p", "q"), ("q", "p")};
upper { var x[ARC] in [0.5, 2] start 1; minimize sum((y[a] - 1)^2 + 0.1*x[a] for a in ARC); }
lower f {
  var y[ARC] in [0, 4];
  minimize sum(-y[a] for a in ARC);
  subject to r[a in ARC]: x[a]*y[a] <= 1;
}
"""


def _least(value, low, high):
    return float(min(value(x) for x in np.linspace(low, high, 20001)))


def _root(x):
    """The answer of LOGISTIC: x y = 2 / (1 + exp(2 y)), by bisection."""
    low, high = 0.0, 4.0
    for _ in range(60):
        y = (low + high) / 2
        low, high = (y, high) if x * y < 2 / (1 + np.exp(2 * y)) else (low, y)
    return low


# y = x everywhere: x = (1, 1, 2) is the best choice of four.
_WHOLE = -(2 * 0.4**2 + 3 * 0.4**2 + 4 * 0.2**2)
KINDS = {
    "quartic": (QUARTIC, _least(lambda x: (x - 1.5) ** 2 + x ** (1 / 3), 0.1, 2)),
    "logistic": (LOGISTIC, _least(lambda x: (_root(x) - 1) ** 2 + 0.1 * x, 0.1, 3)),
    "range": (RANGE, 1.4375),
    "two": (TWO, 4.5),
    "negative": (NEGATIVE, -26.0),
    "whole": (WHOLE, _WHOLE),
    "idle": (IDLE, -3.0),
    "mixed": (MIXED, 0.2 * _least(lambda x: 5 * (1 / x - 1) ** 2 + 0.5 * x, 0.5, 2) * 2),
    "exponential": (problems.EXP, 0.37143982),
    "ball": (problems.BALL, 0.0134132),
    "family": (problems.FAMILY, 0.2136364),
}
