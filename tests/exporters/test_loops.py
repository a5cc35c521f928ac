"""Large models: loops over tables mean what the same rows mean one by one, and stay short."""

import math
import re
import sys

import families as known
import numpy as np
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_consumers import programs

import bilevelpy as bl
from bilevelpy.exporters.expressions import text
from bilevelpy.exporters.families import families
from bilevelpy.exporters.loops import _Printer
from bilevelpy.exporters.python.python_script import PYTHON, style
from bilevelpy.reductions import scalar as sc

LOGISTIC = """
model tuned "One penalty of a logistic regression";
dim n, m, p;
param X[n, p], y[n], V[m, p], u[m];
upper { var a in [0.01, 10] start 1; minimize mean(logistic(-u * (V @ w))); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) + a * sumsq(w); }
"""
WAYS = (("casadi", ".py"), ("pyomo", ".py"), ("ampl", ".mod"), ("gams-mpec", ".gms"))
RIDGE = LOGISTIC.replace("logistic(-u * (V @ w))", "(V @ w - u)^2").replace(
    "logistic(-y * (X @ w))", "(X @ w - y)^2"
)


def data(n, p=4):
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(n, p)), rng.normal(size=(n, p))
    truth = rng.normal(size=p)
    labels = [np.where(d @ truth + rng.normal(size=n) > 0, 1.0, -1.0) for d in (x, v)]
    return {"X": x, "y": labels[0], "V": v, "u": labels[1]}


@pytest.fixture
def looped(monkeypatch):
    """Loops for models of any size."""
    monkeypatch.setattr("bilevelpy.exporters.loops.LARGE", -1)


@st.composite
def trees(draw):
    """A few sums over many terms of like shapes that share parts, over three columns."""
    number = st.floats(-2, 2, allow_subnormal=False).map(lambda v: sc.Num(round(v, 3)))
    leaf = st.one_of(number, st.integers(0, 2).map(sc.Col))
    unary = st.sampled_from(["exp", "sin", "tanh"])
    inner = st.builds(
        lambda a, b, f: sc.call(f, sc.add(sc.mul(a, b), sc.Col(0))), leaf, leaf, unary
    )
    term = st.one_of(
        st.builds(sc.mul, number, st.integers(0, 2).map(sc.Col)),
        st.builds(lambda a, b: sc.mul(a, b), number, inner),
        st.builds(lambda a: sc.power(a, sc.Num(2.0)), inner),
        st.builds(lambda a, b: sc.div(a, sc.add(sc.power(b, sc.Num(2.0)), sc.ONE)), leaf, inner),
    )
    terms = draw(st.lists(term, min_size=3, max_size=12))
    pick = st.lists(st.sampled_from(terms), min_size=1, max_size=10)
    sums = pick.map(lambda chosen: sc.add(*chosen))
    nested = st.builds(lambda a, b: sc.mul(a, sc.add(b, sc.ONE)), sums, sums)
    return draw(st.lists(st.one_of(sums, nested), min_size=1, max_size=6))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(roots=trees())
def test_families_are_the_trees(roots):
    made = families(roots, ["row"] * len(roots))
    printer = _Printer(style("math."), PYTHON)
    point = [0.3, -1.2, 0.7]
    space = {"math": math, "v": point, "t": None}
    bodies = [(f"z{k + 1}", f) for k, f in enumerate(made.definitions)]
    bodies += [(f"r{k + 1}", f) for k, f in enumerate(made.roots)]
    values = {}
    for label, family in bodies:
        body = printer.body(family.shape, label, "i")
        space["t"] = type("Tables", (), printer.tables)
        space[label] = [eval(body, {**space, "i": i}) for i in range(family.count)]
        if label.startswith("r"):
            values |= dict(zip(family.members, space[label], strict=True))
    for k, root in enumerate(roots):
        assert values[k] == pytest.approx(sc.evaluate(root, point), rel=1e-12, abs=1e-12)


def test_shared_parts_are_computed_once():
    inner = sc.call("exp", sc.add(*(sc.mul(sc.Num(k + 1.0), sc.Col(k)) for k in range(9))))
    made = families([sc.div(sc.ONE, sc.add(sc.ONE, inner)), sc.mul(inner, sc.Col(0))], ["a", "b"])
    assert [f.count for f in made.definitions] == [1]
    assert len(made.roots) == 2


@pytest.mark.usefixtures("looped")
def test_pyomo_and_scip(tmp_path):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    cases = [*known.LINEAR[:5], *known.QUADRATIC[:5]]
    programs("pyomo", cases, tmp_path, sys.executable)
    assert (tmp_path / "pyomo_0.npz").is_file()


@pytest.mark.usefixtures("looped")
@pytest.mark.parametrize("name", list(problems.KNOWN))
def test_scip_on_nl(name, tmp_path, scip):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    text, expected, _ = problems.KNOWN[name]
    bl.export(bl.parse(text), to="nl", path=tmp_path / "m.nl")
    sign = -1 if "maximize" in text.partition("\nlower")[0] else 1
    assert sign * scip(tmp_path / "m.nl")[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("looped")
def test_casadi(tmp_path):
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    programs("casadi", known.SMOOTH, tmp_path, sys.executable)


@pytest.mark.usefixtures("looped")
def test_gams(tmp_path):
    from bilevelpy.exporters.verify import verify

    cases = [*known.SMOOTH[:4], (problems.TOLL, 6.0, None), (problems.EXP, 0.37143982, 0.0)]
    for source, expected, _ in cases:
        model, path = bl.parse(source), tmp_path / "m.gms"
        bl.export(model, to="gams-mpec", path=path)
        report = verify(model.bound, "gams-mpec", path)
        if report.passed is None:
            pytest.skip(report.message)
        assert report.passed, report.message
        assert pytest.approx(expected, rel=1e-4) == report.F


@pytest.mark.usefixtures("looped")
def test_gams_includes_sets_and_numbers(tmp_path):
    bl.export(bl.parse(problems.TOLL), to="gams-mpec", path=tmp_path / "m.gms")
    text, included = (tmp_path / "m.gms").read_text(), (tmp_path / "m.inc").read_text()
    assert '$include "m.inc"' in text
    assert "whole_(c)$whole(c).. v(c) =e= w(c);" in text
    assert '  0 "k[12]"\n' in included
    # Everything that the text reads is declared there, under a name of its own.
    declared = re.findall(r"^(?:set|parameter) (\w+)\(", included, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert set(re.findall(r"\b([a-z]\d+_[a-z]+(?:_[a-z])?)\(", text)) <= {
        *declared, *re.findall(r"^  (\w+)\(l\)$", text, re.MULTILINE), *declared_variables(text)
    }  # fmt: skip


def declared_variables(text):
    return re.findall(r"variables (\w+)\(l\)", text)


def test_data_stands_beside_the_text(tmp_path):
    sizes = {}
    for n in (200, 230):
        model = bl.parse(LOGISTIC, data=data(n, 8))
        for to, ending in WAYS:
            path = tmp_path / f"m{ending}"
            written = bl.export(model, to=to, path=path)
            beside = {".py": ".npz", ".mod": ".dat", ".gms": ".inc"}[ending]
            assert [p.suffix for p in written] == [beside, ending]
            sizes.setdefault(to, []).append(path.stat().st_size)
    for small, large in sizes.values():
        assert large < 5_000
        assert large - small < 100
    with np.load(tmp_path / "m.npz") as content:
        assert content["name"].tolist()[:2] == ["a", "w[1]"]


def test_ipopt_finds_the_same_from_data_beside(tmp_path, monkeypatch):
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    from bilevelpy.exporters.verify import verify

    model = bl.parse(LOGISTIC, data=data(40))
    values = []
    for large in (10**9, -1):
        monkeypatch.setattr("bilevelpy.exporters.loops.LARGE", large)
        path = tmp_path / f"m{large}.py"
        bl.export(model, to="casadi", path=path)
        report = verify(model.bound, "casadi", path)
        assert report.passed, report.message
        values.append(report.F)
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_squares_of_many_residuals_are_multiplied_out(tmp_path):
    # 5,000 residuals of 4 features: 20,000 coefficients as they were made, 10 as one square form.
    model = bl.parse(RIDGE, data=data(5_000))
    for to in ("pyomo", "casadi", "ampl", "gams-mpec", "gams-emp", "blv"):
        path = tmp_path / "m.txt"
        bl.export(model, to=to, path=path)
        assert path.stat().st_size < 8_000, to
    found = bl.parse(RIDGE, data=data(5_000)).bound
    from bilevelpy.reductions.rows import system

    rows = system(found)
    given_data = data(5_000)
    point = np.array([0.7, 0.1, -0.2, 0.3, 1.1])
    w = point[1:]
    expected = np.mean((given_data["X"] @ w - given_data["y"]) ** 2) + 0.7 * w @ w
    assert rows.lower_objectives.value(point)[0] == pytest.approx(expected, rel=1e-12)


def test_long_sums_are_no_deep_nesting():
    # Python's parser gives up on a few thousand terms in a row.
    total = sc.add(*(sc.mul(sc.Num(-1.0 - k), sc.Col(k)) for k in range(4_000)))
    shown = text(style("math."), total, [f"x{k}" for k in range(4_000)])
    value = eval(compile(shown, "sum", "eval"), {f"x{k}": 1.0 for k in range(4_000)})
    assert value == -sum(range(1, 4_001))
