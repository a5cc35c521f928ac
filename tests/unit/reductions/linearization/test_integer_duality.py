"""Whole responses by total unimodularity, and strong duality in place of pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.reductions.integer.multiples import (
    common_unit,
    is_unimodular,
    read_by_others,
    whole_responses,
)
from bilevelpy.reductions.integer.vertices import at_vertices
from bilevelpy.reductions.linearization.integer_duality import whole_duality
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

# Arcs of a network from node 1 to node 4; tolls on the first and the last.
ARCS = ((1, 2), (2, 3), (3, 4), (1, 3), (2, 4), (1, 4))
COST = (1.0, 1.0, 1.0, 3.0, 3.5, 8.0)
TOLLS = """
upper {{ var t[2] in [0, 6]; maximize t[1] * f[1] + t[2] * f[3]; }}
lower d {{
  var f[6] in [0, {cap}];
  minimize f[1] + f[2] + f[3] + 3 * f[4] + 3.5 * f[5] + 8 * f[6] + t[1] * f[1] + t[2] * f[3];
  subject to
    one: f[1] + f[4] + f[6] == {d};
    two: f[2] + f[5] - f[1] == 0;
    three: f[3] - f[2] - f[4] == 0;
    four: -f[3] - f[5] - f[6] == -{d};
}}
"""


def determinants(matrix: np.ndarray) -> set[int]:
    """All minors of a small matrix."""
    m, n = matrix.shape
    return {
        round(float(np.linalg.det(matrix[np.ix_(r, c)])))
        for k in range(1, min(m, n) + 1)
        for r in itertools.combinations(range(m), k)
        for c in itertools.combinations(range(n), k)
    }


@pytest.mark.parametrize("seed", range(30))
def test_what_is_called_unimodular_has_minors_of_at_most_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.choice([-1.0, 0.0, 1.0], (4, 4), p=[0.25, 0.5, 0.25])
    if is_unimodular(sp.csr_array(matrix)):
        assert determinants(matrix) <= {-1, 0, 1}


def test_networks_transport_and_intervals_are_unimodular_an_odd_cycle_is_not() -> None:
    network = np.zeros((4, 6))
    for k, (i, j) in enumerate(ARCS):
        network[i - 1, k], network[j - 1, k] = 1.0, -1.0
    transport = np.vstack([np.kron(np.eye(2), np.ones(3)), np.kron(np.ones(2), np.eye(3))])
    intervals = np.array([[1.0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1]])
    odd = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    for matrix in (network, transport, transport.T, intervals):
        assert is_unimodular(sp.csr_array(matrix))
        assert determinants(matrix[:4, :4]) <= {-1, 0, 1}
    assert not is_unimodular(sp.csr_array(odd))
    assert 2 in {abs(d) for d in determinants(odd)}


def test_the_unit_of_numbers() -> None:
    assert common_unit(np.array([2.5, -5.0, 0.0, 7.5])) == pytest.approx(2.5)
    assert common_unit(np.array([0.3, 0.2])) == pytest.approx(0.1)
    assert common_unit(np.array([1.0, np.sqrt(2.0)])) is None
    assert common_unit(np.zeros(3)) is None


def test_a_flow_of_one_pair_is_nothing_or_everything() -> None:
    made = system(bl.parse(TOLLS.format(cap="inf", d=2.5)).bound)
    found = whole_responses(made, 0, read_by_others(made))
    assert found is not None
    assert found.unit == pytest.approx(2.5)
    assert found.high.tolist() == [2.5] * 6


def test_a_follower_whose_variables_the_leader_bounds_has_no_vertices_to_count_on() -> None:
    text = TOLLS.format(cap="inf", d=2)
    text = text.replace("f[3]; }", "f[3]; subject to c: f[1] <= 1; }", 1)
    made = system(bl.parse(text).bound)
    assert made.upper_rows.count == 1
    assert whole_responses(made, 0, read_by_others(made)) is None


@pytest.mark.parametrize(("cap", "d"), [("inf", 1.0), ("inf", 2.5), ("2", 3.0)])
def test_tolls_are_worth_what_a_grid_says(cap: str, d: float) -> None:
    """At every pair of tolls the follower's flow is a linear program; among its solutions the
    leader gets the best. The optimum lies on the grid: costs are multiples of a half.
    """
    model = bl.parse(TOLLS.format(cap=cap, d=d))
    program = kkt(system(model.bound))
    found = whole_duality(program)
    assert found is not None
    assert not found.program.pairs
    assert found.program.objective.degree == 1
    balance = np.zeros((4, 6))
    for k, (i, j) in enumerate(ARCS):
        balance[i - 1, k], balance[j - 1, k] = 1.0, -1.0
    best = 0.0
    for t in itertools.product(np.arange(0, 6.25, 0.5), repeat=2):
        toll = np.array([t[0], 0, t[1], 0, 0, 0])
        sides = {"A_eq": balance, "b_eq": [d, 0, 0, -d], "bounds": [(0, float(cap))] * 6}
        low = linprog(np.array(COST) + toll, **sides)
        face = linprog(-toll, A_ub=[np.array(COST) + toll], b_ub=[low.fun + 1e-9], **sides)
        best = max(best, -face.fun)
    pytest.importorskip("pyscipopt")
    result = bl.solve(model, backend="exact")
    assert result.success, result.message
    assert pytest.approx(best, abs=1e-5) == result.F


def test_a_point_of_the_pairs_is_completed() -> None:
    """Tolls of 1: the path 1-2-3-4 costs 5, which is less than 6, 4.5 + 1 = 5.5 and 8."""
    program = kkt(system(bl.parse(TOLLS.format(cap="inf", d=2)).bound))
    found = whole_duality(program)
    assert found is not None
    pytest.importorskip("pyscipopt")
    from bilevelpy.backends.exact.engine.outcome import Limits
    from bilevelpy.backends.exact.relaxations.relax import Relaxed

    at = Relaxed(program, {0: 1.0, 1: 1.0}).solve(Limits())
    assert at.values is not None
    full = found.complete(at.values)
    assert full.size == found.program.columns.count
    assert found.program.rows.violation(full).max() < 1e-6
    assert found.program.objective.value(full)[0] == pytest.approx(-4.0, abs=1e-6)


def test_followers_without_whole_numbers_in_their_products_keep_their_pairs() -> None:
    text = TOLLS.format(cap="inf", d=2).replace("three: f[3]", "three: 2 * f[3]")
    assert whole_duality(kkt(system(bl.parse(text).bound))) is None


def test_whole_tolls_need_no_network() -> None:
    text = """
    upper { var t[2] in integers(0, 3); maximize sum(t[a] * y[a] for a in 2); }
    lower d { var y[3] in [0, 5]; minimize (1 + t[1]) * y[1] + (2 + t[2]) * y[2] + 4 * y[3];
              subject to all: 2 * y[1] + 3 * y[2] + y[3] == 6; }
    """
    found = whole_duality(kkt(system(bl.parse(text).bound)))
    assert found is not None
    assert not found.program.pairs
    best = 0.0
    for t in itertools.product(range(4), repeat=2):
        cost, toll = np.array([1.0 + t[0], 2.0 + t[1], 4.0]), np.array([*t, 0.0])
        sides = {"A_eq": [[2.0, 3.0, 1.0]], "b_eq": [6.0], "bounds": [(0, 5)] * 3}
        low = linprog(cost, **sides)
        best = max(best, -linprog(-toll, A_ub=[cost], b_ub=[low.fun + 1e-9], **sides).fun)
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success
    assert pytest.approx(best, abs=1e-5) == result.F


CYCLE = """
set N = {{"a", "b", "c"}};
set A within N * N = {{("a", "b"), ("b", "a"), ("b", "c"), ("a", "c")}};
param len[A] = [{back}, 0, 1, 5], s[N] = [1, 0, -1];
upper {{ var t in [0, 3]; {goal} t * y["a", "b"] + 0.5 * y["b", "a"]; }}
lower d {{
  var y[A] in [0, {most}];
  minimize sum(len * y) + t * y["a", "b"];
  subject to node[n in N]:
    sum(y[i, j] for (i, j) in A where i == n) - sum(y[i, j] for (i, j) in A where j == n) == s[n];
}}
"""


@pytest.mark.parametrize(
    ("back", "most", "goal", "at"),
    [
        (0, "inf", "maximize", False),  # a circle costs nothing where t = 0, and F grows along it
        (1, "inf", "maximize", True),  # no circle is free
        (0, "inf", "minimize", True),  # F does not fall along it
        (0, 4, "maximize", True),  # it has an end
    ],
)
def test_circles_that_cost_nothing_have_no_best_vertex(back, most, goal, at):
    model = bl.parse(CYCLE.format(back=back, most=most, goal=goal))
    assert at_vertices(system(model.bound), 0) is at


def test_a_leader_who_gains_along_a_face_without_end_is_unbounded():
    """A vertex of it was called the global optimum."""
    text = """
    upper { var x in [0, 1]; maximize y; }
    lower f { var y in [0, inf]; minimize x * y; subject to a: y >= 0.5; }
    """
    assert bl.solve(bl.parse(text)).status.value == "unbounded"
    result = bl.solve(bl.parse(text.replace("[0, 1]", "[0.1, 1]")))
    assert result.certificate.kind == "global"
    assert pytest.approx(0.5) == result.F
