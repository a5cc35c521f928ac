"""Derived axes: ranges, subsets, pairs, set operations; subscripts in range; empty sets."""

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.diagnostics import Source
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind

BODY = "upper {{ var u in [0, 1]; minimize u * ({}); }}"


@pytest.fixture
def value(program):
    def get(text, expression, data=None):
        """The value of a report of a bound model."""
        model = program(
            f"{text} upper {{ var u in [0, 1]; minimize u^2; }} report r = {expression};"
        )
        made = bind(model, data)
        return evaluate(made.program.reports["r"].value, made.data)

    return get


def axis(data, name):
    return next(a for a in data.sizes if a.name == name)


def test_ranges_from_data(value):
    assert value("param a; set T = 2020..a;", "sum(t for t in T)", {"a": 2022}) == 6063
    assert value("dim n; param v[n]; set T = 0..card(n);", "card(T)", {"v": [1, 2]}) == 3


def test_subsets_by_condition(value):
    text = "dim n; param v[n];"
    data = {"v": [5, 1, 7]}
    assert value(text, "sum(v[i] for i in n where v[i] > 2)", data) == 12
    assert value(text, "sum(v[i] for i in n where i >= 2 and v[i] < 7)", data) == 1
    assert value(text, "sum(v[i] * v[j] for i in n, j in n where i < j)", data) == 5 + 35 + 7
    assert value(text, "sum(v[i] for i in n where v[i] > 100)", data) == 0
    assert value(text, "max(v[i] - v[i-1] for i in n where i > 1)", data) == 6


def test_labels_in_conditions(value):
    text = 'set S = {"a", "b", "c"}; param v[S];'
    assert value(text, 'sum(v[s] for s in S where s != "b")', {"v": [1, 2, 4]}) == 5
    assert value("set S; param v[S];", 'v["y"]', {"v": {"x": 1, "y": 2}}) == 2


def test_declared_subsets(bound, array):
    text = 'set S = {"a", "b", "c"}; set Q within S = {"c", "a"}; set R within S; param v[Q], w[R];'
    data = bound(text, {"v": {"a": 1, "c": 3}, "w": {"b": 5}})
    np.testing.assert_array_equal(data.members[axis(data, "Q")], [[2], [0]])
    np.testing.assert_array_equal(array(data, "v"), [3, 1])
    assert data.labels[axis(data, "R")] == ("b",)


def test_set_operations(value):
    text = (
        'set A = {"a", "b", "c"}; set B within A = {"b"}; set C = A diff B; '
        "set D = A inter B; param v[A];"
    )
    data = {"v": [1, 2, 4]}
    assert value(text, "sum(v[i] for i in C)", data) == 5
    assert value(text, "sum(v[i] for i in D)", data) == 2
    assert value(text, "sum(v[i] for i in C union D)", data) == 7
    assert (
        value("set A; set B; set C = A union B;", "card(C)", {"A": ["x", "y"], "B": ["y", "z"]})
        == 3
    )


def test_pairs_in_expressions(value):
    text = 'set N = {"a", "b", "c"}; set ARC within N * N; param cost[ARC], s[N];'
    data = {"cost": {("a", "b"): 2, ("b", "c"): 3}, "s": [1, 10, 100]}
    assert value(text, "sum(cost[i, j] * s[j] for (i, j) in ARC)", data) == 20 + 300
    assert value(text, 'cost["b", "c"]', data) == 3
    assert value(text, 'sum(cost[i, j] for (i, j) in ARC where i == "a")', data) == 2


def test_a_joint_condition_over_a_million_pairs(value):
    v = np.random.default_rng(0).uniform(size=1000)
    found = value(
        "dim n; param v[n];", "sum(v[i] for i in n, j in n where v[i] + v[j] > 1.9)", {"v": v}
    )
    assert found == pytest.approx(np.sum(v[:, None] * (v[:, None] + v > 1.9)))


def only(problems):
    (problem,) = problems
    return problem


def test_subscripts_are_checked(problems):
    text = "dim n; param v[n]; " + BODY.format("sum(v[i] - v[i-1] for i in n)")
    problem = only(problems(text, {"v": [1, 2, 3]}))
    assert problem.message == "`i-1` reaches outside of `n`"
    assert problem.primary.text == "at n = 1 it asks for element 0"
    assert problem.notes == ("`n` runs from 1 to 3",)
    text = "param last; dim n; param v[n]; " + BODY.format("v[last]")
    problem = only(problems(text, {"v": [1, 2, 3], "last": 4}))
    assert problem.primary.text == "it asks for element 4"
    problem = only(problems(text, {"v": [1, 2, 3], "last": 1.5}))
    assert problem.primary.text == "it asks for element 1.5"
    text = 'set N = {"a", "b"}; set ARC within N * N; param c[ARC]; ' + BODY.format(
        "sum(c[i, j] for i in N, j in N)"
    )
    problem = only(problems(text, {"c": {("a", "b"): 1}}))
    assert problem.code == "BLV0414"
    assert '"a", "a"' in problem.primary.text


def test_labels_are_checked(problems):
    text = "set S; param v[S]; " + BODY.format('v["q"]')
    problem = only(problems(text, {"v": {"p": 1}}))
    assert problem.message == '"q" is not an element of `S`'


def test_empty_sets(problems, bound):
    text = "dim n; param v[n]; " + BODY.format("FUNCTION(v[i] for i in n where v[i] > 9)")
    bound(text.replace("FUNCTION", "sum"), {"v": [1, 2]})
    assert only(problems(text.replace("FUNCTION", "mean"), {"v": [1, 2]})).code == "BLV0420"
    assert only(problems(text.replace("FUNCTION", "max"), {"v": [1, 2]})).code == "BLV0420"
    family = (
        "set S; param v[S]; upper { var u in [0, 1]; minimize u + sum(low.q); } "
        "lower low[s in S] { var q; minimize (q - v[s])^2; }"
    )
    assert {p.code for p in problems(family, {"v": {}, "S": []})} == {"BLV0420"}


def test_defaults_in_a_circle_are_found_by_the_text(program):
    with pytest.raises(AssertionError):
        program("param a = b, b = a;")


def test_many_defaults_in_a_chain(bound, array):
    chain = "".join(f"param a{k} = a{k - 1} + 1;" for k in range(1, 500))
    data = bound("param a0; " + chain, {"a0": 1})
    assert array(data, "a499") == 500


def test_huge_ranges_do_not_hang(problems):
    text = "param k; set T = 1..k; param v[T] = 1;"
    for k in (1e9, 1e15):
        assert only(problems(text, {"k": k})).code == "BLV0425"


def test_variables_beyond_all_memory_do_not_hang(problems):
    text = "param k; set T = 1..k; upper { var x[T] in [0, 1] start 0.5; minimize sum(x); }"
    assert only(problems(text, {"k": 1e12})).code == "BLV0425"


def test_a_subset_of_pairs_is_listed_by_pairs(value):
    text = (
        "set N = 1..3; set ARC within N * N = {(1, 2), (1, 3), (2, 3)};"
        "set TOLL within ARC = {(1, 2), (2, 3)};"
        "param c[ARC] = {(1, 2): 5, (1, 3): 6, (2, 3): 7};"
        "param t[TOLL] = {(1, 2): 10, (2, 3): 20};"
        'param part[BIG] = {("a", "b"): 3};'
        'set BIG = {("a", "b"), ("b", "c")} diff {("b", "c")};'
    )
    assert value(text, "sum(c[i, j] * t[i, j] for (i, j) in TOLL)") == 190
    assert value(text, "sum(c[a] + t[a] for a in TOLL)") == 42
    assert value(text, 'part["a", "b"]') == 3


@pytest.mark.parametrize(
    ("element", "code"), [("(2, 1)", "BLV0306"), ("1", "BLV0321"), ("(1, 2, 3)", "BLV0321")]
)
def test_what_is_no_element_of_the_pairs_is_an_error(element, code):
    sets = "set N = 1..3; set ARC within N * N = {(1, 2), (2, 3)};"
    text = f"{sets} set TOLL within ARC = {{{element}}}; {BODY.format('1')}"
    found = check(Source("model.blv", text)).diagnostics
    assert [d.code for d in found if d.severity == "error"] == [code]


def test_a_mean_for_every_outer_element_needs_an_element(problems, bound):
    text = (
        'set S = {"a", "b"}; dim n; param v[n], t[S]; upper { var u[S] in [0, 1]; '
        "minimize sum(u[s] * mean(v[i] for i in n where v[i] > t[s]) for s in S); }"
    )
    bound(text, {"v": [1, 2], "t": [0, 1]})
    problem = only(problems(text, {"v": [1, 2], "t": [0, 2]}))
    assert problem.code == "BLV0420"
    assert 'the mean at S = "b"' in problem.message


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        ("dim n, p; param X[n, p] = [[1, 2], [2, 1], [3, 3]];", (3, 2)),
        ("dim n = 3, p; param X[n, p] = [[1, 2], [2, 1], [3, 3]];", (3, 2)),
        ('set A = {"a", "b"}; dim p; param X[A, p] = [[1, 2, 3], [2, 1, 4]];', (2, 3)),
        ("dim a, b, c; param X[a, b, c] = [[[1, 2]], [[3, 4]]];", (2, 1, 2)),
        ("dim n; param X[n] = [1, 2];", (2,)),
    ],
)
def test_an_array_in_brackets_sets_sizes(declared, shape):
    model = bl.parse(f"{declared} upper {{ var x in [0, 1]; minimize x + sum(X); }}")
    assert model.bound.data.arrays["X"].shape == shape


def test_arrays_in_brackets_have_to_agree():
    with pytest.raises(bl.DataError, match="`y` has 2 entries but axis `n` is 3 long"):
        bl.parse(
            "dim n, p; param X[n, p] = [[1, 2], [2, 1], [3, 3]], y[n] = [1, 2];"
            "upper { var x; minimize x; }"
        )


def test_what_is_missing_hides_nothing_that_is_outside():
    with pytest.raises(bl.DataError) as caught:
        bl.parse(
            "dim n; param c[n] in integers(0, 5); upper { var x; minimize x; }",
            c=[1, -2.5, float("nan"), 3],
        )
    assert [d.code for d in caught.value.diagnostics] == ["BLV0406", "BLV0405"]
