"""Levels: who reads what, families, duals, what a checked program holds."""

from __future__ import annotations

import re

import pytest

from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import Read
from bilevelpy.ir.types import AxisKind, DomainKind, Relation, Sense, Stance
from tests.unit.sema.samples import FIRMS, RIDGE, TOLL, checked, codes, program


def test_ridge() -> None:
    made = program(RIDGE)
    assert (made.name, made.title) == ("ridge", "Per-feature ridge regularisation")
    assert made.stance is Stance.OPTIMISTIC
    assert list(made.axes) == ["n", "m", "p"]
    assert [v.name for v in made.upper.variables] == ["lam"]
    lam = made.upper.variables[0]
    assert lam.axes == (made.axes["p"],)
    assert lam.domain.kind is DomainKind.INTERVAL
    assert isinstance(lam.start, ir.Const)
    read = made.params["Xv"].default
    assert isinstance(read, Read)
    assert (read.format, read.path, read.key, read.folder) == ("file", "valid.npz", "X", ".")
    assert made.upper.objective.axes == ()
    assert made.upper.sense is Sense.MINIMIZE
    budget = made.upper.constraints[0]
    assert budget.relations == (Relation.LE,)
    assert list(made.reports) == ["train_mse"]
    assert made.params["cap"].default is made.builder.const(100)


def test_toll_family_and_dual() -> None:
    made = program(TOLL)
    flow, pairs, arcs = made.level("flow"), made.axes["OD"], made.axes["ARC"]
    assert flow.family == (pairs,)
    assert flow.variables[0].axes == (pairs, arcs)
    assert flow.objective.axes == (pairs,)
    assert flow.constraints[0].axes == (pairs,)
    fair = made.upper.constraints[0]
    assert isinstance(fair.terms[0], ir.DualRef)
    assert fair.terms[0].axes == (pairs,)
    assert made.upper.sense is Sense.MAXIMIZE
    assert made.upper.constraints[1].relations == (Relation.LE, Relation.LE)
    assert [a.name for a in flow.assumptions] == ["unique"]


def test_firms() -> None:
    made = program(FIRMS)
    firm = made.level("firm")
    s = firm.variables[1]
    assert [a.name for a in s.axes] == ["FIRM", "k"]
    assert s.domain.kind is DomainKind.SIMPLEX
    rows = firm.constraints[1].axes
    assert rows[0] is made.axes["FIRM"]
    assert rows[1].kind is AxisKind.SUBSET
    assert rows[1].parents == (made.axes["k"],)
    assert made.externs["net"].properties == (("smooth", ()), ("convex", ("theta",)))
    assert made.stance is Stance.PESSIMISTIC
    # `z` and `u` decide nothing in this model.
    assert codes(FIRMS) == ["BLV0531", "BLV0531"]


def test_single_level() -> None:
    made = program("upper { var x in [0, inf]; minimize x^2; }")
    assert made.lowers == ()
    domain = made.upper.variables[0].domain
    assert (isinstance(domain.lower, ir.Const), domain.upper) == (True, None)


def test_documentation_is_kept() -> None:
    text = (
        "## Size.\ndim n;\n## Data.\nparam y[n];\n## Leader.\nupper {\n## Choice.\nvar x;\n"
        "minimize sum((x - y)^2);\n}\n## Said at the end.\nreport r = x;"
    )
    made = program(text)
    docs = made.axes["n"].doc, made.params["y"].doc, made.upper.variables[0].doc
    assert docs == ("Size.", "Data.", "Choice.")
    assert (made.upper.doc, made.reports["r"].doc) == ("Leader.", "Said at the end.")


HEAD = "set F; param c[F]; upper { var x; minimize x + sum(g.q); }\n"


@pytest.mark.parametrize(
    ("lower", "expected"),
    [
        ("lower g[i in F] { var q; minimize c[i]*q^2 + x*q; }", []),
        ("lower g[i in F] { var q; minimize q^2 + g.q[i]; }", []),
        ("lower g[i in F] { var q; minimize q^2 + sum(g.q); }", ["BLV0214"]),
        ("lower g[i in F] nash { var q; minimize q^2 + sum(g.q); }", []),
        ("lower g[i in F where c[i] > 0] { var q; minimize c[i]*q^2; }", []),
        ("lower g[i in F] { var q; minimize q^2 + h.y; } lower h { var y; minimize y^2; }",
         ["BLV0214"]),
        ("lower g[i in F] { var q; minimize q^2 + y; } lower h { var y; minimize y^2; }",
         ["BLV0214"]),
        ("lower g[i in F] { var q in [0, c[i]] start c[i]/2; minimize q^2; }", []),
        ("lower g[i in F] { var q; minimize q^2; subject to cap: q <= c; }", []),
    ],
)  # fmt: skip
def test_followers(lower: str, expected: list[str]) -> None:
    assert codes(HEAD + lower) == expected


def test_subset_family() -> None:
    made = program(HEAD + "lower g[i in F where c[i] > 0] { var q; minimize c[i]*q^2; }")
    (axis,) = made.level("g").family
    assert axis.kind is AxisKind.SUBSET
    assert axis.parents == (made.axes["F"],)


def test_family_over_index_pairs() -> None:
    text = (
        "set I = 1..4; param w[I]; upper { var x[I]; minimize sum(x);\n"
        "subject to apart[i in I, j in I where i < j]: x[i] - x[j] <= w[i]; }"
    )
    (rows,) = program(text).upper.constraints
    (axis,) = rows.axes
    assert axis.kind is AxisKind.SUBSET
    assert len(axis.parents) == 2
    assert isinstance(rows.terms[0], ir.Apply)


def test_dual_bounds_and_plain_dual_names() -> None:
    text = (
        "upper { var x; minimize x + dual(bal); }\n"
        "lower m { var g; minimize g^2; subject to bal: g == x; assume dual(bal) in [0, inf]; }"
    )
    made = program(text)
    (fact,) = made.level("m").assumptions
    assert (fact.name, fact.constraint, len(fact.arguments)) == ("dual", "bal", 2)


def test_expect() -> None:
    text = (
        "upper { var x; minimize x^2 + y; } lower f { var y; minimize (y - x)^2; }\n"
        "expect upper.objective == -0.25 within 1e-6; expect f.objective == 0 within 1e-6;\n"
        "expect x + y == -1 within 1e-3; expect fit.objective == 0 within 1;"
    )
    assert codes(text) == ["BLV0229"]
    made = program(text[: text.rindex("expect")])
    assert [e.value for e in made.expects[:2]] == ["upper", "f"]
    assert made.expects[0].text == "expect upper.objective == -0.25 within 1e-6;"


def test_syntax_errors_bring_no_follow_up() -> None:
    text = "dim n, p\nparam y[n];\nupper { var x[n]; minimize sum(x) + lamda; }\n"
    found = codes(text)
    assert found == ["BLV0101", "BLV0201"]


def test_a_name_of_foreign_letters_is_one_mistake() -> None:
    assert codes("upper { var x; minimize \u03bb * x^2; }") == ["BLV0107"]


def test_one_mistake_one_message() -> None:
    text = (
        "dim n; param y[m], z[n];\n"
        "upper { var x[n]; let d = y - z; minimize sum(d) + sum(y) + sum(x) + w + y[1]; }\n"
    )
    assert codes(text) == ["BLV0201", "BLV0201"]


def test_all_independent_mistakes_at_once() -> None:
    text = (
        "dim n, m; param X[n, m], y[n];\n"
        "upper { var x[m]; minimize sum(X @ y) + foo + sum(x - y) + exp(1, 2); }\n"
        "lower l { var v; subject to c: v < 1; }\n"
    )
    found = codes(text)
    assert sorted(found) == ["BLV0201", "BLV0209", "BLV0218", "BLV0222", "BLV0301", "BLV0303"]


def test_a_bias_is_added_with_indices() -> None:
    head = "dim n, h; param A[n, h], b[h];\n"
    (found,) = checked(head + "upper { var x; minimize x^2 + sum(A + b); }").diagnostics
    (written,) = re.findall("`let (.*);`", found.hint or "")
    assert written == "Z[i in n, j in h] = A[i, j] + B[j]"
    assert not codes(
        head + f"upper {{ let {written.replace('B', 'b')}; var x; minimize x * sum(Z); }}"
    )
    (found,) = checked(head + "dim m; upper { var x[m]; minimize sum(A - x); }").diagnostics
    assert found.hint is None


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("var x in integers(0.5, 0.7); minimize x;", "BLV0312", "a range from 0.5 to 0.7 is empty"),
        ("var x in [inf, inf]; minimize x;", "BLV0312", "an interval from inf to inf is empty"),
        ("var x in integers(-inf, -inf); minimize x;", "BLV0312", "is empty"),
        ("var x; minimize x^2; assume strongly_convex(-1);", "BLV0308", "found -1"),
        ("var x; minimize x^2; assume smooth(inf);", "BLV0308", "found inf"),
    ],
)
def test_numbers_that_cannot_be(text: str, code: str, words: str) -> None:
    (found,) = checked(f"upper {{ {text} }}").diagnostics
    assert (found.code, words in found.message) == (code, True), found.message


def test_arguments_of_a_function_have_different_names() -> None:
    (found,) = checked("def f(a, b, a) = a; upper { var x; minimize x^2; }").diagnostics
    assert (found.code, found.message) == ("BLV0202", "`a` is declared twice")
    assert found.secondary[0].text == "first declared here"


def test_result_has_a_program_exactly_without_errors() -> None:
    assert checked("").program is None
    assert [d.code for d in checked("").diagnostics] == ["BLV0207"]
