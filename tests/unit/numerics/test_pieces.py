"""Quadratic levels with bounds below: Phi is quadratic in pieces, and steps go from one to the
next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.direct import Direct, DirectOptions
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.lower.response import Point, Response
from bilevelpy.numerics.upper.eliminated import Eliminated
from bilevelpy.numerics.upper.pieces import LARGEST, PATIENCE, SETTLED, InPieces
from tests.unit.lowering.programs import oracle as oracle_of

Array = np.ndarray[Any, np.dtype[np.float64]]

QUADRATIC = """
dim n, m; param A[m, m], B[m, n], b[m], C[m, m], c[m], D[n, n], d[n];
upper { var x[n] start 0.3; minimize quad(y - c, C) / 2 + quad(x - d, D) / 2; }
lower follow { var y[m] DOMAIN; minimize quad(y, A) / 2 + dot(b, y) - dot(y, B @ x); }
"""
LOW, HIGH = -0.4, 0.5
DOMAINS = {"simplex": "in simplex", "box": f"in [{LOW}, {HIGH}]", "free": ""}
# Where |a'd| <= w |a|^2, the minimiser lies on the kink a'x = 0: d less its part along a.
KINK = """
dim n; param a[n], d[n], w;
upper { var x[n] start 1; minimize w * (2 * y - dot(a, x)) + sumsq(x - d) / 2; }
lower above { var y in [0, 1000]; minimize (y - dot(a, x))^2; }
"""
OBSTACLE = """
dim n; param d[n], w[n], H[n, n];
upper { var x[n] start 3; minimize dot(w, 2 * y - x) + sumsq(x - d) / 2; }
lower above { var y[n] in [0, 1000]; minimize quad(y, H) / 2 - dot(x, y); }
"""
# What a step between pieces may miss their kink by.
STEP = 1e-8


def definite(draw: np.random.Generator, n: int) -> Array:
    root = draw.standard_normal((n, n))
    return root @ root.T / n + 0.1 * np.eye(n)


def data(seed: int, n: int, m: int) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    return {
        "A": definite(draw, m), "B": draw.standard_normal((m, n)), "b": draw.standard_normal(m),
        "C": definite(draw, m), "c": draw.standard_normal(m),
        "D": 0.1 * definite(draw, n), "d": draw.standard_normal(n),
    }  # fmt: skip


def text(domain: str) -> str:
    return QUADRATIC.replace("DOMAIN", DOMAINS[domain])


def model(domain: str, seed: int, n: int, m: int) -> bl.Model:
    return bl.parse(text(domain), data=data(seed, n, m))


# --- a piece --------------------------------------------------------------------------------------


@dataclass
class Enumerated:
    """The problem in NumPy; responses by all working sets, of which the one with the right signs is
    taken.
    """

    domain: str
    known: dict[str, Array]
    latest: tuple[int, ...] = ()

    def respond(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        A, b = self.known["A"], self.known["b"] - self.known["B"] @ x
        sides = (0, -1) if self.domain == "simplex" else (0, -1, 1)
        likely = (self.latest,) if self.latest else ()
        for side in (*likely, *product(sides, repeat=len(b))):
            y = self._on(A, b, np.array(side))
            if y is not None:
                self.latest = side
                return y, side
        raise AssertionError("there is no response")

    def _on(self, A: Array, b: Array, side: np.ndarray) -> Array | None:
        """The minimiser on a working set, where it is that of the program."""
        free = np.flatnonzero(side == 0)
        simplex, k = self.domain == "simplex", len(free)
        low, high = (0.0, math.inf) if simplex else (LOW, HIGH)
        y = np.where(side < 0, low, 0.0) if simplex else np.choose(side + 1, [low, 0.0, high])
        if simplex and not k:
            return None
        K = np.zeros((k + simplex, k + simplex))
        K[:k, :k] = A[np.ix_(free, free)]
        K[k:, :k] = K[:k, k:] = 1.0
        K[k:, k:] = 0.0
        found = np.linalg.solve(K, np.append(-(b + A @ y)[free], [1.0] * simplex))
        y[free] = found[:k]
        slope = A @ y + b + (found[k] if simplex else 0.0)
        inside = (y >= low - 1e-13).all() and (y <= high + 1e-13).all()
        return y if inside and (side * slope <= 1e-13).all() else None

    def F(self, x: Array) -> float:
        y, (C, c, D, d) = self.respond(x)[0], (self.known[k] for k in "CcDd")
        return float((y - c) @ C @ (y - c) + (x - d) @ D @ (x - d)) / 2


def at(oracle: TorchOracle, x: Array) -> tuple[Response, Point]:
    """A solved point with its hypergradient."""
    response = Direct().response(oracle, DirectOptions())
    point = response.evaluate(torch.from_numpy(x), None, oracle.y0)
    return response, response.differentiate(point, None)


def slopes(function: Callable[[Array], Any], x: Array, h: float) -> Array:
    """Central differences, a column for each entry; exact where the function is quadratic."""
    columns = [(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))]
    return np.array(columns).T


@pytest.mark.parametrize("domain", ["simplex", "box"])
@pytest.mark.parametrize(("seed", "n", "m"), [(0, 4, 4), (1, 5, 6), (2, 8, 5), (3, 6, 6)])
def test_a_piece_is_phi_on_its_face(domain: str, seed: int, n: int, m: int) -> None:
    known = data(seed, n, m)
    problem, oracle = Enumerated(domain, known), oracle_of(text(domain), **known)
    draw, h = np.random.default_rng(seed), 1e-4
    points = (0.5 * draw.standard_normal(n) for _ in range(20))
    x = next(p for p in points if {0} < set(problem.respond(p)[1]))  # some are held, some free
    y, side = problem.respond(x)
    response, point = at(oracle, x)
    newton = response.newton
    assert isinstance(newton, InPieces)
    np.testing.assert_allclose(point.y.numpy(), y, rtol=1e-9, atol=1e-10)

    piece = newton._piece(point)
    R = newton.lower.columns_on(point, newton.known.f_yx)
    assert piece is not None
    assert R is not None
    near = [x + h * draw.uniform(-1, 1, n) for _ in range(4)]
    around = [x + sign * h * e for e in np.eye(n) for sign in (1, -1)]
    assert all(problem.respond(p)[1] == side for p in (*near, *around))
    np.testing.assert_allclose(R, slopes(lambda p: problem.respond(p)[0], x, h), atol=1e-8)
    assert not R[np.array(side) != 0].any()
    if domain == "simplex":
        np.testing.assert_allclose(R.sum(0), 0.0, atol=1e-10)

    for p in (x, *near):
        value, slope = piece.value_slope(p)
        assert value == pytest.approx(problem.F(p), rel=1e-12)
        np.testing.assert_allclose(slope, slopes(problem.F, p, h / 4), rtol=1e-7, atol=1e-7)
    curvature = slopes(lambda p: at(oracle, p)[1].g.numpy(), x, h)
    np.testing.assert_allclose(piece.B, curvature, rtol=1e-7, atol=1e-7)


def test_a_face_without_free_variables() -> None:
    """A corner of the box: y stands still, and Phi bends as F does in x."""
    known = data(0, 4, 4)
    known["b"] = np.full(4, -1e3)
    oracle = oracle_of(text("box"), **known)
    response, point = at(oracle, np.zeros(4))
    assert isinstance(response.newton, InPieces)
    assert point.y.tolist() == [HIGH] * 4
    piece = response.newton._piece(point)
    assert piece is not None
    np.testing.assert_allclose(piece.B, known["D"], rtol=1e-12)
    step = response.newton.step(point, point.g.numpy(), None)
    np.testing.assert_allclose(-np.asarray(step), known["d"], rtol=1e-9)


def test_no_step_where_a_piece_is_not_convex() -> None:
    known = data(0, 4, 4)
    known["D"] = -known["D"]
    known["b"] = np.full(4, -1e3)
    response, point = at(oracle_of(text("box"), **known), np.zeros(4))
    assert isinstance(response.newton, InPieces)
    assert response.newton.step(point, point.g.numpy(), None) is None


@pytest.mark.parametrize("domain", ["simplex", "box"])
def test_others_steps_that_have_settled_on_a_piece_end_in_its_minimiser(domain: str) -> None:
    """Off, a step is made from the third point on a piece, and only to a minimiser that lies on
    it.
    """
    made = refused = 0
    for seed in range(12):
        known = data(seed, 5, 5)
        problem, oracle = Enumerated(domain, known), oracle_of(text(domain), **known)
        response, point = at(oracle, 0.3 * np.random.default_rng(seed).standard_normal(5))
        newton = response.newton
        assert isinstance(newton, InPieces)
        whole = newton.step(point, point.g.numpy(), None)
        newton.is_on = False
        found = [newton.step(point, point.g.numpy(), None) for _ in range(SETTLED)]
        assert found[:-1] == [None] * (SETTLED - 1)
        end = point.x.numpy() - np.asarray(whole)
        side = problem.respond(end)[1]
        if side == problem.respond(point.x.numpy())[1]:
            made += 1
            np.testing.assert_allclose(found[-1], whole)
            np.testing.assert_allclose(slopes(problem.F, end, 1e-5), 0.0, atol=1e-7)
        else:
            refused += 1
            assert found[-1] is None
    assert made
    assert refused


# --- between pieces -------------------------------------------------------------------------------


def kink(seed: int) -> tuple[dict[str, Any], Array]:
    """The data of a model with a kink, and its minimiser."""
    a, d = np.random.default_rng(seed).standard_normal((2, 5))
    along = a * (a @ d) / (a @ a)
    return {"a": a, "d": d, "w": 2.0 * abs(float(a @ d)) / float(a @ a)}, d - along


@pytest.mark.parametrize("seed", range(6))
def test_a_run_ends_on_a_convex_kink(seed: int) -> None:
    """``max(w a'x, -w a'x) + |x - d|^2 / 2``."""
    known, best = kink(seed)
    result = bl.solve(bl.parse(KINK, **known), backend="direct")
    assert result.status == "converged"
    assert result.certificate is not None
    assert result.certificate.kind == "local"
    np.testing.assert_allclose(result["x"], best, atol=1e-6)
    assert pytest.approx(float(np.sum((best - known["d"]) ** 2)) / 2, rel=1e-9) == result.F
    assert result.iterations <= 60, "two runs"


def test_the_step_between_two_pieces_ends_on_their_kink() -> None:
    """One step makes it from anywhere once both are known."""
    known, best = kink(7)
    oracle = oracle_of(KINK, **known)
    a, d = known["a"], known["d"]
    response, _ = at(oracle, a)
    newton = response.newton
    assert isinstance(newton, InPieces)
    for x in (a, -a, d + 0.4 * best, d - 2.0 * a):
        point = response.evaluate(torch.from_numpy(x), None, oracle.y0)
        point = response.differentiate(point, None)
        newton._short, newton._goal = PATIENCE, None
        step = newton.step(point, point.g.numpy(), None)
        assert step is not None
        if x is not a:
            np.testing.assert_allclose(x - step, best, atol=STEP)


@pytest.mark.parametrize("seed", range(5))
def test_many_convex_kinks(seed: int) -> None:
    """The response to x is the least y >= 0 with H y >= x and convex in x, since H is an M-matrix
    [Cottle, Pang and Stone 1992, chapter 3]: one convex program for both levels.
    """
    draw, n = np.random.default_rng(seed), 8
    N = np.abs(draw.standard_normal((n, n)))
    N = (N + N.T) * (1.0 - np.eye(n)) / 4
    H = np.diag(N.sum(1) + 0.25) - N
    d, w = 2.0 * draw.standard_normal(n), np.abs(draw.standard_normal(n)) + 0.2
    result = bl.solve(bl.parse(OBSTACLE, H=H, d=d, w=w), backend="direct")
    x, y = cp.Variable(n), cp.Variable(n, nonneg=True)
    both = cp.Problem(cp.Minimize(w @ (2 * y - x) + cp.sum_squares(x - d) / 2), [H @ y >= x])
    best = both.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11)
    assert result.success
    assert pytest.approx(best, rel=1e-7) == result.F
    assert 0 < np.count_nonzero(result["y"] > 1e-7) < n


# --- where ----------------------------------------------------------------------------------------


def newton_of(domain: str, n: int, m: int) -> Any:
    oracle = oracle_of(text(domain), **data(0, n, m))
    return Direct().response(oracle, DirectOptions()).newton


def test_pieces_are_for_few_variables_with_bounds_below() -> None:
    for domain in ("simplex", "box"):
        assert isinstance(newton_of(domain, 5, LARGEST), InPieces)
        assert isinstance(newton_of(domain, LARGEST, 5), InPieces)
        assert newton_of(domain, 5, LARGEST + 1) is None
        assert newton_of(domain, LARGEST + 1, 5) is None
    assert isinstance(newton_of("free", 5, LARGEST), Eliminated)


def test_elimination_waits_where_it_is_dear() -> None:
    small, large = newton_of("free", 50, 50), newton_of("free", 400, 400)
    assert isinstance(small, Eliminated)
    assert isinstance(large, Eliminated)
    assert small.waiting == 0
    assert 10 < large.waiting < 40
    small.restore(large.carried(), None)
    assert small.waiting == large.waiting


def test_what_steps_do_not_solve_is_eliminated_in_the_end() -> None:
    draw, n = np.random.default_rng(0), 300
    A = draw.standard_normal((n, n))
    A = A @ A.T / n + 0.1 * np.eye(n)
    bent = np.diag(np.logspace(-5.0, 0.0, n))
    known = {"A": A, "B": np.eye(n), "b": np.zeros(n), "C": np.zeros((n, n)), "c": np.zeros(n),
             "D": bent, "d": np.ones(n)}  # fmt: skip
    model = bl.parse(text("free"), data=known)
    found = bl.solve(model, backend="direct")
    assert found.success
    assert 10 < found.iterations < 20
    np.testing.assert_allclose(found["x"], 1.0, rtol=1e-6)


def test_other_objectives_have_no_pieces() -> None:
    bent = text("simplex").replace("quad(x - d, D) / 2", "sum(exp(x))")
    bent = bent.replace("D[n, n], d[n]", "d[n]")
    oracle = oracle_of(bent, **{k: v for k, v in data(0, 4, 4).items() if k != "D"})
    assert Direct().response(oracle, DirectOptions()).newton is None


@pytest.mark.parametrize("seed", range(3))
def test_kkt_takes_bounds_and_ends_as_low_as_all_of_a_grid(seed: int) -> None:
    known = data(seed, 2, 4)
    found = bl.solve(bl.parse(text("box"), data=known), backend="kkt")
    assert found.certificate.kind == "local"
    exact = Enumerated("box", known)
    assert exact.F(np.asarray(found["x"])) == pytest.approx(found.F, abs=1e-9)
    ends = np.linspace(-4.0, 4.0, 33)
    assert min(exact.F(np.array(x)) for x in product(ends, ends)) >= found.F - 1e-9
