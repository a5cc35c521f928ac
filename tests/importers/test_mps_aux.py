"""MPS with AUX in all spellings; broken files are refused with their line."""

import gzip
import math
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import bilevelpy as bl
from bilevelpy.importers.mps_file import _matrix
from bilevelpy.importers.read import read_text
from bilevelpy.reductions.rows import system

pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
SHARED = Path(__file__).parents[3] / "shared" / "problems"

MPS = """\
NAME p1
ROWS
 N OBJ
 L c1
 L c2
 L c3
 L c4
COLUMNS
    M1 'MARKER' 'INTORG'
    x OBJ 1 c1 -1
    x c2 -2 c3 2
    x c4 3
    M2 'MARKER' 'INTEND'
    y OBJ -4 c1 -1
    y c2 1 c3 1
    y c4 -2
RHS
    RHS c1 -3 c3 12
    RHS c4 4
BOUNDS
 LO BND x 0
 UP BND x 10
 PL BND y
ENDATA
"""
NAMED = """\
@NUMVARS
1
@{count}
4
@VARSBEGIN
y 1.0
@VARSEND
@{begin}
c1
c2
c3
c4
@{end}
@NAME
P1
@MPS
elsewhere/p1.mps
"""
INDEXED = "N 1\nM 4\nLC 1\nLR 0\nLR 1\nLR 2\nLR 3\nLO 1.0\nOS 1\n"
SPELLINGS = [
    ("NUMCONSTRS", "CONSTRSBEGIN", "CONSTRSEND"),
    ("NUMCONSTR", "CONSTRBEGIN", "CONSTREND"),
    ("NUMCONSTR", "CONSTSBEGIN", "CONSTSEND"),
]


def named(spelling=SPELLINGS[0]):
    return NAMED.format(count=spelling[0], begin=spelling[1], end=spelling[2])


def files(tmp_path, mps=MPS, aux=None):
    (tmp_path / "p1.mps").write_text(mps)
    (tmp_path / "p1.aux").write_text(named() if aux is None else aux)
    return tmp_path / "p1.mps"


def content(model):
    found = system(model.bound)
    return (
        found.columns.names,
        found.columns.lower.tolist(),
        found.columns.upper.tolist(),
        found.columns.integer.tolist(),
        found.objective.linear.toarray().tolist(),
        float(found.objective.constant[0]),
        found.lower_objectives.linear.toarray().tolist(),
        [
            (rows.functions.linear.toarray().tolist(), rows.lower.tolist(), rows.upper.tolist())
            for rows in (found.upper_rows, found.lower_rows)
        ],
    )


@pytest.mark.parametrize(
    "aux", [*(named(s) for s in SPELLINGS), INDEXED, named() + "@OBJSENSE\nMIN\n"]
)
def test_spellings(aux, tmp_path):
    assert content(bl.read(files(tmp_path, aux=aux))) == content(bl.read(files(tmp_path)))


@pytest.mark.parametrize("aux", [named() + "@OBJESENSE\nMAX\n", INDEXED.replace("OS 1", "OS -1")])
def test_the_follower_may_maximise(aux, tmp_path):
    assert "maximize y" in read_text(files(tmp_path, aux=aux))


def test_the_text_is_readable(tmp_path):
    text = read_text(files(tmp_path))
    assert "  var x in integers(0, 10);\n  minimize x - 4*y;" in text
    assert "    c2: -2*x + y <= 0;" in text


def test_compressed_files(tmp_path):
    path = files(tmp_path)
    packed = tmp_path / "p1.mps.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert content(bl.read(packed)) == content(bl.read(path))


def test_exported_and_read_again(tmp_path):
    model = bl.read(files(tmp_path))
    bl.export(model, to="mps-aux", path=tmp_path / "out.mps")
    for aux in ("out.aux", "out.index.aux"):
        again = bl.read(tmp_path / "out.mps", aux=tmp_path / aux)
        assert content(again)[1:] == content(model)[1:]
    assert "@NUMCONSTRS\n4\n@VARSBEGIN\ny 1\n@VARSEND\n@CONSTRSBEGIN\n" in (
        (tmp_path / "out.aux").read_text()
    )


def test_mibs_needs_whole_linking_variables(tmp_path):
    model = bl.read(
        files(
            tmp_path,
            mps=MPS.replace("    M1 'MARKER' 'INTORG'\n", "").replace(
                "    M2 'MARKER' 'INTEND'\n", ""
            ),
        )
    )
    with pytest.raises(bl.ExportError, match=r"BLV0709[\s\S]*`x` is continuous"):
        bl.export(model, to="mps-aux", path=tmp_path / "no.mps")
    assert not (tmp_path / "no.mps").exists()


def test_the_collection_survives_a_round_trip(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the standard problems (../shared/problems) are not here")
    for path in sorted((SHARED / "mps_aux").glob("*.mps")):
        model = bl.read(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            bl.export(model, to="mps-aux", path=tmp_path / "m.mps", options={"force": True})
        for aux in ("m.aux", "m.index.aux"):
            again = bl.read(tmp_path / "m.mps", aux=tmp_path / aux)
            assert content(again)[1:] == content(model)[1:], path.name


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("y 1.0", "y one"), 6, "`one` is not a number"),
        (("y 1.0", "w 1.0"), 6, "no column `w`"),
        (("y 1.0", "y"), 6, "column `y` has no cost"),
        (("\nc4\n", "\nc9\n"), 12, "no row `c9`"),
        (("@NUMCONSTRS\n4", "@NUMCONSTRS\n3"), 4, "3 rows are announced, 4 are listed"),
        (("@CONSTRSEND", ""), 14, "not closed"),
        (("@NAME", "@NAMES"), 14, "no keyword"),
        (("c2\n", "c1\n"), 10, "listed twice"),
        (("@NAME", "@NUMVARS\n2\n@NAME"), 14, "a second `@NUMVARS`"),
    ],
)
def test_broken_aux_files(change, line, message, tmp_path):
    with pytest.raises(bl.ModelError) as caught:
        bl.read(files(tmp_path, aux=named().replace(*change)))
    assert message in str(caught.value)
    assert f"p1.aux:{line}:" in str(caught.value)


@pytest.mark.parametrize(
    "aux",
    [
        "",
        "N 1\nM 4\n",
        "LC 1\nLC 0\nLO 1\n",
        "N x\n",
        "IC 1\n",
        "@VARSBEGIN\n",
        INDEXED + "OS -1\n",
        INDEXED.replace("OS 1", "OS 7"),
    ],
)
def test_incomplete_aux_files(aux, tmp_path):
    with pytest.raises(bl.ModelError):
        bl.read(files(tmp_path, aux=aux))


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("ENDATA\n", ""), 23, "without ENDATA"),
        (("x c4 3", "x c4 three"), 12, "`three` is not a number"),
        (("x c4 3", "x c7 3"), 12, "no row `c7`"),
        (("BOUNDS", "LIMITS"), 20, "no section"),
        (("BOUNDS", "SOS"), 20, "SOS sets"),
        ((" L c1", " Q c1"), 4, "its kind"),
        ((" PL BND y", " XX BND y"), 23, "no kind of bound"),
        ((" PL BND y", " UP BND y -2"), 23, "no lower one before it"),
        ((" PL BND y", " PL BND w"), 23, "no column `w`"),
        ((" PL BND y", " SC BND y 4"), 23, "semi-continuous"),
        ((" LO BND x 0", " LO BND x 20"), 22, "no value lies between the bounds 20 and 10"),
        ((" L c1", " L c1 extra"), 4, "one word"),
        ((" L c2", " L c1"), 5, "listed twice"),
        (("    x c4 3", "    x c4 3\n    x c4 3"), 13, "second entry in row `c4`"),
        (("    y c4 -2", "    y c4 -2\n    x c4 1"), 17, "do not stand together"),
        (("x c4 3", "x c4 inf"), 12, "no finite number"),
        (("x c4 3", "x c4 3d0"), 12, "is not a number"),
        (("    x c2 -2", "    x a c2 -2"), 11, "take turns"),
        (("ROWS", "OBJSENSE\n    UPWARDS\nROWS"), 3, "neither MIN nor MAX"),
        (("BOUNDS", "RANGES\n    RNG c9 3\nBOUNDS"), 21, "no row `c9`"),
        # Python would read 1000 and 3 where HiGHS reads 1 and nothing.
        (("x c4 3", "x c4 1_000"), 12, "`1_000` is not a number"),
        (("x c4 3", "x c4 \u0663"), 12, "is not a number"),
        (("x c4 3", f"x c4 {'9' * 4000}"), 12, f"`{'9' * 37}...` is no finite number"),
        # Some readers take the first of two, others the last.
        (("    RHS c4 4", "    RHS c4 4\n    RHS c1 5"), 20, "second RHS of row `c1`"),
        ((" PL BND y", " UP BND x 7"), 23, "second upper bound of column `x`"),
        ((" PL BND y", " FX BND x 3"), 23, "second lower bound of column `x`"),
    ],
)
def test_broken_mps_files(change, line, message, tmp_path):
    with pytest.raises(bl.ModelError) as caught:
        bl.read(files(tmp_path, mps=MPS.replace(*change)))
    assert message in str(caught.value)
    assert f"p1.mps:{line}:" in str(caught.value)


BOUNDS = [
    (" FR BND y", (-math.inf, math.inf)),
    (" MI BND y\n UP BND y -2", (-math.inf, -2.0)),
    (" LO BND y -3\n UP BND y -2", (-3.0, -2.0)),
    (" FX BND y -1", (-1.0, -1.0)),
    (" UP y 4", (0.0, 4.0)),
    (" PL y", (0.0, math.inf)),
    (" UP BND y 1e30", (0.0, math.inf)),
]


@pytest.mark.parametrize(("lines", "ends"), BOUNDS)
def test_kinds_of_bounds(lines, ends, tmp_path):
    found = system(bl.read(files(tmp_path, mps=MPS.replace(" PL BND y", lines))).bound)
    assert (found.columns.lower[1], found.columns.upper[1]) == ends


@pytest.mark.parametrize(("kind", "ends"), [("LI", (1.0, math.inf)), ("UI", (0.0, 1.0))])
def test_bounds_of_whole_numbers(kind, ends, tmp_path):
    mps = MPS.replace(" LO BND x 0\n UP BND x 10", f" {kind} BND x 1")
    found = system(bl.read(files(tmp_path, mps=mps)).bound)
    assert (found.columns.lower[0], found.columns.upper[0]) == ends
    assert found.columns.integer[0]


@pytest.mark.parametrize(
    ("kind", "width", "ends"),
    [("L", 3, (9, 12)), ("G", 3, (12, 15)), ("E", 3, (12, 15)), ("E", -3, (9, 12))],
)
def test_ranges(kind, width, ends, tmp_path):
    mps = MPS.replace(" L c3", f" {kind} c3").replace(
        "BOUNDS", f"RANGES\n    RNG c3 {width}\nBOUNDS"
    )
    rows = system(bl.read(files(tmp_path, mps=mps)).bound).lower_rows
    assert (rows.lower[2], rows.upper[2]) == ends


@pytest.mark.parametrize("sense", ["OBJSENSE\n    MAX\n", "OBJSENSE MAXIMIZE\n", "OBJSENSE MAX\n"])
def test_sense_and_constant_of_the_objective(sense, tmp_path):
    mps = MPS.replace("ROWS", sense + "ROWS").replace("    RHS c4 4", "    RHS c4 4 OBJ -7")
    assert "maximize x - 4*y + 7;" in read_text(files(tmp_path, mps=mps))


def test_rows_without_ends_have_no_position(tmp_path):
    mps = MPS.replace(" L c3", " N free\n L c3").replace("    y c2 1", "    y c2 1 free 5")
    mps = mps.replace("    y c2 1 free 5 c3 1", "    y c2 1 free 5\n    y c3 1")
    for aux in (INDEXED, named()):
        assert content(bl.read(files(tmp_path, mps, aux))) == content(bl.read(files(tmp_path)))
        files(tmp_path)


def test_marks_and_line_ends_of_other_systems(tmp_path):
    path = files(tmp_path)
    wanted = content(bl.read(path))
    for ending, mark in (("\r\n", ""), ("\n", "\ufeff"), ("\r\n", "\ufeff"), ("\r", "")):
        for place, text in ((path, MPS), (path.with_suffix(".aux"), named())):
            place.write_bytes((mark + text.replace("\n", ending)).encode())
        assert content(bl.read(path)) == wanted
    text = read_text(lp_files(tmp_path))
    lp_files(tmp_path).write_bytes(("\ufeff" + LP).encode())
    assert read_text(tmp_path / "p1.lp") == text


def test_missing_files(tmp_path):
    path = files(tmp_path)
    other = (tmp_path / "p1.aux").rename(tmp_path / "other.aux")
    with pytest.raises(bl.UsageError, match="AUX file"):
        bl.read(path)
    with pytest.raises(bl.UsageError, match="cannot read"):
        bl.read(tmp_path / "none.mps", aux=other)
    with pytest.raises(bl.UsageError, match="end in"):
        bl.read(tmp_path / "model.xls")


KNAPSACK = """\
NAME knapsack
ROWS
 N OBJ
 L cap
COLUMNS
    M1 'MARKER' 'INTORG'
    a OBJ -6 cap 2
    b OBJ -5 cap 3
    c OBJ -4 cap 2
    M2 'MARKER' 'INTEND'
RHS
    RHS cap 5
BOUNDS
 BV BND a
 BV BND b
 BV BND c
ENDATA
"""
CUTS = "N 3\nM 1\nLC 0\nLC 1\nLC 2\nLR 0\nLO 6\nLO 5\nLO 4\nOS -1\nIC 1\nIC 2\nIC 1\nIB 1\n"


def test_interdiction(tmp_path):
    # Without a: b and c for 9; without c: a and b for 11; b costs more than the budget.
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    text = read_text(files(tmp_path, KNAPSACK, CUTS))
    assert "budget: cut_a + 2*cut_b + cut_c <= 1;" in text
    assert "open_b: b + cut_b <= 1;" in text
    assert "not opposite" not in text
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(-9.0) == result.F
    assert result["cut_a"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mps", "aux", "line", "message"),
    [
        (KNAPSACK, CUTS.replace("IB 1\n", ""), 11, "need its budget"),
        (KNAPSACK, CUTS.replace("IC 2\n", ""), 11, "2 costs of interdiction"),
        (KNAPSACK, CUTS.replace("IC 2", "IC two"), 12, "not a number"),
        (KNAPSACK.replace(" BV BND b", " PL BND b"), CUTS, 12, "no upper bound"),
        (KNAPSACK.replace(" BV BND b", " FX BND b 1"), CUTS, 12, "positive lower bound"),
        (
            KNAPSACK,
            "N 2\nM 1\nLC 0\nLC 1\nLR 0\nLO 6\nLO 5\nOS -1\nIC 1\nIC 1\nIB 1\n",
            11,
            "every column",
        ),
    ],
)
def test_broken_interdiction_files(mps, aux, line, message, tmp_path):
    with pytest.raises(bl.ModelError) as caught:
        bl.read(files(tmp_path, mps, aux))
    assert message in str(caught.value)
    assert f"p1.aux:{line}:" in str(caught.value)


LP = """\\ a comment
Minimize
 obj: x - 4 y
Subject To
 c1: - x - y <= -3
 c2: - 2 x + y <= 0
 c3: 2 x + y <= 12
 c4: 3 x - 2 y <= 4
Bounds
 0 <= x <= 10
General
 x
End
"""


def lp_files(tmp_path, text=LP):
    (tmp_path / "p1.lp").write_text(text)
    (tmp_path / "p1.aux").write_text(named().replace("@MPS", "@LP"))
    return tmp_path / "p1.lp"


def test_lp_files_mean_the_same_as_mps_files(tmp_path):
    assert content(bl.read(lp_files(tmp_path))) == content(bl.read(files(tmp_path)))


@pytest.mark.parametrize("place", [("x - 4 y", "x-4y+0q"), (" 0 <= x", " q<=3\n 0 <= x")])
def test_whole_numbers_without_a_row_are_known_by_objective_or_bound(place, tmp_path):
    text = LP.replace(*place).replace("General\n x", "General\n x\n q")
    assert "q in integers(0, " in read_text(lp_files(tmp_path, text))


@pytest.mark.parametrize("text", ["c3: 2x+1.0e0 y", "c3: 2\n x + y + 0", "c3: + 2 x - - y"])
def test_rows_of_lp_files_may_be_written_in_many_ways(text, tmp_path):
    changed = LP.replace("c3: 2 x + y", text)
    assert content(bl.read(lp_files(tmp_path, changed))) == content(bl.read(files(tmp_path)))


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("End\n", ""), 12, "without End"),
        (("End", "SOS\n s1: S1:: x:1 y:2\nEnd"), 13, "SOS sets"),
        (("General", "Semi"), 11, "semi-continuous"),
        (("General\n x", "General\n x q"), 12, "`q` stands in no row, bound or objective"),
        ((" c2: -", " c2: x = 1 -> -"), 6, "indicator"),
        (("c3: 2 x", "c3: 2 <= x"), 7, "two ends"),
        (("3 x - 2 y", "3 x + [ y ^2 ]"), 8, "quadratic row"),
        (("3 x - 2 y", "3 x - 2 y + 3"), 8, "a number without a variable"),
        (("c3: 2 x + y", "c3: 1e+1 + 2 x\n + y"), 7, "a number without a variable"),
        (("<= 4", "<= y"), 13, "does not take"),
        ((" 0 <= x <= 10", " x <= -2"), 10, "no value lies between the bounds 0 and -2"),
        (("Bounds", "Lazy Constraints\n c7: x <= 3\nBounds"), 9, "lazy constraints"),
    ],
)
def test_broken_lp_files(change, line, message, tmp_path):
    with pytest.raises(bl.ModelError) as caught:
        bl.read(lp_files(tmp_path, LP.replace(*change)))
    assert message in str(caught.value)
    assert f"p1.lp:{line}:" in str(caught.value)


class Looks:
    """Forwards to an object and counts what is asked of it."""

    def __init__(self, of):
        self.of, self.counts = of, Counter()

    def __getattr__(self, name):
        self.counts[name] += 1
        return getattr(self.of, name)


def test_names_are_taken_over_once(tmp_path):
    """Each look at the names copies all of them."""
    import highspy._core

    path = files(tmp_path)
    highs = highspy._core._Highs()
    highs.setOptionValue("output_flag", False)
    highs.readModel(str(path))
    model = highs.getModel()
    lp = Looks(model.lp_)
    shown = SimpleNamespace(lp_=lp, hessian_=model.hessian_)
    found = _matrix(SimpleNamespace(getModel=lambda: shown))
    assert found.names[0] == "x"
    assert lp.counts["col_names_"] == 1
    assert lp.counts["row_names_"] == 1
