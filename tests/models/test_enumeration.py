"""Random small models with whole-number leaders against enumeration.

x is enumerated; the follower is solved by HiGHS (``scipy.optimize``), then the leader's objective
over its best responses: least for an optimistic, greatest for a pessimistic leader. Whole
coefficients make ties and degenerate followers frequent.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import linprog

import bilevelpy as bl

pytest.importorskip("pyscipopt")

HIGHEST_X, HIGHEST_Y = 3, 4


def terms(coefficients: np.ndarray, names: list[str]) -> str:
    """A linear expression."""
    used = [f"({c})*{n}" for c, n in zip(coefficients, names, strict=True) if c]
    return " + ".join(used) or "0"


@dataclass(frozen=True)
class Instance:
    """min c'x + d'y + x'Ey over min f'y + x'Cy, Ay + Bx <= b, and g'y <= h for the leader."""

    seed: int
    whole: bool = False
    pessimistic: bool = False

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        n, m = int(rng.integers(1, 4)), int(rng.integers(1, 4))

        def draw(*shape: int, density: float = 1.0) -> np.ndarray:
            return rng.integers(-4, 5, shape) * (rng.random(shape) < density)

        parts = {
            "n": n, "m": m, "c": draw(2), "d": draw(n), "f": draw(n), "A": draw(m, n),
            "C": draw(2, n, density=0.4), "B": draw(m, 2, density=0.6), "b": rng.integers(0, 9, m),
            "E": draw(2, n, density=0.3), "g": draw(n), "h": int(rng.integers(0, 6)),
            "coupled": bool(rng.random() < 0.4) and not self.pessimistic,
        }  # fmt: skip
        parts["A"][~parts["A"].any(1), 0] = 1
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    def text(self) -> str:
        """As a model."""
        xs, ys = ["x[1]", "x[2]"], [f"y[{j + 1}]" for j in range(self.n)]
        products = [f"{x}*{y}" for x in xs for y in ys]
        stance = "pessimistic" if self.pessimistic else ""
        coupling = f"subject to link: {terms(self.g, ys)} <= {self.h};"
        rows = "".join(
            f"r{k}: {terms(self.A[k], ys)} + {terms(self.B[k], xs)} <= {self.b[k]};"
            for k in range(self.m)
        )
        domain = f"integers(0, {HIGHEST_Y})" if self.whole else f"[0, {HIGHEST_Y}]"
        return f"""
        upper {stance} {{
          var x[2] in integers(0, {HIGHEST_X});
          minimize {terms(self.c, xs)} + {terms(self.d, ys)} + {terms(self.E.ravel(), products)};
          {coupling if self.coupled and self.g.any() else ""}
        }}
        lower f {{
          var y[{self.n}] in {domain};
          minimize {terms(self.f, ys)} + {terms(self.C.ravel(), products)};
          subject to {rows}
        }}
        """

    def best(self) -> float:
        """The optimal value by enumeration; inf where there is no feasible point."""
        found = np.inf
        common = {
            "bounds": [(0, HIGHEST_Y)] * self.n,
            "integrality": np.ones(self.n) if self.whole else None,
        }
        for x in itertools.product(range(HIGHEST_X + 1), repeat=2):
            cost, right = self.f + x @ self.C, self.b - self.B @ x
            response = linprog(cost, A_ub=self.A, b_ub=right, **common)
            if response.status != 0:
                continue
            rows, ends = [*self.A, cost], [*right, response.fun + 1e-8]
            if self.coupled and self.g.any():
                rows, ends = [*rows, self.g], [*ends, self.h]
            sign = -1.0 if self.pessimistic else 1.0
            chosen = linprog(sign * (self.d + x @ self.E), A_ub=rows, b_ub=ends, **common)
            if chosen.status == 0:
                found = min(found, self.c @ x + sign * chosen.fun)
        return float(found)


@pytest.mark.parametrize(
    "instance",
    [
        *(Instance(s) for s in range(18)),
        *(Instance(s, whole=True) for s in range(100, 108)),
        *(Instance(s, pessimistic=True) for s in range(200, 210)),
    ],
    ids=lambda i: (
        f"{'whole' if i.whole else 'real'}-{'worst' if i.pessimistic else 'best'}-{i.seed}"
    ),
)
def test_as_good_as_enumeration(instance: Instance) -> None:
    best = instance.best()
    result = bl.solve(bl.parse(instance.text()), time_limit=60)
    if np.isinf(best):
        assert result.status == "infeasible"
        return
    assert result.success, result.message
    assert pytest.approx(best, abs=1e-5) == result.F


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_a_price_in_the_upper_level(slope: float) -> None:
    """A demand of 10 - x at the merit order 1, 3, 7 (4 units each): the leader sells x at the price
    of the others; by enumeration of x, at the highest valid price.
    """
    text = f"""
    upper {{ var x in integers(0, 10); maximize dual(m.need) * x - {slope} * x; }}
    lower m {{ var y[3] in [0, 4]; minimize y[1] + 3*y[2] + 7*y[3];
              subject to need: sum(y) == 10 - x; }}
    """
    best = -np.inf
    for x in range(11):
        need = 10 - x
        # Exactly full units allow the price of the next one; nothing to serve allows the first.
        price = 1.0 if need < 4 else 3.0 if need < 8 else 7.0
        best = max(best, (price - slope) * x)
    result = bl.solve(bl.parse(text))
    assert result.success, result.message
    assert pytest.approx(best, abs=1e-5) == result.F


@pytest.mark.parametrize("costs", [(1.0, 2.0, 3.0), (0.5, 4.0, 4.0)])
def test_a_leader_above_a_game_of_three(costs: tuple[float, float, float]) -> None:
    """Price 12 - Q - sum q; the equilibrium below by iterated best responses, Q on a grid."""

    def response(Q: float) -> np.ndarray:
        q = np.ones(3)
        for _ in range(500):
            for i in range(3):
                q[i] = max(0.0, (12 - Q - (q.sum() - q[i]) - costs[i]) / 2)
        return q

    best = max((12 - Q - response(Q).sum() - 2) * Q for Q in np.linspace(0, 10, 101))
    text = """
    set FIRM = {"a", "b", "c"};
    param cost[FIRM];
    upper { var Q in [0, 10]; maximize (12 - Q - sum(firm.q[i] for i in FIRM) - 2) * Q; }
    lower firm[i in FIRM] nash {
      var q in [0, 12];
      maximize (12 - Q - sum(firm.q[j] for j in FIRM) - cost[i]) * q;
    }
    """
    result = bl.solve(bl.parse(text, cost=np.array(costs)), time_limit=60)
    assert result.success, result.message
    assert best - 1e-6 <= result.F <= best + 0.05
    own = response(float(result["Q"]))
    assert (12 - float(result["Q"]) - own.sum() - 2) * float(result["Q"]) == pytest.approx(
        result.F, abs=1e-5
    )


def test_labelled_sets_pairs_and_conditions() -> None:
    """Tolls on the arcs of a diamond, a family of travellers; tolls enumerated in whole numbers."""
    text = """
    set NODE = {"s", "a", "b", "t"};
    set ARC within NODE * NODE = {("s", "a"), ("s", "b"), ("a", "t"), ("b", "t"), ("s", "t")};
    set WHO = {"early", "late"};
    param cost[ARC] = {("s", "a"): 1, ("s", "b"): 2, ("a", "t"): 1, ("b", "t"): 1, ("s", "t"): 6};
    param many[WHO] = {"early": 2, "late": 1};
    param ends[NODE] = {"s": 1, "a": 0, "b": 0, "t": -1};
    upper {
      var toll[ARC] in integers(0, 3);
      maximize sum(many[w] * toll[a] * trip.go[w, a] for w in WHO, a in ARC);
      subject to free[(i, j) in ARC where j == "t"]: toll[i, j] == 0;
    }
    lower trip[w in WHO] {
      var go[ARC] in [0, 1];
      minimize sum((cost[a] + toll[a]) * go[a] for a in ARC);
      subject to node[n in NODE]: sum(go[i, j] for (i, j) in ARC where i == n)
                                  - sum(go[i, j] for (i, j) in ARC where j == n) == ends[n];
    }
    """
    best = 0.0
    for sa, sb in itertools.product(range(4), repeat=2):
        ways = [(2 + sa, sa), (3 + sb, sb), (6, 0)]
        least = min(length for length, _ in ways)
        best = max(best, 3.0 * max(paid for length, paid in ways if length == least))
    result = bl.solve(bl.parse(text))
    assert result.success, result.message
    assert pytest.approx(best, abs=1e-6) == result.F
