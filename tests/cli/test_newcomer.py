"""What a newcomer types, and what the program answers: where, what, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bilevelpy.cli.main import main

UPPER = "upper { var x in [0, 1] start 0; minimize x + y; }\n"
LOWER = "lower low { var y; minimize (y - x)^2; }\n"
# A slip in a correct model (what is written in place of what), and the words that help.
SLIPS = {
    "(0, 1)": ("[0, 1]", "an interval stands in square brackets: `[low, high]`"),
    "[0, 1,000]": ("[0, 1]", "thousands are not set apart: `1000`"),
    "minimize 0,5*x + y": ("minimize x + y", "decimals have a point: `0.5`"),
    "minimize x + 40% * y": ("minimize x + y", "per cent are written as a fraction: `0.4`"),
    "minimize |x|": ("minimize x + y", "an absolute value is written `abs(x)`"),
    "minimize x if x > 0 else y": ("minimize x + y", "written `if condition then a else b`"),
    "np.exp(y - x)": ("(y - x)^2", "functions stand by themselves: `exp(...)`"),
    "sum(x.T)": ("(y - x)^2", "the transpose is written `x'`"),
    "sum(c[i])": ("(y - x)^2", "an index says over what it runs: `sum(... for i in S)`"),
    "minimize 9e999 * x": ("minimize x + y", "beyond 1.8e308"),
    "minimise x + y": ("minimize x + y", "`minimise` is not a keyword, `minimize` is"),
    "Upper {": ("upper {", "`Upper` is not a keyword, `upper` is"),
    "max x + y": ("minimize x + y", "`max` is not a keyword, `maximize` is"),
    "(y - x)**2": ("(y - x)^2", "`**` is written `^`"),
    "minimize 2x + y": ("minimize x + y", "insert `*` after `2`"),
    "var x >= 0;": ("var x in [0, 1] start 0;", "bounds are a domain: `x in [low, high]`"),
    "var x := 3;": ("var x in [0, 1] start 0;", "`:=` is written `=`"),
    "minimize x + y; s.t. a: x >= 0;": ("minimize x + y;", "replace `s.t.` with `subject to`"),
    "minimize x + y; subject to x >= 0;": ("minimize x + y;", "write `name: left <= right;`"),
    "minimize x + y; subject to a: x = 0;": ("minimize x + y;", "replace `=` with `==`"),
    "minimize x + y; subject to a: x < 1;": ("minimize x + y;", "replace `<` with `<=`"),
    "minimize x + y }": ("minimize x + y; }", "insert `;`"),
    "[1, 0]": ("[0, 1]", "the smaller bound comes first"),
    "start 5": ("start 0", "outside its domain [0, 1]"),
    "minimize x + z": ("minimize x + y", "unknown name `z`"),
    "// a comment\nupper {": ("upper {", "comments start with `#`, not with `//`"),
    "minimize x + dual(low.c)": ("minimize x + y", "this file has no constraint in a `lower`"),
    "minimize if y > 0 then x else y": ("minimize x + y", "a condition reads data only"),
    "var x in [0, 1] integer start 0;": ("var x in [0, 1] start 0;", "`in integers(low, high)`"),
    "var x in integer[0, 1] start 0;": ("var x in [0, 1] start 0;", "stand in parentheses"),
    "var x in {0, 1} start 0;": ("var x in [0, 1] start 0;", "replace `{0, 1}` with `binary`"),
    "minimize x + y; subject to { a: x <= 1; }": ("minimize x + y;", "have no braces around them"),
    "var in ": ("var x ", "`in` is a reserved word"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_answered_with_what_to_write(
    slip: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, words = SLIPS[slip]
    head = "model m;\nset S = 1..3;\nparam c[S] = 1;\n"
    assert right in UPPER + LOWER
    (folder / "m.blv").write_text(head + (UPPER + LOWER).replace(right, slip))
    assert main(["check", "m.blv"]) == 1
    printed = capsys.readouterr().out
    assert words in printed
    assert " --> m.blv:" in printed


def test_a_fix_never_makes_two_statements_of_a_decimal(folder: Path) -> None:
    path = folder / "m.blv"
    path.write_text("model m;\n" + UPPER.replace("x + y", "0,5*x + y") + LOWER)
    before = path.read_text()
    assert main(["check", "m.blv", "--fix"]) == 1
    assert path.read_text() == before


ROADS = """\
model roads;
set ROAD;
param free[ROAD] in [0, inf], slope[ROAD];
param rho = 1;
upper { var toll[ROAD] in [0, 5] start 1; minimize sum(share * (free + slope * share)); }
lower d { var share[ROAD] in simplex; minimize sum((free + toll) * share + slope * share^2); }
"""
TABLES = {
    "ROAD;free;slope\na;1;0,2\n": "`;` where commas divide cells (and points decimals)",
    "ROAD\tfree\tslope\na\t1,5\t2\n": "tabs where commas divide cells",
    "ROAD,fre,slope\na,1,0.2\n": "the data holds `fre`: did you mean it for `free`?",
    "a,1,0.2\nb,2,0.1\n": "the data holds `0.2`, `1`, `a`, which the model does not declare",
    "ROAD,free,slope\na,1,0.2\nb,-2,0.1\n": 'free["b"] = -2   (table.csv, row 3)',
    "ROAD,free,slope\na,1,0.2\na,2,0.1\n": 'the data of `free` has "a" twice',
    "ROAD,free,slope\na,1,\nb,2,0.1\n": 'slope["a"] = nan   (table.csv, row 2)',
    "ROAD,free,slope\na,1\n": "row 2 has 2 cells, the first has 3",
    "ROAD,free,slope\na,one,2\n": "`free` needs numbers",
    "ROAD,free,slope\n": "`ROAD` has no elements",
    "": "it is empty",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_wrong_table_is_answered_with_its_row(
    table: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "roads.blv").write_text(ROADS)
    (folder / "table.csv").write_text(table)
    assert main(["solve", "roads.blv", "--data", "table.csv"]) == 2
    assert TABLES[table] in capsys.readouterr().err


ENCODINGS = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-32": "UTF-32", "latin-1": "not UTF-8"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_files_in_another_encoding_are_named(
    encoding: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"it is {ENCODINGS[encoding]} text; save it as UTF-8"
    (folder / "roads.blv").write_text(ROADS)
    (folder / "table.csv").write_bytes("ROAD,free,slope\n\xe4,1,2\n".encode(encoding))
    assert main(["solve", "roads.blv", "--data", "table.csv"]) == 2
    assert said in capsys.readouterr().err
    (folder / "wide.blv").write_bytes(f"# \xe4\n{ROADS}".encode(encoding))
    (folder / "whole.blv").write_text('include "wide.blv";\n' + ROADS)
    assert main(["check", "whole.blv"]) == 1
    assert said in "".join(capsys.readouterr())
    if encoding != "latin-1":  # a model with odd bytes is shown with their places
        assert main(["check", "wide.blv"]) == 2
        assert said in capsys.readouterr().err


COMMANDS = {
    "solv roads.blv": "Did you mean 'solve'?",
    "solve raods.blv": "did you mean `roads.blv`?",
    "solve roads": "did you mean `roads.blv`?",
    "solve roads.blv": "no data for `free` and `slope`",
    "solve roads.blv --data nothere.csv": "there is no such file",
    "solve roads.blv --data table.xlsx": "its name ends in none of .npz, .npy, .csv, .json",
    "solve roads.blv --data ok.csv --backend dirct": "did you mean `direct`?",
    "solve roads.blv --data ok.csv --backend direct --option steps=3": "has no option `steps`; it",
    "solve roads.blv --data ok.csv --option tol": "--option takes KEY=VALUE, found `tol`",
    "solve roads.blv --data ok.csv --tol=-1": "tol must lie between 0 and 1",
    "solve roads.blv --data ok.csv --param rh=2": "did you mean `rho`?",
    "solve roads.blv --data ok.csv --param rho=[1,2]": "declared as a scalar",
    "solve roads.blv --data ok.csv --plot a.gif": "must end in .png or .svg or .pdf",
    "solve roads.blv --data ok.csv --plot a.png --plot-kind lines": "there is no picture `lines`",
    "solve roads.blv --data ok.csv --out no/a.json": "its directory does not exist",
    "solve roads.blv --data ok.csv --watch acc": "there is no report `acc`",
    "export roads.blv --data ok.csv --to excel --out a.x": "no exporter is called `excel`",
    "compare roads.blv --data ok.csv --backends direct,foo": "no backend is called `foo`",
    "sweep roads.blv --data ok.csv --param rho=1..5": "values in JSON with commas between",
    "new a --template big": "there is no template `big`; there are: toy, tuning, market",
    "explain BLV9999": "there is no code BLV9999",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_command_is_answered(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "roads.blv").write_text(ROADS)
    (folder / "ok.csv").write_text("ROAD,free,slope\na,1,0.2\nb,2,0.1\n")
    (folder / "table.xlsx").write_bytes(b"PK")
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert COMMANDS[line] in " ".join(said.split())
    assert "Traceback" not in said


def test_a_transposed_matrix_is_seen_by_its_neighbours(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "fit.blv").write_text(
        "model fit; dim n, p; param X[n, p], y[n];\n"
        "upper { var lam in [-5, 5] start 0; minimize sumsq(w); }\n"
        "lower low { var w[p]; minimize mean((X @ w - y)^2) + exp(lam) * sumsq(w); }\n"
    )
    np.savez(folder / "d.npz", X=np.zeros((3, 20)), y=np.zeros(20))
    assert main(["solve", "fit.blv", "--data", "d.npz"]) == 2
    said = capsys.readouterr().err
    assert "`y` has 20 entries but axis `n` is 3 long" in said
    assert '`n` was set to 3 by an array (3, 20) from d.npz["X"]' in said


def test_the_number_of_a_code_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "0301"]) == 0
    assert "BLV0301" in capsys.readouterr().out
