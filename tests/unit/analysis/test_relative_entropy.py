"""Relative entropies are convex by the text, however they are written; what is beside is not."""

import numpy as np
import pytest

import bilevelpy as bl

DATA = """dim n = 3; param q[n] in [0.1, 1] = [0.2, 0.3, 0.5]; param c[n] in [0, 9] = [1, 2, 3];
param s[n] = [1, -1, 2]; param A[n, n] in [0, 1] = [[1, 0, 1], [0, 1, 1], [1, 1, 0]];
upper {{ var x in [0, 1]; minimize x + sum(l.p); }}
lower l {{ var p[n] in [0, 1], r[n] in [0.01, 1], t; minimize x * sum(c * p) + {f}; }}"""

CONVEX = [
    "sum(p * log(p / q))",
    "sum(p * log(p) - p * log(q))",
    "sum(p * (log(p) - log(q)))",
    "sum(p[i] * log(p[i] / q[i]) for i in n)",
    "-2 * sum(p * log(q / p))",
    "sum(-p * log(2 * q / p))",
    "mean(c * p * log(p / q))",
    "p @ log(p / q)",
    "sum((p + 0.1) * log((p + 0.1) / q))",
    "sum(p * log(p / q) - p + q)",
    "sum(p * log(p / r))",
    "sum(p * log(p)) - sum(p * log(r))",
    "-entropy(p) - sum(p * log(r))",
    "sum(p * (log(p) - log(r)))",
    "sum(p * (log(p) - 0.5 * log(r) - 0.25 * log(p + r)))",
    "sum(p * log(p / (p + r)) + r * log(r / (p + r)))",
    "sum(p * log(p / sum(p)))",
    "sum(r[j] * log(r[j] / (p[i] + r[j])) for i in n, j in n)",
    "sum(r * log(r / p))",
    "sum(p) * log(sum(p) / sum(q))",
    "sum((A @ p) * log((A @ p) / r))",
]
OTHER = [
    "sum(p * log(r))",
    "-sum(p * log(p / q))",
    "sum(p * log(r / p))",
    "sum(s * p * log(p / r))",
    "sum(p * (log(p) - 2 * log(r)))",
    "sum(p * log(p)) - 2 * sum(p * log(r))",
    "sum(p[i] * log(p[j] / r[i]) for i in n, j in n)",
    "sum(p * log(p)) - sum(c * p * log(r))",
    "sum(p * log(p * r))",
    "sum(p * log(p / (t * r)))",
    "sum(p[i] * (log(p[i]) - sum(log(r[j]) for j in n)) for i in n)",
    "sum(p[i] * (log(p[i]) - log(r[j])) for i in n, j in n) - sum(p * log(r))",
]


def by_text(f: str) -> tuple[str, str]:
    structure = bl.analyze(bl.parse(DATA.format(f=f)))
    found = structure.by_text or structure.convexity
    return found.value, found.evidence.value


@pytest.mark.parametrize("f", CONVEX)
def test_relative_entropies_are_proved(f: str) -> None:
    assert by_text(f) == ("convex", "proved")


@pytest.mark.parametrize("f", OTHER)
def test_what_is_beside_them_is_not(f: str) -> None:
    kind, evidence = by_text(f)
    assert kind == "unknown" or evidence != "proved"


@pytest.mark.parametrize("f", CONVEX)
def test_they_are_convex_along_random_lines(f: str) -> None:
    oracle = bl.compile(bl.parse(DATA.format(f=f)))
    rng = np.random.default_rng(0)
    x = np.array([0.5])
    for _ in range(50):
        a, b = rng.uniform(0.01, 1.0, (2, 7))
        middle = oracle.f(x, 0.5 * (a + b))
        assert middle <= 0.5 * (oracle.f(x, a) + oracle.f(x, b)) + 1e-12 * abs(middle)


@pytest.mark.parametrize("f", ["sum(p * log(p / q))", "sum(p * (log(p) - log(q)))"])
def test_a_tilted_distribution(f: str) -> None:
    # The follower's answer is q exp(-x c), normed.
    text = """dim n = 3; param q[n] in [0.1, 1] = [0.2, 0.3, 0.5]; param c[n] = [1, 2, 3];
    upper { var x in [0, 4]; minimize (sum(c * l.p) - 1.5)^2; }
    lower l { var p[n] in simplex; minimize x * sum(c * p) + %s; }"""
    result = bl.solve(bl.parse(text % f), progress=False)
    assert result.success
    x = float(result.upper["x"])
    tilted = np.array([0.2, 0.3, 0.5]) * np.exp(-x * np.array([1.0, 2.0, 3.0]))
    assert result.lower["l"]["p"] == pytest.approx(tilted / tilted.sum(), rel=1e-5)
    assert pytest.approx(0.0, abs=1e-8) == result.F
