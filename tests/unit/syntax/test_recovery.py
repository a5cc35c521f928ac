"""All independent mistakes at once, one diagnostic each, and the rest of the file is read."""

from __future__ import annotations

import re

import pytest

from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.syntax import ast
from bilevelpy.syntax.recover import MAX_DIAGNOSTICS
from tests.unit.syntax.samples import SAMPLES, codes, plain, read, tree

SIX = """\
model six;
dim n, p
param X[n, p], y[n;
upper {
  var lam[p] in [0, 1] start 0;
  minimize sum(lam**2);
  subject to
    simplex: sum(lam) = 1;
    sum(lam) >= 0;
}
lower fit { var w[p]; minimise sum((X @ w - y)^2); }
"""


def test_six_mistakes_in_eleven_lines():
    assert codes(SIX) == ["BLV0101", "BLV0104", "BLV0110", "BLV0103", "BLV0106", "BLV0114"]


def test_good_statements_survive():
    file = read(SIX).file
    kinds = [type(i).__name__ for i in file.items]
    assert kinds == ["ModelHeader", "DimDecl", "Upper", "Lower"]
    upper, lower = file.items[2:]
    assert [type(s).__name__ for s in upper.statements] == ["VarDecl", "Objective"]
    assert [type(s).__name__ for s in lower.statements] == ["VarDecl", "Objective"]


@pytest.mark.parametrize("name", SAMPLES)
def test_recovery_of_a_good_file_finds_the_same_tree(name):
    # The character at the end forces the statement-wise path.
    result = read(SAMPLES[name] + "\n$")
    assert [d.code for d in result.diagnostics] == ["BLV0107"]
    assert plain(result.file) == plain(tree(SAMPLES[name]))


@pytest.mark.parametrize("name", SAMPLES)
def test_one_missing_token_gives_one_diagnostic(name):
    parts = re.findall(r'#[^\n]*|\w+|\s+|"[^"]*"|[<>=!]=|\.\.|.', SAMPLES[name])
    # A part of the tokens of the longer samples, to save time.
    step = 1 if len(parts) < 400 else 3
    for k, part in list(enumerate(parts))[::step]:
        if not part.isspace() and not part.startswith("#"):
            found = codes("".join(parts[:k] + parts[k + 1 :]))
            assert len(found) <= 1, ("".join(parts[max(0, k - 5) : k]), part, found)


MISTAKES = [
    ("dim n, p\nparam x;", "BLV0101"),
    ("upper { var x in [0, 1]\n minimize x;\n}", "BLV0101"),
    ("upper { minimize x }", "BLV0101"),
    ("upper { minimize x subject to a: x <= 1; }", "BLV0101"),
    ("upper { subject to a: x <= 1\n b: y <= 2; }", "BLV0101"),
    ("upper { subject to a: x <= 1\n b[i in I]: y <= 2; }", "BLV0101"),
    ("dim n = ;", "BLV0102"),
    ("param e = 1,5;", "BLV0102"),
    ("upper { minimize x; constraints: c: x <= 1; }", "BLV0114"),
    ("upper { subject to forall (i in I) c: x[i] <= 1; }", "BLV0113"),
    ("param d = [1 2 3];", "BLV0116"),
    ("def f(x) { x^2 };", "BLV0102"),
    ("report upper.objective;", "BLV0102"),
    ('param q = {"a" = 1};', "BLV0102"),
    ("set C = {1..10};", "BLV0102"),
    ("param s = [1, 2; 3, 4];", "BLV0102"),
    ("param A[n][m];", "BLV0102"),
    ("lower fit(w) { minimize w; }", "BLV0102"),
    ("upper { subject to c1: x >= 0,\n c2: x <= 3; }", "BLV0102"),
    ("upper { minimize x +; }", "BLV0102"),
    ("upper: minimize x; }", "BLV0102"),
    ("lower { minimize x; }", "BLV0102"),
    ("lower f optimistic { minimize x; }", "BLV0102"),
    ("upper pesimistic { minimize x; }", "BLV0102"),
    ("fit { var x; minimize x; }", "BLV0102"),
    ("x = 3;", "BLV0102"),
    ("report r: 3;", "BLV0102"),
    ("expect x == 1;", "BLV0102"),
    ("param x = 3 in [0, 1];", "BLV0102"),
    ("param x{n};", "BLV0102"),
    ("param x[1..3];", "BLV0102"),
    ("upper { var x >= 0; }", "BLV0102"),
    ("upper { var x binary; }", "BLV0102"),
    ("upper { var x in {0, 1}; }", "BLV0102"),
    ("upper { minimize x; subject to }", "BLV0102"),
    ("upper { subject to: a: x <= 1; }", "BLV0102"),
    ("upper { minimize x[1:3]; }", "BLV0102"),
    ("dim m = 1 + if a < 2 then 1 else 2;", "BLV0102"),
    ("upper { subject to a: x in [0, 1]; }", "BLV0102"),
    ("upper { subject to a: x; }", "BLV0102"),
    ("upper { minimize sum(x[i] for i in I where i in J); }", "BLV0102"),
    ("upper { subject to a: x = 1; }", "BLV0103"),
    ("upper { subject to a: x <= y = 1; }", "BLV0103"),
    ("upper { minimize (x + 1; }", "BLV0104"),
    ("param q = [1, 2;", "BLV0104"),
    ("upper { minimize x;\ndim n;", "BLV0104"),
    ("upper { minimize x;\nlower f { minimize y; }", "BLV0104"),
    ("upper { minimize x); }", "BLV0105"),
    ("upper { minimize x[1); }", "BLV0105"),
    ("upper { minimize x; } }", "BLV0105"),
    ("upper { subject to x <= 1; }", "BLV0106"),
    ("upper { subject to sum(x) == 1; }", "BLV0106"),
    ("upper { subject to c x <= 2; }", "BLV0106"),
    ("upper { dual(c) <= 3; }", "BLV0106"),
    ("param a = 2 $;", "BLV0107"),
    ("param \u03bb;", "BLV0107"),
    ("param lam\u00e9;", "BLV0107"),
    ("param\u00a0a;", "BLV0107"),
    ("% a 100 % comment\ndim n;", "BLV0115"),
    ("param a = 7 % 2;", "BLV0107"),
    ('include "common.blv;\ndim n;', "BLV0108"),
    ('param x = file("a.npz);', "BLV0108"),
    ("param start;", "BLV0109"),
    ("param a, set;", "BLV0109"),
    ("upper { minimize diff + 1; }", "BLV0109"),
    ("upper { minimize x**2; }", "BLV0110"),
    ("upper { minimize x.^2; }", "BLV0110"),
    ("param a = if b < 1 && c < 1 then 1 else 2;", "BLV0110"),
    ("param a = if b < 1 || c < 1 then 1 else 2;", "BLV0110"),
    ("param a = if !(b < 1) then 1 else 2;", "BLV0110"),
    ("param a := 3;", "BLV0110"),
    ("upper { subject to a: x => 1; }", "BLV0110"),
    ("upper { subject to a: x \u2264 1; }", "BLV0110"),
    ("param a = if b = 1 then 1 else 2;", "BLV0110"),
    ("expect x = 3 within 2;", "BLV0110"),
    ("upper { minimize " + "(" * 201 + "x" + ")" * 201 + "; }", "BLV0111"),
    ("upper { minimize x; a: x <= 1; b: x >= 0; }", "BLV0112"),
    ("def f(x) = sum{i in I} x[i];", "BLV0113"),
    ("def f(x) = sum(i in I, x[i]);", "BLV0113"),
    ("def f(x) = sum(x[i] for i in I if i > 2);", "BLV0113"),
    ("def f(x) = sum(x[i] for i = 1..3);", "BLV0113"),
    ("def f(x) = sum(x[i, j] for i in I for j in J);", "BLV0113"),
    ("upper { subject to a: x[i] <= 1 for i in I; }", "BLV0113"),
    ("upper { subject to a: x[i] <= 1 forall i in I; }", "BLV0113"),
    ("upper { min x; }", "BLV0114"),
    ("upper { minimise x; }", "BLV0114"),
    ("uper { minimize x; }", "BLV0114"),
    ("upper { minimize x; s.t. a: x <= 1; }", "BLV0114"),
    ("upper { minimize x; st a: x <= 1; }", "BLV0114"),
    ("upper { minimize x; such that a: x <= 1; }", "BLV0114"),
    ("upper { minimize x; subject_to a: x <= 1; }", "BLV0114"),
    ("upper { subject to a: x <= 1; asume convex; }", "BLV0114"),
    ("parameter x;", "BLV0114"),
    ("// comment\ndim n;", "BLV0115"),
    ("/* a\n b */ dim n;", "BLV0115"),
    ("def f(x) = 2 x;", "BLV0116"),
    ("def f(x) = 2x;", "BLV0116"),
    ("def f(x) = (x)(x);", "BLV0116"),
    ("def f(x) = x y;", "BLV0116"),
    ("upper { minimize x; subject to a: x >= 2 b: y >= x; }", "BLV0101"),
    ("upper { minimize x; subject to a: x >= y b[i in 1..2]: y >= x; }", "BLV0101"),
    ("set A = {a, b};", "BLV0117"),
    ("param y = file('x.npz', \"a\");", "BLV0117"),
    ("include common;", "BLV0117"),
    ("upper { minimize x < 3; }", "BLV0118"),
    ("upper { subject to c: (x <= 2) + 1 <= 3; }", "BLV0118"),
    ("def f(x) = g(x > 1);", "BLV0118"),
    ("def f(x) = (1..3) + 1;", "BLV0119"),
    ("dim n = if a then 1 else 2;", "BLV0120"),
    ("expect x <= 3 within 2;", "BLV0121"),
    ("upper { assume bound(x) in [0, 1]; }", "BLV0122"),
    ("var x;", "BLV0123"),
    ("minimize x;", "BLV0123"),
    ("upper { param y; minimize x; }", "BLV0123"),
    ("upper { minimize x; lower f { minimize y; } }", "BLV0123"),
    ("upper {\n minimize x;\n lower f {\n minimize y;\n }\n}", "BLV0123"),
    ("upper { subject to d: 1 <= x <= 2 <= 3; }", "BLV0124"),
    ("set S = 1:24;", "BLV0125"),
    ("def f(x) = sum(x[i] for i in 1:3);", "BLV0125"),
    ("upper { var y, z,; }", "BLV0126"),
    ("upper { var y, minimize y; }", "BLV0126"),
    ("dim n;;", "BLV0127"),
    ("upper { minimize x; };", "BLV0127"),
    ("param a = 1e999;", "BLV0128"),
]


@pytest.mark.parametrize(("text", "code"), MISTAKES)
def test_one_mistake_one_code(text, code):
    result = read(text)
    shown = [render_full(d, {"model.blv": Source("model.blv", text)}) for d in result.diagnostics]
    assert [d.code for d in result.diagnostics] == [code], "\n".join(shown)


def test_every_syntax_code_occurs():
    defined = {code for code in CATALOG if code.startswith("BLV01")}
    assert defined == {code for _, code in MISTAKES}


def apply(text, fix):
    return text[: fix.span.start] + fix.replacement + text[fix.span.end :]


@pytest.mark.parametrize(("text", "code"), MISTAKES)
def test_a_fix_repairs_its_mistake(text, code):
    fix = read(text).diagnostics[0].fix
    if fix is not None:
        repaired = apply(text, fix)
        assert code not in codes(repaired), repaired
        assert len(codes(repaired)) <= 1


def test_misspelled_keywords_are_read_as_meant():
    upper = read("upper { variable x; min x; s.t. a: x <= 1; }").file.items[0]
    kinds = [type(s).__name__ for s in upper.statements]
    assert kinds == ["VarDecl", "Objective", "SubjectTo"]
    assert upper.statements[1].sense == "minimize"


def test_functions_min_and_max_are_no_keywords():
    text = "upper { minimize x; subject to min(x, y) <= 1; }"
    assert codes(text) == ["BLV0106"]


def test_declarations_inside_a_level_are_read():
    items = read("upper { param a; minimize a; lower f { minimize y; } }").file.items
    assert [type(i).__name__ for i in items] == ["Upper", "ParamDecl", "Lower"]


def test_sentences_have_no_filler():
    for entry in CATALOG.values():
        assert not re.search(r"invalid|please|unfortunately", entry.template, re.IGNORECASE)


def test_many_errors_are_limited_and_say_so():
    found = read("dim n\n" * 1000).diagnostics
    assert len(found) == MAX_DIAGNOSTICS
    assert "only the first" in found[-1].notes[-1]


@pytest.mark.parametrize("text", ["{{{x}; }", "{{{; }", "{{{x}}}; }"])
def test_what_closes_a_brace_that_is_reported_is_no_mistake(text):
    assert "BLV0105" not in codes(f"upper {{ var x; minimize {text}\n")
    assert "BLV0105" in codes("upper { var x; minimize x; } }\nlower f { var y; minimize y; }")


def test_a_statement_with_a_foreign_character_reports_only_that():
    assert codes("param a = 2 $ 3 4;\nparam b = 2 3;") == ["BLV0107", "BLV0116"]


def test_tree_of_a_broken_file_is_a_file():
    file = read("((((").file
    assert isinstance(file, ast.File)
    assert file.items == ()
