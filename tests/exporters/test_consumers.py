"""Ten models and more for each consumer: their optimum is the known one and not the high point's,
and the follower, solved again at their point, has nothing to gain.

The optima come from enumeration of vertices and from closed forms (families.py). Consumers that
look for local optima get models with one local optimum.
"""

import os
import re
import shutil
import subprocess
import sys

import families
import gmpl_reader
import numpy as np
import problems
import pytest

import bilevelpy as bl
from bilevelpy.exporters import consumers
from bilevelpy.exporters.consumers import Missing, Outcome, beside, printed
from bilevelpy.exporters.verify import compare, follower_gap, verify
from bilevelpy.importers.mps_file import read_matrix
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

BIG_M = {"reformulation": "big-m", "dual_bound": families.DUAL_BOUND}


def written(text, to, tmp_path, name="m", **options):
    model = bl.parse(text)
    path = tmp_path / f"{name}.{to.split('-')[0]}"
    bl.export(model, to=to, path=path, options=options)
    return model.bound, path


def holds(report, expected, high_point, tolerance=1e-4):
    assert report.passed, report.message
    assert pytest.approx(expected, rel=tolerance, abs=tolerance) == report.F
    assert abs(report.F - high_point) > 1e-3


@pytest.mark.parametrize("form", ["sos1", "indicators", "big-m", "strong-duality"])
@pytest.mark.parametrize("to", ["lp", "mps"])
def test_scip(to, form, tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, to, tmp_path, reformulation=form, dual_bound=100)
        holds(verify(bound, to, path), expected, high_point)
    # Products of continuous columns take spatial branching: seconds a model.
    count = 2 if form == "strong-duality" else 10
    for text, expected, high_point in families.QUADRATIC[:count]:
        bound, path = written(text, to, tmp_path, reformulation=form, dual_bound=1000)
        holds(verify(bound, to, path), expected, high_point)


def test_scip_on_nl(tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    for text, expected, high_point in families.QUADRATIC:
        bound, path = written(text, "nl", tmp_path)
        holds(verify(bound, "nl", path), expected, high_point)


def test_ipopt_on_nl(tmp_path):
    ca = pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    for text, expected, high_point in families.SMOOTH:
        options = {"reformulation": "products", "epsilon": 1e-8}
        bound, path = written(text, "nl", tmp_path, **options)
        nlp = ca.NlpBuilder()
        nlp.import_nl(str(path))
        problem = {"x": ca.vertcat(*nlp.x), "f": nlp.f, "g": ca.vertcat(*nlp.g)}
        quiet = {"print_time": False, "ipopt.print_level": 0, "ipopt.sb": "yes"}
        solver = ca.nlpsol("solver", "ipopt", problem, quiet)
        point = solver(x0=nlp.x_init, lbx=nlp.x_lb, ubx=nlp.x_ub, lbg=nlp.g_lb, ubg=nlp.g_ub)
        names = path.with_suffix(".col").read_text().split()
        values = dict(zip(names, point["x"].full().flat, strict=True))
        outcome = Outcome("Ipopt", "done", float(point["f"]), values, False)
        holds(compare(bound, "nl", path, outcome), expected, high_point)


def test_casadi_reads_the_functions_that_nl_holds(tmp_path):
    """A second reader of .nl, at points: the objective, every row, and what the products are."""
    ca = pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    rng = np.random.default_rng(0)
    for text in (problems.EXP, problems.BALL, *(t for t, *_ in families.LINEAR[:4])):
        bound, path = written(text, "nl", tmp_path, reformulation="products", epsilon=1e-6)
        nlp = ca.NlpBuilder()
        nlp.import_nl(str(path))
        named = path.with_suffix(".col").read_text().split()
        rows = path.with_suffix(".row").read_text().split()
        read = ca.Function("read", [ca.vertcat(*nlp.x)], [nlp.f, ca.vertcat(*nlp.g)])
        found = kkt(system(bound))
        point = rng.uniform(0.1, 2.0, found.columns.count)
        value = dict(zip(found.columns.names, point, strict=True))
        objective, g = read([value[n] for n in named])
        assert float(objective) == pytest.approx(found.objective.value(point)[0])
        g = dict(zip(rows, g.full().ravel(), strict=True))
        bounds = dict(zip(rows, zip(nlp.g_lb, nlp.g_ub, strict=True), strict=True))
        for pair in found.pairs:
            product = found.slack(pair, point) * point[pair.multiplier]
            name = f"comp.{pair.name}"
            # A constant of the product stands on the other side.
            assert bounds[name][1] - g[name] == pytest.approx(1e-6 - product)


@pytest.mark.parametrize("to", ["lp", "mps"])
def test_highs(to, tmp_path, highs_point):
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, to, tmp_path, **BIG_M)
        outcome = Outcome("HiGHS", "optimal", *highs_point(path))
        holds(compare(bound, to, path, outcome), expected, high_point)


def test_glpk(tmp_path, glpk):
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, "ampl", tmp_path, **BIG_M)
        holds(verify(bound, "ampl", path), expected, high_point)
        _, path = written(text, "lp", tmp_path, **BIG_M)
        assert glpk(path) == pytest.approx(expected, abs=1e-6)


def test_a_second_reader_of_gmpl(tmp_path):
    parse = gmpl_reader.parser()
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, "ampl", tmp_path, **BIG_M)
        value, values = gmpl_reader.optimum(path.read_text(), parse)
        outcome = Outcome("HiGHS", "optimal", value, values)
        holds(compare(bound, "ampl", path, outcome), expected, high_point)


def test_a_second_reader_of_gmpl_data(tmp_path, monkeypatch):
    # The text is the same for every model; Pyomo reads the numbers beside it.
    pyo = pytest.importorskip("pyomo.environ", reason="needs pyomo (pip install pyomo)")
    monkeypatch.setattr("bilevelpy.exporters.languages.ampl.INLINE", 0)
    model = pyo.AbstractModel()
    for name in ("COLUMN", "WHOLE", "ABOVE", "BELOW", "EQUAL", "FROM", "UPTO"):
        model.add_component(name, pyo.Set())
    model.ENTRY = pyo.Set(dimen=2)
    ends = {"low": "FROM", "high": "UPTO", "least": "ABOVE", "most": "BELOW", "exact": "EQUAL"}
    over = {"coefficient": "ENTRY", "cost": "COLUMN", **ends}
    for name, of in over.items():
        model.add_component(name, pyo.Param(getattr(model, of)))
    model.constant = pyo.Param()
    for text, *_ in (*families.LINEAR[:5], (problems.FLOW,)):
        bl.export(bl.parse(text), to="ampl", path=tmp_path / "m.mod", options=BIG_M)
        made = model.create_instance(str(tmp_path / "m.dat"))
        read = {name: dict(made.component(name).extract_values()) for name in over}
        _, path = written(text, "mps", tmp_path, **BIG_M)
        wanted = read_matrix(path)
        assert set(made.COLUMN) == set(wanted.names)
        whole = {n for n, w in zip(wanted.names, wanted.integer, strict=True) if w}
        assert set(made.WHOLE) == whole
        cost = {n: c for n, c in zip(wanted.names, wanted.cost, strict=True) if c}
        assert read["cost"] == pytest.approx(cost)
        named = zip(wanted.row_names, wanted.rows, strict=True)
        entries = {(n, wanted.names[j]): c for n, row in named for j, c in row}
        assert read["coefficient"] == pytest.approx(entries)
        columns = zip(wanted.names, wanted.lower, wanted.upper, strict=True)
        rows = zip(wanted.row_names, wanted.row_lower, wanted.row_upper, strict=True)
        for names, least, most in ((columns, "low", "high"), (rows, "least", "most")):
            for name, low, high in names:
                low_read = read[least].get(name, read["exact"].get(name, -np.inf))
                high_read = read[most].get(name, read["exact"].get(name, np.inf))
                assert (low_read, high_read) == (low, high)


@pytest.mark.skipif(shutil.which("glpsol") is None, reason="needs glpsol (apt install glpk-utils)")
def test_glpsol_runs_the_text(tmp_path):
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, "ampl", tmp_path, **BIG_M)
        done = subprocess.run(
            ["glpsol", "--model", str(path)], capture_output=True, text=True, check=True
        )
        # `display` shows every variable, as `x.val = 4`.
        shown = re.findall(r"^(\w+)(?:\.val)? = (\S+)$", done.stdout, re.MULTILINE)
        values = {name: float(value) for name, value in shown}
        outcome = Outcome("glpsol", "optimal", values["F"], values)
        holds(compare(bound, "ampl", path, outcome), expected, high_point)


@pytest.mark.skipif(shutil.which("glpsol") is None, reason="needs glpsol (apt install glpk-utils)")
def test_glpsol_with_the_data_beside(tmp_path, monkeypatch):
    monkeypatch.setattr("bilevelpy.exporters.languages.ampl.INLINE", 0)
    for k, (text, expected, _) in enumerate(families.LINEAR):
        path = tmp_path / f"{k}.mod"
        bl.export(bl.parse(text), to="ampl", path=path, options=BIG_M)
        data = path.with_suffix(".dat")
        assert "'f.r1' 'y1' " in data.read_text() or "'f.r1' 'y2' " in data.read_text()
        done = subprocess.run(
            ["glpsol", "--model", str(path), "--data", str(data)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        line = next(line for line in done.stdout.splitlines() if line.startswith("F.val"))
        assert float(line.split("=")[1]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.skipif(shutil.which("cbc") is None, reason="needs CBC (apt install coinor-cbc)")
@pytest.mark.parametrize("form", ["sos1", "big-m"])
def test_cbc(form, tmp_path):
    # Not on indicators: CBC 2.10 calls them infeasible.
    for text, expected, high_point in families.LINEAR:
        bound, path = written(text, "lp", tmp_path, reformulation=form, dual_bound=100)
        done = subprocess.run(
            ["cbc", str(path), "solve", "solution", str(tmp_path / "s.txt")],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        first, *lines = (tmp_path / "s.txt").read_text().splitlines()
        assert first.startswith("Optimal"), done.stdout
        # What is not listed is zero.
        values = dict.fromkeys(system(bound).columns.names, 0.0)
        values |= {name: float(value) for _, name, value, *_ in map(str.split, lines)}
        outcome = Outcome("CBC", "optimal", float(first.rpartition(" ")[2]), values)
        holds(compare(bound, "lp", path, outcome), expected, high_point)


def outputs(paths, interpreter, *arguments):
    """What exported programs print, all of them run in one process of the consumer's."""
    driver = (
        "import runpy, sys\n"
        f"for path in {[str(p) for p in paths]!r}:\n"
        f"    sys.argv = [path, *{list(arguments)!r}]\n"
        "    print('==', path)\n"
        "    runpy.run_path(path, run_name='__main__')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(interpreter), "-c", driver],
        capture_output=True, text=True, timeout=250, env=environment, cwd=paths[0].parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split("== ")[1:]


def programs(to, cases, tmp_path, interpreter, *arguments, tolerance=1e-4, **options):
    """Run exported programs, and check what each printed."""
    made = []
    for k, (text, *known) in enumerate(cases):
        model = bl.parse(text)
        path = tmp_path / f"{to}_{k}.py"
        bl.export(model, to=to, path=path, options=options)
        made.append((model.bound, path, known))
    parts = outputs([path for _, path, _ in made], interpreter, *arguments)
    for (bound, path, (expected, high_point)), part in zip(made, parts, strict=True):
        report = compare(bound, to, path, printed(part, to))
        holds(report, expected, high_point, tolerance)


def test_pyomo(tmp_path):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    cases = [*families.LINEAR[:5], *families.QUADRATIC]
    programs("pyomo", cases, tmp_path, sys.executable)


def test_cvxpy(tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    cases = [*families.LINEAR, *families.SMOOTH[:3]]
    programs("cvxpy", cases, tmp_path, sys.executable, "SCIP", dual_bound=1000)


def test_casadi(tmp_path):
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    programs("casadi", families.SMOOTH, tmp_path, sys.executable)


def test_blvpy(tmp_path):
    interpreter = beside("py312", "bin", "python")
    if interpreter is None:
        pytest.skip(f"needs BLVPY (tests/exporters/setup_consumers.sh; {consumers.FOLDER})")
    programs("blvpy", families.SMOOTH, tmp_path, interpreter, "1", tolerance=1e-3)


@pytest.mark.parametrize("to", ["gams-emp", "gams-mpec"])
def test_gams(to, tmp_path):
    for k, (text, expected, high_point) in enumerate(families.SMOOTH):
        model = bl.parse(text)
        path = tmp_path / f"{k}.gms"
        bl.export(model, to=to, path=path)
        try:
            report = consumers.gams(path, "emp=reshop" if to == "gams-emp" else "mpec=nlpec")
        except Missing as missing:
            pytest.skip(f"needs {missing} (proprietary; {consumers.FOLDER})")
        holds(compare(model.bound, to, path, report), expected, high_point)


@pytest.mark.parametrize("to", ["gams-emp", "gams-mpec"])
def test_gams_on_examples_of_the_literature(to, tmp_path):
    # Local solvers: from these starts they find the optimum.
    for text, expected, high_point in ((problems.B88, 17.0, 2.0), (problems.EXP, 0.37143982, 0.0)):
        bound, path = written(text, to, tmp_path)
        report = verify(bound, to, path.rename(path.with_suffix(".gms")))
        if report.passed is None:
            pytest.skip(report.message)
        holds(report, expected, high_point)


@pytest.mark.parametrize(
    ("answer", "status"), [("", None), ("4 0.0\n", "model status 4"), ("14 0.0\n", "status 14")]
)
def test_gams_that_found_nothing_exits_with_0_all_the_same(answer, status, tmp_path, monkeypatch):
    # Status 14: EMP without a solver for it, which says so nowhere else.
    program = tmp_path / "gams"
    writes = f"printf '{answer}' > res.txt" if answer else "true"
    program.write_text(f"#!/bin/sh\n{writes}\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setattr(consumers, "_gams", lambda: str(program))
    bl.export(bl.parse(problems.B88), to="gams-emp", path=tmp_path / "b.gms")
    if status is None:
        with pytest.raises(bl.ExportError, match="did not solve"):
            consumers.gams(tmp_path / "b.gms", "emp=reshop")
        return
    outcome = consumers.gams(tmp_path / "b.gms", "emp=reshop")
    assert outcome.objective is None
    assert status in outcome.status


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_graphs_give_the_numbers_of_the_oracle(to, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript (pip install onnx onnxscript)")
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (pip install onnxruntime)")
    texts = [problems.EXP, problems.BALL, problems.FAMILY, problems.NASH, problems.STACKELBERG]
    # Others of these families differ in numbers alone.
    texts += [families.LINEAR[0][0], families.QUADRATIC[0][0]]
    for text in texts:
        suffix = {"torch": "pt2", "onnx": "onnx"}[to]
        model = bl.parse(text)
        path = tmp_path / f"m.{suffix}"
        bl.export(model, to=to, path=path)
        report = verify(model.bound, to, path)
        assert report.passed, report.message


def test_katex(tmp_path):
    models = [text for text, *_ in problems.KNOWN.values()]
    models += [problems.EXP, problems.BALL, problems.FAMILY, problems.PESSIMISTIC]
    paths = [written(text, "latex", tmp_path, str(k))[1] for k, text in enumerate(models)]
    for form in ("complements", "sos1", "products", "indicators", "strong-duality"):
        for k, (text, *_) in enumerate((*families.LINEAR[:2], *families.QUADRATIC[:2])):
            options = {"reformulation": form, "dual_bound": 100}
            paths.append(written(text, "latex", tmp_path, f"{form}{k}", **options)[1])
    broken = tmp_path / "broken.tex"
    broken.write_text("\\[\n\\foo{\n\\]\n")
    try:
        assert consumers.katex(*paths).status == "accepted"
    except Missing as missing:
        pytest.skip(f"needs {missing}")
    with pytest.raises(bl.ExportError, match="does not take"):
        consumers.katex(broken)


def test_a_lost_follower_is_noticed(tmp_path):
    # What a reader that ignores SOS1 sets would find: the point of the relaxation.
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    text, *_ = families.LINEAR[0]
    bound, path = written(text, "lp", tmp_path)
    content = path.read_text()
    path.write_text(content[: content.index("SOS\n")] + "End\n")
    report = verify(bound, "lp", path)
    assert report.passed is False
    assert "NOT optimal for the follower" in report.message


def test_a_point_within_the_tolerance_of_a_solver_has_a_follower():
    # At x = 4 + 1e-7 the rows leave no y; SCIP is content with violations of 1e-6.
    found = system(bl.parse(problems.P1).bound)
    assert follower_gap(found, np.array([4.0 + 1e-7, 4.0 + 1e-7])) < 1e-5
    assert follower_gap(found, np.array([4.0, 4.0])) < 1e-8
    # (1, 2) is optimal for the follower, (2, 4) is not: y = 1 would do.
    assert follower_gap(found, np.array([1.0, 2.0])) < 1e-8
    assert follower_gap(found, np.array([2.0, 4.0])) == pytest.approx(3.0 / 5.0)
    assert follower_gap(found, np.array([4.1, 4.1])) == np.inf
