"""What those write who come from other languages, and what they are told to write instead."""

from __future__ import annotations

import pytest

import bilevelpy as bl

SHOP = """set S = {"a", "b"};
dim n = 2;
param c[S] = {"a": 1, "b": 2};
upper {
  var x[S] in [0, 10] start 1;
  minimize sum((x[s] - 1)^2 for s in S);
  subject to cap: sum(x) <= 20;
}
lower f {
  var y[S], z[n];
  minimize sum((y[s] - x[s] * c[s])^2 for s in S) + z' @ z;
  subject to row[s in S]: y[s] <= 4;
}
"""

INSTEAD = [
    ("minimize sum((x", "minimize: sum((x", "remove `:`"),
    ("upper {", "upper: {", "remove `:`"),
    ("start 1", "init 1", "replace `init` with `start`"),
    ("start 1", "start = 1", "remove `=`"),
    ("var y[S]", "binary var y[S]", "`var x in binary;`"),
    ("var y[S], z", "var y[S] z", "commas: `, z`"),
    ("param c[S]", "param float c[S]", "without a type: `param c`"),
    ('"a": 1', '"a" -> 1', "replace `->` with `:`"),
    ("row[s in S]:", "row{s in S}:", "`row[i in I]: left <= right;`"),
    ("row[s in S]:", 'row[s in S : s != "a"]:', "replace `:` with `where`"),
    ("row[s", "my-row[s", "`my_row`"),
    ("20;", "20_000;", "write `20000`"),
    ("sum((x[s] - 1)^2 for s in S)", "sum(for s in S: x[s])", "the expression comes first"),
    ("sum((x[s] - 1)^2 for", "sum((x[s] - 1^2 for", "no `)` before this `for`"),
    ("[0, 10]", "[0, Infinity]", "write `inf`"),
    ("[0, 10]", "nonnegative", "`[0, inf]`"),
    ("<= 20", "<= 2 * e", "`exp(1)`"),
    ("sum(x)", "x[a]", 'write `"a"`'),
    ("sum(x)", "ln(sum(x))", "`log(x)`"),
    ("z' @ z", "transpose(z) @ z", "`A'`"),
    ("z' @ z", "sum(z[i] for i in range(n))", "`i in 1..n`"),
    ("dim n = 2", "param n = 2", "`dim n = ...;`"),
    ("sum(x) <=", "||x|| <=", "a norm `norm2(x)`"),
    ("lower f {", "lower f nash[s in S] {", "`nash` stands last"),
    ("lower f {", "lower 2f {", "starts with a letter"),
    ("sum(x) <=", "sum(x[(s, t)] for s in S) <=", "no parentheses of their own"),
    ("for s in S) + z", "for s, t in S) + z", "`(i, j) in A`"),
]


@pytest.mark.parametrize(("right", "written", "told"), INSTEAD)
def test_what_to_write_instead_is_told(right: str, written: str, told: str) -> None:
    assert right in SHOP
    with pytest.raises(bl.ModelError) as raised:
        bl.parse(SHOP.replace(right, written, 1))
    first = raised.value.diagnostics[0]
    title = first.fix.title if first.fix is not None else ""
    assert told in f"{title} {first.hint} {first.primary.text}", str(raised.value)


@pytest.mark.parametrize(("right", "written", "told"), INSTEAD)
def test_fixes_repair(right: str, written: str, told: str) -> None:
    text = SHOP.replace(right, written, 1)
    with pytest.raises(bl.ModelError) as raised:
        bl.parse(text)
    fix = raised.value.diagnostics[0].fix
    if fix is not None:
        bl.parse(text[: fix.span.start] + fix.replacement + text[fix.span.end :])


PAIRS = """set N = {"a", "b"};
set A within N * N = {("a", "b")};
dim n = 2, p = 3;
param X[n, p] = 1;
upper { var x[A], w[p]; minimize EXPR; }
"""


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("sum(x[i, j] for i in N, j in N)", "`for (i, j) in A`"),
        ("sum(x[i] for i in N)", "have 2 parts: `[i, j]`"),
        ('x["b", "a"]', 'elements: ("a", "b")'),
        ("sum(X' @ w)", "`X @ w`"),
    ],
)
def test_pairs_and_transposes_are_told_as_they_are_written(expr: str, told: str) -> None:
    with pytest.raises(bl.ModelError) as raised:
        bl.parse(PAIRS.replace("EXPR", expr))
    assert told in str(raised.value)


def test_values_that_do_not_fit_axes_of_the_data_are_counted() -> None:
    text = "dim n; param c[n]; upper { var x[n] start [1, 2, 3]; minimize sumsq(x - c); }"
    with pytest.raises(bl.DataError, match="it holds 3 values where its axes take 2"):
        bl.parse(text, c=[1.0, 2.0])
