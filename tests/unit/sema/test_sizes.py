"""Reading takes work in proportion to the text, whatever there are many of."""

from __future__ import annotations

import gc

import pytest

import bilevelpy
from bilevelpy.diagnostics import Source
from bilevelpy.ir.walk import level_roots, postorder
from bilevelpy.sema import check
from bilevelpy.system.garbage import undisturbed
from tests.steps import steps

UPPER = "upper { var x in [0, 1]; minimize x; }"


def many(head: str, each: str, tail: str, between: str = "\n"):
    """A text with ``each`` written ``n`` times, counted by ``{k}``."""

    return lambda n: head + joined(each, n, between) + tail


def joined(each: str, n: int, between: str = "\n") -> str:
    return between.join(each.replace("{k}", str(k)) for k in range(n))


def chain(each: str, n: int) -> str:
    """What reads the one before it, as ``{j}``."""
    return " ".join(each.replace("{k}", str(k)).replace("{j}", str(k - 1)) for k in range(1, n))


ROWS = "lower f { var y[n] in [0, 9]; minimize sum(y); subject to "
ONE = "lower f { var y in [0, 9]; minimize y; "
TEXTS = {
    "rows": many(f"dim n = 9; {UPPER} {ROWS}", "c{k}: y[{k} - {k} + 1] >= {k} * x;", "}"),
    "params": many("", "param p{k} = {k};", f" {UPPER} {ONE} }}"),
    "followers": many(
        UPPER, "lower f{k} { var y{k} in [0, 1]; let a = 2 * y{k}; minimize a + y{k}; }", ""
    ),
    "prices": lambda n: (
        f"{UPPER} {ONE} subject to {joined('c{k}: y >= {k} * x;', n)} }}"
        f"report r = {joined('dual(f.c{k})', n, ' + ')};"
    ),
    "rows that share": lambda n: (
        f"{UPPER} {ONE} let a = {joined('exp({k} * y)', n, ' + ')}; subject to "
        f"{joined('c{k}: a >= {k} * x;', n)} }}"
    ),
    "members of upper": many(
        "upper { var x; var z; minimize x; } lower f { var y; minimize ",
        "(upper.x - {k} * y)^2",
        "; }",
        " + ",
    ),
    "factors of a sum": many(
        f"dim n = 3; param A[n, n]; {UPPER} lower f {{ var y[n]; minimize y @ ",
        "A",
        " @ y; }",
        " @ ",
    ),
    "bars on a line": many("model m; ", "report r{k} = |x|;", "", " "),
    "followers with one name": many(
        "upper { var x; minimize x; } ", "lower f{k} { var y; minimize y; }", " report r = y + y;"
    ),
}


def work(text: str) -> int:
    """Steps of the interpreter that a check of ``text`` takes."""
    source = Source("<text>", text)
    return steps(lambda: check(source))


@pytest.mark.parametrize("name", TEXTS)
def test_work_grows_with_the_text(name):
    text = TEXTS[name]
    work(text(2))  # tables are loaded
    short, long = work(text(40)), work(text(160))
    assert long < 4.8 * short, (short, long)


SUMS = {
    "chain of sums": lambda n: (
        f"{UPPER} lower f {{ var y; let a0 = y; "
        f"{chain('let a{k} = a{j} + sin({k} * y);', n)} minimize a{n - 1}; }}"
    ),
    "rows that add to a sum": lambda n: (
        f"{UPPER} {ONE} let a = {joined('exp({k} * y)', n, ' + ')}; subject to "
        f"{joined('c{k}: a + x >= {k};', n)} }}"
    ),
    "entries that move": many(
        f"{UPPER} lower f {{ var y; minimize sumsq([", "y + {k} * x", "]); }", ", "
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_expressions_grow_with_the_text(name):
    def size(n: int) -> int:
        program = check(Source("<text>", SUMS[name](n))).program
        assert program is not None
        nodes = postorder(level_roots(program.lowers[0]))
        return sum(1 + len(x.children) + len(getattr(x, "values", ())) for x in nodes)

    assert size(1200) < 4.8 * size(300)


def test_long_arrays_mean_what_short_ones_mean():
    entries = [f"{k} * y + {k % 3} * x" for k in range(60)]
    numbers = ", ".join(map(str, range(60)))
    terms = " + ".join(f"{k} * ({e})" for k, e in enumerate(entries))
    model = bilevelpy.parse(
        f"param t[60] = [{numbers}]; upper {{ var x; minimize x; }} lower f {{ var y; "
        f"let a = [{', '.join(entries)}]; let b = [{', '.join(f'[{e}, y]' for e in entries)}]; "
        f"minimize sum(t * a) + sum(b) - sum(a); }} report r = {terms} + 60 * y;"
    )
    oracle = bilevelpy.compile(model)
    assert oracle.f([0.5], [2.0]) == pytest.approx(oracle.reports([0.5], [2.0])["r"])
    assert oracle.grad_f([0.5], [2.0]) == pytest.approx(sum(k * k for k in range(60)) + 60)


def test_rows_are_told_apart_by_what_they_read():
    text = f"{UPPER} {ONE} let a = y + x; subject to c: a >= 0; d: x >= 0; e: a * x <= 1; }}"
    found = [d for d in check(Source("<text>", text)).diagnostics if d.code == "BLV0530"]
    assert [text[d.primary.span.start] for d in found] == ["d"]


def test_of_many_followers_with_one_name_a_few_are_shown():
    text = TEXTS["followers with one name"](20)
    (found, *_) = check(Source("<text>", text)).diagnostics
    assert found.code == "BLV0213"
    assert len(found.secondary) == 6
    assert found.hint.endswith("or `f5.y` or ...")


def test_the_collector_is_as_it_was_before():
    assert gc.isenabled()
    with undisturbed(), undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
