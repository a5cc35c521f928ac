"""Large models of both levels: the tables beside the text mean what the rows mean one by one."""

import re
import runpy
import sys

import families as known
import numpy as np
import problems
import pytest
from test_bileveljump import errors  # noqa: F401 - a fixture
from test_consumers import programs
from test_loops import LOGISTIC, RIDGE, data

import bilevelpy as bl
from bilevelpy.exporters import consumers
from bilevelpy.exporters.verify import verify
from bilevelpy.reductions.rows import system

# Families, whole numbers, equations, open ends on both sides, squares in rows.
TEXTS = [problems.P1, problems.B88, problems.DEMPE, problems.TOLL, problems.FLOW, problems.FAMILY]
TEXTS += [text for text, *_ in (*known.LINEAR[:3], *known.QUADRATIC[:3])]


@pytest.fixture(autouse=True)
def looped(monkeypatch):
    """Tables for models of any size."""
    for module in ("loops", "python.cvxpy_script"):
        monkeypatch.setattr(f"bilevelpy.exporters.{module}.LARGE", -1)


def sign(text):
    return -1 if "maximize" in text.partition("\nlower")[0] else 1


def test_cvxpy(tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    cases = [*known.LINEAR, *known.SMOOTH[:2]]
    programs("cvxpy", cases, tmp_path, sys.executable, "SCIP", dual_bound=1000)
    assert "quad_form" in (tmp_path / "cvxpy_10.py").read_text()
    assert "integer=True" in (tmp_path / "cvxpy_0.py").read_text()


def test_blvpy(tmp_path):
    interpreter = consumers.beside("py312", "bin", "python")
    if interpreter is None:
        pytest.skip(f"needs BLVPY (tests/exporters/setup_consumers.sh; {consumers.FOLDER})")
    ball = (problems.BALL, 0.0134132, 0.0)
    programs("blvpy", [*known.SMOOTH[:5], ball], tmp_path, interpreter, "2", tolerance=1e-3)


def test_rows_keep_their_squares(tmp_path):
    # The row is nothing but its square part, which stands in a table of its own.
    bl.export(bl.parse(problems.BALL), to="blvpy", path=tmp_path / "m.py")
    assert "between(body + form(k), low, high)" in (tmp_path / "m.py").read_text()
    with np.load(tmp_path / "m.npz") as content:
        assert content["form_value"].tolist() == [1.0, 1.0]
        assert content["r1_high"].tolist() == [1.0]


def test_blvpy_refuses_followers_that_are_not_disciplined(tmp_path):
    text = (
        "model m; upper { var s in [0, 3]; minimize (w - 2)^2; } "
        "lower f { var w in [-5, 5]; minimize (w - 1)^2 + exp(s) * w^2; }"
    )
    with pytest.raises(bl.ExportError, match=r"BLV0701[\s\S]*disciplined"):
        bl.export(bl.parse(text), to="blvpy", path=tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


# `flow`: products of multipliers without bounds, on which SCIP branches for minutes.
@pytest.mark.parametrize("name", [n for n in problems.KNOWN if n != "flow"])
def test_blv(name, tmp_path, scip):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    text, expected, _ = problems.KNOWN[name]
    written = bl.export(bl.parse(text), to="blv", path=tmp_path / "m.blv")
    assert [p.name for p in written] == ["m.data.npz", "m.data.json", "m.blv"]
    model = bl.load(tmp_path / "m.blv", data=[str(p) for p in written[:2]])
    assert model.warnings == ()
    bl.export(model, to="nl", path=tmp_path / "m.nl")
    assert sign(text) * scip(tmp_path / "m.nl")[1] == pytest.approx(expected, rel=1e-5)


def test_gams_emp(tmp_path):
    cases = [(t, e) for t, e, _ in known.SMOOTH[:4]]
    cases += [(problems.DEMPE, 6.1333333), (problems.FAMILY, 0.2136363), (problems.TOLL, None)]
    for text, expected in cases:
        model, path = bl.parse(text), tmp_path / "m.gms"
        bl.export(model, to="gams-emp", path=path)
        report = verify(model.bound, "gams-emp", path)
        if report.passed is None and "GAMS:" not in report.message:
            pytest.skip(report.message)
        assert report.passed, report.message
        # A local solver: in TOLL some other toll is locally the best.
        assert expected is None or pytest.approx(expected, rel=1e-4) == report.F


def test_gams_emp_says_what_belongs_to_whom(tmp_path):
    bl.export(bl.parse(problems.FAMILY), to="gams-emp", path=tmp_path / "m.gms")
    text, included = (tmp_path / "m.gms").read_text(), (tmp_path / "m.inc").read_text()
    assert "f1_(i)$(ord(i) <= 3).. f1_value(i) =e= " in text
    assert "bilevel v('0')\nmin f1_value('0') v('1') v('2') v('7') f1_('0') " in included
    assert "min f1_value('1') v('3') v('4') f1_('1') " in included


@pytest.mark.parametrize("text", [*TEXTS, problems.EXP, problems.BALL], ids=lambda t: t.split()[1])
def test_sympy(text, tmp_path):
    model, path = bl.parse(text), tmp_path / "m.py"
    bl.export(model, to="sympy", path=path)
    found, space = system(model.bound), runpy.run_path(str(path))
    point = np.random.default_rng(0).uniform(0.1, 2.0, found.columns.count)
    values = dict(zip(space["v"], point.tolist(), strict=True))
    assert [str(s) for s in space["v"]] == list(found.columns.names)
    assert [str(s) for s in space["x"]] == [found.columns.names[j] for j in found.upper_columns]
    assert float(space["F"].subs(values)) == pytest.approx(found.objective.value(point)[0])
    f = [float(value.subs(values)) for value in space["f"]]
    assert f == pytest.approx(found.lower_objectives.value(point))
    for name, rows in (("G", found.upper_rows), ("g", found.lower_rows)):
        ends = dict(zip(rows.names, zip(rows.lower, rows.upper, strict=True), strict=True))
        value = dict(zip(rows.names, rows.functions.value(point), strict=True))
        assert {row[0] for row in space[name]} == set(rows.names)
        for row, expression, low, high in space[name]:
            assert (low, high) == ends[row]
            assert float(expression.subs(values)) == pytest.approx(value[row])


class Counted(list):
    """Julia counts from 1."""

    def __getitem__(self, k):
        return super().__getitem__(k - 1)


def test_bileveljump(tmp_path, errors):  # noqa: F811 - a fixture
    for text in [t for t in TEXTS if "model family" not in t]:
        model, path = bl.parse(text), tmp_path / "m.jl"
        bl.export(model, to="bileveljump", path=path)
        found, shown = system(model.bound), path.read_text()
        assert errors(shown) == []
        lines = (line.split("\t") for line in path.with_suffix(".dat").read_text().splitlines())
        tables = {name: entries for name, *entries in lines}
        assert tables["name"] == list(found.columns.names)
        point = np.random.default_rng(0).uniform(0.1, 2.0, found.columns.count)
        space = {"v": Counted(point.tolist()), "i": 1}
        for name, kind in re.findall(r'^(\w+) = (?:numbers|places)\("(\w+)"\)', shown, re.M):
            space[name] = Counted(float(e) if "." in e else int(e) if e[-1].isdigit() else float(e)
                                  for e in tables[kind])  # fmt: skip

        def value(body, space=space, **index):
            body = re.sub(r" in (\S+):(\S+?)-1\)", r" in range(\1, \2))", body.replace("^", "**"))
            return eval(body, {**space, **index})

        for level, functions in (("Upper", found.objective), ("Lower", found.lower_objectives)):
            body = re.search(rf"@objective\({level}\(model\), Min, (.*)\)$", shown, re.M)[1]
            assert value(body) == pytest.approx(functions.value(point)[0])
        rows = {"Upper": {}, "Lower": {}}
        loop = r"for i in 1:(\d+)\n    between\((\w+)\(model\), t\[\"(\w+)_name\"\]\[i\], (.*), "
        for count, level, label, body in re.findall(loop + r"\w+\[i\], \w+\[i\]\)\nend", shown):
            for i in range(1, int(count) + 1):
                ends = (space[f"{label}_low"][i], space[f"{label}_high"][i])
                rows[level][tables[f"{label}_name"][i - 1]] = (value(body, i=i), *ends)
        for level, expected in (("Upper", found.upper_rows), ("Lower", found.lower_rows)):
            assert set(rows[level]) == set(expected.names)
            numbers = zip(expected.functions.value(point), expected.lower, expected.upper,
                          strict=True)  # fmt: skip
            for name, wanted in zip(expected.names, numbers, strict=True):
                assert rows[level][name] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("to", "ending", "beside"),
    [
        ("gams-emp", ".gms", [".inc"]),
        ("blvpy", ".py", [".npz"]),
        ("sympy", ".py", [".npz"]),
        ("blv", ".blv", [".npz", ".json"]),
        ("bileveljump", ".jl", [".dat"]),
    ],
)
def test_data_stands_beside_the_text(to, ending, beside, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("bilevelpy.exporters.loops.LARGE", 2_000)
    sizes = []
    text, features = (RIDGE, (60, 70)) if to == "bileveljump" else (LOGISTIC, (8, 9))
    for p in features:
        path = tmp_path / f"m{ending}"
        written = bl.export(bl.parse(text, data=data(100, p)), to=to, path=path)
        assert [w.suffix for w in written] == [*beside, ending]
        sizes.append(path.stat().st_size)
    assert sizes[1] < 5_000
    assert abs(sizes[1] - sizes[0]) < 100
