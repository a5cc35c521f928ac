"""Python programs run and print the objective; the other texts are what their readers want."""

import subprocess
import sys

import problems
import pytest

import bilevelpy as bl


def run(model, to, tmp_path, *arguments, **options):
    path = tmp_path / f"{to}_program.py"
    bl.export(model, to=to, path=path, options=options)
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("F ="))
    return float(line.removeprefix("F ="))


@pytest.mark.parametrize("name", ["p1", "b88", "nash", "toll"])
def test_pyomo(name, tmp_path):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    text, expected, _ = problems.KNOWN[name]
    assert run(bl.parse(text), "pyomo", tmp_path) == pytest.approx(expected, rel=1e-5)


def test_pyomo_with_products(tmp_path):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    found = run(bl.parse(problems.EXP), "pyomo", tmp_path, reformulation="products")
    assert found == pytest.approx(0.37143982, abs=1e-4)


@pytest.mark.parametrize("name", ["b88", "stackelberg", "nash"])
def test_casadi(name, tmp_path):
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    text, expected, _ = problems.KNOWN[name]
    assert run(bl.parse(text), "casadi", tmp_path) == pytest.approx(expected, rel=1e-4)


def test_casadi_on_a_nonlinear_follower(tmp_path):
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    assert run(bl.parse(problems.EXP), "casadi", tmp_path) == pytest.approx(0.37143982, abs=1e-4)


@pytest.mark.parametrize(("name", "bound"), [("p1", 20), ("b88", 60), ("dempe", 20)])
def test_cvxpy(name, bound, tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    text, expected, _ = problems.KNOWN[name]
    found = run(bl.parse(text), "cvxpy", tmp_path, "SCIP", dual_bound=bound)
    assert found == pytest.approx(expected, rel=1e-5)


def test_sympy_agrees_with_the_model(tmp_path):
    # At the start (1, 0): F = 16 + 1, f = 1.
    assert run(bl.parse(problems.B88), "sympy", tmp_path) == pytest.approx(17.0)


def test_blv_is_a_model_with_the_same_optimum(tmp_path, scip):
    bl.export(bl.parse(problems.B88), to="blv", path=tmp_path / "b88.blv")
    model = bl.load(tmp_path / "b88.blv")
    assert model.program.lowers == ()
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    bl.export(model, to="nl", path=tmp_path / "b88.nl")
    assert scip(tmp_path / "b88.nl")[1] == pytest.approx(17.0, rel=1e-5)


def test_gams_emp_names_what_belongs_to_the_follower(tmp_path):
    bl.export(bl.parse(problems.P1), to="gams-emp", path=tmp_path / "p.gms")
    text = (tmp_path / "p.gms").read_text()
    assert "bilevel x\nmin zl1 y defzl1 f_c1 f_c2 f_c3 f_c4\n$offecho" in text
    assert "f_c1.. -x - y =l= -3;" in text
    assert "solve bl using emp minimizing zu;" in text


def test_gams_mpec_matches_slacks_and_multipliers(tmp_path):
    bl.export(bl.parse(problems.B88), to="gams-mpec", path=tmp_path / "p.gms")
    text = (tmp_path / "p.gms").read_text()
    assert "comp_f_c1.. 3*x - y - 3 =g= 0;" in text
    assert "comp_f_c1.lam_f_c1" in text


def test_ampl_uses_complements(tmp_path):
    bl.export(bl.parse(problems.B88), to="ampl", path=tmp_path / "b88.mod")
    text = (tmp_path / "b88.mod").read_text()
    assert "subject to comp_f_c1: 0 <= 3*x - y - 3 complements lam_f_c1 >= 0;" in text


def test_bileveljump_keeps_both_levels(tmp_path):
    bl.export(bl.parse(problems.DEMPE), to="bileveljump", path=tmp_path / "d.jl")
    text = (tmp_path / "d.jl").read_text()
    assert "@variable(Upper(model), 0 <= y <= 8)" in text
    assert "@constraint(Lower(model), f_b, y + 4*x >= 8)" in text
    assert "@objective(Lower(model), Min, -x)" in text
