"""The forms of a message."""

from __future__ import annotations

import json

import pytest

from bilevelpy.diagnostics import Fix, Label, Source, Span, diagnostic
from bilevelpy.diagnostics.render import (
    WIDTH,
    render_concise,
    render_full,
    render_github,
    to_json,
)


def spot(source, text, after=0):
    start = source.text.index(text, after)
    return Span(source.name, start, start + len(text))


RIDGE = Source(
    "ridge.blv",
    "dim n, p;\nparam X[n, p], y[n];\nupper {\n  var w[p];\n  minimize mean((X @ y - w)^2);\n}\n",
)


def test_secondary_labels_on_one_line_and_a_gap():
    found = diagnostic(
        "BLV0301",
        spot(RIDGE, "X @ y"),
        "last axis of `X` is `p`, first axis of `y` is `n`",
        secondary=(
            Label(spot(RIDGE, "X[n, p]"), "(n, p) = (100000, 1000)"),
            Label(spot(RIDGE, "y[n]"), "(n) = (100000)"),
        ),
        hint="did you mean `X @ w - y` with `w[p]`, or `X' @ y`?",
        left="(n, p)",
        right="(n)",
    )
    assert (
        render_full(found, {"ridge.blv": RIDGE})
        == """\
error[BLV0301]: `@` cannot contract (n, p) with (n)
 --> ridge.blv:5:18
  |
2 | param X[n, p], y[n];
  |                ---- (n) = (100000)
  |       ------- (n, p) = (100000, 1000)
  :
5 |   minimize mean((X @ y - w)^2);
  |                  ^^^^^ last axis of `X` is `p`, first axis of `y` is `n`
  |
  = help: did you mean `X @ w - y` with `w[p]`, or `X' @ y`?"""
    )


def test_a_single_line_between_is_shown_and_notes_continue():
    source = Source("m.blv", "lower a {\n  var q;\n  minimize b.q;\n}\n")
    found = diagnostic(
        "BLV0214",
        spot(source, "b.q"),
        "decided at the same time",
        secondary=(Label(spot(source, "a"), ""),),
        notes=("first\nsecond",),
        fix=Fix("replace it", spot(source, "b.q"), "q"),
        follower="a",
    )
    assert (
        render_full(found, {"m.blv": source})
        == """\
error[BLV0214]: follower `a` reads the decision of another follower
 --> m.blv:3:12
  |
1 | lower a {
  |       -
2 |   var q;
3 |   minimize b.q;
  |            ^^^ decided at the same time
  |
  = note: first
          second
  = fix: replace it"""
    )


def test_line_numbers_of_different_width():
    source = Source("m.blv", "dim a;\n" * 9 + "dim b;\n")
    found = diagnostic(
        "BLV0201",
        Span("m.blv", 67, 68),
        secondary=(Label(Span("m.blv", 4, 5), "here"),),
        name="b",
    )
    assert (
        render_full(found, {"m.blv": source})
        == """\
error[BLV0201]: unknown name `b`
  --> m.blv:10:5
   |
 1 | dim a;
   |     - here
   :
10 | dim b;
   |     ^"""
    )


def test_labels_in_an_included_file():
    other = Source("lib/data.blv", "param lam;\n")
    main = Source("m.blv", "report r = lamda;\n")
    found = diagnostic(
        "BLV0201",
        spot(main, "lamda"),
        "not declared",
        secondary=(Label(spot(other, "lam"), "did you mean `lam`?"),),
        name="lamda",
    )
    assert (
        render_full(found, {"m.blv": main, "lib/data.blv": other})
        == """\
error[BLV0201]: unknown name `lamda`
 --> m.blv:1:12
  |
1 | report r = lamda;
  |            ^^^^^ not declared
 ::: lib/data.blv:1:7
  |
1 | param lam;
  |       --- did you mean `lam`?"""
    )


def test_missing_source_and_missing_place():
    found = diagnostic("BLV0201", Span("gone.blv", 3, 4), hint="look", name="a")
    expected = "error[BLV0201]: unknown name `a`\n --> gone.blv\n  = help: look"
    assert render_full(found, {}) == expected
    assert render_concise(found, {}) == "gone.blv: error[BLV0201]: unknown name `a`"
    assert to_json(found, {})["line"] is None
    nowhere = diagnostic("BLV0601", None)
    assert render_full(nowhere, {}) == "error[BLV0601]: no installed backend accepts this model"
    assert render_concise(nowhere, {}).startswith("error[BLV0601]")
    assert render_github(nowhere, {}).startswith("::error title=BLV0601::")


def test_a_place_over_several_lines_is_underlined_on_the_first():
    source = Source("m.blv", "sum(a\n + b)\n")
    shown = render_full(diagnostic("BLV0201", Span("m.blv", 0, 11), name="x"), {"m.blv": source})
    assert shown.split("\n")[3:5] == ["1 | sum(a", "  | ^^^^^"]


def test_long_lines_are_clipped_around_the_place():
    source = Source("m.blv", "x" * 500_000 + "HERE" + "y" * 500_000)
    shown = render_full(
        diagnostic("BLV0201", spot(source, "HERE"), "this", name="x"), {"m.blv": source}
    )
    line, under = shown.split("\n")[3:5]
    assert len(line) <= WIDTH + 4
    column = line.index("HERE")
    assert under[column : column + 9] == "^^^^ this"
    assert line.endswith("...")
    assert "| ..." in line


def test_a_long_place_is_clipped_too():
    source = Source("m.blv", "x" * 1_000_000)
    found = diagnostic("BLV0201", Span("m.blv", 0, 1_000_000), name="x" * 1_000_000)
    shown = render_full(found, {"m.blv": source})
    assert len(shown) < 3000


def test_ascii_only_and_columns_stay():
    source = Source("\u03bb.blv", "\tpar\u00e4m \x00x;")
    found = diagnostic("BLV0201", spot(source, "x"), "\u03bc", name="\u03bd\x1b[0m")
    shown = render_full(found, {source.name: source})
    assert shown.isascii()
    assert "\x1b" not in shown
    line, under = shown.split("\n")[3:5]
    assert line.index("x;") == under.index("^")


def test_colour_adds_only_escapes():
    import re

    found = diagnostic("BLV0201", spot(RIDGE, "y[n]"), "here", notes=("n",), name="x")
    plain = render_full(found, {"ridge.blv": RIDGE})
    coloured = render_full(found, {"ridge.blv": RIDGE}, color=True)
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_concise_json_github():
    span = spot(RIDGE, "y[n]")
    found = diagnostic(
        "BLV0201", span, "here", notes=("100%",), hint="h", fix=Fix("t", span, "z"), name="y"
    )
    sources = {"ridge.blv": RIDGE}
    assert render_concise(found, sources) == "ridge.blv:2:16: error[BLV0201]: unknown name `y`"
    data = json.loads(json.dumps(to_json(found, sources)))
    assert data["code"] == "BLV0201"
    assert (data["line"], data["column"], data["end_line"], data["end_column"]) == (2, 16, 2, 20)
    assert data["fix"] == {
        "title": "t",
        "file": "ridge.blv",
        "line": 2,
        "column": 16,
        "end_line": 2,
        "end_column": 20,
        "replacement": "z",
    }
    assert render_github(found, sources) == (
        "::error file=ridge.blv,line=2,endLine=2,col=16,endColumn=20,title=BLV0201"
        "::unknown name `y`%0A100%25%0Ahelp: h"
    )


@pytest.mark.parametrize("code", ["BLV0502"])
def test_warnings(code):
    found = diagnostic(code, None, level="fit")
    assert render_full(found, {}).startswith("warning[BLV0502]: ")
