"""Files in the part of AMPL that BASBLib is written in, with its conventions for the two levels."""

import math

import pytest

import bilevelpy as bl
from bilevelpy.importers.read import read_text

# Shimizu, Ishizuka, Bard, example 16.1.1, with conditions as the library adds them.
P1 = """\
# a comment
var x >= 0, <= 10;      # leader
var y >= 0, <= 10;
var l{1..2} >= 0;
minimize outer_obj: x - 4*y;
subject to
    inner_obj: y = 0;
    inner_con1: -x - y <= -3;
    inner_con2: -2*x + y <= 0;
    inner_con3: 2*x + y <= 12;
    inner_con4: 3*x - 2*y <= 4;
    stationarity: 1 - l[1] + l[2] = 0;
    complementarity_1: l[1]*(-x - y + 3) = 0;;
"""
TABLES = """\
param rate := 2;
param half := rate/4;
set I := {1..3};
set J := 1..2;
param low{I};
param high{I};
var x{i in I} >= low[i], <= high[i];
var y{j in J} >= 0, <= 5 integer;
minimize outer_obj: sum {i in I} -x[i]^2 + rate*sum {j in J} y[j]*half;
subject to
outer_con{j in J}: y[j] <= x[j];
outer_box: -1 <= x[1] - x[2] <= 1;
inner_obj: sum {j in J} (y[j] - x[j])^2 - -2*y[1]^2**2 / (1 + exp(-x[3])) = 0;
data;
param low := 1 0 2 0.5
  3 -1;
param high := 1 4 2 4 3 4;
end;
"""


def file(tmp_path, text, name="p1.mod"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_file_becomes_a_readable_model(tmp_path):
    text = read_text(file(tmp_path, P1))
    assert text == (
        "# imported from p1.mod\n"
        "# left out: 2 rows of optimality conditions and their multipliers\n"
        "model p1;\n\n"
        "upper {\n  var x in [0, 10];\n  minimize x - 4*y;\n}\n\n"
        "lower follower {\n  var y in [0, 10];\n  minimize y;\n  subject to\n"
        "    inner_con1: -x - y <= -3;\n    inner_con2: -2*x + y <= 0;\n"
        "    inner_con3: 2*x + y <= 12;\n    inner_con4: 3*x - 2*y <= 4;\n}\n"
    )


def test_it_is_solved_to_the_known_optimum(tmp_path):
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    result = bl.solve(bl.read(file(tmp_path, P1)))
    assert result.success
    assert pytest.approx(-12.0) == result.F


def test_tables_sets_and_sums(tmp_path):
    text = read_text(file(tmp_path, TABLES, "tables.mod"))
    assert "param low[3] = [0, 0.5, -1];" in text
    assert "var x[3] in [low, 4];" in text
    assert "var y[2] in integers(0, 5);" in text
    assert "minimize sum(-x[i]^2 for i in 1..3) + rate*sum(y[j]*half for j in 1..2);" in text
    assert "outer_con[j in 1..2]: y[j] <= x[j];" in text
    assert "outer_box: -1 <= x[1] - x[2] <= 1;" in text
    model = bl.parse(text)
    x, y = [1.0, 2.0, 3.0], [2.0, 1.0]
    oracle = bl.compile(bl.parse(text.replace("integers(0, 5)", "[0, 5]")))
    # AMPL: powers bind to the right, a sum takes the factors behind it.

    assert oracle.F(x, y) == pytest.approx(-14.0 + 2 * (2 * 0.5 + 1 * 0.5))
    f = 1.0 + 1.0 + 2 * 2.0**4 / (1 + math.exp(-3.0))
    assert oracle.f(x, y) == pytest.approx(f)
    assert model.program.lowers[0].name == "follower"


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("var y >= 0", "var y => 0"), 3, "no sign"),
        (("<= 12;", "<= 12"), 11, "not expected"),
        (("x - 4*y", "x - 4*w"), 5, "`w` is not declared"),
        (("3*x - 2*y", "erf(x) - 2*y"), 11, "the function `erf`"),
        (("minimize outer", "minimise outer"), 5, "not expected"),
        (("inner_obj: y = 0", "inner_obj: y <= 0"), 7, "is an equation"),
        (("inner_obj: y = 0", "inner_obj: y = 1"), 7, "right side"),
        (("inner_con1", "con1"), 8, "neither outer nor inner"),
        (("inner_con1: -x", "inner_con1: -l[1]"), 4, "neither x (upper) nor y (lower)"),
        (("var x >= 0", "var x >= lo"), 2, "a number is wanted"),
        (("var x", "var y"), 3, "declared twice"),
        (("inner_obj", "inner_con0"), 1, "inner_obj"),
        (("minimize outer_obj: x - 4*y;", ""), 1, "no objective"),
        (("var x", "var $x"), 2, "no sign"),
        (("inner_con2", "inner_con1"), 9, "row `inner_con1` is listed twice"),
        (("<= 12;", "<= 1e999;"), 10, "1e999 is beyond 1.8e308"),
        (("x - 4*y", "-" * 5000 + "x"), 5, "nested too deeply"),
        (("x - 4*y", "(" * 5000 + "x + " + "-(x + " * 5000 + "x" + ")" * 10_000), 5, "too deeply"),
    ],
)
def test_what_cannot_be_read(change, line, message, tmp_path):
    assert change[0] in P1
    with pytest.raises(bl.ModelError) as caught:
        bl.read(file(tmp_path, P1.replace(*change, 1)))
    assert message in str(caught.value)
    assert f"p1.mod:{line}:" in str(caught.value)


def test_long_sums_are_read(tmp_path):
    long = "+".join(["x"] * 20_000)
    text = read_text(file(tmp_path, P1.replace("x - 4*y", long).replace("<= 12", f"<= {long}")))
    assert text.count("x + x") > 10_000
    number = "-".join(["1"] * 5000)
    assert "x in [-4998, 10]" in read_text(file(tmp_path, P1.replace("x >= 0", f"x >= {number}")))


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems(end, tmp_path):
    path = tmp_path / "p1.mod"
    path.write_bytes(P1.replace("\n", end).encode())
    assert read_text(path) == read_text(file(tmp_path, P1, "p1.mod"))
    path.write_bytes(P1.replace("4*y", "4*w").replace("\n", end).encode())
    with pytest.raises(bl.ModelError, match=r"p1\.mod:5:"):
        bl.read(path)


def test_faults_in_the_text_that_is_made_of_a_file_name_the_file(tmp_path):
    with pytest.raises(bl.ModelError, match=r"this is what .*p1\.mod says, written as a model"):
        bl.read(file(tmp_path, P1.replace("var x >= 0", "var x >= 20")))


def test_tables_need_all_their_values(tmp_path):
    with pytest.raises(bl.ModelError, match="no value for 3"):
        read_text(file(tmp_path, TABLES.replace("3 -1", "")))
    with pytest.raises(bl.ModelError, match="take turns"):
        read_text(file(tmp_path, TABLES.replace("3 -1", "3")))
    with pytest.raises(bl.ModelError, match="elements"):
        read_text(file(tmp_path, TABLES.replace("{1..3}", "{1..3000000}")))
