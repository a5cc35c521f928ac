"""Optimality conditions: counts, signs of shadow prices, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.linearization.mixed import big_m, sos1
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import system

sys.path.insert(0, str(Path(__file__).parents[3] / "exporters"))
import problems


def conditions(text, **options):
    return kkt(system(bl.parse(text).bound), **options)


def test_one_pair_for_each_inequality_and_bound():
    found = conditions(problems.P1)
    assert [p.name for p in found.pairs] == ["f.c1", "f.c2", "f.c3", "f.c4", "y.lower", "y.upper"]
    assert found.kinds.count("stationarity") == 1
    assert found.rows.names[found.kinds.index("stationarity")] == "stat.y"


def test_the_known_solution_satisfies_the_conditions():
    found = conditions(problems.P1)
    # At (4, 4) the last row holds with equality and pays: 1 - 2 lam = 0.
    v = np.zeros(found.columns.count)
    v[0] = v[1] = 4.0
    v[found.columns.names.index("lam.f.c4")] = 0.5
    assert found.rows.violation(v).max() < 1e-12
    assert all(abs(found.slack(p, v) * v[p.multiplier]) < 1e-12 for p in found.pairs)


def test_equations_and_fixed_variables_have_free_multipliers():
    text = """
    model fixed;
    upper { var x in [0, 1]; minimize x + y; }
    lower f { var y, w in [2, 2]; minimize y^2 + w*x; subject to e: y == x + w; }
    """
    found = conditions(text)
    assert found.pairs == ()
    assert [n for n in found.columns.names if n.startswith("nu.")] == ["nu.f.e", "nu.w"]


def test_rows_without_own_variables_join_the_upper_level():
    text = """
    model moved;
    upper { var x in [0, 1]; minimize x; }
    lower f { var y; minimize y^2; subject to cap: x <= 0.5; }
    """
    found = conditions(text)
    assert found.kinds[found.rows.names.index("f.cap")] == "upper"
    assert found.pairs == ()


@pytest.mark.parametrize(
    ("sense", "row", "price"),
    [
        # The optimal value and its derivative by the right-hand side, by hand.
        ("minimize 3*y", "c: y >= 2", 3.0),
        ("minimize 3*y", "c: y == 2", 3.0),
        ("minimize -3*y", "c: y <= 2", -3.0),
        ("maximize 3*y", "c: y <= 2", 3.0),
        ("maximize -3*y", "c: y >= 2", -3.0),
        ("maximize 3*y", "c: 2 == y", -3.0),
        ("minimize 3*y", "c: 2 <= y <= 9", 3.0),
    ],
)
def test_signs_of_shadow_prices(sense, row, price):
    text = f"""
    model price;
    upper {{ var x in [0, 1]; minimize x + 0*dual(f.c); }}
    lower f {{ var y; {sense}; subject to {row}; }}
    """.replace("0*dual(f.c)", "dual(f.c)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    from pyscipopt import Model

    from bilevelpy.exporters.matrices.lp import lp_text

    found = sos1(conditions(text))
    path = Path(__import__("tempfile").mkdtemp()) / "price.lp"
    path.write_text(lp_text(found, "price"))
    scip = Model()
    scip.hideOutput()
    scip.readProblem(str(path))
    scip.optimize()
    assert scip.getObjVal() == pytest.approx(price)


def test_assumed_bounds_of_prices_bound_multipliers():
    found = conditions(problems.BIDDING)
    place = found.columns.names.index("nu.market.balance")
    assert (found.columns.lower[place], found.columns.upper[place]) == (-1000.0, 0.0)


def test_followers_of_a_game_have_their_own_gradients():
    found = conditions(problems.NASH)
    rows = [r for r, kind in enumerate(found.kinds) if kind == "stationarity"]
    linear = found.rows.functions.linear[rows].toarray()[:, :3]
    # max (13 - Q - q_a - q_b) q - q: the gradient by q_a is -(12 - Q - 2 q_a - q_b).
    np.testing.assert_allclose(linear, [[1, 2, 1], [1, 1, 2]])


def test_what_has_no_equivalent_conditions_is_refused_with_its_place():
    with pytest.raises(Refused, match=r"BLV0703[\s\S]*integers\(0, 5\)"):
        conditions(problems.INTEGER)
    with pytest.raises(Refused, match=r"BLV0702[\s\S]*eigenvalue -2"):
        conditions(problems.CONCAVE)
    with pytest.raises(Refused, match="BLV0704"):
        conditions(problems.PESSIMISTIC)
    with pytest.raises(Refused, match=r"BLV0702[\s\S]*not concave"):
        conditions(
            "model c; upper { var x in [0, 1]; minimize x; } "
            "lower f { var y in [-2, 2]; minimize y; subject to out: y^2 >= 1; }"
        )
    with pytest.raises(Refused, match="kinks"):
        conditions(
            "model k; upper { var x in [0, 1]; minimize x; } "
            "lower f { var y in [-2, 2]; minimize abs(y - x) + exp(y); }"
        )


def test_nonlinear_followers_are_judged_by_their_text():
    assert conditions(problems.EXP).rows.functions.trees
    with pytest.raises(Refused, match="BLV0702"):
        conditions(problems.EXP.replace("exp(y) - x*y", "sin(3*y) - x*y"))


def test_force_says_what_it_let_through():
    found = conditions(problems.CONCAVE, force=True)
    assert len(found.warnings) == 1
    assert "not known to be convex" in found.warnings[0]


def test_big_m_needs_bounds():
    found = conditions(problems.P1)
    with pytest.raises(Refused, match=r"BLV0705[\s\S]*assume dual"):
        big_m(found)
    assert big_m(found, 2.0).constants[0] == ("f.c1", 17.0, 2.0)
    free = conditions(problems.P1.replace("var y in [0, 10]", "var y in [0, inf]"))
    with pytest.raises(Refused, match="BLV0708"):
        big_m(free, 2.0)
