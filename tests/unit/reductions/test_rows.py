"""Rows agree with the reference interpreter at random points, for every model at hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import system

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "exporters"))
import problems  # noqa: E402

TEXTS = {name: text for name, (text, *_) in problems.KNOWN.items()}
TEXTS |= {"ball": problems.BALL, "family": problems.FAMILY, "exp": problems.EXP}
SMALL = sorted(
    p for p in (ROOT / "models").glob("*.blv") if p.stem not in ("digits", "hyper_cleaning")
)


def environment(found, v):
    return {
        (b.level, b.name): v[b.offset : b.offset + b.size].reshape(b.shape)
        for b in found.columns.blocks
    }


def compare(bound, rng):
    found = system(bound)
    low = np.where(np.isfinite(found.columns.lower), found.columns.lower, -2.0)
    high = np.where(np.isfinite(found.columns.upper), found.columns.upper, 2.0)
    v = low + rng.random(found.columns.count) * (np.minimum(high, low + 3) - low)
    run = Interpreter(bound.data, environment(found, v), bound.program.externs)
    program = bound.program
    value = found.sign * run.value(program.upper.objective)
    assert found.objective.value(v)[0] == pytest.approx(float(value), rel=1e-9, abs=1e-9)
    expected = np.concatenate(
        [np.ravel(run.value(level.objective)) for level in program.lowers] or [np.zeros(0)]
    )
    signs = np.array([f.sign for f in found.followers])
    np.testing.assert_allclose(
        found.lower_objectives.value(v), signs * expected, rtol=1e-9, atol=1e-9
    )
    for level, rows in [(program.upper, found.upper_rows)] + [
        (level, found.lower_rows) for level in program.lowers
    ]:
        for c in level.constraints:
            if len(c.relations) != 1:
                continue
            shape = tuple(bound.data.sizes[a] for a in c.axes)
            body = np.broadcast_to(run.value(c.terms[0]) - run.value(c.terms[1]), shape).ravel()
            mine = [
                r
                for r, o in enumerate(rows.origin)
                if o is not None and o[:2] == (level.name, c.name)
            ]
            shown = rows.take(mine)
            ends = np.where(np.isfinite(shown.upper), shown.upper, shown.lower)
            np.testing.assert_allclose(shown.functions.value(v) - ends, body, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TEXTS)
def test_rows_of_small_models(name):
    compare(bl.parse(TEXTS[name]).bound, np.random.default_rng(1))


@pytest.mark.parametrize("path", SMALL, ids=lambda p: p.stem)
def test_rows_of_the_catalogue(path):
    compare(bl.load(path).bound, np.random.default_rng(2))


def test_operations_of_the_language():
    text = """
    model operations;
    set S = {"u", "v", "w"};
    param A[3, 3] = eye(3), c[S] = {"u": 1, "v": -2, "w": 0.5}, flag = 1;
    upper {
      var x[3] in [0, 1], z[S] in [-1, 1];
      minimize quad(x, A) + sum(c[s] * z[s] * y[1] for s in S where c[s] > 0) + trace(A)
        + sum(diag(x) @ y) + (if flag > 0 then x[1] else x[2]);
      subject to
        two: -1 <= x[1] - y[2] <= 2;
        ends: x[1] <= y[1] <= x[2];
        step[i in 2..3]: x[i] - x[i - 1] <= 0.25;
        soft: logsumexp(x) + norm2(y) + huber(x[1], 0.5) + max(x[1], x[2]) <= 9;
        prob: sum(softmax(y)) == 1;
    }
    lower f { var y[3] in [-5, 5]; minimize sumsq(y - x) + sum(abs(y)); }
    """
    bound = bl.parse(text).bound
    compare(bound, np.random.default_rng(3))
    found = system(bound)
    assert found.columns.names[:6] == ("x[1]", "x[2]", "x[3]", "z[u]", "z[v]", "z[w]")
    assert found.upper_rows.names[:5] == ("two", "ends.1", "ends.2", "step[2]", "step[3]")
    assert (found.upper_rows.lower[0], found.upper_rows.upper[0]) == (-1.0, 2.0)


def test_domains_become_bounds_and_rows():
    found = system(bl.parse(problems.FAMILY).bound)
    assert found.lower_rows.names == (
        "site.share.simplex[north east]",
        "site.share.simplex[west]",
        "site.share.simplex[x-1]",
    )
    assert found.columns.names[1] == "share[north east,1]"
    assert list(found.lower_rows.follower) == [1, 2, 3]
    assert list(found.columns.owner) == [0, 1, 1, 2, 2, 3, 3]
    disc = system(bl.parse(problems.BALL).bound).lower_rows
    assert disc.names == ("f.y.ball",)
    assert disc.upper[0] == 1.0
    assert 0 in disc.functions.quadratic


def test_levels_with_the_same_name_are_told_apart():
    text = """
    model twins;
    upper { var x; minimize x^2 + a.y + b.y; }
    lower a { var y; minimize (y - x)^2; }
    lower b { var y; minimize (y + x)^2; }
    """
    assert system(bl.parse(text).bound).columns.names == ("x", "a.y", "b.y")


def test_semidefinite_variables_are_refused_with_their_place():
    text = (
        "model s; upper { var x; minimize x; } lower f { var Y[2, 2] in psd; minimize trace(Y); }"
    )
    with pytest.raises(Refused, match=r"BLV0701[\s\S]*in psd"):
        system(bl.parse(text).bound)


def test_large_nonlinear_models_are_refused_with_a_reason():
    with pytest.raises(Refused, match="BLV0706"):
        system(bl.load(ROOT / "models" / "digits.blv").bound)


@pytest.mark.parametrize("function", sorted(set(sc.FUNCTIONS) - {"abs", "sign"}))
def test_derivatives_of_functions(function):
    tree = sc.call(function, sc.add(sc.mul(sc.Num(0.3), sc.Col(0)), sc.Num(0.5)))
    check_derivative(tree, [0.7])


def test_derivatives_of_products_powers_and_quotients():
    x, y = sc.Col(0), sc.Col(1)
    check_derivative(sc.mul(x, y, sc.power(x, sc.Num(3.0))), [0.7, 1.3])
    check_derivative(sc.div(sc.add(x, y), sc.power(y, x)), [0.7, 1.3])
    assert sc.derivative(sc.call("abs", x), 0) is None


def check_derivative(tree, point):
    for j in range(len(point)):
        exact = sc.evaluate(sc.derivative(tree, j), point)
        up, down = list(point), list(point)
        up[j] += 1e-6
        down[j] -= 1e-6
        slope = (sc.evaluate(tree, up) - sc.evaluate(tree, down)) / 2e-6
        assert exact == pytest.approx(slope, rel=1e-6)
