"""Models to start from; each is complete, commented, and solved as it stands."""

from __future__ import annotations

TOY = """\
## {title}: the smallest bilevel problem that is not trivial.
model {name} "A leader and a follower";

# Data. `bilevelpy solve {name}.blv --param weight=2` binds another value.
param weight in [0, inf] = 1;

# The upper level (leader) chooses x; it knows how the lower level will answer.
upper {{
  var x in [-10, 10] start 0;
  minimize (y - 3)^2 + weight * x^2;
}}

# The lower level (follower) chooses y for the x that it sees.
lower follower {{
  var y;
  minimize (y - 2 * x)^2 / 2 + 0.05 * y^2;
}}

# Numbers of interest, evaluated at the answer.
report distance = abs(y - 3);

# `bilevelpy test {name}.blv` solves the model and checks such lines.
expect x == 1.2668 within 1e-3;
"""

TUNING = """\
## {title}: one penalty per feature, chosen on validation data.
model {name} "Ridge regression with tuned penalties";

# `n` and `m` are different axes: they would be so even if they had the same length.
# Sizes and tables stand here so that this file runs as it is. For data of your own write
#   dim n, m, p;
#   param X[n, p], y[n], Xv[m, p], yv[m];
# (sizes are then inferred) and bind a file: bilevelpy solve {name}.blv --data data.npz
dim n = 5, m = 3, p = 2;
param X[n, p] = [[1, 0.2], [0.5, 1], [-1, 0.3], [0.1, -1], [0.7, 0.7]];
param y[n] = [1.1, 0.4, -0.9, 0.2, 0.8];
param Xv[m, p] = [[0.9, 0.1], [0.2, 0.8], [-0.6, -0.4]];
param yv[m] = [0.9, 0.1, -0.6];

# Functions are inlined; axes are checked at each use.
def mse(A, b, w) = mean((A @ w - b)^2);

upper {{
  # exp(lam) keeps penalties positive; the bounds keep the problem well posed.
  var lam[p] in [-10, 10] start 0;
  minimize mse(Xv, yv, w);
}}

lower fit {{
  var w[p];
  minimize mse(X, y, w) / 2 + sum(exp(lam) * w^2) / 2;
}}

report train_mse = mse(X, y, w);
"""

MARKET = """\
## {title}: a leader sets prices, independent followers answer with quantities.
model {name} "A leader and a family of followers";

set FIRM = {{"north", "south", "west"}};
param cost[FIRM] in [0, inf] = {{"north": 1, "south": 1.5, "west": 2}};

upper {{
  var price[FIRM] in [0, 10] start 3;
  # Outside its block the follower's `q` has the axis FIRM in front.
  maximize sum((12 - price[i]) * firm.q[i] for i in FIRM);
}}

# One follower for each element of FIRM.
lower firm[i in FIRM] {{
  var q in [0, 20] start 1;
  minimize cost[i] * q + q^2 / 2 - price[i] * q;
}}

report total = sum(firm.q[i] for i in FIRM);
"""

TEMPLATES = {"toy": TOY, "tuning": TUNING, "market": MARKET}
