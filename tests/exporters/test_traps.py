"""The traps of writers and readers, each with what is written instead."""

import os
import stat
import sys
import threading

import kinds
import numpy as np
import problems
import pytest

import bilevelpy as bl
from bilevelpy.exporters.matrices.lp import lp_names
from bilevelpy.exporters.matrices.mps import mps_names
from bilevelpy.exporters.naming import identifiers, number
from bilevelpy.exporters.verify import verify


def written(text, to, tmp_path, **options):
    path = tmp_path / f"file.{to}"
    bl.export(bl.parse(text), to=to, path=path, options=options)
    return path


def one_level(domain, objective="minimize", sense="x"):
    return f"model one; upper {{ var x in {domain}; {objective} {sense}; }}"


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_integer_columns_have_bounds(to, tmp_path, scip, highs):
    # Readers take [0, 1] where an integer column has none.
    path = written(one_level("integers(-3, inf)"), to, tmp_path)
    assert scip(path)[1] == highs(path) == -3.0
    path = written(one_level("integers(-inf, 7)", "maximize"), to, tmp_path)
    assert scip(path)[1] == highs(path) == -7.0


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_negative_upper_bounds_come_with_their_lower_bound(to, tmp_path, scip, highs):
    text = "model one; upper { var x in [-inf, -2]; minimize x; subject to r: x >= -9; }"
    path = written(text, to, tmp_path)
    assert scip(path)[1] == highs(path) == -9.0
    assert to == "lp" or " MI BND x\n UP BND x -2" in path.read_text()


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_objective_constants_survive(to, tmp_path, scip, highs):
    path = written(one_level("[1, 2]", sense="x + 0.1"), to, tmp_path)
    assert scip(path)[1] == pytest.approx(1.1)
    assert highs(path) == pytest.approx(1.1)


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_maximisation_is_written_as_minimisation(to, tmp_path, scip):
    path = written(one_level("[0, 4]", "maximize"), to, tmp_path)
    assert scip(path)[1] == -4.0
    assert "MAX" not in path.read_text().upper().replace("MAXIM", "")


def test_quadratic_terms_have_no_blank_before_the_exponent(tmp_path):
    assert "[ 2 x ^2 + 8 y ^2 ] / 2" in written(problems.B88, "lp", tmp_path).read_text()


def test_numpy_scalars_are_written_as_numbers(tmp_path):
    assert number(np.float64(3.0)) == "3"
    assert number(np.float64(0.1)) == "0.1"
    assert float(number(np.nextafter(1.0, 2.0))) == np.nextafter(1.0, 2.0)
    for to in bl.exporters():
        if to in ("nl", "torch", "onnx"):
            continue  # numbers are in binary form there, or written by Pyomo
        text = problems.STACKELBERG if to not in ("mps-aux", "bileveljump") else problems.P1
        path = tmp_path / "f.txt"
        options = {"force": True, "dual_bound": 30}
        try:
            bl.export(bl.parse(text), to=to, path=path, options=options)
        except bl.ExportError:
            continue
        except UserWarning:
            pass
        assert "np.float" not in path.read_text()


@pytest.mark.parametrize("namer", [lp_names, mps_names, identifiers])
def test_names_are_unique_and_short_enough(namer):
    long = "x" * 300
    texts = [long + "a", long + "b", "a-b", "a+b", "free", "Free", "2x", "w[3]", "e1", "größe", " "]
    made = namer().names(texts)
    assert len({n.lower() for n in made}) == len(made) or namer is not lp_names
    assert len(set(made)) == len(made)
    assert all(0 < len(n) <= 255 and " " not in n for n in made)


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_odd_and_long_labels(to, tmp_path, scip):
    long = "label " * 60
    text = f"""
    model odd;
    set S = {{"a b", "x+y", "{long}1", "{long}2", "é:%&"}};
    upper {{ var x[S] in [1, 2]; minimize sum(x) + sum(y); }}
    lower f {{
      var y[S] in [0, 3];
      minimize sum(-y[s] for s in S);
      subject to c[s in S]: y[s] <= x[s];
    }}
    """
    path = written(text, to, tmp_path)
    assert scip(path)[1] == pytest.approx(10.0)


def test_comments_cannot_leave_their_line(tmp_path, scip):
    text = problems.P1.replace("Shimizu, Ishizuka, Bard, example 16.1.1", "odd \\\\ * title */ End")
    assert scip(written(text, "lp", tmp_path))[1] == pytest.approx(-12.0)


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_rows_with_two_sides(to, tmp_path, scip, highs):
    text = """
    model two;
    upper { var x in [-9, 9], z in [0, 9]; minimize x - z; subject to r: -2 <= x + z <= 5; }
    """
    path = written(text, to, tmp_path)
    assert scip(path)[1] == highs(path) == -18.0


def test_nothing_is_written_where_the_format_cannot_hold_it(tmp_path):
    for to in ("lp", "mps", "nl", "pyomo", "casadi", "gams-mpec", "ampl", "cvxpy", "blv"):
        with pytest.raises(bl.ExportError, match="BLV0703"):
            bl.export(bl.parse(problems.INTEGER), to=to, path=tmp_path / "f")
    for to, text in (
        ("mps-aux", problems.B88),
        ("lp", problems.EXP),
        ("bileveljump", problems.NASH),
    ):
        with pytest.raises(bl.ExportError, match=r"error\[BLV0701\][\s\S]*-->"):
            bl.export(bl.parse(text), to=to, path=tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places(tmp_path):
    model = bl.parse(problems.P1)
    with pytest.raises(bl.UsageError, match="there is no folder"):
        bl.export(model, to="lp", path=tmp_path / "missing" / "f.lp")
    with pytest.raises(bl.UsageError, match="directory"):
        bl.export(model, to="lp", path=tmp_path)
    with pytest.raises(bl.UsageError, match="did you mean"):
        bl.export(model, to="jsn", path=tmp_path / "f")
    with pytest.raises(bl.UsageError, match="reformulation"):
        bl.export(model, to="lp", path=tmp_path / "f", options={"reformulation": "sos3"})


def test_forced_export_warns_in_the_file(tmp_path):
    with pytest.warns(UserWarning, match="not known to be convex"):
        bl.export(
            bl.parse(problems.CONCAVE), to="lp", path=tmp_path / "c.lp", options={"force": True}
        )
    assert "\\ WARNING: f is not known to be convex" in (tmp_path / "c.lp").read_text()


def test_an_unbounded_multiplier_is_refused_before_a_constant_is_guessed(tmp_path):
    for form in ("big-m", "strong-duality"):
        with pytest.raises(bl.ExportError, match="BLV0705"):
            written(problems.P1, "lp", tmp_path, reformulation=form)
    assert list(tmp_path.iterdir()) == []


def test_strong_duality_takes_linear_rows_of_followers(tmp_path):
    options = {"reformulation": "strong-duality", "dual_bound": 10}
    for text in (problems.BALL, problems.EXP):
        with pytest.raises(bl.ExportError, match="BLV0701"):
            written(text, "lp", tmp_path, **options)


def test_strong_duality_is_linear_where_the_leader_has_whole_numbers(tmp_path, scip, highs):
    path = written(problems.FLOW, "mps", tmp_path, reformulation="strong-duality", dual_bound=3)
    assert "QCMATRIX" not in path.read_text()
    assert scip(path)[1] == pytest.approx(5.0)
    assert highs(path) == pytest.approx(5.0)
    text = problems.P1.replace("x in [0, 10]", "x in integers(-3, 10)")
    path = written(text, "lp", tmp_path, reformulation="strong-duality", dual_bound=20)
    assert highs(path) == pytest.approx(-12.0)
    assert "|lam.f.c1| <= 20" in path.read_text()


def test_graphs_refuse_what_is_no_function_of_the_variables(tmp_path):
    for text in (problems.BIDDING, problems.TOLL, "model m; upper { var x; minimize x^2; }"):
        with pytest.raises(bl.ExportError, match="cannot hold"):
            bl.export(bl.parse(text), to="torch", path=tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_blvpy_refuses_games_prices_and_whole_numbers(tmp_path):
    for text in (problems.NASH, problems.BIDDING, problems.TOLL, problems.CONCAVE):
        with pytest.raises(bl.ExportError, match=r"BLV070[12]"):
            bl.export(bl.parse(text), to="blvpy", path=tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


def test_an_expression_that_is_too_long_is_an_error_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("bilevelpy.exporters.expressions.TEXT_LIMIT", 10)
    with pytest.raises(bl.ExportError, match=r"BLV0706[\s\S]*--> <text>:\d+:\d+"):
        bl.export(bl.parse(problems.EXP), to="gams-emp", path=tmp_path / "m.gms")
    assert list(tmp_path.iterdir()) == []


def test_blvpy_refuses_followers_that_are_not_disciplined(tmp_path):
    text = """
    model tuned;
    upper {{ var s in [0, 3]; minimize (w - 2)^2; }}
    lower f {{ var w in [-5, 5]; minimize (w - 1)^2 + {} * w^2 + logistic(w); }}
    """
    with pytest.raises(bl.ExportError, match=r"BLV0701[\s\S]*disciplined"):
        bl.export(bl.parse(text.format("exp(s)")), to="blvpy", path=tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []
    bl.export(bl.parse(text.format("s")), to="blvpy", path=tmp_path / "m.py")
    shown = (tmp_path / "m.py").read_text()
    assert "s = cp.Variable(name='s', nonneg=True)" in shown
    assert "cp.logistic(w)" in shown


def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "m.lp"
    path.write_text("")
    path.chmod(0o600)
    bl.export(bl.parse(problems.P1), to="lp", path=path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("\\")


def test_no_solver_writes_our_files(tmp_path, monkeypatch):
    """SCIP's own writers lose SOS rows (.pip) or write what it cannot read back (.lp), HiGHS writes
    linear models only, and a proprietary package must not be needed: the writers need none of them.
    """
    for package in ("pyscipopt", "highspy", "gurobipy", "cplex", "pulp"):
        monkeypatch.setitem(sys.modules, package, None)
    for to in ("lp", "mps", "gams-mpec", "ampl", "pyomo", "bileveljump"):
        assert written(problems.B88, to, tmp_path).stat().st_size
    assert written(problems.INTEGER, "mps-aux", tmp_path).stat().st_size
    text = written(problems.B88, "lp", tmp_path, reformulation="sos1").read_text()
    assert "SOS" in text.upper()


IDLE_ROWS = """
model idle_rows "rows without ends stand before others";
param hi[2] in [-1e300, inf] = [inf, 4], lo[2] in [-inf, 1e300] = [-inf, -9];
upper { var x in integers(0, 9); minimize -y; subject to u[i in 2]: lo[i] <= x + y <= hi[i]; }
lower f {
  var y in [0, 8], w in [0, 1];
  minimize -y + w;
  subject to
    c[i in 2]: lo[i] <= x + y - w <= hi[i];
    d: y + w >= -3;
    e: x - y <= hi[1];
}
"""


def test_rows_without_ends_are_not_written(tmp_path, scip):
    # Readers drop them, and the positions of the others in an index-based AUX file shift.
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    for to in ("lp", "mps"):
        path = written(IDLE_ROWS, to, tmp_path)
        assert scip(path)[1] == pytest.approx(-4.0)
        assert "\n u(1):" not in path.read_text()
        assert path.read_text().count("\n N ") == (to == "mps")
    model = bl.parse(IDLE_ROWS)
    bl.export(model, to="mps-aux", path=tmp_path / "m.mps")
    for aux in ("m.aux", "m.index.aux"):
        again = bl.read(tmp_path / "m.mps", aux=tmp_path / aux)
        assert [len(level.constraints) for level in again.program.levels] == [1, 2]
        bl.export(again, to="lp", path=tmp_path / "again.lp")
        assert scip(tmp_path / "again.lp")[1] == pytest.approx(-4.0)
    assert verify(model.bound, "mps-aux", tmp_path / "m.mps").passed


def test_verify_of_mps_aux_reads_every_coefficient(tmp_path):
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    model, path = bl.parse(problems.INTEGER), tmp_path / "m.mps"
    bl.export(model, to="mps-aux", path=path)
    text = path.read_text()
    for old, new in (("x f.a -25", "x f.a -24"), ("RHS f.c 15", "RHS f.c 16")):
        assert old in text
        path.write_text(text.replace(old, new))
        report = verify(model.bound, "mps-aux", path)
        assert report.passed is False
        assert "OTHER coefficients" in report.message


def test_blvpy_names_the_parameters_that_the_follower_reads(tmp_path):
    # BLVPY takes no others: z stands in the leader's objective alone.
    text = written(kinds.IDLE, "blvpy", tmp_path).read_text()
    assert "parameters = [x]\n" in text
    assert "(z, 0.0, 1.0, 0.0)," in text


def test_blvpy_keeps_products_of_the_leader_in_rows(tmp_path):
    # Such a product is no matter of an objective, but it is one of a row.
    text = """
    model product;
    upper { var a in [0, 2], b in [0, 2]; minimize (y - 1)^2 + a; }
    lower f { var y in [0, 9]; minimize y^2 - 4*y + a*b; subject to r: y^2 + a*b <= 4; }
    """
    with pytest.raises(bl.ExportError, match=r"BLV0701[\s\S]*disciplined"):
        written(text, "blvpy", tmp_path)
    text = written(text.replace("+ a*b <=", "+ a + b <="), "blvpy", tmp_path).read_text()
    assert "a*b" not in text


def test_gams_emp_refuses_followers_with_kinks(tmp_path):
    text = "model m; upper { var x in [0, 2]; minimize abs(x - 1) + y; } "
    lower = "lower f {{ var y in [-4, 4]; minimize {}; }}"
    with pytest.raises(bl.ExportError, match=r"BLV0707[\s\S]*kinks[\s\S]*-->|-->[\s\S]*kinks"):
        written(text + lower.format("(y - x)^2 + exp(abs(y))"), "gams-emp", tmp_path)
    assert list(tmp_path.iterdir()) == []
    # What only the leader reads may have them; ReSHOP has no derivative of cosh.
    shown = written(text + lower.format("cosh(y) - x*y"), "gams-emp", tmp_path).read_text()
    assert "abs(x - 1)" in shown
    assert "((exp(y) + exp(-(y)))/2)" in shown


def test_gams_emp_shows_every_variable_of_the_leader_to_a_follower(tmp_path):
    # ReSHOP stops at one that no follower reads.
    text = written(kinds.IDLE, "gams-emp", tmp_path).read_text()
    assert "f_seen_by_a_follower" not in text
    assert "seen_by_a_follower.. z - seen =e= 0;" in text
    assert "min zl1 y seen defzl1 f_r seen_by_a_follower" in text
    assert "seen" not in written(problems.B88, "gams-emp", tmp_path).read_text()


def test_links_pipes_and_long_names(tmp_path):
    model = bl.parse(problems.P1)
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.lp"
    link.symlink_to(tmp_path / "there" / "m.lp")
    bl.export(model, to="lp", path=link)
    assert link.is_symlink()
    assert (tmp_path / "there" / "m.lp").is_file()
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    bl.export(model, to="lp", path=pipe)
    reader.join(timeout=10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert read == [link.read_text()]
    bl.export(model, to="lp", path=tmp_path / f"{'n' * 250}.lp")
    with pytest.raises(bl.UsageError, match="cannot write"):
        bl.export(model, to="lp", path=tmp_path / f"{'n' * 300}.lp")


def test_data_may_leave_an_end_open(tmp_path, scip):
    text = """
    model open; param u[2] in [0, inf] = [inf, 4];
    upper { var x[2] in [0, 9]; maximize sum(x) - y; subject to c[i in 2]: x[i] <= u[i]; }
    lower f { var y in [0, 1]; minimize y; }
    """
    assert scip(written(text, "lp", tmp_path))[1] == pytest.approx(-13.0)


@pytest.mark.parametrize("large", [20_000, -1])
def test_labels_cannot_leave_their_line(large, tmp_path, monkeypatch):
    """Labels come with data, and programs are run: what a label holds must never become code."""
    for module in ("loops", "python.cvxpy_script"):
        monkeypatch.setattr(f"bilevelpy.exporters.{module}.LARGE", large)
    text = """
    model labels; set S; param c[S];
    upper { var x[S] in [0, 2]; minimize sum((x[s] - 1)^2 + y[s] for s in S); }
    lower f {
      var y[S] in [0, 9];
      minimize sum(c[s]*y[s] for s in S);
      subject to r[s in S]: y[s] >= x[s];
    }
    """
    run = "\n]\nimport os; os.mkdir('made')\nx = [\n"
    monkeypatch.chdir(tmp_path)
    for label in (run, f'q"""{run}"""', "b\r\nx", "'", "\\", "a*/b", "\x7f\x00", "\u2028z", '%"$'):
        model = bl.parse(text, data={"S": [label, "ok"], "c": [1.0, 2.0]})
        for to in bl.exporters():
            if to in ("torch", "onnx", "json", "mps-aux"):
                continue
            path = tmp_path / f"{to}.txt"
            bl.export(model, to=to, path=path, options={"dual_bound": 50})
            shown = path.read_bytes().decode()
            assert "\nimport os" not in shown, to
            assert not {"\x7f", "\x00", "\u2028", "\r"} & set(shown), to
            if to in ("pyomo", "cvxpy", "casadi", "blvpy", "sympy"):
                compile(shown, to, "exec")
        if large > 0:
            assert bl.load(tmp_path / "blv.txt").program.lowers == ()
    assert not (tmp_path / "made").exists()


def test_the_derivative_of_a_diagonal_is_a_function():
    # torch writes it into zeros, which the exporter of ONNX refuses.
    torch = pytest.importorskip("torch")
    from bilevelpy.exporters.graphs.onnx_prepare import DECOMPOSED

    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, dtype=torch.float64)
    (torch.diagonal(x, 0, 0, 2) * weights).sum().backward()
    made = DECOMPOSED[torch.ops.aten.diagonal_backward.default](weights, [3, 2, 3], 0, 0, 2)
    assert torch.equal(made, x.grad)


@pytest.mark.filterwarnings("ignore:No complete tensor found")
def test_arrays_without_entries_are_refused_in_words(tmp_path):
    text = """
    dim n;
    param a[n];
    upper { var x in [0, 1]; minimize (x - 1)^2 + prod(a[i] * x for i in n where a[i] > 9); }
    lower follow { var y; minimize (y - x)^2; }
    """
    path = tmp_path / "m.pt2"
    with pytest.raises(bl.ExportError, match="over an empty set"):
        bl.export(bl.parse(text, data={"a": np.ones(3)}), to="torch", path=path)
    assert not path.exists()
